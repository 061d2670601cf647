"""`study`: many systems on one dataset, listed in one file. `demo`: two on a dataset rendered here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgc.config import BaselineRecipe, DataRecipe, Device, ProbeRecipe, StudyRecipe, read_recipe, read_toml
from mgc.data import scan
from mgc.experiments.systems import baseline, probe
from mgc.probing.heads import find_head
from mgc.runs.record import RunRecord, load_records
from mgc.runs.tables import compare_records, render
from mgc.training.networks import resolved
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.workspace import Workspace

DEMO = "demo"
DEMO_ENCODER = "musicnn"  # its weights come from PyPI, so no other server is needed


@dataclass(frozen=True)
class PlannedRun:
    """One system of a study, its config read and checked."""

    title: str
    recipe: BaselineRecipe | ProbeRecipe
    seeds: tuple[int, ...]


def study(recipe: StudyRecipe, file: Path, workspace: Workspace) -> list[RunRecord]:
    """Run every system of the study for every seed, in the order of the file.

    All configs are checked before anything is computed. A system that cannot run, because its weights are
    missing for example, is skipped with a message, and listed again at the end.

    Raises:
        MgcError: an invalid config, no such data, or no system that can run.
    """
    planned = plan_runs(recipe, file)
    scan(planned[0].recipe.data, workspace)  # fails here, rather than once for every system
    jobs = [(one, seed) for one in planned for seed in one.seeds]
    records: list[RunRecord] = []
    skipped: list[tuple[str, MgcError]] = []
    for number, (one, seed) in enumerate(jobs, start=1):
        title = f"{one.title}, seed {seed}"
        say(f"study: {number} of {len(jobs)}: {title}")
        try:
            records.append(run_recipe(one.recipe.model_copy(update={"seed": seed}), workspace))
        except MgcError as error:
            skipped.append((title, error))
            say(f"skipped: {title}: {error}")
    if not records:
        raise skipped[0][1]
    if skipped:
        say(f"study: {len(skipped)} of {len(jobs)} systems could not run and are not in the table:")
    for title, reason in skipped:
        say(f"  {title}: {reason.what}")
    return records


def run_recipe(recipe: BaselineRecipe | ProbeRecipe, workspace: Workspace) -> RunRecord:
    """Run `baseline` or `probe`, whichever the recipe is for."""
    if isinstance(recipe, BaselineRecipe):
        return baseline(recipe, workspace)
    [record] = probe(recipe, workspace)
    return record


def plan_runs(recipe: StudyRecipe, file: Path) -> list[PlannedRun]:
    """The systems of a study, checked; paths of configs are relative to its `file`."""
    if not recipe.runs:
        fix = 'add [[runs]] with config = "../baseline/cnn.toml"'
        raise MgcError("the study has no runs", where=file, fix=fix)
    data = recipe.data.model_dump(exclude_unset=True)
    options = {f"data.{key}": value for key, value in data.items()} | {"device": recipe.device}
    planned = []
    for one in recipe.runs:
        config = file.parent / one.config
        own = {setting.partition("=")[0].strip() for setting in one.settings}
        others: dict[str, Any] = {key: value for key, value in options.items() if key not in own}
        seeds = one.seeds or recipe.seeds if recipe.seed is None else (recipe.seed,)
        read: BaselineRecipe | ProbeRecipe
        if "network" in read_toml(config):
            read = read_recipe(BaselineRecipe, config, one.settings, others)
            resolved(read)
        else:
            others["trust_remote_code"] = recipe.trust_remote_code
            read = read_recipe(ProbeRecipe, config, one.settings, others)
            find_head(read.head)
            if read.model is None:
                fix = 'settings = ["model=musicnn"]'
                raise MgcError("a probe in a study needs a model", where=config, fix=fix)
        planned.append(PlannedRun(" ".join([config.stem, *one.settings]), read, seeds))
    return planned


def demo(
    workspace: Workspace, *, device: Device = "auto", overwrite: bool = False
) -> tuple[str, RunRecord, Path]:
    """Render the demo dataset, probe a frozen encoder, train a network from scratch, and compare them.

    Clips, embeddings and runs that exist are used again; with `overwrite` the network is trained again.
    Returns the table as text, the most accurate of the two runs, and a clip to try it on.

    Raises:
        MgcError: the extra `demo` is not installed, or the encoder's weights cannot be downloaded.
    """
    data = DataRecipe(source=DEMO)
    # The encoder first: if its weights cannot be downloaded, this shows before minutes of training.
    runs = probe(ProbeRecipe(data=data, model=DEMO_ENCODER, device=device), workspace)
    runs.append(baseline(BaselineRecipe(data=data, device=device), workspace, overwrite))
    table = render(compare_records(load_records(DEMO, workspace)), "table")
    best = max(runs, key=lambda run: run.evaluation.accuracy)
    return table, best, min((workspace.data / DEMO).glob("*/*.flac"))
