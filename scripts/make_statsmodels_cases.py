"""Reference values of statsmodels for the tests: `python scripts/make_statsmodels_cases.py`.

statsmodels is not a dependency: install it into another environment with `pip install statsmodels`. The
values are written to tests/data/statsmodels_cases.json.
"""

import json
from pathlib import Path

import numpy as np
import statsmodels
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

OUT = Path(__file__).parents[1] / "tests" / "data" / "statsmodels_cases.json"
COUNTS = [(0, 1), (3, 3), (0, 6), (2, 10), (10, 2), (31, 18), (40, 80), (140, 97), (7, 260)]  # only a, only b
SIZES = [1, 2, 5, 26]

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    # Powers make some values small; one family has ties and a 1.
    families = [(rng.random(size) ** 4).tolist() for size in SIZES] + [[0.01, 0.04, 0.01, 1.0, 0.04, 0.0]]
    cases = {
        "statsmodels": statsmodels.__version__,
        "mcnemar": [
            {"only_a": a, "only_b": b, "p": float(mcnemar([[9, a], [b, 9]], exact=True).pvalue)}
            for a, b in COUNTS
        ],
        "holm": [
            {"p_values": family, "adjusted": multipletests(family, method="holm")[1].tolist()}
            for family in families
        ],
    }
    OUT.write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")
