"""Runs: the record of each, their list, and the command that reproduces one."""

from mgc.runs.commands import changed_settings, command_line, recipe_from_record
from mgc.runs.listing import Run, describe_run, find_run, format_runs, list_runs, remove_runs

__all__ = [
    "Run", "changed_settings", "command_line", "describe_run", "find_run", "format_runs", "list_runs",
    "recipe_from_record", "remove_runs",
]  # fmt: skip
