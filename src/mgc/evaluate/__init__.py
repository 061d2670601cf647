"""Predictions in, numbers out: scores with intervals, and the paired comparison of two runs.

Conventions
-----------
* The unit is the track. Windows or segments have been averaged before they get here.
* `classes` is ordered and a label is an index into it. The predicted class is the one of highest probability;
  of several that tie, the first. Top-2 accuracy goes by the same order.
* A class stands in the macro-F1 if it occurs among the truths or the predictions, as scikit-learn has it by
  default: a class of which the test side holds nothing, and which nobody predicts, does not count. Elsewhere
  0/0 is 0 (scikit-learn's `zero_division=0`). Balanced accuracy is the mean recall of the classes that occur
  among the truths.
* Tracks of several folds are pooled and then scored, rather than scored and then averaged: the mean of an F1
  over folds is biased when classes are rare (Forman & Scholz 2010). The area under the ROC curve alone is a
  mean over folds, as they advise: it ranks tracks, and those of two folds were scored by two models, whose
  probabilities need not be in step. It is one class against the rest, over the folds that hold both, then
  the mean over classes; None where no fold holds both.
* The calibration error is that of the top probability, in 15 bins of equal width (Guo et al. 2017).
* Every interval is a 95 % percentile bootstrap (Efron & Tibshirani 1993, chapter 13). Tracks of one artist
  resemble one another, so whole groups (artists) are drawn wherever a group holds several tracks (the cluster
  bootstrap: Field & Welsh 2007), and single tracks only where none does.
* The intervals say how far the number would move with other test tracks. They do not hold the spread of
  training again with another seed: `over_seeds` gives that beside them, as a deviation. With few groups
  (below about 30) they are too narrow, and a run that errs nowhere has an interval of width nought.
* Order does not matter: `Predictions` sorts itself by track id, so the same tracks in any order are equal,
  pair up and give the same numbers for the same seed.

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

from mgc.evaluate.calibration import Bin, calibration_error, reliability
from mgc.evaluate.comparison import Difference, Leak, Verdict, holm, leak, mcnemar_p, paired, sign_flip_p
from mgc.evaluate.predictions import PROBABILITY_PREFIX, Floats, Integers, Predictions
from mgc.evaluate.ranking import roc_aucs, roc_curves
from mgc.evaluate.scores import (
    ClassScore,
    OverSeeds,
    Scores,
    confusion_matrix,
    evaluate,
    log_loss,
    over_seeds,
    precision_recall_f1,
    top2_accuracy,
)

__all__ = [
    "PROBABILITY_PREFIX",
    "Bin",
    "ClassScore",
    "Difference",
    "Floats",
    "Integers",
    "Leak",
    "OverSeeds",
    "Predictions",
    "Scores",
    "Verdict",
    "calibration_error",
    "confusion_matrix",
    "evaluate",
    "holm",
    "leak",
    "log_loss",
    "mcnemar_p",
    "over_seeds",
    "paired",
    "precision_recall_f1",
    "reliability",
    "roc_aucs",
    "roc_curves",
    "sign_flip_p",
    "top2_accuracy",
]
