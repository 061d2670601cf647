"""What a paper says, from hypotheses to references, and its tables."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mgc.report.content import Content, Entry
from mgc.report.paper.blocks import Block, Code, Figure, Heading, Items, Table, Text, ref
from mgc.report.paper.figures import MOST_CLASSES
from mgc.report.paper.questions import questions, threats
from mgc.report.paper.references import references
from mgc.report.paper.systems import MOST_ROWS, pair_of, shown_rows, trained
from mgc.report.paper.words import MINUS, clipped, few, plain, points
from mgc.runs.record import NAMES_ONLY, RunRecord
from mgc.runs.tables import Row, caption
from mgc.util.errors import counted


def title_of(content: Content) -> str:
    """Of the paper."""
    kinds = {"baseline": "networks trained from scratch", "probe": "heads on fixed representations"}
    there = [words for path, words in kinds.items() if any(entry.kind == path for entry in content.systems)]
    return f"Music genres of {plain(content.data)}: {' and '.join(there) or 'floors'}"


def blocks_of(content: Content) -> list[Block]:
    """The paper, from hypotheses to references."""
    return [
        Text(plain(content.verdict), "Summary."),
        *_hypotheses(content),
        *_data(content),
        *_systems(content),
        *_setup(content),
        *_results(content),
        Heading("Discussion"),
        Text("Questions that the numbers raise; the answers are the author's."),
        Items(tuple(questions(content))),
        Heading("Threats to validity"),
        Items(tuple(threats(content))),
        Heading("How to repeat it"),
        *_commands(content),
        Heading("References"),
        Items(tuple(references(content))),
    ]


def _hypotheses(content: Content) -> Iterator[Block]:
    asked = [entry for entry in shown_rows(content) if entry.kind != "floor"]
    told = [f"{plain(e.title)}: {clipped(e.record.hypothesis, 240)}" for e in asked if e.record.hypothesis]
    yield Heading("Hypotheses")
    against = ", set against that of the baseline" if content.baseline else ""
    yield Text(
        f"Of the {counted(len(asked), 'recipe')} behind {ref('table', 'systems')} {len(told) or 'none'} "
        f"state{'s' * (len(told) < 2)} one. All are measured by the accuracy on test tracks{against}."
    )
    yield from [Items(tuple(told))] if told else []


def _data(content: Content) -> Iterator[Block]:
    record = content.first
    known = (
        "" if record.evaluation.interval_unit == "group" else " (those of unknown artist count as one each)"
    )
    yield Heading("Data and preprocessing")
    yield Text(
        f"{plain(content.data)}: {record.evaluation.n_tracks} tested tracks of {len(content.classes)} genres by "
        f"{record.evaluation.n_groups} artists{known}, see {ref('table', 'genres')}. "
        f"Split {plain(record.split)}: {plain(record.split_authority)}; {record.training_tracks:.0f} training tracks"
        f"{' a fold' if _folds(content) > 1 else ''}. Licence: {plain(record.licence or 'not stated')}. "
        f"{_left_out(record)} {_found(content)} "
        f"Hashes: tracks {record.data_hash}, split {record.split_hash}."
    )
    cards = {e.record.representation: e.record.representation_card for e in shown_rows(content)}
    heard = [f"{plain(name)} ({_heard(card)})" for name, card in cards.items() if card.get("cut")]
    yield Text(
        "One loader decodes, mixes down and resamples every file, whatever the system; windows cover "
        f"whole tracks, and padding is not pooled. Inputs: {'; '.join(heard)}."
    )


def _heard(card: dict[str, Any]) -> str:
    rate, window, width = card["cut"]["sample_rate_hz"], card["cut"]["window"], card["layers"][-1]["dim"]
    return f"{rate / 1000:g} kHz, windows of {window / rate:.3g} s, {width} values"


def _left_out(record: RunRecord) -> str:
    why = [f"{bad.get('track_id', '')}: {bad.get('reason', '')}" for bad in record.excluded]
    said = f"{counted(len(why), 'track')} left out for every system, for want of use ({few(why)})."
    return said if why else "No track is left out."


def _found(content: Content) -> str:
    if not content.check:
        return "The audio was not checked for copies and faults (mgc data check)."
    told = Counter(one["kind"] for one in content.check.get("findings", ()) if not one.get("excluded"))
    faults = ", ".join(f"{plain(kind)} {count}" for kind, count in sorted(told.items()))
    copies = len(content.check.get("copies", ()))
    return f"Its check found {copies} recordings more than once; tracks told of and used: {faults or 'none'}."


def _systems(content: Content) -> Iterator[Block]:
    base = content.baseline
    named = f"The baseline is {plain(base.title)}, trained from scratch." if base else "There is no baseline."
    told = "says what is other than in the baseline" if base else "says how each is set"
    yield Heading("Systems")
    yield Text(
        f"{named} Of a network validation chooses the epoch. Encoders are frozen: they run once over every "
        "track, and a small head learns from pooled vectors, its strength chosen on the same validation "
        f"tracks. {ref('table', 'setup')} {told}."
    )
    settings = "settings other than the baseline's" if base else "settings"
    rows = [["system", "input", "has learned from", settings, "trained par."]]
    for entry in shown_rows(content):
        record = entry.record
        learned = plain(record.representation_card.get("trained_on") or "not stated")
        changed = "the baseline" if entry is base else _changes(record, base)
        cells = [plain(entry.title), plain(record.representation), learned, changed, f"{record.parameters:,}"]
        rows += [cells] if entry.kind != "floor" else []
    yield Table("setup", "The systems. Floors have nothing to set.", rows, (0.22, 0.14, 0.17, 0.33))


def _changes(record: RunRecord, base: Entry | None) -> str:
    recipe = record.recipe
    if record.kind == "probe":
        told = {key: recipe.get(key) for key in ("head", "layers", "pool", "keep")}
        return ", ".join(f"{k} {plain(value)}" for k, value in told.items() if value not in (None, "clip"))
    own, theirs = _flat(recipe), _flat(base.record.recipe if base else {})
    return few([f"{k} {v}" for k, v in own.items() if v != theirs.get(k) and v not in ("", None)], 7)


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe's own keys, then those of its tables."""
    own = {key: value for key, value in recipe.items() if key not in {*NAMES_ONLY, "seed", "representation"}}
    tables = [own, *(value for value in own.values() if isinstance(value, dict))]
    return {k: value for table in tables for k, value in table.items() if not isinstance(value, dict)}


