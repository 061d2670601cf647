"""The runs in the results: listed, found, shown, removed."""

import difflib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mgc.config import DataRecipe
from mgc.data import name_of
from mgc.runs.commands import command_of, settings_of
from mgc.runs.record import RunRecord, load_record, load_records
from mgc.runs.tables import systems_of, write_tables
from mgc.util.errors import MgcError, did_you_mean, printable
from mgc.workspace import Workspace

FORMATS = ("table", "json")
LEFTOVERS = ("predictions.parquet", "fold*.checkpoint", "fold*.result")  # of a run without a record
State = Literal["current", "superseded", "unfinished", "damaged"]


@dataclass(frozen=True)
class Run:
    """A folder of a run. `record` is None where the state is unfinished or damaged; `why` says more.

    current: in the tables. superseded: the same recipe was run later, by other code.
    """

    folder: Path
    record: RunRecord | None
    state: State
    why: str = ""

    @property
    def has_predictions(self) -> bool:
        """Whether what it said of each track is there."""
        return (self.folder / "predictions.parquet").exists()

    @property
    def has_weights(self) -> bool:
        """Whether what it learned is there."""
        return any(self.folder.glob("*.safetensors"))


def runs(workspace: Workspace, data: str | None = None) -> list[Run]:
    """Every run in the results, of one data set or of all: by data set, then oldest first.

    Raises:
        MgcError: nothing is kept of a data set of that name.
    """
    sets = sorted(f.name for f in workspace.results.glob("*") if f.is_dir() and not f.name.startswith("."))
    if data is not None and data not in sets:
        name = name_of(DataRecipe(source=data)) if Path(data).exists() else data
        if name not in sets:
            raise MgcError(
                f"there are no runs on {data!r}", where=workspace.results, fix=did_you_mean(name, sets)
            )
        data = name
    return [run for name in sets if data in (None, name) for run in _runs_of(workspace.results_of(name))]


def _runs_of(results: Path) -> list[Run]:
    found: list[Run] = []
    for folder in sorted(folder for folder in results.iterdir() if folder.is_dir()):
        if (folder / "record.json").exists():
            try:
                found.append(Run(folder, load_record(folder / "record.json"), "current"))
            except MgcError as error:
                found.append(Run(folder, None, "damaged", error.what))
        elif any(file for pattern in LEFTOVERS for file in folder.glob(pattern)):
            found.append(Run(folder, None, "unfinished", "its command goes on with it, or is at it now"))
    records = [run.record for run in found if run.record]
    newest = {record.run_id for system in systems_of(records) for record in system.records}
    told = [
        run
        if run.record is None or run.record.run_id in newest
        else Run(run.folder, run.record, "superseded")
        for run in found
    ]
    return sorted(told, key=lambda run: run.record.created if run.record else "~")


def find_run(word: str, workspace: Workspace) -> Run:
    """The run of an id, or in a folder.

    Raises:
        MgcError: no such run, or several of that id.
    """
    folder = Path(word.replace("\0", ""))  # in a config: no path has one, and pathlib would not say so
    if folder.name == "record.json":
        folder = folder.parent
    everything = runs(workspace)
    fitting = [
        run for run in everything if run.folder.name == word or run.folder.resolve() == folder.resolve()
    ]
    if len(fitting) > 1:
        places = ", ".join(str(run.folder) for run in fitting)
        raise MgcError(f"{len(fitting)} runs are called {word!r}", where=places, fix="name the folder of one")
    if not fitting:
        ids = [run.folder.name for run in everything]
        near = difflib.get_close_matches(folder.name, ids, n=3, cutoff=0.5)
        fix = f"{did_you_mean(folder.name, near)}; " * bool(near) + "mgc runs ls shows all"
        raise MgcError(f"there is no run {word!r}", where=workspace.results, fix=fix)
    return fitting[0]


def as_dict(run: Run) -> dict[str, Any]:
    """A run as plain values, the keys of `--format json`."""
    record = run.record
    return {
        "run_id": run.folder.name,
        "data": run.folder.parent.name,
        "system": " + ".join(filter(None, (record.display_name, record.head))) if record else "",
        "split": record.split if record else "",
        "accuracy": record.scores.get("accuracy") if record else None,
        "created": record.created if record else "",
        "commit": record.commit if record else None,
        "predictions": run.has_predictions,
        "weights": run.has_weights,
        "state": run.state,
        "why": run.why,
        "folder": str(run.folder),
    }


