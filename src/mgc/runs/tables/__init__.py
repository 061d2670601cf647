"""Tables of runs, made from records alone: which runs may be compared, and the tables in five formats."""

from mgc.runs.tables.comparing import CATEGORIES, BestPair, Row, Section, System, compare_records, systems_of
from mgc.runs.tables.rendering import FORMATS, as_dict, cells, render, write_tables
from mgc.runs.tables.sentences import (
    QUESTIONS,
    answers,
    caption,
    further_verdicts,
    p_value_text,
    points,
    verdict_sentence,
)

__all__ = [
    "CATEGORIES", "FORMATS", "QUESTIONS", "BestPair", "Row", "Section", "System", "answers", "as_dict",
    "caption", "cells", "compare_records", "further_verdicts", "p_value_text", "points", "render",
    "systems_of", "verdict_sentence", "write_tables",
]  # fmt: skip