def _setup(content: Content) -> Iterator[Block]:
    systems = [entry.row.system for entry in content.systems]
    records = [record for system in systems for record in system.records]
    seeds = sorted(Counter(len(system.records) for system in systems).items())
    many = ", ".join(f"{count} with {n} seed{'s' * (n > 1)}" for n, count in seeds)
    versions = ", ".join(f"{name} {number}" for name, number in content.first.versions.items())
    seconds = sum(sum(record.seconds.values()) for record in records)
    spent = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
    yield Heading("Set-up and metrics")
    yield Text(
        f"{len(systems)} systems ({many}), {len(records)} runs, {spent} of computing on "
        f"{few(sorted({record.device for record in records}))}. Code: commit "
        f"{few(sorted({str(record.commit) for record in records}))} (+: with changes). Versions: {versions}."
    )
    # The first line tells of the data, which has been told; the others of rows that stand elsewhere.
    lines = [s for s in caption(content.sections[0])[1:] if not s.startswith(("Reported", "LEAKY"))]
    together = "; the tracks of all folds are scored together" if _folds(content) > 1 else ""
    yield Text(
        f"Accuracy is the share of tracks named right, macro-F1 the mean of F1 over genres{together}. "
        f"{' '.join(map(plain, lines))}"
    )


def _folds(content: Content) -> int:
    return len(set(content.predictions.fold.tolist()))


def _results(content: Content) -> Iterator[Block]:
    pair, rows = pair_of(content), shown_rows(content)
    leaky = [row for row in content.sections[0].rows if row.leak]
    leaks = [f"{plain(row.system.title)} {points(row.leak)}" for row in leaky if row.leak]
    rule = plain("".join(row.system.record.split_authority for row in leaky[:1]).removeprefix("LEAKY: "))
    told = f"What a split that leaks would have added to the same system: {few(leaks)} ({rule})."
    beside = "against the baseline" if content.baseline else "side by side"
    yield Heading("Results")
    yield Text(
        f"{ref('table', 'systems')} and {ref('figure', 'accuracies')} set the systems {beside}; "
        f"{ref('table', 'genres')}, {ref('figure', 'confusion')} and {ref('figure', 'roc')} look at "
        f"{' and '.join(_marked(pair))} genre by genre.{f' {told}' if leaks else ''}"
    )
    yield _main_table(content, rows)
    said = f"Accuracy and its 95 % interval.{' Dashed: the baseline.' if content.baseline else ''}"
    yield Figure("accuracies", said, 0.1 + 0.026 * len(rows))
    yield _genre_table(content, pair)
    yield Figure("confusion", "What is taken for what: percent of the tracks that are labelled so.", 0.42)
    yield from _errors(content, pair)
    mean = "mean over folds, " if _folds(content) > 1 else ""
    yield Figure("roc", f"Each genre against the rest, {mean}and the area under it.", 0.45, True)
    for entry in trained(content):
        said = f"Training of {plain(entry.title)}: a line a fold, and the epoch that validation chose."
        yield Figure("curves", said, 0.34, True)


