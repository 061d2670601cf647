"""What calibration does to the test predictions of recorded runs: log loss (nats) and calibration error.

    python scripts/measure_calibration.py results/emotify

Every rule sees validation predictions only; a pooled one only those of artists outside the fold's test set.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from mgc.evaluate import Predictions, calibration_error
from mgc.predict import calibrate
from mgc.predict.calibrate import tempered
from mgc.runs.record import load_record
from mgc.util.text import markdown_table

# How the rule pools, the deviation of the prior, and whether a gain within one standard error is ignored.
RULES = {
    "none": None,
    "each fold, prior 1 (before)": (False, 1.0, False),
    "pooled, prior 1": (True, 1.0, False),
    "pooled, prior 0.3": (True, 0.3, False),
    "pooled, prior 0.1": (True, 0.1, False),
    "pooled, prior 1, one standard error": (True, 1.0, True),
    "pooled, prior 0.3, one standard error (used)": (True, 0.3, True),
    "pooled, prior 0.1, one standard error": (True, 0.1, True),
}


def apply(rule: tuple[bool, float, bool], validation: list[Predictions], test: Predictions) -> Predictions:
    """The test predictions, calibrated by a rule."""
    pool, calibrate.PRIOR_DEVIATION, gate = rule
    after = test.probabilities.copy()
    for number, fold in enumerate(validation):
        rows = test.fold == number
        used = validation if pool else [fold]
        groups = np.concatenate([each.groups for each in used])
        apart = ~np.isin(groups, np.array(test.groups)[rows]) if pool else np.ones(len(groups), bool)
        data = [
            np.concatenate([getattr(each, name) for each in used])[apart]
            for name in ("probabilities", "labels")
        ]
        chosen = calibrate.temperature(*data, groups[apart], gate)
        after[rows] = tempered(after[rows], chosen)
    return replace(test, probabilities=after)


def main(results: Path) -> None:
    """Print the table: means over runs, and how many runs each rule makes worse."""
    runs = [load_record(file.parent / "record.json") for file in sorted(results.glob("*/validation.parquet"))]
    runs = [(run.validation(), run.predictions()) for run in runs]
    values = {}
    for name, rule in RULES.items():
        calibrated = [apply(rule, validation, test) if rule else test for validation, test in runs]
        losses = [calibrate._losses(each.probabilities, each.labels).mean() for each in calibrated]
        values[name] = np.array([losses, [calibration_error(each) for each in calibrated]])  # (2, runs)
    rows = []
    for name, value in values.items():
        worse = value - values["none"] > 1e-9
        most = (value - values["none"])[0].max()
        rows.append(
            [name, *(f"{mean:.4f}" for mean in value.mean(axis=1)), *worse.sum(axis=1), f"{most:.4f}"]
        )
    print(len(runs), "runs\n")
    header = ["temperature", "log loss", "calibration error", "log loss worse", "error worse", "largest loss"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
