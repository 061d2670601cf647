"""The words of a paper, which `templates/paper.txt` forms from facts, and its tables."""

import json
import re
import shlex
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mgc.evaluate import Comparison
from mgc.report.content import MOST_ROWS, Content, largest_confusion
from mgc.report.notes import BOLD, Notes
from mgc.report.paper.figures import MOST_CLASSES
from mgc.report.paper.forms import MINUS, Block, Paper, Table, mark
from mgc.runs import tables
from mgc.runs.record import NAMES_ONLY, RunRecord
from mgc.runs.tables import Row
from mgc.util.errors import counted, printable
from mgc.util.text import listed, one_line, shortened


def paper_of(content: Content) -> Paper:
    """The paper in the order of its template; each paragraph of that is a block."""
    marks = [" (a)", " (b)"] if len(content.pair) > 1 else [""]
    named = {"setup": _setup(content), "systems": _systems(content), "genres": _genres(content, marks)}
    errors = _errors(content)
    named |= {"errors": errors} if errors.rows[1:] else {}
    environment = Environment(loader=PackageLoader("mgc.report"), undefined=StrictUndefined, finalize=_plain)
    environment.filters |= {"listed": listed, "shortened": shortened, "percent": lambda x: f"{100 * x:.0f} %"}
    text = environment.get_template("paper.txt").render(
        c=content,
        table=lambda name: mark("table", name),
        figure=lambda name: mark("figure", name),
        bold=lambda words: mark("bold", words),
        counted=counted, points=_points, largest_confusion=largest_confusion,
        MOST_ROWS=MOST_ROWS, MOST_CLASSES=MOST_CLASSES,
        marked=[f"{row.title}{m}" for row, m in zip(content.pair, marks, strict=True)],
        errors="errors" in named,
        **_facts(content),
    )  # fmt: skip
    blocks: list[Block] = []
    for paragraph in filter(None, re.split(r"\n\s*\n", text.strip())):
        kind, _, words = " ".join(paragraph.split()).partition(" ")
        end = {"table": " ", "figure": " ", "ask": ": "}.get(kind)
        name, _, words = words.partition(end) if end else ("", "", words)
        if kind in ("item", "code", "ask") and (blocks[-1].kind, blocks[-1].name) == (kind, name):
            blocks[-1].lines.append(words)
        else:
            blocks.append(Block(kind, [words], name))
    [title] = blocks.pop(0).lines
    questions = {block.name: block.lines for block in blocks if block.kind == "ask"}
    return Paper(title, content.notes.author, [*_with_notes(blocks, content.notes)], named, questions)


def _with_notes(blocks: Sequence[Block], notes: Notes) -> Iterator[Block]:
    """The blocks, each topic of questions followed by the author's answer, and the author's other texts in
    place of the block "notes"."""
    topics = {block.name.casefold() for block in blocks if block.kind == "ask"}
    for block in blocks:
        if block.kind == "ask":
            yield Block("item", [f"{mark('bold', f'{block.name}.')} {line}" for line in block.lines])
            yield from _written(notes, block.name)
        elif block.kind == "notes":
            for heading in (name for name in notes.others if name.casefold() not in topics):
                yield from _written(notes, heading, f"**{heading}.** " if heading else "")
        else:
            yield block


def _written(notes: Notes, heading: str, start: str = "") -> Iterator[Block]:
    for kind, lines in notes.blocks(heading):
        shown = [start + lines[0], *lines[1:]]
        yield Block(kind, [BOLD.sub(lambda words: mark("bold", words[1]), line) for line in shown])
        start = ""


def _plain(value: object) -> str:
    """A value as the template prints it: on one line, and unable to imitate a mark."""
    return value if isinstance(value, Markup) else printable(re.sub(r"\s", " ", str(value)))


def _points(difference: Comparison) -> str:
    """A difference of accuracies and its interval, with minus signs."""
    return tables.points(difference).replace("-", MINUS)