def _marks(pair: Sequence[Entry]) -> list[str]:
    return [" (a)", " (b)"] if len(pair) > 1 else [""]


def _marked(pair: Sequence[Entry]) -> list[str]:
    return [f"{plain(entry.title)}{mark}" for entry, mark in zip(pair, _marks(pair), strict=True)]


def _main_table(content: Content, chosen: Sequence[Entry]) -> Table:
    head = ["system", "accuracy [95 %]", "macro-F1", "against the baseline [95 %]", "p"]
    rows = [[plain(entry.title), *_cells(entry.row)] for entry in content.systems]
    shown = [row for row, entry in zip(rows, content.systems, strict=True) if entry in chosen]
    said = "All systems."
    if len(rows) > len(shown):
        said = (
            "Floors, the baseline, and by turns the best of each network and of each probed representation, "
            f"up to {MOST_ROWS} rows. All {len(rows)} systems: tables/systems.csv."
        )
    if any(len(entry.row.system.records) > 1 for entry in chosen):
        said += " After ±: deviation over seeds, and how many."
    return Table("systems", said, [head, *shown], (0.33,), [head, *rows])


def _cells(row: Row) -> list[str]:
    scores, versus, p = row.system.scores, row.versus, row.p_holm
    accuracy = f"{scores.accuracy:.3f} [{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]"
    if scores.accuracy_deviation is not None:
        accuracy += f" ±{scores.accuracy_deviation:.3f} ({scores.seeds})"
    against = "baseline" if row.system.record.kind == "baseline" else ""
    if versus:
        against = f"{versus.accuracy_difference:+.3f} [{versus.low:+.3f}, {versus.high:+.3f}]"
    word = "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
    return [accuracy, f"{scores.macro_f1:.3f}", against.replace("-", MINUS), word]


def _genre_table(content: Content, pair: Sequence[Entry]) -> Table:
    keys = {"precision": "precision", "recall": "recall", "f1": "F1"}
    head = ["genre", "tracks", "artists", *(f"{word}{m}" for m in _marks(pair) for word in keys.values())]
    rows = [
        [plain(genre.label), str(genre.tracks), str(genre.groups)]
        + [f"{entry.per_class[key][k]:.2f}" for entry in pair for key in keys]
        for k, genre in enumerate(content.genres)
    ]
    said = "; ".join(_marked(pair))
    if len(rows) > MOST_CLASSES:
        said += f". The first {MOST_CLASSES} of {len(rows)} genres; all: tables/genres.csv"
    return Table("genres", f"{said}.", [head, *rows[:MOST_CLASSES]], (0.22,), [head, *rows])


def _errors(content: Content, pair: Sequence[Entry]) -> Iterator[Block]:
    truth = content.predictions.labels
    right = np.stack([entry.probabilities.argmax(axis=1) == truth for entry in pair])  # (S, N)
    both = "both" if len(pair) > 1 else plain(pair[0].title)
    rows = [
        [
            ", ".join(plain(part) for part in (clip.title, clip.artist) if part),
            plain(clip.label),
            ", ".join(f"{plain(label)} {votes}" for label, votes in clip.votes[:3]),
            f"{max(said.probability for said in clip.said if said.label != clip.label):.2f}",
        ]
        for clip in content.clips
        if clip.why == "error"
    ]
    named = "" if (content.tracks["title"] != "").any() else " Their titles are not known to these records."
    listed = f"{ref('table', 'errors')} lists those that most systems miss, and surely.{named}"
    yield Text(
        f"Of {len(truth)} tracks {both} named {right.all(axis=0).sum()} right and "
        f"{(~right).all(axis=0).sum()} wrong. {listed if rows else ''}",
        "Errors.",
    )
    if rows:
        head = ["track", "labelled", "said, by how many systems", "surest"]
        said = "The worst errors of all trained systems. Surest: the highest probability of a wrong genre."
        yield Table("errors", said, [head, *rows], (0.42, 0.15, 0.33))


def _commands(content: Content) -> Iterator[Block]:
    records = {e.record.run_id: e.record for e in (content.baseline, *pair_of(content)) if e}
    yield Text(
        "The bundle (mgc report --bundle) holds all recipes as configs, and all commands. The main ones:"
    )
    lines = [f"mgc {r.kind} --config configs/{r.run_id}.toml" for r in records.values() if r.kind != "floor"]
    yield Code((*lines, f"mgc compare --data {shlex.quote(plain(content.data))}"))
