"""A search for the settings of `mgc baseline` on Optuna, phase by phase, by validation alone."""

from pathlib import Path

from mgc.config import TuneRecipe
from mgc.experiments.tune import search
from mgc.experiments.tune.report import render, write
from mgc.experiments.tune.search import Search
from mgc.experiments.tune.space import trial_recipe
from mgc.workspace import Workspace

__all__ = ["Search", "render", "trial_recipe", "tune", "write"]


def tune(recipe: TuneRecipe, workspace: Workspace, file: Path | None = None) -> Search:
    """Run every trial that is not finished yet, and write what is known; `file` is the config, for messages.

    Raises:
        MgcError: a space that `mgc baseline` would refuse, no such data, a training that failed, or another
            process at the same search.
    """
    return search.tune(recipe, workspace, file, write)
