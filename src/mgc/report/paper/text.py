"""The text of a paper, from hypotheses to references, and its tables."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mgc.report.content import MOST_ROWS, Content, Entry
from mgc.report.paper.discussion import points, questions, references, threats
from mgc.report.paper.figures import MOST_CLASSES
from mgc.report.paper.forms import MINUS, Block, Code, Figure, Heading, Items, Table, Text, ref
from mgc.runs import tables
from mgc.runs.record import NAMES_ONLY, RunRecord
from mgc.util.errors import counted
from mgc.util.text import listed, one_line, shortened


def title_of(content: Content) -> str:
    """The title of the paper."""
    kinds = {"baseline": "networks trained from scratch", "probe": "heads on frozen representations"}
    present = [words for kind, words in kinds.items() if content.best(kind)]
    return f"Genre classification of {one_line(content.data)}: {' and '.join(present) or 'floors'}"


def blocks_of(content: Content) -> list[Block]:
    """The paper as blocks."""
    return [
        Text(one_line(content.verdict), "Summary."),
        *_hypotheses(content),
        *_data(content),
        *_systems(content),
        *_setup(content),
        *_results(content),
        Heading("Discussion"),
        Text("The numbers raise these questions; the answers are left to the author."),
        Items(tuple(questions(content))),
        Heading("Threats to validity"),
        Items(tuple(threats(content))),
        Heading("Reproduction"),
        *_commands(content),
        Heading("References"),
        Items(tuple(references(content))),
    ]


def _hypotheses(content: Content) -> Iterator[Block]:
    recipes = [entry for entry in content.main_rows if entry.kind != "floor"]
    stated = [e for e in recipes if e.record.hypothesis]
    compared = " and compared with that of the baseline" if content.baseline else ""
    yield Heading("Hypotheses")
    yield Text(
        f"Of the {counted(len(recipes), 'recipe')} in {ref('table', 'systems')}, {len(stated) or 'none'} "
        f"state{'s' * (len(stated) < 2)} a hypothesis. All are measured by the accuracy on test "
        f"tracks{compared}."
    )
    if stated:
        yield Items(tuple(f"{one_line(e.title)}: {shortened(e.record.hypothesis, 240)}" for e in stated))


def _data(content: Content) -> Iterator[Block]:
    record, scores = content.first, content.first.evaluation
    unknown = "" if scores.interval_unit == "group" else " (each track of an unknown artist counts as one)"
    excluded = [f"{bad.get('track_id', '')}: {bad.get('reason', '')}" for bad in record.excluded]
    which = f"{counted(len(excluded), 'track')} ({listed(excluded)})" if excluded else "none"
    yield Heading("Data and preprocessing")
    yield Text(
        f"{one_line(content.data)}: {scores.n_tracks} test tracks of {len(content.classes)} genres by "
        f"{scores.n_groups} artists{unknown}, see {ref('table', 'genres')}. "
        f"Split {one_line(record.split)}: {one_line(record.split_authority)}; {record.training_tracks:.0f} "
        f"training tracks{' per fold' if content.n_folds > 1 else ''}. "
        f"Licence: {one_line(record.licence or 'unknown')}. "
        f"Excluded for every system: {which}. {_check(content)} "
        f"Content hashes: tracks {record.data_hash}, split {record.split_hash}."
    )
    cards = content.representations.items()
    inputs = [f"{one_line(name)} ({_input(card)})" for name, card in cards if card.get("cut")]
    yield Text(
        "The same loader decodes, mixes down and resamples every file for every system. Windows cover whole "
        f"tracks, and padding is not pooled. Inputs: {'; '.join(inputs)}."
    )


def _input(card: dict[str, Any]) -> str:
    rate, window, width = card["cut"]["sample_rate_hz"], card["cut"]["window"], card["layers"][-1]["dim"]
    return f"{rate / 1000:g} kHz, windows of {window / rate:.3g} s, {width} values"


def _check(content: Content) -> str:
    if not content.check:
        return "The audio was not checked for duplicates and faults (mgc data check)."
    counts = Counter(finding.kind for finding in content.check.findings if not finding.excluded)
    faults = ", ".join(f"{one_line(kind)} {count}" for kind, count in sorted(counts.items()))
    duplicates = counted(len(content.check.copies), "duplicated recording")
    return f"The check of the audio found {duplicates}; findings on tracks that are used: {faults or 'none'}."


def _systems(content: Content) -> Iterator[Block]:
    base = content.baseline
    named = f"The baseline is {one_line(base.title)}, from scratch" if base else "There is no baseline"
    lists = "lists what differs from the baseline" if base else "lists the settings"
    yield Heading("Systems")
    yield Text(
        f"{named}. The epoch of a network is selected on validation tracks. Encoders are frozen: they run "
        "once over every track, and a small head is trained on their pooled embeddings, with its "
        f"regularisation selected on the same validation tracks. {ref('table', 'setup')} {lists}."
    )
    settings = "settings other than the baseline's" if base else "settings"
    rows = [["system", "input", "pretrained on", settings, "trained par."]]
    for entry in content.main_rows:
        record = entry.record
        pretrained = one_line(record.representation_card.get("trained_on") or "unknown")
        changed = "the baseline" if entry is base else _changes(record, base)
        cells = [one_line(entry.title), one_line(record.representation), pretrained, changed]
        rows += [[*cells, f"{record.parameters:,}"]] if entry.kind != "floor" else []
    yield Table("setup", "The systems. Floors have no settings.", rows, (0.22, 0.14, 0.17, 0.33))


def _changes(record: RunRecord, base: Entry | None) -> str:
    recipe = record.recipe
    if record.kind == "probe":
        own = {key: recipe.get(key) for key in ("head", "layers", "pool", "keep")}
        return ", ".join(f"{k} {one_line(value)}" for k, value in own.items() if value not in (None, "clip"))
    own, theirs = _flat(recipe), _flat(base.record.recipe if base else {})
    return listed([f"{k} {v}" for k, v in own.items() if v != theirs.get(k) and v not in ("", None)], 7)


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe, then those of its tables."""
    own = {key: value for key, value in recipe.items() if key not in {*NAMES_ONLY, "seed", "representation"}}
    levels = [own, *(value for value in own.values() if isinstance(value, dict))]
    return {k: value for level in levels for k, value in level.items() if not isinstance(value, dict)}


