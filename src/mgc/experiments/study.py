"""`study`: many systems on one dataset, listed in one file. `demo`: two on a dataset rendered here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgc.config import (
    BaselineRecipe,
    DataRecipe,
    Device,
    ProbeRecipe,
    Repeats,
    StudyRecipe,
    is_random,
    read_recipe,
    read_toml,
)
from mgc.data import Split, load, make_split, scan
from mgc.evaluate import MIN_SEEDS
from mgc.experiments.systems import baselines, probe
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
    """One system, its config read and checked, and its seeds: those of `repeats`, or else of the recipe."""

    title: str
    recipe: BaselineRecipe | ProbeRecipe
    repeats: Repeats

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, one at least."""
        return self.repeats.seeds or (self.recipe.seed,)

    def run(self, workspace: Workspace, overwrite: bool = False) -> Iterator[RunRecord | MgcError]:
        """Run it for every split seed and seed, or for one seed if it draws no random numbers.

        Yields the error of a run that fails.
        """
        recipe, data, seeds = self.recipe, self.recipe.data, self.seeds
        if len(seeds) > 1 and not is_random(recipe.model_dump()):
            seeds = seeds[:1]
            say(f"{self.title} does not depend on the seed: it runs with seed {seeds[0]} only")
        split_seeds = self.repeats.split_seeds or (data.split_seed,)
        splits = [data.model_copy(update={"split_seed": seed}) for seed in split_seeds]
        changes = [{"seed": seed, "data": one} for one in splits for seed in seeds]
        try:
            if len(splits) > 1:
                _check_repeatable(make_split(load(data, workspace), data.split))
            if isinstance(recipe, ProbeRecipe):
                for change in changes:
                    yield from probe(recipe.model_copy(update=change), workspace)
            else:
                copies = [recipe.model_copy(update=change) for change in changes]
                yield from baselines(copies, workspace, overwrite)
        except MgcError as error:
            yield error


def _check_repeatable(split: Split) -> None:
    if split.name != "cv5":
        what = "several split seeds need cross-validation, which tests the same tracks for each of them"
        where = f"{split.dataset.name}, split {split.name}"
        raise MgcError(what, where=where, fix="use --split cv5, or one --split-seed")


def run_planned(
    planned: Sequence[PlannedRun], workspace: Workspace, overwrite: bool = False
) -> Iterator[RunRecord]:
    """Run systems one after another. Runs that fail are skipped with a message, and listed again at the end.

    Raises:
        MgcError: the error of the first run, if none succeeds.
    """
    failed: list[tuple[str, MgcError]] = []
    count = 0
    for number, one in enumerate(planned, start=1):
        if len(planned) > 1:
            say(f"study: {number} of {len(planned)}: {one.title}")
        for run in one.run(workspace, overwrite):
            count += 1
            if isinstance(run, RunRecord):
                yield run
            else:
                failed.append((one.title, run))
                if len(planned) > 1:
                    say(f"skipped: {one.title}: {run.what}")
    if len(failed) == count:
        raise failed[0][1]
    if failed:
        say(f"{len(failed)} of {count} runs failed and are not in the table:")
    for title, reason in failed:
        say(f"  {title}: {reason}")


def study(recipe: StudyRecipe, file: Path, workspace: Workspace, repeats: Repeats) -> list[RunRecord]:
    """Run every system of the study for every seed, in the order of the file.

    All configs are checked before anything is computed. `repeats` replaces the seeds of the file. Runs that
    fail, because weights are missing for example, are skipped.

    Raises:
        MgcError: an invalid config, no such data, or no system that can run.
    """
    planned = plan_runs(recipe, file, repeats)
    scan(planned[0].recipe.data, workspace)  # fails here, rather than once for every system
    return [*run_planned(planned, workspace)]


def run_recipe(recipe: BaselineRecipe | ProbeRecipe, workspace: Workspace) -> RunRecord:
    """Run `baseline` or `probe`, whichever the recipe is for."""
    [record] = run_planned([PlannedRun("the run", recipe, Repeats())], workspace)
    return record


def plan_runs(recipe: StudyRecipe, file: Path, repeats: Repeats) -> list[PlannedRun]:
    """The systems of a study, checked; paths of configs are relative to its `file`.

    Seeds are those of `repeats`, or else of the run, of the study, or of the run's config.
    """
    if not recipe.runs:
        fix = 'add [[runs]] with config = "../baseline/cnn.toml"'
        raise MgcError("the study has no runs", where=file, fix=fix)
    data = recipe.data.model_dump(exclude_unset=True)
    options = {f"data.{key}": value for key, value in data.items()} | {"device": recipe.device}
    planned = []
    for one in recipe.runs:
        config = file.parent / one.config
        own = {setting.partition("=")[0].strip() for setting in one.settings}
        others = {key: value for key, value in options.items() if key not in own}
        read: BaselineRecipe | ProbeRecipe
        if "network" in read_toml(config):
            read = read_recipe(BaselineRecipe, config, one.settings, others)
            resolved(read)
        else:
            read = read_recipe(ProbeRecipe, config, one.settings, others)
            find_head(read.head)
            if read.model is None:
                fix = 'settings = ["model=musicnn"]'
                raise MgcError("a probe in a study needs a model", where=config, fix=fix)
        seeds = repeats.seeds or one.seeds or recipe.seeds
        split_seeds = repeats.split_seeds or one.split_seeds or recipe.split_seeds
        all_seeds = Repeats.model_construct(seeds=seeds, split_seeds=split_seeds)
        planned.append(PlannedRun(" ".join([config.stem, *one.settings]), read, all_seeds))
    return planned


def demo(
    workspace: Workspace, *, device: Device = "auto", overwrite: bool = False
) -> tuple[str, RunRecord, Path]:
    """Render the demo dataset, probe a frozen encoder, train a network from scratch, and compare them.

    The network is trained with three seeds. Clips, embeddings and runs that exist are used again; with
    `overwrite` the network is trained again. Returns the table as text, the most accurate of the runs, and a
    clip to try it on.

    Raises:
        MgcError: the extra `demo` is not installed, or the encoder's weights cannot be downloaded.
    """
    data, three = DataRecipe(source=DEMO), Repeats(seeds=(*range(MIN_SEEDS),))
    # The encoder first: if its weights cannot be downloaded, this shows before minutes of training.
    runs = probe(ProbeRecipe(data=data, model=DEMO_ENCODER, device=device), workspace)
    network = PlannedRun("cnn", BaselineRecipe(data=data, device=device), three)
    runs += run_planned([network], workspace, overwrite)
    table = render(compare_records(load_records(DEMO, workspace)), "table")
    best = max(runs, key=lambda run: run.evaluation.accuracy)
    return table, best, min((workspace.data / DEMO).glob("*/*.flac"))
