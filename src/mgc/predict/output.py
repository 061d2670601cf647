"""Predictions of audio files, and their text as a table, CSV or JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from mgc.predict.novelty import NOVEL
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.progress import clock
from mgc.util.text import text_table

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Segment:
    """The genre from `start` to `end` seconds; `probabilities` (C,) are in the order of the classes."""

    start: float
    end: float
    genre: str  # a class, UNKNOWN or NOVEL
    probabilities: np.ndarray
    novelty: float  # distance from the tracks of the run, novel above 1


@dataclass(frozen=True)
class FilePrediction:
    """The segments of a file (a single one, unless predicted over time), or why there are none."""

    file: str
    segments: tuple[Segment, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class FilePredictions:
    """The predictions of all files."""

    run_id: str
    classes: tuple[str, ...]
    threshold: float | None
    over_time: bool
    files: tuple[FilePrediction, ...]
    known: tuple[str, ...] = ()  # sentences on what "unknown" and "novel" mean for this run

    @property
    def failed(self) -> list[FilePrediction]:
        """Files that could not be used."""
        return [file for file in self.files if file.error]

    @property
    def predicted(self) -> list[FilePrediction]:
        """All other files."""
        return [file for file in self.files if not file.error]


def format_predictions(predictions: FilePredictions, form: str) -> str:
    """The predictions as "table", "csv" or "json". Files that failed come last; a table omits them."""
    formats = {"table": _table, "csv": _csv, "json": _json}
    if form not in formats:
        raise MgcError(f"unknown format {form!r}", where="--format", fix=did_you_mean(form, formats))
    return formats[form](predictions)


def _as_dict(segment: Segment, classes: Sequence[str]) -> dict[str, Any]:
    """A segment as plain values, times in seconds; the keys of CSV and JSON."""
    first, second = np.argsort(-segment.probabilities, kind="stable")[:2]
    return {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "genre": segment.genre,
        "likeliest": classes[first],
        "probability": float(segment.probabilities[first]),
        "second": classes[second],
        "second_probability": float(segment.probabilities[second]),
        "novelty": round(segment.novelty, 4),
    }


def _table(predictions: FilePredictions) -> str:
    classes, times = predictions.classes, ["from", "to"] if predictions.over_time else []
    header = ["file", *times, "genre", "probability", "second best", "probability"]
    rows = []
    for file in predictions.predicted:
        for segment in _merged(file.segments):
            row = _as_dict(segment, classes)
            genre = segment.genre
            genre += f" ({row['likeliest']}?)" if genre in (UNKNOWN, NOVEL) and genre not in classes else ""
            times = [clock(segment.start), clock(segment.end)] if predictions.over_time else []
            first, second = f"{row['probability']:.2f}", f"{row['second_probability']:.2f}"
            rows.append([file.file, *times, genre, first, row["second"], second])
    return text_table(header, rows)


def _merged(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Consecutive segments of one genre as one, with the mean of their probabilities over time."""
    for genre, group in groupby(segments, key=lambda segment: segment.genre):
        same = list(group)
        seconds = [max(segment.end - segment.start, 1e-9) for segment in same]
        mean = np.average([segment.probabilities for segment in same], axis=0, weights=seconds)
        yield Segment(same[0].start, same[-1].end, genre, mean, max(segment.novelty for segment in same))


def _csv(predictions: FilePredictions) -> str:
    keys = ["start", "end", "genre", "likeliest", "probability", "second", "second_probability", "novelty"]
    classes, labels = predictions.classes, [f"p_{label}" for label in predictions.classes]
    rows = [
        {"file": file.file} | _as_dict(one, classes) | dict(zip(labels, one.probabilities, strict=True))
        for file in predictions.predicted
        for one in file.segments
    ]  # fmt: skip
    rows += [{"file": file.file, "error": file.error} for file in predictions.failed]
    table = pd.DataFrame(rows, columns=["file", *keys, "error", *labels])
    return table.to_csv(index=False).removesuffix("\n")


def _json(predictions: FilePredictions) -> str:
    classes = predictions.classes
    files: list[dict[str, Any]] = []
    for file in predictions.predicted:
        segments = [
            _as_dict(one, classes) | {"probabilities": dict(zip(classes, one.probabilities, strict=True))}
            for one in file.segments
        ]
        files.append({"file": file.file} | ({"segments": segments} if predictions.over_time else segments[0]))
    files += [{"file": file.file, "error": file.error} for file in predictions.failed]
    about = {name: getattr(predictions, name) for name in ("classes", "threshold", "known")}
    return json.dumps({"run": predictions.run_id, **about, "files": files}, indent=2)