def _setup(content: Content) -> Iterator[Block]:
    systems = [entry.row.system for entry in content.systems]
    records = [record for system in systems for record in system.records]
    seeds = sorted(Counter(len(system.records) for system in systems).items())
    by_seeds = ", ".join(f"{count} with {counted(n, 'seed')}" for n, count in seeds)
    versions = ", ".join(f"{name} {number}" for name, number in content.first.versions.items())
    seconds = sum(sum(record.seconds.values()) for record in records)
    spent = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
    yield Heading("Set-up and metrics")
    yield Text(
        f"{len(systems)} systems ({by_seeds}), {len(records)} runs, {spent} of computing on "
        f"{listed(sorted({record.device for record in records}))}. Code: commit "
        f"{listed(sorted({str(record.commit) for record in records}))} (+: uncommitted changes). "
        f"Versions: {versions}."
    )
    # The first sentence describes the dataset, as `_data` does; the others named here concern other tables.
    notes = [s for s in tables.caption(content.sections[0])[1:] if not s.startswith(("Reported", "LEAKY"))]
    pooled = ", over the tracks of all folds together" if content.n_folds > 1 else ""
    yield Text(
        f"Accuracy is the share of tracks that are classified correctly, macro-F1 the mean F1 of the "
        f"genres{pooled}. {' '.join(map(one_line, notes))}"
    )


def _results(content: Content) -> Iterator[Block]:
    pair = content.pair
    leaky = [row for row in content.sections[0].rows if row.leak]
    leaks = [f"{one_line(row.system.title)} {points(row.leak)}" for row in leaky if row.leak]
    rule = one_line("".join(row.system.record.split_authority for row in leaky[:1]).removeprefix("LEAKY: "))
    leak = f" A split that leaks changes the accuracy of the same system: {listed(leaks)} ({rule})."
    how = "with the baseline" if content.baseline else "with one another"
    yield Heading("Results")
    yield Text(
        f"{ref('table', 'systems')} and {ref('figure', 'accuracies')} compare the systems {how}; "
        f"{ref('table', 'genres')}, {ref('figure', 'confusion')} and {ref('figure', 'roc')} show "
        f"{' and '.join(_marked(pair))} for each genre.{leak if leaks else ''}"
    )
    yield _main_table(content)
    dashed = " Dashed: the baseline." if content.baseline else ""
    height = 0.1 + 0.026 * len(content.main_rows)
    yield Figure("accuracies", f"Accuracy and its 95 % interval.{dashed}", height)
    yield _genre_table(content, pair)
    yield Figure("confusion", "Confusion matrices, in percent of the tracks of a true genre.", 0.42)
    yield from _errors(content, pair)
    mean = "averaged over folds, " if content.n_folds > 1 else ""
    caption = f"ROC curves of each genre against the rest, {mean}and the areas under them."
    yield Figure("roc", caption, 0.45, optional=True)
    if network := content.trained_network:
        caption = f"Training of {one_line(network.title)}: one line per fold, and the epochs that were kept."
        yield Figure("curves", caption, 0.34, optional=True)


