"""Runs after the fact: listed, shown, removed; their settings and commands."""

from mgc.runs.commands import command_of, recipe_of, settings_of
from mgc.runs.listing import FORMATS, Run, as_dict, find_run, remove, render, runs, show

__all__ = [
    "FORMATS", "Run", "as_dict", "command_of", "find_run", "recipe_of", "remove", "render",
    "runs", "settings_of", "show",
]  # fmt: skip
