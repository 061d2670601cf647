"""`RunRecord`: what was run and what came out; and the tables and pictures that are made from records alone.

A run lies in `results/<data>/<run_id>/`: `record.json`, `predictions.parquet`, curves, weights.
"""

import csv
import io
import json
import platform
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from mgc.config import CompareRecipe, MgcError, did_you_mean, results_dir
from mgc.data import name_of
from mgc.evaluate import Difference, Leak, Predictions, Scores, leak, paired

FORMATS = ("table", "markdown", "latex", "csv", "json")
# Parts of a recipe that fingerprints cover, or that change nothing about the result.
NAMES_ONLY = {"data", "model", "device", "hypothesis"}
LIBRARIES = ("mgc", "torch", "transformers", "librosa", "soxr", "numpy", "scikit-learn", "accelerate")


@dataclass(frozen=True)
class RunRecord:
    """One run. Two records are comparable where `data_fingerprint` and `split_fingerprint` are equal."""

    run_id: str
    system: str
    path: str  # "baseline", "probe" or "floor"
    representation: str
    head: str
    hypothesis: str
    seed: int
    recipe: dict[str, Any]
    data: str
    data_fingerprint: str
    licence: str | None
    split: str
    split_authority: str
    split_fingerprint: str
    excluded: list[dict[str, str]]
    scores: dict[str, Any]
    parameters: int  # trained ones
    chosen: list[dict[str, Any]]  # a fold: what validation chose
    seconds: dict[str, float]  # a stage
    representation_card: dict[str, Any]
    code: str
    commit: str | None
    versions: dict[str, str]
    device: str
    created: str  # ISO 8601, UTC
    leaky: bool = False  # the split puts artists on two sides on purpose: not comparable with an honest one
    learned: float = 0.0  # training tracks, the mean over folds
    notes: list[str] = field(default_factory=list)  # what a reader should know of the data

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return results_dir() / self.data / self.run_id

    @property
    def judged(self) -> Scores:
        """Its scores."""
        return Scores.from_dict(self.scores)

    def predictions(self) -> Predictions:
        """Its stored predictions.

        Raises:
            MgcError: they are not there or damaged.
        """
        file = self.folder / "predictions.parquet"
        try:
            return Predictions.from_frame(pd.read_parquet(file))
        except (OSError, ValueError) as error:
            raise MgcError(f"the predictions of a run cannot be read: {error}", where=file) from None

    def save(self, predictions: Predictions) -> None:
        """Predictions first, then the record: a record that is there is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        predictions.to_frame().to_parquet(self.folder / "predictions.parquet")
        part = self.folder / "record.json.part"
        part.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")
        part.replace(self.folder / "record.json")


def load_record(file: Path) -> RunRecord:
    """The record in a `record.json`.

    Raises:
        MgcError: not readable, or of another version of mgc.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        required = [
            f.name for f in fields(RunRecord) if f.default is MISSING and f.default_factory is MISSING
        ]
        known = {
            f.name: content[f.name] for f in fields(RunRecord) if f.name in content or f.name in required
        }
        return RunRecord(**known)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MgcError(
            f"the record cannot be read: {type(error).__name__}: {error}",
            where=file,
            fix="take the run's folder out of results/, and run it again",
        ) from None


def load_records(data: str) -> list[RunRecord]:
    """All records of a data set, oldest first."""
    records = [load_record(file) for file in (results_dir() / data).glob("*/record.json")]
    return sorted(records, key=lambda record: record.created)


def select_records(recipe: CompareRecipe) -> list[RunRecord]:
    """The records of a data set that a comparison asks for.

    Raises:
        MgcError: there are none.
    """
    source = recipe.data.source
    name = source if (results_dir() / source).is_dir() and "/" not in source else name_of(recipe.data)
    records = [
        record
        for record in load_records(name)
        if recipe.data.limit in (None, record.recipe["data"]["limit"])
        and recipe.seed in (None, record.seed)
        and (recipe.device is None or record.device.startswith(recipe.device))
    ]
    if not records:
        raise MgcError(
            f"there are no such runs on {name!r}",
            where=results_dir() / name,
            fix="run mgc baseline and mgc probe first",
        )
    return records


