"""List, find, describe and remove the runs in the results folder."""

import difflib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mgc.config import DataRecipe
from mgc.data import name_of
from mgc.runs.commands import changed_settings, command_line
from mgc.runs.record import RERUN, RunRecord, load_record, load_records
from mgc.runs.tables import systems_of, write_tables
from mgc.util.errors import MgcError, counted, did_you_mean, printable
from mgc.util.text import render_template, text_table
from mgc.workspace import Workspace

FORMATS = ("table", "json")
UNFINISHED_FILES = ("predictions.parquet", "fold*.checkpoint")  # written before the record
State = Literal["current", "superseded", "unfinished", "damaged"]


@dataclass(frozen=True)
class Run:
    """The folder of a run. `record` is None if the state is unfinished or damaged; `reason` says more.

    current: shown in the tables. superseded: the same recipe was run later, with other code.
    """

    folder: Path
    record: RunRecord | None
    state: State
    reason: str = ""

    @property
    def status(self) -> str:
        """State and reason."""
        return ": ".join(filter(None, (self.state, self.reason)))

    def require_record(self) -> RunRecord:
        """Its record; raises MgcError if the run is unfinished or damaged."""
        if self.record is None:
            what = f"the run {self.folder.name!r} is {self.status}"
            fix = RERUN if self.state == "damaged" else "run its command again"
            raise MgcError(what, where=self.folder, fix=fix)
        return self.record


def list_runs(workspace: Workspace, data: str | None = None, weights: bool = False) -> list[Run]:
    """Every run, by dataset, oldest first, loaded by `load_record`; MgcError if `data` has no results."""
    names = sorted(f.name for f in workspace.results.glob("*") if f.is_dir() and not f.name.startswith("."))
    if data is not None and data not in names:
        name = name_of(DataRecipe(source=data)) if Path(data).exists() else data
        if name not in names:
            raise MgcError(f"no runs on {data!r}", where=workspace.results, fix=did_you_mean(name, names))
        data = name
    chosen = [workspace.results_of(name) for name in names if data in (None, name)]
    return [run for results in chosen for run in _runs_in(results, weights)]


def _runs_in(results: Path, weights: bool) -> list[Run]:
    found: list[Run] = []
    for folder in sorted(filter(Path.is_dir, results.iterdir())):
        if (folder / "record.json").exists():
            try:
                record = load_record(folder / "record.json", weights)
                reason = "" if record.sha256 else "no checksums, written by an earlier version of mgc"
                found.append(Run(folder, record, "superseded", reason))
            except MgcError as error:
                found.append(Run(folder, None, "damaged", error.what))
        elif any(file for pattern in UNFINISHED_FILES for file in folder.glob(pattern)):
            reason = "repeat its command to resume, unless it is running"
            found.append(Run(folder, None, "unfinished", reason))
    systems = systems_of([run.record for run in found if run.record])
    current = {record.run_id for system in systems for record in system.records}
    found = [
        replace(run, state="current") if run.record and run.record.run_id in current else run for run in found
    ]
    return sorted(found, key=lambda run: run.record.created if run.record else "~")


def find_run(word: str, workspace: Workspace) -> Run:
    """The run with an id, or in a folder; raises MgcError if there is none, or several with that id."""
    folder = Path(word.replace("\0", ""))  # pathlib raises ValueError for a null byte
    if folder.name == "record.json":
        folder = folder.parent
    runs = list_runs(workspace)
    matching = [run for run in runs if run.folder.name == word or run.folder.resolve() == folder.resolve()]
    if len(matching) > 1:
        places = ", ".join(str(run.folder) for run in matching)
        what = f"{len(matching)} runs have the id {word!r}"
        raise MgcError(what, where=places, fix="give the folder of one")
    if not matching:
        near = difflib.get_close_matches(folder.name, [run.folder.name for run in runs], n=3, cutoff=0.5)
        fix = f"{did_you_mean(folder.name, near)}; " * bool(near) + "mgc runs ls lists all runs"
        raise MgcError(f"no run {word!r}", where=workspace.results, fix=fix)
    return matching[0]


def _as_dict(run: Run) -> dict[str, Any]:
    """A run as plain values, the keys of `--format json`."""
    record = run.record
    return {
        "run_id": run.folder.name,
        "data": run.folder.parent.name,
        "system": record.title if record else "",
        "split": record.split if record else "",
        "accuracy": record.scores.get("accuracy") if record else None,
        "created": record.created if record else "",
        "commit": record.commit if record else None,
        "predictions": (run.folder / "predictions.parquet").exists(),
        "weights": any(run.folder.glob("*.safetensors")),
        "state": run.state,
        "reason": run.reason,
        "folder": str(run.folder),
    }


def format_runs(runs: Sequence[Run], form: str, workspace: Workspace) -> str:
    """The runs as text in one of FORMATS."""
    if form not in FORMATS:
        raise MgcError(f"unknown format {form!r}", where="--format", fix=did_you_mean(form, FORMATS))
    rows = [_as_dict(run) for run in runs]
    if form == "json":
        return json.dumps(rows, indent=2)
    header = ["run", "data", "system", "split", "accuracy", "created", "commit", "files", "state"]
    cells = [
        [
            *(row[key] for key in ("run_id", "data", "system", "split")),
            "" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
            row["created"][:16].replace("T", " "),
            row["commit"] or "",
            " ".join(what for what in ("predictions", "weights") if row[what]),
            run.status,
        ]
        for row, run in zip(rows, runs, strict=True)
    ]
    return f"{text_table(header, cells)}\n{counted(len(rows), 'run')} in {printable(str(workspace.results))}"


def describe_run(run: Run) -> str:
    """Everything that the record and the folder of a run contain, for a reader.

    Raises:
        MgcError: its scores are of another version of mgc, and cannot be computed again.
    """
    values: dict[str, Any] = {"files": sorted(file for file in run.folder.rglob("*") if file.is_file())}
    if run.record:
        values |= {"settings": changed_settings(run.record), "command": command_line(run.record)}
        values["scores"] = run.record.evaluation
    return render_template("mgc.runs", "run.txt", printable, run=run, record=run.record, **values)


def remove_runs(words: Sequence[str], apply: bool, workspace: Workspace) -> list[str]:
    """What removing these runs deletes, in lines. With `apply` it is deleted, and the tables are updated.

    Raises:
        MgcError: no such run, or the folder of a run is a link to a place outside the results.
    """
    chosen = {run.folder: run for run in (find_run(word, workspace) for word in words)}
    lines = []
    for folder, run in chosen.items():
        if not folder.resolve().is_relative_to(workspace.results.resolve()) or folder.is_symlink():
            what = "the folder of this run is a link to another place"
            raise MgcError(what, where=folder, fix="remove the link")
        files = [file for file in folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        lines.append(f"{size:9.2f} MB  {folder}: {counted(len(files), 'file')}, {run.state}")
    if not apply:
        what = f"{counted(len(lines), 'run')} can be removed; nothing was removed"
        return [*lines, f"{what}: repeat with --apply"]
    for folder in chosen:
        # The record goes first: a folder that is only partly removed must not pass for a run.
        (folder / "record.json").unlink(missing_ok=True)
        shutil.rmtree(folder)
    for name in sorted({folder.parent.name for folder in chosen}):
        for table in () if load_records(name, workspace) else ("table.md", "table.csv"):
            (workspace.results_of(name) / table).unlink(missing_ok=True)
        write_tables(name, workspace)
    return [*lines, f"{counted(len(lines), 'run')} removed; the tables were updated"]
