"""`rerun`: reproduce a run from its record, beside the results, and compare the predictions."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mgc.config import BaselineRecipe, ProbeRecipe
from mgc.data import scan
from mgc.evaluate import Predictions
from mgc.experiments.study import run_recipe
from mgc.runs.commands import recipe_from_record
from mgc.runs.listing import Run
from mgc.runs.record import RunRecord, load_records
from mgc.util import files
from mgc.util.errors import MgcError, counted
from mgc.workspace import Workspace

RERUNS = ".rerun"  # in the results folder; names of datasets never begin with a dot


def rerun(
    run: Run, workspace: Workspace, changes: Mapping[str, str | None], tolerance: float = 0.0
) -> tuple[bool, list[str]]:
    """Reproduce a run from its record and compare the predictions of every track: the same? and a report.

    `changes` are new places by dotted key: data.source, model, device. Probabilities that differ by at most
    `tolerance` count as the same. An interrupted call is resumed by the next one. The new run is kept in the
    results folder under `.rerun/` if it came out differently, or if this call did not create its folder.

    Raises:
        MgcError: no record or predictions, a recipe that this version of mgc does not know, or as `baseline`
            and `probe`.
    """
    record = run.require_record()
    before = record.predictions()
    recipe, notes = recipe_from_record(record, changes)
    try:
        scan(recipe.data, workspace)
    except MgcError as error:
        fix = f"give their present place by --data or --data-root{f'; {error.fix}' if error.fix else ''}"
        raise MgcError(f"the tracks of this run: {error.what}", where=error.where, fix=fix) from None
    with files.lock(workspace.results / RERUNS / record.run_id):
        place, created = _place(record, workspace)
        new = _reproduce(record, recipe, replace(workspace, results=place))
    after = new.predictions()
    same, comparison = _compare_predictions(before, after, tolerance)
    then, now = (float(np.mean(p.predicted == p.labels)) for p in (before, after))
    points = f" ({100 * (now - then):+.2f} points)" if now != then else ""
    conditions, reasons = _compare_conditions(record, new)
    lines = [f"{record.run_id}, created {record.created[:16].replace('T', ' ')}", *notes, *conditions]
    lines.append(f"predictions: {comparison}; accuracy {then:.4f} then, {now:.4f} now{points}")
    if same and created:
        shutil.rmtree(place)
    unknown = "no recorded condition differs; the device may add floating-point numbers in a varying order"
    lines.append("SAME" if same else f"DIFFERENT. Possible reasons: {'; '.join(reasons) or unknown}")
    return same, lines if same and created else [*lines, f"new run: {new.folder}"]


def _place(record: RunRecord, workspace: Workspace) -> tuple[Path, bool]:
    """A folder for the results of a rerun, and whether it is new; otherwise an interrupted call left it."""
    runs, number = f"*/{record.run_id.rpartition('-')[0]}-*/record.json", 0
    while True:
        number += 1
        place = workspace.results / RERUNS / f"{record.run_id}.{number}"
        new = not os.path.lexists(place)
        if new or (place.is_dir() and not place.is_symlink() and not any(place.glob(runs))):
            return place, new


def _reproduce(record: RunRecord, recipe: BaselineRecipe | ProbeRecipe, workspace: Workspace) -> RunRecord:
    if record.kind != "floor":
        return run_recipe(recipe, workspace)
    # Every run adds the floors.
    new = run_recipe(recipe.model_copy(update={"model": "logmel"}), workspace)
    for other in load_records(new.data, workspace):
        if (other.kind, other.system) == ("floor", record.system):
            return other
    raise MgcError(f"this version of mgc has no floor {record.system!r}", where=record.folder)


def _compare_predictions(before: Predictions, after: Predictions, tolerance: float) -> tuple[bool, str]:
    """Whether both are the same, and their differences in words."""
    if before == after:
        return True, f"bit-identical, {counted(len(before), 'track')}"
    if before.classes != after.classes:
        changed = ", ".join(sorted({*before.classes} ^ {*after.classes})) or "their order"
        return False, f"the genres differ: {changed}"
    _, then, now = np.intersect1d(before.track_ids, after.track_ids, return_indices=True)
    count = int((before.predicted[then] != after.predicted[now]).sum())
    change = float(np.abs(before.probabilities[then] - after.probabilities[now]).max(initial=0.0))
    words = f"{count} of {counted(len(then), 'track')} predicted differently"
    words += f", probabilities differ by at most {change:.2g}"
    if before.track_ids != after.track_ids:
        words = f"{counted(len(before), 'track')} then, {len(after)} now; of the tracks in both, {words}"
    same = (before.track_ids, before.groups) == (after.track_ids, after.groups) and change <= tolerance
    same = same and np.array_equal(before.labels, after.labels) and np.array_equal(before.fold, after.fold)
    return same, words


def _compare_conditions(old: RunRecord, new: RunRecord) -> tuple[list[str], list[str]]:
    """What both runs were computed from, one line each; and everything that differs, in words."""
    pairs = {
        "tracks": (old.data_hash, new.data_hash),
        "split": (old.split_hash, new.split_hash),
        "representation": tuple(str(r.representation_card.get("key")) for r in (old, new)),
        "revisions": (old.revisions_text, new.revisions_text),
    }
    lines = [
        f"{what}: same" if then == now else f"{what}: DIFFERENT, {then} then, {now} now"
        for what, (then, now) in pairs.items()
    ]
    reasons = [f"different {what}" for what, (then, now) in pairs.items() if then != now]
    before, after = ({**r.versions, "commit": r.commit, "device": r.device} for r in (old, new))
    others = [
        f"{name} {before.get(name)} then, {after.get(name)} now"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]
    lines.append("versions, commit, device: " + ("; ".join(others) or "same"))
    return lines, [*reasons, *others]
