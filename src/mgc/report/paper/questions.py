"""What the numbers ask, and what threatens them, each only where the records make it true."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from mgc.evaluate import paired
from mgc.report.content import Content, Entry
from mgc.report.paper.systems import learned, pair_of, trained
from mgc.report.paper.words import few, percent, plain, points


def questions(content: Content) -> Iterator[str]:
    """For the discussion, of which the answers are the author's."""
    pair, classes = pair_of(content), content.classes
    for entry in pair:
        shares = entry.confusion / np.maximum(entry.confusion.sum(axis=1, keepdims=True), 1)
        np.fill_diagonal(shares, 0)
        i, j = divmod(int(shares.argmax()), len(classes))
        if shares[i, j] > 0:
            yield (
                f"{plain(entry.title)} takes {percent(shares[i, j])} of the {plain(classes[i])} tracks for "
                f"{plain(classes[j])}, its largest confusion, and {percent(shares[j, i])} the other way "
                "round. What do these tracks share, and would a listener part them?"
            )
    if len(pair) == 2:
        yield from _duel(pair[0], pair[1], classes)
    for entry in content.systems:
        if entry.row.versus and entry.kind == "floor" and entry.record.head:
            yield (
                f"{plain(entry.title)}, which knows no order in time, stands at {points(entry.row.versus)} "
                f"to the baseline: {entry.row.versus.words}. What does the network learn beyond means and "
                "deviations?"
            )
    leaks = [(row.leak, plain(row.system.title)) for row in content.sections[0].rows if row.leak]
    if leaks:
        leak, title = max(leaks, key=lambda one: one[0].accuracy_difference)
        yield f"{title} gains {points(leak)} where the split leaks. How much of that is knowing artists?"
    for entry in trained(content):
        assert entry.curves is not None
        kept = entry.curves[entry.curves["best"]].mean(numeric_only=True)
        yield (
            f"At the epochs kept {plain(entry.title)} has an accuracy of {percent(kept['train_accuracy'])} "
            f"in training and {percent(kept['val_accuracy'])} on validation. Would more data help, or "
            "another size?"
        )
    told = [p for p in (content.check or {}).get("properties", ()) if p["p_value"] < 0.05]
    if told:
        most = max(told, key=lambda p: p["accuracy"] - p["chance"])
        yield (
            f"{plain(most['name']).capitalize()} alone names the genre of {percent(most['accuracy'])} of the "
            f"tracks (guessing: {percent(most['chance'])}). How much of each accuracy is sound production, "
            "not music?"
        )
    if any(entry.record.reported for entry in content.systems):
        yield (
            "Others reported other figures for some of these systems, on other tracks or splits (table.csv). "
            "What would have to be alike before they could be compared?"
        )
    yield "Which hypotheses do the intervals support, which do they contradict, which do they leave open?"


def _duel(network: Entry, probe: Entry, classes: Sequence[str]) -> Iterator[str]:
    v = paired(probe.row.system.predictions, network.row.system.predictions)
    ours, theirs = plain(probe.title), plain(network.title)
    asked = "The interval does not hold 0. Would it be so with other artists?"
    if v.low <= 0 <= v.high:
        asked = "The interval holds 0. What may be said all the same?"
    p = f"p = {v.p_value:.2g} for this pair alone"
    yield f"{ours} stands at {points(v)} to {theirs}, {p}: {v.words}. {asked}"
    loss = network.per_class["recall"] - probe.per_class["recall"]  # (C,)
    k = int(loss.argmax())
    found = [percent(entry.per_class["recall"][k]) for entry in (network, probe)]
    yield (
        f"{theirs} finds {found[0]} of the {plain(classes[k])} tracks, {ours} {found[1]}. Why does it lose?"
        if loss[k] > 0
        else f"In no genre does {theirs} find more tracks than {ours}. Is there a kind of track it does for?"
    )
    seconds = [sum(entry.record.seconds.values()) for entry in (network, probe)]
    yield (
        f"Trained parameters, and seconds with the making of the input: {theirs} "
        f"{network.record.parameters:,} in {seconds[0]:.0f} s, {ours} {probe.record.parameters:,} in "
        f"{seconds[1]:.0f} s; what an encoder had learned before is in neither. Is the comparison fair, and "
        "to whom?"
    )


def threats(content: Content) -> Iterator[str]:
    """Each where the records make it true."""
    section, record, scores = content.sections[0], content.first, content.first.evaluation
    systems = [entry.row.system for entry in content.systems if entry.kind != "floor"]
    records = [each for entry in content.systems for each in entry.row.system.records]
    single = sum(len(system.records) == 1 for system in systems)
    encoders = [*dict.fromkeys(s.record.representation for s in systems if learned(s.record))]
    dirty = sum(str(each.commit).endswith("+") for each in records)
    devices, limit = {each.device for each in records}, record.recipe["data"].get("limit")
    versions = {json.dumps(each.versions, sort_keys=True) for each in records}
    untested = [genre.label for genre in content.genres if not genre.tracks]
    threats = {
        f"This split leaks on purpose ({plain(record.split_authority)}): scores may be too "
        "high.": record.leaky,
        f"The best of {len(systems)} systems are picked by their accuracy on test tracks, which flatters "
        "them.": len(systems) > 2,
        f"No tested track is of {few(untested)}: nothing is found out about that.": untested,
        f"{single} of {len(systems)} systems ran with one seed; intervals do not hold the spread of training "
        "again.": single,
        "No artist is known to have several tracks: where artists are unknown, one may stand on two "
        "sides.": scores.interval_unit == "track",
        f"{scores.n_groups} artists or tracks were drawn for the intervals; below about 30 they are too "
        "narrow.": scores.n_groups < 30,
        "The records cannot tell whether tested tracks were among what "
        f"{few(encoders)} learned from.": encoders,
        f"{dirty} of {len(records)} runs were made by code with uncommitted changes.": dirty,
        f"The runs were made on {len(devices)} kinds of device.": len(devices) > 1,
        f"The runs were made with {len(versions)} sets of library versions.": len(versions) > 1,
        f"Only {limit} tracks of the data were taken (--limit).": limit,
        f"{len(record.excluded)} tracks were left out, which need not be like the others.": record.excluded,
        f"{section.superseded} older runs of the same recipes are not shown.": section.superseded,
        f"{len(content.sections) - 1} groups of runs on other tracks or splits are not told of here "
        "(table.csv).": len(content.sections) > 1,
        "Copies on two sides of the split were not looked for.": not content.check,
    }
    yield from (threat for threat, so in threats.items() if so)
