"""Tables of runs, made from records alone: which runs may be compared, and the tables in five formats."""

from mgc.runs.tables.comparing import Row, Section, System, compare_records, systems_of
from mgc.runs.tables.rendering import FORMATS, KINDS, as_dict, cells, render, write_tables
from mgc.runs.tables.sentences import caption, is_pretrained, points, verdict_sentence, verdicts

__all__ = [
    "FORMATS", "KINDS", "Row", "Section", "System", "as_dict", "caption", "cells", "compare_records",
    "is_pretrained", "points", "render", "systems_of", "verdict_sentence", "verdicts", "write_tables",
]  # fmt: skip
