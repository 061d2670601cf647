"""Runs after the fact: listed, shown, removed, and reproduced from their records."""

import difflib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from mgc.config import BaselineRecipe, DataRecipe, MgcError, ProbeRecipe, did_you_mean, printable, results_dir
from mgc.data import find, name_of
from mgc.data.quarantine import quarantine_file
from mgc.evaluate import Predictions
from mgc.results import RunRecord, load_record, load_records
from mgc.tables import systems_of, write_tables

FORMATS = ("table", "json")
LEFTOVERS = ("predictions.parquet", "fold*.checkpoint", "fold*.result")  # of a run without a record
RERUNS = ".rerun"  # in the results folder; no data set's results begin with a dot
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


def runs(data: str | None = None) -> list[Run]:
    """Every run in the results, of one data set or of all: by data set, then oldest first.

    Raises:
        MgcError: nothing is kept of a data set of that name.
    """
    sets = sorted(f.name for f in results_dir().glob("*") if f.is_dir() and not f.name.startswith("."))
    if data is not None and data not in sets:
        name = name_of(DataRecipe(source=data)) if Path(data).exists() else data
        if name not in sets:
            raise MgcError(
                f"there are no runs on {data!r}", where=results_dir(), fix=did_you_mean(name, sets)
            )
        data = name
    return [run for name in sets if data in (None, name) for run in _runs_of(name)]


def _runs_of(data: str) -> list[Run]:
    found: list[Run] = []
    for folder in sorted(folder for folder in (results_dir() / data).iterdir() if folder.is_dir()):
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


def find_run(word: str) -> Run:
    """The run of an id, or in a folder.

    Raises:
        MgcError: no such run, or several of that id.
    """
    folder = Path(word.replace("\0", ""))  # in a config: no path has one, and pathlib would not say so
    if folder.name == "record.json":
        folder = folder.parent
    everything = runs()
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
        raise MgcError(f"there is no run {word!r}", where=results_dir(), fix=fix)
    return fitting[0]


