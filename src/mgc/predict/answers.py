"""What was predicted of files, and how that is written: a table, CSV or JSON."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from mgc.util.errors import MgcError, did_you_mean, printable
from mgc.util.progress import clock

UNKNOWN = "unknown"
FORMATS = ("table", "csv", "json")


@dataclass(frozen=True)
class Stretch:
    """The genre from `start` to `end` seconds; `probabilities` (C,) are of the classes in their order."""

    start: float
    end: float
    genre: str  # a class, or UNKNOWN
    probabilities: np.ndarray


@dataclass(frozen=True)
class Answer:
    """Of one file: a single stretch, or several over time; or why there are none."""

    file: str
    stretches: tuple[Stretch, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Answers:
    """Of all files, and what is to be known of them."""

    run_id: str
    classes: tuple[str, ...]
    threshold: float | None
    calibrated: bool
    over_time: bool
    files: tuple[Answer, ...]

    @property
    def failed(self) -> list[Answer]:
        """Files without an answer."""
        return [answer for answer in self.files if answer.error]

    @property
    def told(self) -> list[Answer]:
        """Files with one."""
        return [answer for answer in self.files if not answer.error]


def render(answers: Answers, form: str) -> str:
    """The answers in one of FORMATS; files that failed come last, and not in the table.

    Raises:
        MgcError: no such format.
    """
    draw = {"table": _table, "csv": _csv, "json": _json}.get(form)
    if draw is None:
        raise MgcError(f"there is no format {form!r}", fix=did_you_mean(form, FORMATS))
    return draw(answers)


def _best(stretch: Stretch, classes: Sequence[str]) -> dict[str, Any]:
    """The likeliest class, whether it is named or not, and the next one."""
    order = np.argsort(-stretch.probabilities, kind="stable")
    first, second = (float(stretch.probabilities[k]) for k in order[:2])
    return {
        "genre": stretch.genre,
        "likeliest": classes[order[0]],
        "probability": first,
        "second": classes[order[1]],
        "second_probability": second,
    }


def _table(answers: Answers) -> str:
    timed = ["from", "to"] if answers.over_time else []
    rows = [["file", *timed, "genre", "probability", "second best", "probability"]]
    for answer in answers.told:
        for stretch in _merged(answer.stretches):
            best = _best(stretch, answers.classes)
            genre = best["genre"] if best["genre"] != UNKNOWN else f"{UNKNOWN} ({best['likeliest']}?)"
            times = [clock(stretch.start), clock(stretch.end)] if timed else []
            second, likely = best["second"], f"{best['second_probability']:.2f}"
            rows.append([answer.file, *times, genre, f"{best['probability']:.2f}", second, likely])
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _merged(stretches: Sequence[Stretch]) -> Iterator[Stretch]:
    """Neighbours of one genre as one, their probabilities the mean over its seconds."""
    for genre, group in groupby(stretches, key=lambda stretch: stretch.genre):
        run = list(group)
        seconds = [max(stretch.end - stretch.start, 1e-9) for stretch in run]
        mean = np.average([stretch.probabilities for stretch in run], axis=0, weights=seconds)
        yield Stretch(run[0].start, run[-1].end, genre, mean)


def _plain(stretch: Stretch, classes: Sequence[str]) -> dict[str, Any]:
    """One row as plain values, times in seconds; the keys of CSV and JSON."""
    return {"start": round(stretch.start, 3), "end": round(stretch.end, 3), **_best(stretch, classes)}


def _csv(answers: Answers) -> str:
    rows = []
    for answer in answers.told:
        for stretch in answer.stretches:
            each = zip(answers.classes, stretch.probabilities.tolist(), strict=True)
            row = {"file": answer.file, **_plain(stretch, answers.classes), "error": ""}
            rows.append(row | {f"p_{label}": value for label, value in each})
    keys = ["start", "end", "genre", "likeliest", "probability", "second", "second_probability", "error"]
    out = io.StringIO()
    columns = ["file", *keys, *(f"p_{label}" for label in answers.classes)]
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    writer.writerows({"file": answer.file, "error": answer.error} for answer in answers.failed)
    return out.getvalue().removesuffix("\n")


def _json(answers: Answers) -> str:
    files: list[dict[str, Any]] = []
    for answer in answers.told:
        stretches = [
            _plain(stretch, answers.classes)
            | {"probabilities": dict(zip(answers.classes, stretch.probabilities.tolist(), strict=True))}
            for stretch in answer.stretches
        ]
        files.append(
            {"file": answer.file} | ({"stretches": stretches} if answers.over_time else stretches[0])
        )
    files += [{"file": answer.file, "error": answer.error} for answer in answers.failed]
    about = {
        "run": answers.run_id,
        "classes": answers.classes,
        "calibrated": answers.calibrated,
        "threshold": answers.threshold,
    }
    return json.dumps(about | {"files": files}, indent=2)