def _marks(pair: Sequence[Entry]) -> list[str]:
    return [" (a)", " (b)"] if len(pair) > 1 else [""]


def _marked(pair: Sequence[Entry]) -> list[str]:
    return [f"{one_line(entry.title)}{mark}" for entry, mark in zip(pair, _marks(pair), strict=True)]


def _main_table(content: Content) -> Table:
    head = ["system", "accuracy [95 %]", "macro-F1", "vs baseline [95 %]", "p (Holm)"]
    rows = {}
    for entry in content.systems:
        cells = tables.cells(entry.row)
        cells |= {"system": one_line(entry.title), head[3]: cells[head[3]].replace("-", MINUS)}
        cells[head[1]] = f"{cells[head[1]]} {cells['over seeds']}".strip()
        rows[entry.title] = [cells[name] for name in head]
    shown = [rows[entry.title] for entry in content.main_rows]
    caption = "All systems."
    if len(rows) > len(shown):
        caption = (
            "Floors, the baseline, and in turn the best of each network and of each probed representation, "
            f"up to {MOST_ROWS} rows. All {len(rows)} systems: tables/systems.csv."
        )
    if any(len(entry.row.system.records) > 1 for entry in content.main_rows):
        caption += " After ±: standard deviation between seeds, and the number of seeds."
    return Table("systems", caption, [head, *shown], (0.33,), [head, *rows.values()])


def _genre_table(content: Content, pair: Sequence[Entry]) -> Table:
    keys = {"precision": "precision", "recall": "recall", "f1": "F1"}
    head = ["genre", "tracks", "artists", *(f"{word}{m}" for m in _marks(pair) for word in keys.values())]
    rows = [
        [one_line(genre.label), str(genre.tracks), str(genre.groups)]
        + [f"{entry.per_class[key][k]:.2f}" for entry in pair for key in keys]
        for k, genre in enumerate(content.genres.itertuples())
    ]
    caption = "; ".join(_marked(pair))
    if len(rows) > MOST_CLASSES:
        caption += f". The first {MOST_CLASSES} of {len(rows)} genres; all: tables/genres.csv"
    return Table("genres", f"{caption}.", [head, *rows[:MOST_CLASSES]], (0.22,), [head, *rows])


def _errors(content: Content, pair: Sequence[Entry]) -> Iterator[Block]:
    truth = content.predictions.labels
    right = np.stack([entry.probabilities.argmax(axis=1) == truth for entry in pair])  # (S, N)
    subject = "both systems" if len(pair) > 1 else one_line(pair[0].title)
    rows = [
        [
            ", ".join(one_line(part) for part in (clip.title, clip.artist) if part),
            one_line(clip.label),
            ", ".join(f"{one_line(label)} {votes}" for label, votes in clip.votes[:3]),
            f"{max(answer.probability for answer in clip.answers if answer.label != clip.label):.2f}",
        ]
        for clip in content.clips
        if clip.why == "error"
    ]
    untitled = "" if (content.tracks["title"] != "").any() else " Their titles are unknown."
    table = f"{ref('table', 'errors')} lists those that most systems get wrong with confidence.{untitled}"
    yield Text(
        f"Of {len(truth)} tracks, {subject} classified {right.all(axis=0).sum()} correctly and "
        f"{(~right).all(axis=0).sum()} incorrectly. {table if rows else ''}",
        "Errors.",
    )
    if rows:
        head = ["track", "label", "predictions and number of systems", "highest"]
        caption = "The worst errors of all trained systems. Highest: that of all wrong probabilities."
        yield Table("errors", caption, [head, *rows], (0.42, 0.15, 0.33))


def _commands(content: Content) -> Iterator[Block]:
    records = {e.record.run_id: e.record for e in (content.baseline, *content.pair) if e}
    yield Text(
        "The bundle (mgc report --bundle) contains the recipes of all runs as configs, and all commands. The "
        "main ones:"
    )
    lines = [f"mgc {r.kind} --config configs/{r.run_id}.toml" for r in records.values() if r.kind != "floor"]
    yield Code((*lines, f"mgc compare --data {shlex.quote(one_line(content.data))}"))
