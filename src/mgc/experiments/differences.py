"""Differences between systems, as the tables and sentences of `curve` and `robust` show them."""

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from mgc.evaluate import MIN_SEEDS, Comparison
from mgc.runs.tables import p_value_text


def columns(one: Comparison, margin: float) -> dict[str, Any]:
    """The fields of a comparison and its verdict; `margin` is in points of accuracy."""
    return asdict(one) | {"margin": margin, "verdict": one.verdict(margin / 100)}


def cells(row: Mapping[Hashable, Any]) -> list[str]:
    """The difference with its interval, p and the verdict; empty if the row has no comparison."""
    if pd.isna(row["verdict"]):
        return ["", "", ""]
    x, low, high = (round(row[name], 3) + 0.0 for name in ("difference", "low", "high"))  # no negative zero
    return [
        f"{x:+.3f} [{low:+.3f}, {high:+.3f}]",
        p_value_text(row["p_value"]),
        row["verdict"],
    ]


def note(rows: pd.DataFrame, units: str) -> str:
    """What a caption says about the comparisons in `rows`, a family."""
    first = rows.iloc[0]
    return (
        f"Unit of intervals and tests: {first['n_groups']:.0f} {units}. Accuracy: bootstrap. Differences: "
        f"sign-flip test; p and intervals hold for all {first['family_size']:.0f} comparisons together. "
        f"Equivalent: the 90 % interval is within ±{first['margin']:g} points."
    )


def by_verdict(rows: pd.DataFrame, label: str, preposition: str, **words: str) -> str:
    """The labels of the rows of each verdict, with the differences in points; `words` replace a verdict."""
    words = {
        **{"worse": "worse", "better": "better", "undecided": "undecided"},
        **{"equivalent": f"equivalent within {rows['margin'].iloc[0]:g} points"},
        **{"one seed": f"no verdict from fewer than {MIN_SEEDS} seeds"},
        **words,
    }
    found = []
    for verdict, start in words.items():
        own = rows[rows["verdict"] == verdict]
        points = (100 * own["difference"]).round(1) + 0.0  # no negative zero
        items = [f"{name} ({x:+.1f})" for name, x in zip(own[label], points, strict=True)]
        found += [f"{start} {preposition} {', '.join(items)}"] if items else []
    return "; ".join(found) + "."