def _facts(content: Content) -> dict[str, Any]:
    """What the template mentions and `Content` does not have."""
    pair, first, check = content.pair, content.first, content.check
    records = [record for row in content.systems for record in row.system.records]
    seeds = sorted(Counter(row.scores.seeds for row in content.systems).items())
    excluded = [f"{bad.get('track_id', '')}: {bad.get('reason', '')}" for bad in first.excluded]
    faults = Counter(finding.kind for finding in check.findings if not finding.excluded) if check else {}
    telling = [p for p in (check.properties if check else ()) if p.p_value < 0.05]
    # (S, N) shares of the seeds that are right about a track: the accuracies in tables are means over seeds.
    answers = [[run.predicted == run.labels for run in row.system.predictions] for row in pair]
    right = np.stack([np.mean(own, axis=0) for own in answers])
    cards = [(name, card) for name, card in content.representations.items() if card.get("cut")]
    pretrained = [r.record.representation for r in content.trained if r.system.category == "frozen"]
    reproduced = {row.record.run_id: row.record for row in (content.baseline, *pair) if row}
    # The first sentence describes the dataset, as the template does; the others concern other tables.
    notes = [s for s in tables.caption(content.sections[0])[1:] if not s.startswith(("Reported", "LEAKY"))]
    return {
        "records": records,
        "seeds": [f"{count} with {counted(n, 'seed')}" for n, count in seeds],
        "seconds": sum(sum(record.seconds.values()) for record in records),
        "devices": sorted({record.device for record in records}),
        "commits": sorted({str(record.commit) for record in records}),
        "uncommitted": sum(str(record.commit).endswith("+") for record in records),
        "version_sets": len({json.dumps(record.versions, sort_keys=True) for record in records}),
        "excluded": excluded,
        "faults": [f"{kind} {count}" for kind, count in sorted(faults.items())],
        "telling": max(telling, key=lambda p: p.accuracy - p.chance, default=None),
        "inputs": [f"{name} ({_input(card)})" for name, card in cards],
        "encoders": [*dict.fromkeys(pretrained)],
        "cited": [*_cited(content)],
        "settings": _settings(content.baseline.record) if content.baseline else [],
        "layers": _layers(content.baseline.record) if content.baseline else "",
        "untested": [*content.genres.query("tracks == 0")["label"]],
        "titled": (content.tracks["title"] != "").any(),
        "leaky": [row for row in content.sections[0].rows if row.leak],
        "unseeded": [row.title for row in content.trained if row.system.outcomes.needs_seeds],
        "versus": [row.versus for row in content.systems if row.versus],
        "gain": content.gain,
        "correct": f"{right.prod(axis=0).sum():.0f}",
        "incorrect": f"{(1 - right).prod(axis=0).sum():.0f}",
        "notes": notes,
        "reproduced": [record for record in reproduced.values() if record.kind != "floor"],
        "data": shlex.quote(one_line(content.data)),
    }


def _cited(content: Content) -> Iterator[str]:
    """The publications of the dataset and, with their names and sources, of the representations."""
    file = resources.files("mgc.report") / "templates" / "references.toml"
    known = tomllib.loads(file.read_text(encoding="utf-8"))
    yield from [text for key, text in known["datasets"].items() if content.data.startswith(key)][:1]
    names = defaultdict(list)
    for name, card in content.representations.items():
        names[card.get("source")].append(name)
    for source, own in names.items():
        if source:
            where = f"{own[0]} {source}"
            found = [t for key, t in known["representations"].items() if re.search(rf"\b{key}", where, re.I)]
            yield f"{', '.join(own)}: " + (f"{found[0]} ({source})" if found else source)


def _input(card: dict[str, Any]) -> str:
    rate, window, width = card["cut"]["sample_rate_hz"], card["cut"]["window"], card["layers"][-1]["dim"]
    return f"{rate / 1000:g} kHz, windows of {window / rate:.3g} s, {width} values"


def _table(rows: Sequence[Sequence[object]], *widths: float, full: Sequence[Sequence[object]] = ()) -> Table:
    shown, every = ([[one_line(cell) for cell in row] for row in own] for own in (rows, full or rows))
    return Table(shown, widths, every)