def environment() -> dict[str, Any]:
    """Versions and commit, as a record keeps them."""
    versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return {"versions": versions, "commit": _commit()}


def _commit() -> str | None:
    """The commit of the code that runs, with a + where it was changed; None outside a repository."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        state = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if state.stdout.strip() else "")


@dataclass(frozen=True)
class Row:
    """One line of the table. `versus` compares with the section's baseline; `leak`, on a row of a leaky
    split, with the row of the same system on the section's honest one."""

    record: RunRecord
    versus: Difference | None = None
    leak: Leak | None = None


@dataclass(frozen=True)
class Section:
    """Records on one split of one set of tracks: all that may be compared with one another.

    Its last rows may be of a leaky split of the same data, each with its leak measured.
    """

    rows: list[Row]
    baseline: RunRecord | None
    superseded: int  # older runs of the same recipe by other code, not shown


def compare_records(records: Sequence[RunRecord], baseline: str | None = None) -> list[Section]:
    """Sections, the one with most tracks first; in each, floors, baselines and probes by accuracy.

    The baseline of a section is the run called `baseline`, else its newest record of that path, with the
    plain `cnn` before other networks. A run on a leaky split stands below the same system's run on an honest
    one; where there is none, in a section of its own.
    """
    if baseline is not None and baseline not in {record.run_id for record in records}:
        names = [record.run_id for record in records]
        raise MgcError(f"no run is called {baseline!r}", fix=did_you_mean(baseline, names))
    shown = _newest(records)
    honest = {(_system_key(r), r.recipe["data"]["limit"]): r for r in shown if not r.leaky}
    below, apart = defaultdict(list), defaultdict(list)
    for record in shown:
        twin = honest.get((_system_key(record), record.recipe["data"]["limit"])) if record.leaky else None
        if twin:
            below[twin.data_fingerprint, twin.split_fingerprint].append(
                Row(record, leak=leak(record.predictions(), twin.predictions()))
            )
        else:
            apart[record.data_fingerprint, record.split_fingerprint].append(record)
    hidden = Counter((r.data_fingerprint, r.split_fingerprint) for r in records)
    hidden.subtract((r.data_fingerprint, r.split_fingerprint) for r in shown)
    sections = [_section(group, baseline, below[key], hidden[key]) for key, group in apart.items()]
    return sorted(sections, key=lambda s: -int(s.rows[0].record.scores["n_tracks"]))


def _system_key(record: RunRecord) -> str:
    """Equal for runs of one system and one recipe, on whatever split."""
    recipe = {key: value for key, value in record.recipe.items() if key not in NAMES_ONLY}
    weights = record.representation_card.get("weights")
    return json.dumps([record.system, record.path, recipe, weights], sort_keys=True)


