"""Who is cited."""

from collections.abc import Iterator

from mgc.report.content import Content
from mgc.report.paper.systems import shown_rows
from mgc.report.paper.words import plain
from mgc.runs.record import without_places

METHODS = {  # of those that mgc.evaluate names
    "Dietterich": "Approximate Statistical Tests for Comparing Supervised Classification Learning "
    "Algorithms. Neural Computation 10(7), 1998",
    "Efron & Tibshirani": "An Introduction to the Bootstrap. Chapman & Hall, 1993",
    "Fawcett": "An introduction to ROC analysis. Pattern Recognition Letters 27(8), 2006",
    "Field & Welsh": "Bootstrapping clustered data. Journal of the Royal Statistical Society B 69(3), 2007",
    "Forman & Scholz": "Apples-to-Apples in Cross-Validation Studies. SIGKDD Explorations 12(1), 2010",
    "Holm": "A Simple Sequentially Rejective Multiple Test Procedure. Scandinavian Journal of Statistics "
    "6(2), 1979",
    "Lachin": "Introduction to sample size determination and power analysis for clinical trials. Controlled "
    "Clinical Trials 2(2), 1981",
    "McNemar": "Note on the sampling error of the difference between correlated proportions or percentages. "
    "Psychometrika 12(2), 1947",
    "Phipson & Smyth": "Permutation P-values Should Never Be Zero. Statistical Applications in Genetics and "
    "Molecular Biology 9(1), 2010",
}


def references(content: Content) -> Iterator[str]:
    """Those whose methods the numbers need, then where the representations come from."""
    versus = [entry.row.versus for entry in content.systems if entry.row.versus]
    used = {
        "Dietterich": versus,
        "Efron & Tibshirani": True,
        "Fawcett": True,
        "Field & Welsh": content.first.evaluation.interval_unit == "group",
        "Forman & Scholz": len(set(content.predictions.fold)) > 1,
        "Holm": any(v.p_corrected is not None for v in versus),
        "Lachin": any(v.tracks_needed for v in versus),
        "McNemar": versus,
        "Phipson & Smyth": any(len(row.system.records) > 1 for row in content.sections[0].rows),
    }
    yield from (f"{who}. {METHODS[who]}." for who, needed in used.items() if needed)
    records = {entry.record.representation: without_places(entry.record) for entry in shown_rows(content)}
    for name, record in records.items():
        if source := record.representation_card.get("source"):
            yield f"{plain(name)}: {plain(source)}."
