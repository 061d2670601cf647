"""Predict the genres of audio files with the models of a run, of whole files or over time."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from mgc.audio import SUFFIXES, Clip
from mgc.config import Device
from mgc.data import Track, inspect_all
from mgc.data.dataset import as_text
from mgc.data.sources.local import files_below
from mgc.predict.calibrate import Calibration
from mgc.predict.export import CONFIG, read_export
from mgc.predict.models import RunModels, load_models
from mgc.predict.output import UNKNOWN, FilePrediction, FilePredictions, Segment
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.derived import per_window
from mgc.runs import find_run
from mgc.runs.record import RERUN, load_record
from mgc.util.errors import MgcError, counted, reason_of
from mgc.util.progress import Progress, say
from mgc.workspace import Workspace

SEGMENT_SECONDS = 10.0  # at least: listeners hardly recognise a genre from less


@dataclass(frozen=True)
class OpenRun:
    """A run that can predict."""

    models: RunModels
    calibration: Calibration
    device: Device


def open_run(
    run: str,
    workspace: Workspace,
    *,
    model: str | None = None,
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
    models = load_models(record, workspace, model=model, device=device)
    if calibration is None:
        validation, file = record.validation(), folder / "validation.parquet"
        if len(validation) != len(models.folds) or any(fold.classes != models.classes for fold in validation):
            what = "the validation predictions have other folds or genres than the models of the run"
            raise MgcError(what, where=file, fix=RERUN)
        calibration = Calibration.fit(validation)
    return OpenRun(models, calibration, device)


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
    return FilePredictions(models.record.run_id, models.classes, threshold, over_time, tuple(results))


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
    array, edges = cache.read(clip.content), np.array([0.0, clip.seconds])
    if over_time:
        edges, folds = _over_time(run.models, array, clip.seconds)
    else:
        folds = [fold.probabilities([array]) for fold in run.models.folds]  # (1, C) each
    threshold, segments = run.calibration.threshold, []
    for (start, end), row in zip(pairwise(edges.tolist()), run.calibration.mean(folds), strict=True):
        known = threshold is None or row.max() >= threshold
        segments.append(Segment(start, end, run.models.classes[row.argmax()] if known else UNKNOWN, row))
    return tuple(segments)


def _over_time(models: RunModels, array: np.ndarray, seconds: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Edges (S + 1,) of S segments in seconds, and their (S, C) probabilities by each fold.

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
        return edges, [fold.segment_probabilities(array, ranges) for fold in models.folds]
    windows = array.reshape(rows, len(STATISTICS), -1)  # (W, 3, width)
    parts = [windows[part].reshape(-1, windows.shape[2]) for part in ranges]
    if representation.spec.keep == "clip":
        new = np.clip(seconds * rate - np.arange(rows), 1e-3, 1.0)  # share of each window that is new
        parts = [pool_windows(windows[part], new[part]) for part in ranges]
    return edges, [fold.probabilities(parts) for fold in models.folds]


def pool_windows(windows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(W, 3, width), the mean, deviation and maximum of W windows, to (3, width), those of all together.

    `weights` (W,) are the shares of the windows.
    """
    mean, deviation, maximum = windows.astype(np.float32).swapaxes(0, 1)  # (W, width) each
    weight = weights[:, np.newaxis] / weights.sum()
    centre = (weight * mean).sum(axis=0)
    variance = (weight * (deviation**2 + (mean - centre) ** 2)).sum(axis=0)
    return np.stack([centre, np.sqrt(variance), maximum.max(axis=0)])