def _setup(content: Content) -> Table:
    base = content.baseline
    settings = "settings other than the baseline's" if base else "settings"
    rows: list[list[object]] = [["system", "input", "pretrained on", settings, "trained par."]]
    for row in content.main_rows:
        record = row.record
        if record.kind != "floor":
            changed = "the baseline" if row is base else _changes(record, base)
            trained_on = record.representation_card.get("trained_on") or "unknown"
            rows.append([row.title, record.representation, trained_on, changed, f"{record.parameters:,}"])
    return _table(rows, 0.22, 0.14, 0.17, 0.33)


def _changes(record: RunRecord, base: Row | None) -> str:
    recipe = record.recipe
    if record.kind == "probe":
        own = {key: recipe.get(key) for key in ("head", "layers", "pool", "keep")}
        return ", ".join(f"{k} {value}" for k, value in own.items() if value not in (None, "clip"))
    own, theirs = _flat(recipe), _flat(base.record.recipe if base else {})
    return listed([f"{k} {v}" for k, v in own.items() if v != theirs.get(k) and v not in ("", None)], 7)


def _settings(record: RunRecord) -> list[str]:
    """All settings of a network that are set, in words."""
    own = _flat(record.recipe)
    idle = {"scheduler_patience", "warmup"} if own.get("scheduler") == "none" else set()
    idle |= set() if own.get("strong_class") else {"strong_factor"}
    off: tuple[object, ...] = (None, "", [], 0, "none", "default", "all")
    return [f"{k.replace('_', ' ')} {v}" for k, v in own.items() if k not in idle and v not in off]


def _layers(record: RunRecord) -> str:
    """The layers of a network; "" if this version does not have it."""
    from mgc.training.networks import NETWORKS

    network = NETWORKS.get(str(record.recipe.get("network")))
    return one_line(getattr(network.make, "func", network.make).__doc__ or "") if network else ""


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe, then those of its tables."""
    own = {key: value for key, value in recipe.items() if key not in {*NAMES_ONLY, "seed", "representation"}}
    levels = [own, *(value for value in own.values() if isinstance(value, dict))]
    return {k: value for level in levels for k, value in level.items() if not isinstance(value, dict)}


def _systems(content: Content) -> Table:
    head = ["system", "accuracy [95 %]", "macro-F1", "vs baseline [95 %]", "p", "verdict"]
    rows = {}
    for row in content.systems:
        cells = tables.cells(row, content.sections[0])
        cells |= {"system": row.title, head[3]: cells[head[3]].replace("-", MINUS)}
        if row.scores.seed_sd is not None:
            cells[head[1]] += f" ±{row.scores.seed_sd:.3f} ({row.scores.seeds})"
        rows[row.title] = [cells[name] for name in head]
    shown = [rows[row.title] for row in content.main_rows]
    return _table([head, *shown], 0.33, full=[head, *rows.values()])


def _genres(content: Content, marks: list[str]) -> Table:
    keys = {"precision": "precision", "recall": "recall", "f1": "F1"}
    head = ["genre", "tracks", "artists", *(f"{word}{m}" for m in marks for word in keys.values())]
    scores = [row.system.per_class(key) for row in content.pair for key in keys]
    rows = [
        [genre.label, genre.tracks, genre.groups, *(f"{score[k]:.2f}" for score in scores)]
        for k, genre in enumerate(content.genres.itertuples())
    ]
    return _table([head, *rows[:MOST_CLASSES]], 0.22, full=[head, *rows])


def _errors(content: Content) -> Table:
    rows = [["track", "label", "predictions and number of systems", "highest"]]
    for clip in content.clips:
        if clip.why == "error":
            track = ", ".join(filter(None, (clip.title, clip.artist)))
            votes = ", ".join(f"{label} {votes}" for label, votes in clip.votes[:3])
            highest = max(answer.probability for answer in clip.answers if answer.label != clip.label)
            rows.append([track, clip.label, votes, f"{highest:.2f}"])
    return _table(rows, 0.42, 0.15, 0.33)
