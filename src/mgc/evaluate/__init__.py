"""Predictions in, numbers out: scores with intervals, and the paired comparison of two systems.

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
* Intervals are 95 % percentile bootstraps (Efron & Tibshirani 1993, chapter 13). Since tracks of one artist
  are similar, whole groups (artists) are resampled if any group holds several tracks (the cluster bootstrap:
  Field & Welsh 2007), otherwise tracks.
* Intervals describe how far a score would move with other test tracks. They do not include the variation
  between training seeds; `over_seeds` reports that as a separate deviation. With fewer than about 30 groups
  they are too narrow, and a run without errors has an interval of width 0.
* Order has no effect: `Predictions` sorts itself by track id, so the same tracks in any order are equal and
  give the same numbers for the same seed.

Sources
-------
Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms",
Neural Computation 10(7), 1998. Efron & Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall, 1993.
Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27(8), 2006.
Field & Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69(3), 2007.
Forman & Scholz, "Apples-to-Apples in Cross-Validation Studies", SIGKDD Explorations 12(1), 2010.
Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics
6(2), 1979.
Kish, "Survey Sampling", Wiley, 1965.
Lachin, "Introduction to sample size determination and power analysis for clinical trials", Controlled
Clinical Trials 2(2), 1981.
McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
Psychometrika 12(2), 1947. Phipson & Smyth, "Permutation P-values Should Never Be Zero", Statistical
Applications in Genetics and Molecular Biology 9(1), 2010.
"""

from mgc.evaluate.comparison import Difference, Leak, Verdict, holm, leak, mcnemar_p, paired, sign_flip_p
from mgc.evaluate.inference import MARGIN, Comparison, Outcomes, Repeats, compare, compare_runs, repeats
from mgc.evaluate.predictions import ARTIST_PREFIX, PROBABILITY_PREFIX, Floats, Integers, Predictions
from mgc.evaluate.ranking import roc_aucs, roc_curves
from mgc.evaluate.scores import (
    Bin,
    ClassScore,
    OverSeeds,
    Scores,
    calibration_error,
    confusion_matrix,
    evaluate,
    log_loss,
    over_seeds,
    precision_recall_f1,
    reliability,
    top2_accuracy,
)

__all__ = [
    "ARTIST_PREFIX", "MARGIN", "PROBABILITY_PREFIX", "Bin", "ClassScore", "Comparison", "Difference",
    "Floats", "Integers", "Leak", "Outcomes", "OverSeeds", "Predictions", "Repeats", "Scores", "Verdict",
    "calibration_error", "compare", "compare_runs", "confusion_matrix", "evaluate", "holm", "leak",
    "log_loss", "mcnemar_p", "over_seeds", "paired", "precision_recall_f1", "reliability", "repeats",
    "roc_aucs", "roc_curves", "sign_flip_p", "top2_accuracy",
]  # fmt: skip
