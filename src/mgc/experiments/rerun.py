"""A run made again from its record, beside the results, and set against what it was."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mgc.config import BaselineRecipe, ProbeRecipe
from mgc.data import scan
from mgc.evaluate import Predictions
from mgc.runs.commands import recipe_of
from mgc.runs.listing import Run
from mgc.runs.record import RunRecord, load_records
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

RERUNS = ".rerun"  # in the results folder; no data set's results begin with a dot


@dataclass(frozen=True)
class Rerun:
    """Whether a run came out as it did then, and what was found on the way, in lines."""

    same: bool
    lines: list[str]


def rerun(run: Run, workspace: Workspace, changes: Mapping[str, str | None], tolerance: float = 0.0) -> Rerun:
    """Make a run again from its record, beside the results, and set it against what it was.

    `changes` are where things lie now, by dotted key: data.source, model, device. The same is what
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
        scan(recipe.data, workspace)
    except MgcError as error:
        fix = f"say where they lie now: --data, --data-root{f'; {error.fix}' if error.fix else ''}"
        raise MgcError(f"the tracks of this run: {error.what}", where=error.where, fix=fix) from None
    place = workspace.results / RERUNS / record.run_id
    if any(place.glob(f"*/{record.run_id.rpartition('-')[0]}-*/record.json")):
        shutil.rmtree(place)  # an earlier call came out otherwise; one that was interrupted has no record
    again = _made_again(record, recipe, replace(workspace, results=place))
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


def _made_again(record: RunRecord, recipe: BaselineRecipe | ProbeRecipe, workspace: Workspace) -> RunRecord:
    from mgc.experiments.study import run as run_recipe

    if record.kind != "floor":
        return run_recipe(recipe, workspace)
    made = run_recipe(
        recipe.model_copy(update={"model": "logmel"}), workspace
    )  # floors are made beside any run
    floors = (
        one
        for one in load_records(made.data, workspace)
        if (one.kind, one.system) == ("floor", record.system)
    )
    again = next(floors, None)
    if again is None:
        raise MgcError(f"today's mgc makes no floor called {record.system!r}", where=record.folder)
    return again


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
        "tracks": (was.data_hash, now.data_hash),
        "split": (was.split_hash, now.split_hash),
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