def as_dict(run: Run) -> dict[str, Any]:
    """A run as plain values, the keys of `--format json`."""
    record = run.record
    return {
        "run_id": run.folder.name,
        "data": run.folder.parent.name,
        "system": " + ".join(filter(None, (record.called, record.head))) if record else "",
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


def render(listed: Sequence[Run], form: str) -> str:
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
    return "\n".join([*lines, f"{len(rows)} runs in {printable(str(results_dir()))}"])


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
    scores = record.judged
    lines = [
        *head,
        f"  {record.path}: {' + '.join(filter(None, (record.called, record.head)))}, {record.representation}",
        *([f"  hypothesis: {record.hypothesis}"] if record.hypothesis else []),
        f"data: {record.data}, {scores.n_tracks} tracks tested, {len(record.excluded)} left out, "
        f"licence {record.licence or 'unknown'}, fingerprint {record.data_fingerprint}",
        f"  from {record.recipe['data']['source']}",
        *(f"  {note}" for note in record.notes),
        f"split: {record.split}: {record.split_authority}, fingerprint {record.split_fingerprint}",
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


def settings_of(record: RunRecord) -> dict[str, Any]:
    """Dotted keys of its recipe whose values are not today's defaults; for a network, its own ones."""
    default: BaselineRecipe | ProbeRecipe = ProbeRecipe()
    if record.path == "baseline":
        from mgc.experiment import resolved
        from mgc.models import NETWORKS

        network = record.recipe["network"]
        default = resolved(BaselineRecipe(network=network)) if network in NETWORKS else BaselineRecipe()
        default = default.model_copy(update={"network": BaselineRecipe().network})
    usual = _flat(default.model_dump(mode="json"))
    return {
        key: value for key, value in _flat(record.recipe).items() if key not in usual or usual[key] != value
    }


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted keys and values; a table within a table has none of its own."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def command_of(record: RunRecord) -> str:
    """What makes this run again where its results lie, as it is typed; but for its hypothesis."""
    settings = {key: v for key, v in settings_of(record).items() if key not in ("hypothesis", "reported")}
    if record.path == "floor":
        settings["model"] = "logmel"  # any run on these tracks makes the floors too
    source = settings.pop("data.source", None) or record.recipe["data"]["source"]
    words = ["mgc", "baseline" if record.path == "baseline" else "probe", "--data", source]
    for key, value in settings.items():
        words += [] if value is None else ["--set", f"{key}={_toml(value)}"]
    return shlex.join(words)


def _toml(value: Any) -> str:
    """As `--set` reads it: a plain word is a string."""
    plain = isinstance(value, str) and re.fullmatch(r"(?!true$|false$|inf$|nan$)[A-Za-z][\w/.:-]*", value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def remove(words: Sequence[str], apply: bool) -> list[str]:
    """What removing these runs takes away, in lines; gone, and the tables written anew, only with `apply`.

    Raises:
        MgcError: no such run, or one whose folder is a link that leads out of the results.
    """
    chosen = {run.folder: run for run in map(find_run, words)}
    lines = []
    for folder, run in chosen.items():
        if not folder.resolve().is_relative_to(results_dir().resolve()) or folder.is_symlink():
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
        if not load_records(name):
            for table in ("table.md", "table.csv"):
                (results_dir() / name / table).unlink(missing_ok=True)
        write_tables(name)
    return [*lines, f"{len(lines)} runs removed, the tables are written anew"]


# ---- made again


@dataclass(frozen=True)
class Rerun:
    """Whether a run came out as it did then, and what was found on the way, in lines."""

    same: bool
    lines: list[str]


def rerun(run: Run, changes: Mapping[str, str | None], tolerance: float = 0.0) -> Rerun:
    """Make a run again from its record, beside the results, and set it against what it was.

    `changes` are where things lie now, by dotted key: data.source, data.root, model, device. The same is what
    predicts every track with the same probabilities, or with others by at most `tolerance`. An interrupted
    call is gone on with by the next; what came out otherwise is left for a look, until the next.

    Raises:
        MgcError: no record or predictions, a recipe that today's mgc does not know, or what `baseline` and
            `probe` raise.
    """
    record = run.record
    if record is None:
        raise MgcError(f"a run that is {run.state} cannot be made again: {run.why}", where=run.folder)
    before = record.predictions()
    recipe, told = recipe_of(record, changes)
    try:
        find(recipe.data)
    except MgcError as error:
        fix = f"say where they lie now: --data, --data-root{f'; {error.fix}' if error.fix else ''}"
        raise MgcError(f"the tracks of this run: {error.what}", where=error.where, fix=fix) from None
    place = results_dir() / RERUNS / record.run_id
    if any(place.glob(f"*/{record.run_id.rpartition('-')[0]}-*/record.json")):
        shutil.rmtree(place)  # an earlier call came out otherwise; one that was interrupted has no record
    _bring_quarantine(recipe.data, place)
    with _results_in(place):
        again = _made_again(record, recipe)
        after = again.predictions()
    same, found = _against(before, after, tolerance)
    then, now = (float(np.mean(p.predicted == p.labels)) for p in (before, after))
    found += f"; accuracy {then:.4f} then, {now:.4f} now" + (
        f" ({100 * (now - then):+.2f} points)" if now != then else ""
    )
    parts, reasons = _circumstances(record, again)
    lines = [f"{record.run_id}, made {record.created[:16].replace('T', ' ')}", *told, *parts]
    lines.append(f"predictions: {found}")
    if same:
        shutil.rmtree(place)
        return Rerun(True, [*lines, "the same"])
    why = (
        "; ".join(reasons) or "nothing that is recorded differs: a device that adds up in no fixed order, say"
    )
    left = f"what came out: {place / again.data / again.run_id}"
    return Rerun(False, [*lines, f"DIFFERENT. Possible reasons: {why}", left])


def recipe_of(
    record: RunRecord, changes: Mapping[str, str | None]
) -> tuple[BaselineRecipe | ProbeRecipe, list[str]]:
    """The recipe in a record, with `changes` by dotted key; and what an older mgc did not record, in lines.

    Raises:
        MgcError: keys or values that today's mgc does not know.
    """
    kinds: dict[str, type[BaselineRecipe | ProbeRecipe]] = {
        "baseline": BaselineRecipe, "probe": ProbeRecipe, "floor": ProbeRecipe,
    }  # fmt: skip
    if record.path not in kinds:
        raise MgcError(f"mgc rerun knows no runs of the kind {record.path!r}", where=record.folder)
    kind, tree = kinds[record.path], json.loads(json.dumps(record.recipe))
    today, then = set(_flat(kind().model_dump(mode="json"))), set(_flat(tree))
    where, fix = record.folder / "record.json", f"check out the code that made it: commit {record.commit}"
    if unknown := sorted(then - today):
        raise MgcError(f"today's recipes have no {', '.join(unknown)}", where=where, fix=fix)
    for key, value in changes.items():
        if value is not None:
            table, _, leaf = key.rpartition(".")
            (tree[table] if table else tree)[leaf] = value
    try:
        recipe = kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise MgcError(f"{key} = {first['input']!r}: {first['msg']}", where=where, fix=fix) from None
    missing = sorted(today - then)
    told = [f"the record does not say {', '.join(missing)}: today's defaults stand for it"] if missing else []
    return recipe, told


def _made_again(record: RunRecord, recipe: BaselineRecipe | ProbeRecipe) -> RunRecord:
    from mgc.study import run as run_recipe

    if record.path != "floor":
        return run_recipe(recipe)
    made = run_recipe(recipe.model_copy(update={"model": "logmel"}))  # floors are made beside any run
    floors = (one for one in load_records(made.data) if (one.path, one.system) == ("floor", record.system))
    again = next(floors, None)
    if again is None:
        raise MgcError(f"today's mgc makes no floor called {record.system!r}", where=record.folder)
    return again


def _bring_quarantine(recipe: DataRecipe, place: Path) -> None:
    """What a check has left out is left out of the rerun as well: the file lies with the results."""
    name = name_of(recipe)
    (place / name).mkdir(parents=True, exist_ok=True)
    file = quarantine_file(name)
    if file.exists():
        shutil.copy(file, place / name / file.name)


@contextmanager
def _results_in(place: Path) -> Iterator[None]:
    """`results_dir()` is `place` for a while, in this process and those that it starts."""
    before = os.environ.get("MGC_RESULTS")
    os.environ["MGC_RESULTS"] = str(place)
    try:
        yield
    finally:
        os.environ.pop("MGC_RESULTS")
        if before is not None:
            os.environ["MGC_RESULTS"] = before


def _against(before: Predictions, after: Predictions, tolerance: float) -> tuple[bool, str]:
    """Whether both are the same, and how far they are apart in words."""
    if before == after:
        return True, f"the same to the bit, {len(before)} tracks"
    if before.classes != after.classes:
        return (
            False,
            f"other genres: {', '.join(sorted({*before.classes} ^ {*after.classes})) or 'another order'}",
        )
    place = {track_id: number for number, track_id in enumerate(after.track_ids)}
    then = [number for number, track_id in enumerate(before.track_ids) if track_id in place]
    now = [place[before.track_ids[number]] for number in then]
    otherwise = int((before.predicted[then] != after.predicted[now]).sum())
    change = float(np.abs(before.probabilities[then] - after.probabilities[now]).max(initial=0.0))
    found = f"{otherwise} of {len(then)} tracks predicted otherwise, a probability by at most {change:.2g}"
    if before.track_ids != after.track_ids:
        found = f"{len(before)} tracks then, {len(after)} now; of those in both {found}"
    others = before.groups == after.groups and np.array_equal(before.labels, after.labels)
    same = others and np.array_equal(before.fold, after.fold) and before.track_ids == after.track_ids
    return same and change <= tolerance, found


def _circumstances(was: RunRecord, now: RunRecord) -> tuple[list[str], list[str]]:
    """What both runs are made of, a line each; and all of it that differs, in words."""
    pairs = {
        "tracks": (was.data_fingerprint, now.data_fingerprint),
        "split": (was.split_fingerprint, now.split_fingerprint),
        "representation": tuple(str(r.representation_card.get("fingerprint")) for r in (was, now)),
        "code that learns": (was.code, now.code),
    }
    lines = [
        f"{what}: the same" if then == today else f"{what}: OTHER, {then} then, {today} now"
        for what, (then, today) in pairs.items()
    ]
    reasons = [f"other {what}" for what, (then, today) in pairs.items() if then != today]
    around = {**was.versions, "commit": was.commit, "device": was.device}
    today = {**now.versions, "commit": now.commit, "device": now.device}
    others = [
        f"{name} {around.get(name)} then, {today.get(name)} now"
        for name in dict.fromkeys([*around, *today])
        if around.get(name) != today.get(name)
    ]
    lines.append("versions, commit, device: " + ("; ".join(others) or "the same"))
    return lines, [*reasons, *others]
