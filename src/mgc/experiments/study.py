"""`study`: many systems on one data set by one file. Each goes on where it stopped, or is there already."""

from dataclasses import dataclass
from pathlib import Path

from mgc.config import BaselineRecipe, ProbeRecipe, StudyRecipe, read_recipe, read_toml
from mgc.data import scan
from mgc.experiments.systems import baseline, probe
from mgc.probing.heads import find_head
from mgc.runs.record import RunRecord
from mgc.training.networks import resolved
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.workspace import Workspace


@dataclass(frozen=True)
class Planned:
    """One system of a study, its config read and checked."""

    title: str
    recipe: BaselineRecipe | ProbeRecipe
    seeds: tuple[int, ...]


def study(recipe: StudyRecipe, file: Path, workspace: Workspace) -> list[RunRecord]:
    """Run every system of the study for every seed, in the order of the file.

    All configs are read before anything is computed, so that a wrong word in the last one costs nothing. A
    system that cannot run, for want of its weights, say, is left out: that is said at once, and in the end.

    Raises:
        MgcError: a config that cannot be read or would be refused, no such data, or no system that can run.
    """
    planned = plan(recipe, file)
    scan(planned[0].recipe.data, workspace)  # without tracks no system runs: once said is enough
    turns = [(one, seed) for one in planned for seed in one.seeds]
    records: list[RunRecord] = []
    skipped: list[tuple[str, MgcError]] = []
    for number, (one, seed) in enumerate(turns, 1):
        title = f"{one.title}, seed {seed}"
        say(f"study: {number} of {len(turns)}: {title}")
        try:
            records.append(run(one.recipe.model_copy(update={"seed": seed}), workspace))
        except MgcError as error:
            skipped.append((title, error))
            say(f"skipped: {title}: {error}")
    if not records:
        raise skipped[0][1]
    if skipped:
        say(f"study: {len(skipped)} of {len(turns)} systems could not run and are not in the table:")
    for title, why in skipped:
        say(f"  {title}: {why.what}")
    return records


def run(recipe: BaselineRecipe | ProbeRecipe, workspace: Workspace) -> RunRecord:
    """What the command of such a recipe does."""
    if isinstance(recipe, BaselineRecipe):
        return baseline(recipe, workspace)
    [record] = probe(recipe, workspace)
    return record


def plan(recipe: StudyRecipe, file: Path) -> list[Planned]:
    """The systems of a study; paths are relative to its `file`.

    Raises:
        MgcError: no runs, or a config that cannot be read or would be refused.
    """
    if not recipe.runs:
        raise MgcError(
            "the study names no runs", where=file, fix='add [[runs]] with config = "../baseline/cnn.toml"'
        )
    data = recipe.data.model_dump(exclude_unset=True)
    options = {f"data.{key}": value for key, value in data.items()} | {"device": recipe.device}
    planned = []
    for one in recipe.runs:
        config = file.parent / one.config
        own = {setting.partition("=")[0].strip() for setting in one.settings}
        others = {key: value for key, value in options.items() if key not in own}
        seeds = one.seeds or recipe.seeds if recipe.seed is None else (recipe.seed,)
        read: BaselineRecipe | ProbeRecipe
        if "network" in read_toml(config):
            read = read_recipe(BaselineRecipe, config, one.settings, others)
            resolved(read)
        else:
            read = read_recipe(ProbeRecipe, config, one.settings, others)
            find_head(read.head)
            if read.model is None:
                raise MgcError(
                    "a probe in a study must name its model", where=config, fix='settings = ["model=musicnn"]'
                )
        planned.append(Planned(" ".join([config.stem, *one.settings]), read, seeds))
    return planned
