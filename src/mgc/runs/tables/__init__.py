"""Runs side by side, made from records alone: who may be compared with whom, and the table in five forms."""

from mgc.runs.tables.comparing import Row, Section, System, compare_records, systems_of
from mgc.runs.tables.rendering import FORMATS, as_dict, render, write_tables
from mgc.runs.tables.sentences import caption, verdict_sentence, verdicts

__all__ = [
    "FORMATS", "Row", "Section", "System", "as_dict", "caption", "compare_records", "render", "systems_of",
    "verdict_sentence", "verdicts", "write_tables",
]  # fmt: skip