def _newest(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Of each recipe on each split the newest run: older ones were made by other code."""
    newest = {}
    for record in sorted(records, key=lambda r: r.created):
        newest[record.data_fingerprint, record.split_fingerprint, _system_key(record)] = record
    return list(newest.values())


def _section(shown: list[RunRecord], wanted: str | None, leaky: list[Row], superseded: int) -> Section:
    candidates = [r for r in shown if r.path == "baseline"]
    candidates.sort(key=lambda r: (r.system == "cnn", r.created))
    baseline = next((r for r in shown if r.run_id == wanted), candidates[-1] if candidates else None)
    reference = baseline.predictions() if baseline else None
    rows = []
    for record in sorted(shown, key=_place):
        same = reference is None or baseline is None or record.run_id == baseline.run_id
        rows.append(
            Row(record, None if same or reference is None else paired(record.predictions(), reference))
        )
    return Section(rows + sorted(leaky, key=lambda row: _place(row.record)), baseline, superseded)


def _place(record: RunRecord) -> tuple[int, float]:
    return ("floor", "baseline", "probe").index(record.path), record.judged.accuracy


def as_dict(row: Row) -> dict[str, Any]:
    """A row as plain values, the keys of `--format json` and `csv`."""
    record, scores, versus = row.record, row.record.judged, row.versus
    return {
        "system": record.system,
        "path": record.path,
        "representation": record.representation,
        "head": record.head,
        "split": record.split,
        "leaky": record.leaky,
        "n_tracks": scores.n_tracks,
        "accuracy": scores.accuracy,
        "accuracy_low": scores.accuracy_low,
        "accuracy_high": scores.accuracy_high,
        "macro_f1": scores.macro_f1,
        "vs_baseline": versus.accuracy_difference if versus else None,
        "vs_baseline_low": versus.low if versus else None,
        "vs_baseline_high": versus.high if versus else None,
        "p_value": versus.p_value if versus else None,
        "verdict": versus.verdict if versus else None,
        "leak": row.leak.accuracy_difference if row.leak else None,
        "leak_low": row.leak.low if row.leak else None,
        "leak_high": row.leak.high if row.leak else None,
        "parameters": record.parameters,
        "seconds": round(sum(record.seconds.values()), 1),
        "seed": record.seed,
        "interval_over": scores.interval_unit,
        "data_fingerprint": record.data_fingerprint,
        "split_fingerprint": record.split_fingerprint,
        "run_id": record.run_id,
    }


HEADINGS = (
    *("system", "representation", "head", "split", "tracks"),
    *("accuracy [95 %]", "macro-F1", "vs baseline [95 %]", "p", "trained par.", "seconds"),
)


def _cells(row: Row) -> list[str]:
    cell = as_dict(row)
    interval = f"{cell['accuracy']:.3f} [{cell['accuracy_low']:.3f}, {cell['accuracy_high']:.3f}]"
    versus, p_value = "", ""
    if row.versus:
        versus = f"{row.versus.accuracy_difference:+.3f} [{row.versus.low:+.3f}, {row.versus.high:+.3f}]"
        p_value = "<0.001" if row.versus.p_value < 0.001 else f"{row.versus.p_value:.3f}"
    elif row.leak:
        versus = "not comparable"
    elif row.record.path == "baseline":
        versus = "baseline"
    split = f"{cell['split']} (LEAKY)" if cell["leaky"] else cell["split"]
    numbers = [f"{cell['parameters']:,}", f"{cell['seconds']:.0f}"]
    words = [cell["system"], cell["representation"], cell["head"], split, str(cell["n_tracks"])]
    return [*words, interval, f"{cell['macro_f1']:.3f}", versus, p_value, *numbers]


def render(sections: Sequence[Section], form: str) -> str:
    """The table in one of FORMATS.

    Raises:
        MgcError: no such format.
    """
    if form == "json":
        return json.dumps([as_dict(row) for section in sections for row in section.rows], indent=2)
    if form == "csv":
        rows = [as_dict(row) for section in sections for row in section.rows]
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().rstrip()
    draw = {"table": _text, "markdown": _markdown, "latex": _latex}.get(form)
    if draw is None:
        raise MgcError(f"there is no format {form!r}", fix=f"use {', '.join(FORMATS)}")
    return "\n\n".join(draw(section) for section in sections)


def caption(section: Section) -> list[str]:
    """What must be known to read the rows, in sentences."""
    first = section.rows[0].record
    scores = first.judged
    unit = "artists" if scores.interval_unit == "group" else "tracks"
    lines = [
        f"{first.data}, {scores.n_tracks} tracks, split {first.split}: {first.split_authority}.",
        f"Intervals: 95 % bootstrap over {scores.n_groups} {unit}. p: exact McNemar against the baseline, "
        "one pair at a time. Better or worse: p < 0.05 and the interval of the difference excludes 0.",
    ]
    if first.excluded:
        lines.append(f"{len(first.excluded)} tracks could not be used and are left out everywhere.")
    rules = dict.fromkeys(row.record.split_authority for row in section.rows if row.leak)
    lines += [f"{rule}. Such rows stand against no other row." for rule in rules]
    if section.superseded:
        lines.append(f"{section.superseded} older runs of the same recipes are not shown.")
    return lines


def verdicts(section: Section) -> list[str]:
    """A sentence for each probe that was set against the baseline."""
    sentences = []
    for row in section.rows:
        if row.versus is None or row.record.path != "probe" or section.baseline is None:
            continue
        ours, v = f"{row.record.representation} + {row.record.head}", row.versus
        points = f"{100 * v.accuracy_difference:+.1f} points [{100 * v.low:+.1f}, {100 * v.high:+.1f}]"
        other = f"{section.baseline.system} from scratch"
        sentences.append(f"{ours} against {other}: {v.verdict} ({points}, p = {v.p_value:.2g}).")
    return sentences + [_leak_sentence(row, section) for row in section.rows if row.leak]


def _leak_sentence(row: Row, section: Section) -> str:
    assert row.leak
    key = _system_key(row.record)
    honest = next(
        other.record for other in section.rows if not other.leak and _system_key(other.record) == key
    )
    what = " + ".join(word for word in (row.record.system, row.record.head) if word)
    points = [f"{100 * x:+.1f}" for x in (row.leak.accuracy_difference, row.leak.low, row.leak.high)]
    shown = "" if row.leak.low > 0 else ", no leak shown"
    learned = ""
    if honest.learned:  # older records do not tell
        learned = f", {row.record.learned:.0f} against {honest.learned:.0f} training tracks"
    return (
        f"LEAKY: {what} scores {points[0]} points [{points[1]}, {points[2]}] on the {row.record.split} split "
        f"over {honest.split}{learned}{shown}."
    )


def _text(section: Section) -> str:
    rows = [list(HEADINGS), *(_cells(row) for row in section.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *caption(section), *verdicts(section)])


def _markdown(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"

    rows = [line(HEADINGS), line(["---"] * len(HEADINGS)), *(line(_cells(row)) for row in section.rows)]
    return "\n".join(
        [*rows, "", *caption(section), "", *(f"- {sentence}" for sentence in verdicts(section))]
    ).rstrip()


def _latex(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(_escape_latex, cells)) + r" \\"

    return "\n".join(
        [
            *(f"% {sentence}" for sentence in caption(section)),
            rf"\begin{{tabular}}{{{'l' * 4}{'r' * (len(HEADINGS) - 4)}}}",
            r"\toprule",
            line(HEADINGS),
            r"\midrule",
            *(line(_cells(row)) for row in section.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def write_tables(data: str) -> Path:
    """`results/<data>/table.md` and `table.csv` from all records of the data set."""
    sections = compare_records(load_records(data))
    folder = results_dir() / data
    (folder / "table.csv").write_text(render(sections, "csv") + "\n", encoding="utf-8")
    (folder / "table.md").write_text(render(sections, "markdown") + "\n", encoding="utf-8")
    return folder / "table.md"


def save_curves(folder: Path, curves: pd.DataFrame) -> None:
    """`curves.csv` and `curves.png`: loss and accuracy by epoch, a thin line a fold, the chosen epoch marked.

    Columns: fold, epoch, train_loss, train_accuracy, val_loss, val_accuracy, seconds, best.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    curves.to_csv(folder / "curves.csv", index=False)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, quantity, unit in zip(axes, ("loss", "accuracy"), ("nats", "share of tracks"), strict=True):
        for side, colour in (("train", "#7f7f7f"), ("val", "#1f77b4")):
            for number, (_, fold) in enumerate(curves.groupby("fold")):
                label = {"train": "training", "val": "validation"}[side] if number == 0 else None
                axis.plot(
                    fold["epoch"] + 1, fold[f"{side}_{quantity}"], color=colour, alpha=0.7, lw=1, label=label
                )
        best = curves[curves["best"]]
        axis.plot(best["epoch"] + 1, best[f"val_{quantity}"], "o", color="#d62728", ms=5, label="epoch kept")
        axis.set(xlabel="epoch", ylabel=f"{quantity} ({unit})")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(folder / "curves.png", dpi=120)
    plt.close(figure)