def render(listed: Sequence[Run], form: str, workspace: Workspace) -> str:
    """The list in one of FORMATS.

    Raises:
        MgcError: no such format.
    """
    if form not in FORMATS:
        raise MgcError(f"there is no format {form!r}", fix=did_you_mean(form, FORMATS))
    rows = [as_dict(run) for run in listed]
    if form == "json":
        return json.dumps(rows, indent=2)
    table = [["run", "data", "system", "split", "accuracy", "created", "commit", "kept", "state"]]
    for row in rows:
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.3f}"
        kept = " ".join(what for what in ("predictions", "weights") if row[what])
        created = row["created"][:16].replace("T", " ")
        state = ": ".join(filter(None, (row["state"], row["why"])))
        cells = (row["run_id"], row["data"], row["system"], row["split"], accuracy, created)
        table.append([printable(str(cell)) for cell in (*cells, row["commit"] or "", kept, state)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, f"{len(rows)} runs in {printable(str(workspace.results))}"])


def show(run: Run) -> str:
    """All that a person wants to know of a run, in lines.

    Raises:
        MgcError: its scores are of another version of mgc.
    """
    record = run.record
    head = [f"{run.folder.name}: {': '.join(filter(None, (run.state, run.why)))}"]
    files = [
        f"  {file.name}, {file.stat().st_size / 1000:.1f} kB" for file in sorted(run.folder.rglob("*"))
        if file.is_file()
    ]  # fmt: skip
    if record is None:
        return "\n".join(printable(line) for line in [*head, f"files in {run.folder}", *files])
    scores = record.evaluation
    lines = [
        *head,
        f"  {record.kind}: {' + '.join(filter(None, (record.display_name, record.head)))}, {record.representation}",
        *([f"  hypothesis: {record.hypothesis}"] if record.hypothesis else []),
        f"data: {record.data}, {scores.n_tracks} tracks tested, {len(record.excluded)} left out, "
        f"licence {record.licence or 'unknown'}, hash {record.data_hash}",
        f"  from {record.recipe['data']['source']}",
        *(f"  {note}" for note in record.notes),
        f"split: {record.split}: {record.split_authority}, hash {record.split_hash}",
        "recipe, other than today's defaults:",
        *(f"  {key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings_of(record).items()),
        *scores.lines(),
        *(["chosen on validation:"] if record.chosen else []),
        *(f"  {_chosen(choice)}" for choice in record.chosen),
        f"trained parameters: {record.parameters:,}",
        "seconds: " + (", ".join(f"{key} {value:.1f}" for key, value in record.seconds.items()) or "none"),
        f"made {record.created} on {record.device}, commit {record.commit or 'unknown'}, code {record.code}",
        "  " + ", ".join(f"{name} {number}" for name, number in record.versions.items()),
        f"files in {run.folder}",
        *files,
        "the command that makes it:",
        f"  {command_of(record)}",
        f"  mgc rerun {record.run_id}   # makes it elsewhere, and compares",
    ]
    return "\n".join(map(printable, lines))


def _chosen(choice: Mapping[str, Any]) -> str:
    simple = {key: value for key, value in choice.items() if not isinstance(value, dict | list)}
    return ", ".join(f"{key} {value}" for key, value in simple.items())


def remove(words: Sequence[str], apply: bool, workspace: Workspace) -> list[str]:
    """What removing these runs takes away, in lines; gone, and the tables written anew, only with `apply`.

    Raises:
        MgcError: no such run, or one whose folder is a link that leads out of the results.
    """
    chosen = {run.folder: run for run in (find_run(word, workspace) for word in words)}
    lines = []
    for folder, run in chosen.items():
        if not folder.resolve().is_relative_to(workspace.results.resolve()) or folder.is_symlink():
            raise MgcError(
                "this run's folder is a link to another place", where=folder, fix="take out the link"
            )
        files = [file for file in folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        lines.append(f"{size:9.2f} MB  {folder}: {len(files)} files, {run.state}")
    if not apply:
        return [*lines, f"{len(lines)} runs can go; nothing was removed: repeat with --apply"]
    for folder in chosen:
        (folder / "record.json").unlink(missing_ok=True)  # first: half a run must not look like a whole one
        shutil.rmtree(folder)
    for name in sorted({folder.parent.name for folder in chosen}):
        if not load_records(name, workspace):
            for table in ("table.md", "table.csv"):
                (workspace.results_of(name) / table).unlink(missing_ok=True)
        write_tables(name, workspace)
    return [*lines, f"{len(lines)} runs removed, the tables are written anew"]
