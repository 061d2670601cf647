"""Runs after the fact: listed, shown, removed, and reproduced from their records."""

from mgc.runs.again import RERUNS, Rerun, rerun
from mgc.runs.listing import FORMATS, Run, as_dict, find_run, remove, render, runs, show
from mgc.runs.recipes import command_of, recipe_of, settings_of

__all__ = [
    "FORMATS", "RERUNS", "Rerun", "Run", "as_dict", "command_of", "find_run", "recipe_of", "remove", "render",
    "rerun", "runs", "settings_of", "show",
]  # fmt: skip
