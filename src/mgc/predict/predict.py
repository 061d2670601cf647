"""Predict the genres of audio files with the models of a run, and show them as a table, CSV or JSON."""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgc.audio import SUFFIXES, Clip
from mgc.config import Device
from mgc.data import Track, inspect_all
from mgc.data.dataset import as_text
from mgc.data.sources.local import files_below
from mgc.predict.calibrate import UNKNOWN, Calibration, tempered
from mgc.predict.export import CONFIG, read_export
from mgc.predict.models import OpenRun, RunModels, load_models
from mgc.predict.novelty import NOVEL, NOVELTY, Novelty, pool_windows
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.derived import per_window
from mgc.runs import find_run
from mgc.runs.record import RERUN, load_record
from mgc.util.errors import MgcError, counted, did_you_mean, reason_of
from mgc.util.progress import Progress, clock, say
from mgc.util.text import text_table
from mgc.workspace import Workspace

SEGMENT_SECONDS = 10.0  # at least: listeners hardly recognise a genre from less


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


def open_run(
    run: str,
    workspace: Workspace,
    *,
    model: str | None = None,
    trust_remote_code: bool = False,
    device: Device = "auto",
) -> OpenRun:
    """Load the models of a run: by its id, its folder, or a folder made by `mgc export`.

    `model` is the place of its encoder, if it has moved.

    Raises:
        MgcError: no such run, validation predictions that do not fit its models, or as `load_models`.
    """
    folder = Path(run).expanduser()
    calibration = None
    if (folder / CONFIG).is_file():
        record, calibration, model = read_export(folder, model)
    else:
        folder = folder if (folder / "record.json").is_file() else find_run(run, workspace).folder
        record = load_record(folder / "record.json")
    models = load_models(record, workspace, trust_remote_code, model=model, device=device)
    if calibration is None:
        validation, file = record.validation(), folder / "validation.parquet"
        if len(validation) != len(models.folds) or any(fold.classes != models.classes for fold in validation):
            what = "the validation predictions have other folds or genres than the models of the run"
            raise MgcError(what, where=file, fix=RERUN)
        calibration = Calibration.fit(validation, record.predictions())
    return OpenRun(models, calibration, device, Novelty.load(folder / NOVELTY))


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Files as given, and the audio files in folders at any depth, recognised by their names.

    Raises MgcError if there is no file at all, or a folder cannot be listed.
    """
    found: dict[Path, None] = {}
    skipped = 0
    for path in paths:
        inside = files_below(path)[0] if path.is_dir() else [path]
        audio = [file for file in inside if file == path or file.suffix.lower() in SUFFIXES]
        skipped += len(inside) - len(audio)
        found |= dict.fromkeys(audio)
    if skipped:
        say(f"{counted(skipped, 'file')} skipped: the name does not end like that of an audio file")
    if not found:
        raise MgcError("no audio files found", where=", ".join(as_text(path) for path in paths))
    return [*found]


def predict_files(run: OpenRun, files: Sequence[Path], over_time: bool = False) -> FilePredictions:
    """Predict every file, in their order; a file that cannot be used gets the reason instead.

    Embeddings are cached: an interrupted call resumes, a repeated one computes nothing. If the cache cannot
    be written, a temporary one is used.

    Raises:
        MgcError: the encoder cannot be loaded, or the cache fails while it is written.
    """
    representation = run.models.representation
    if over_time and representation.pooled and representation.spec.keep == "clip":
        representation = per_window(representation)
    with _writable_cache(run.models.workspace.cache) as cache_folder:
        workspace = replace(run.models.workspace, cache=cache_folder)
        clips = inspect_all(files, cache_folder)
        tracks = [
            Track(as_text(file), file, label="", group="", content=clip.content, seconds=clip.seconds)
            for file, clip in zip(files, clips, strict=True)
            if not clip.problem
        ]
        errors = _embed(representation, tracks, workspace, run.device)
        cache = EmbeddingCache(representation, cache_folder)
        results = []
        with Progress("predict", len(files), "files") as progress:
            for file, clip in zip(files, clips, strict=True):
                error = clip.problem or errors.get(clip.content, "")
                segments = () if error else _predict(run, cache, clip, over_time)
                results.append(FilePrediction(as_text(file), segments, error))
                progress.step()
    models, threshold = run.models, run.calibration.threshold
    return FilePredictions(
        models.record.run_id, models.classes, threshold, over_time, tuple(results), run.known
    )


@contextmanager
def _writable_cache(folder: Path) -> Iterator[Path]:
    """The embedding cache or, if it cannot be written, an empty one that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mgc-") as temporary:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            loss = "embeddings are discarded at the end, and an interrupted command starts again"
            say(f"the embedding cache {folder} cannot be written ({reason_of(error)}): {loss}")
            folder = Path(temporary)
        yield folder


