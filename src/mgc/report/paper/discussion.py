"""The questions that the numbers raise, threats to validity, and references; each only where it applies."""

import json
from collections.abc import Iterator

from mgc.evaluate import Difference, Leak, paired
from mgc.report.content import Content, Entry, largest_confusion
from mgc.report.paper.forms import MINUS
from mgc.runs import tables
from mgc.util.text import listed, one_line

METHODS = {  # as `mgc.evaluate` cites them
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


def points(difference: Difference | Leak) -> str:
    """A difference of accuracies and its interval, with minus signs."""
    return tables.points(difference).replace("-", MINUS)


def percent(share: float) -> str:
    """`share` in whole percent."""
    return f"{100 * share:.0f} %"


def questions(content: Content) -> Iterator[str]:
    """Questions for the discussion; the author answers them."""
    pair, classes = content.pair, [*map(one_line, content.classes)]
    for entry in pair:
        i, k, share = largest_confusion(entry.confusion)
        if share > 0:
            back = entry.confusion[k, i] / max(entry.confusion[k].sum(), 1)
            yield (
                f"The largest confusion of {one_line(entry.title)}: {percent(share)} of the {classes[i]} "
                f"tracks are taken for {classes[k]}, and {percent(back)} the other way round. What do these "
                "tracks have in common, and would a listener distinguish them?"
            )
    if len(pair) == 2:
        yield from _pair_questions(pair[0], pair[1], classes)
    for entry in content.systems:
        if entry.row.versus and entry.kind == "floor" and entry.record.head:
            yield (
                f"{one_line(entry.title)} ignores the order of events. Its difference to the baseline is "
                f"{points(entry.row.versus)}: {entry.row.versus.words}. What does the network learn beyond "
                "means and deviations?"
            )
    leaks = [(row.leak, one_line(row.system.title)) for row in content.sections[0].rows if row.leak]
    if leaks:
        leak, title = max(leaks, key=lambda one: one[0].accuracy_difference)
        yield (
            f"On the split that leaks, the accuracy of {title} changes by {points(leak)}. How much of this "
            "comes from recognising artists?"
        )
    if network := content.trained_network:
        assert network.curves is not None
        kept = network.curves[network.curves["best"]].mean(numeric_only=True)
        yield (
            f"At the epochs kept, {one_line(network.title)} has a training accuracy of "
            f"{percent(kept['train_accuracy'])} and a validation accuracy of "
            f"{percent(kept['val_accuracy'])}. Would more data help, or another model size?"
        )
    telling = [p for p in (content.check.properties if content.check else ()) if p.p_value < 0.05]
    if telling:
        most = max(telling, key=lambda p: p.accuracy - p.chance)
        yield (
            f"{one_line(most.name).capitalize()} alone predicts the genre of {percent(most.accuracy)} of the "
            f"tracks (chance: {percent(most.chance)}). How much of each accuracy comes from production "
            "rather than from music?"
        )
    if any(entry.record.reported for entry in content.systems):
        yield (
            "Other results were reported for some of these systems, on other tracks or splits (table.csv). "
            "What would have to be equal before they could be compared?"
        )
    yield "Which hypotheses do the intervals support, which do they contradict, which do they leave open?"


def _pair_questions(network: Entry, probe: Entry, classes: list[str]) -> Iterator[str]:
    difference = paired(probe.row.system.predictions, network.row.system.predictions)
    ours, theirs = one_line(probe.title), one_line(network.title)
    question = "The interval excludes 0. Would it do so with other artists?"
    if difference.low <= 0 <= difference.high:
        question = "The interval includes 0. What can be concluded nevertheless?"
    yield (
        f"The difference of {ours} to {theirs} is {points(difference)}, p = {difference.p_value:.2g} for "
        f"this pair alone: {difference.words}. {question}"
    )
    loss = network.per_class["recall"] - probe.per_class["recall"]  # (C,)
    k = int(loss.argmax())
    recalls = [percent(entry.per_class["recall"][k]) for entry in (network, probe)]
    yield (
        f"{theirs} finds {recalls[0]} of the {classes[k]} tracks, {ours} {recalls[1]}. Why does it lose?"
        if loss[k] > 0
        else f"In no genre does {theirs} find more tracks than {ours}. Does it help for some tracks?"
    )
    seconds = [sum(entry.record.seconds.values()) for entry in (network, probe)]
    yield (
        f"Trained parameters and computing time, including features or embeddings: {theirs} "
        f"{network.record.parameters:,} in {seconds[0]:.0f} s, {ours} {probe.record.parameters:,} in "
        f"{seconds[1]:.0f} s. Neither includes the pretraining of an encoder. Is the comparison fair?"
    )


def threats(content: Content) -> Iterator[str]:
    """Threats to validity that apply to these records."""
    section, record, scores = content.sections[0], content.first, content.first.evaluation
    systems = [entry.row.system for entry in content.systems if entry.kind != "floor"]
    records = [each for entry in content.systems for each in entry.row.system.records]
    single = sum(len(system.records) == 1 for system in systems)
    pretrained = [s.record.representation for s in systems if tables.is_pretrained(s.record)]
    encoders = [*dict.fromkeys(pretrained)]
    dirty = sum(str(each.commit).endswith("+") for each in records)
    devices, limit = {each.device for each in records}, record.recipe["data"].get("limit")
    versions = {json.dumps(each.versions, sort_keys=True) for each in records}
    untested = [*content.genres.query("tracks == 0")["label"]]
    threats: dict[str, object] = {
        f"This split leaks on purpose ({one_line(record.split_authority)}): scores may be too "
        "high.": record.leaky,
        f"The best of {len(systems)} systems are selected by their accuracy on test tracks, which is "
        "optimistic.": len(systems) > 2,
        f"No test track is labelled {listed(untested)}: nothing is known about that genre.": untested,
        f"{single} of {len(systems)} systems ran with one seed; the intervals do not include the variation "
        "between training runs.": single,
        "No artist is known to have several tracks: where artists are unknown, one artist may be in both the "
        "training and the test set.": scores.interval_unit == "track",
        f"The intervals are drawn from {scores.n_groups} artists or tracks; below about 30 they are too "
        "narrow.": scores.n_groups < 30,
        f"It is unknown whether test tracks were among the training data of {listed(encoders)}.": encoders,
        f"{dirty} of {len(records)} runs were made by code with uncommitted changes.": dirty,
        f"The runs were made on {len(devices)} kinds of device.": len(devices) > 1,
        f"The runs were made with {len(versions)} sets of library versions.": len(versions) > 1,
        f"Only {limit} tracks of the dataset were used (--limit).": limit,
        f"{len(record.excluded)} tracks were excluded, which may differ from the others.": record.excluded,
        f"{section.superseded} older runs of the same recipes are not shown.": section.superseded,
        f"{len(content.sections) - 1} groups of runs on other tracks or splits are not part of this paper "
        "(table.csv).": len(content.sections) > 1,
        "The dataset was not checked for duplicates between training and test set.": not content.check,
    }
    yield from (threat for threat, applies in threats.items() if applies)


def references(content: Content) -> Iterator[str]:
    """The sources of the methods in use, then of the representations."""
    versus = [entry.row.versus for entry in content.systems if entry.row.versus]
    used: dict[str, object] = {
        "Dietterich": versus,
        "Efron & Tibshirani": True,
        "Fawcett": True,
        "Field & Welsh": content.first.evaluation.interval_unit == "group",
        "Forman & Scholz": content.n_folds > 1,
        "Holm": any(v.p_corrected is not None for v in versus),
        "Lachin": any(v.tracks_needed for v in versus),
        "McNemar": versus,
        "Phipson & Smyth": any(len(row.system.records) > 1 for row in content.sections[0].rows),
    }
    yield from (f"{authors}. {METHODS[authors]}." for authors, applies in used.items() if applies)
    for name, card in content.representations.items():
        if source := card.get("source"):
            yield f"{one_line(name)}: {one_line(source)}."
