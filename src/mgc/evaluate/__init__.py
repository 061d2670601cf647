"""Predictions in, numbers out: scores with intervals, and the comparison of systems.

Conventions
-----------
* The unit is the track. Windows or segments are averaged before they get here.
* `classes` is ordered and a label is an index into it. The predicted class is the one of highest probability,
  the first of several that tie. Top-2 accuracy uses the same order.
* Macro-F1 is the mean over the classes that occur in the labels or the predictions, the default of
  scikit-learn. Elsewhere 0/0 is 0 (scikit-learn's `zero_division=0`). Balanced accuracy is the mean recall of
  the classes that occur in the labels.
* Tracks of several folds are pooled and then scored: the mean of F1 scores over folds is biased if classes
  are rare (Forman & Scholz 2010). As they advise, only the area under the ROC curve is a mean over folds,
  since it ranks tracks, and the probabilities of two folds come from two models. It is computed for each
  class against the rest, on the folds that hold both, then averaged over classes; None if no fold holds both.
* The calibration error is that of the top probability, in 15 bins of equal width (Guo et al. 2017).
* The unit of intervals and tests is the group: the artist, or the track where artists are unknown, since
  tracks of one artist are similar (Field & Welsh 2007). Intervals of scores are expanded 95 % percentile
  bootstraps (Efron & Tibshirani 1993, chapter 13; Hesterberg 2015), which suffice from 10 groups on.
* Differences are tested by `compare`, many at once: flips of whole groups, step-down max-T (Westfall & Young
  1993; Phipson & Smyth 2010), equivalence by two one-sided tests (Schuirmann 1987). Intervals and tests
  include the variation between seeds and splits where runs show it (Bouthillier et al. 2021).
* Order has no effect: `Predictions` sorts itself by track id, so the same tracks in any order are equal and
  give the same numbers for the same seed.

Sources
-------
Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks", MLSys 2021.
Efron & Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall, 1993.
Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27(8), 2006.
Field & Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69(3), 2007.
Forman & Scholz, "Apples-to-Apples in Cross-Validation Studies", SIGKDD Explorations 12(1), 2010.
Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015.
Phipson & Smyth, "Permutation P-values Should Never Be Zero", Statistical Applications in Genetics and
Molecular Biology 9(1), 2010. Schuirmann, "A comparison of the two one-sided tests procedure and the power
approach for assessing the equivalence of average bioavailability", Journal of Pharmacokinetics and
Biopharmaceutics 15(6), 1987. Westfall & Young, "Resampling-Based Multiple Testing", Wiley, 1993.
"""

from mgc.evaluate.bootstrap import unit_numbers
from mgc.evaluate.inference import (
    MARGIN,
    MIN_SEEDS,
    Comparison,
    Outcomes,
    Verdict,
    compare,
    compare_runs,
    repeats,
)
from mgc.evaluate.predictions import (
    ARTIST_PREFIX,
    PROBABILITY_PREFIX,
    Floats,
    Integers,
    Predictions,
    check_same_tracks,
)
from mgc.evaluate.ranking import roc_aucs, roc_curves
from mgc.evaluate.scores import (
    Bin,
    ClassScore,
    OverRuns,
    Scores,
    calibration_error,
    confusion_matrix,
    evaluate,
    log_loss,
    over_runs,
    precision_recall_f1,
    reliability,
    top2_accuracy,
)

__all__ = [
    "ARTIST_PREFIX", "MARGIN", "MIN_SEEDS", "PROBABILITY_PREFIX", "Bin", "ClassScore",
    "Comparison", "Floats", "Integers", "Outcomes", "OverRuns", "Predictions", "Scores", "Verdict",
    "calibration_error", "check_same_tracks", "compare", "compare_runs", "confusion_matrix", "evaluate",
    "log_loss", "over_runs", "precision_recall_f1", "reliability", "repeats", "roc_aucs", "roc_curves",
    "top2_accuracy", "unit_numbers",
]  # fmt: skip