def _embed(
    representation: Representation, tracks: Sequence[Track], workspace: Workspace, device: Device
) -> dict[str, str]:
    """Cache the embeddings of all tracks; returns the content hashes of those that fail, and why."""
    representation = replace(representation, load=cache(representation.load))  # loaded once for all attempts
    failed: dict[str, str] = {}
    while todo := [track for track in tracks if track.content not in failed]:
        try:
            embed_tracks(todo, representation, workspace, device)
            break
        except MgcError as error:
            culprits = [track.content for track in todo if error.where in (track.path, track.track_id)]
            if not culprits:
                raise
            failed[culprits[0]] = error.what
    return failed


def _predict(run: OpenRun, cache: EmbeddingCache, clip: Clip, over_time: bool) -> tuple[Segment, ...]:
    """The segments of a clip; a single one, unless over time."""
    array, edges, classes = cache.read(clip.content), np.array([0.0, clip.seconds]), run.models.classes
    parts = [array]
    if over_time:
        edges, parts, folds = _over_time(run.models, array, clip.seconds)
    else:
        folds = [fold.probabilities(parts) for fold in run.models.folds]  # (1, C) each
    novelties = run.novelty.of(run.models.representation, parts).tolist()
    calibrated = np.mean([tempered(fold, run.calibration.temperature) for fold in folds], axis=0)  # (S, C)
    segments, threshold, times = [], run.calibration.threshold, pairwise(edges.tolist())
    for (start, end), row, novelty in zip(times, calibrated, novelties, strict=True):
        genre = classes[row.argmax()] if threshold is None or row.max() >= threshold else UNKNOWN
        if novelty > 1 and NOVEL not in classes:
            genre = NOVEL
        segments.append(Segment(start, end, genre, row, novelty))
    return tuple(segments)


def _over_time(
    models: RunModels, array: np.ndarray, seconds: float
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Edges (S + 1,) of S segments in seconds, their arrays, and their (S, C) probabilities by each fold.

    `array` contains all frames of a clip, or the statistics of its windows one after the other.
    """
    representation = models.representation
    if representation.frames_a_second:
        rate, rows = representation.frames_a_second, len(array)
    else:
        rate = representation.cut.sample_rate_hz / representation.cut.window  # windows per second
        rows = len(array) // len(STATISTICS)
    # Never shorter than a crop of a network (0 for heads), which would be padded with silence.
    shortest = max(math.ceil(SEGMENT_SECONDS * rate), models.record.frames)
    # `seconds * rate` and not `rows`: the last window may be new in a small part only.
    cuts = np.linspace(0, rows, max(1, int(min(rows, seconds * rate) // shortest)) + 1).astype(int)
    edges = cuts / rate
    edges[-1] = seconds
    ranges = [slice(start, end) for start, end in pairwise(cuts)]
    if representation.frames_a_second:
        folds = [fold.segment_probabilities(array, ranges) for fold in models.folds]
        return edges, [array[part] for part in ranges], folds
    windows = array.reshape(rows, len(STATISTICS), -1)  # (W, 3, width)
    parts = [windows[part].reshape(-1, windows.shape[2]) for part in ranges]
    if representation.spec.keep == "clip":
        new = np.clip(seconds * rate - np.arange(rows), 1e-3, 1.0)  # share of each window that is new
        parts = [pool_windows(windows[part], new[part]) for part in ranges]
    return edges, parts, [fold.probabilities(parts) for fold in models.folds]


# ---- as text --------------------------------------------------------------------------------------------


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
