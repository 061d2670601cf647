"""A search for the settings of `mgc baseline` with Optuna, phase by phase, on the validation set alone."""

from pathlib import Path

from mgc.config import TuneRecipe
from mgc.experiments.tune.report import format_search, write
from mgc.experiments.tune.search import Search, open_search
from mgc.experiments.tune.space import trial_recipe
from mgc.workspace import Workspace

__all__ = ["Search", "format_search", "trial_recipe", "tune"]


def tune(recipe: TuneRecipe, workspace: Workspace, file: Path | None = None) -> Search:
    """Run every trial that is not finished, and write the results after each phase.

    `file` is the config of the recipe, for messages.

    Raises:
        MgcError: a search space that `mgc baseline` would refuse, no such data, a training that failed, or
            another process runs the same search.
    """
    search = open_search(recipe, workspace, file)
    for _ in search.run():
        write(search)
    return search
