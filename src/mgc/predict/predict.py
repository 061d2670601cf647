"""Genres of a person's own files: by the models of a run together, calibrated, of the whole or over time."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from mgc.audio import SUFFIXES, Clip
from mgc.config import WINDOWS_AT_ONCE, Device
from mgc.data import inspect_all
from mgc.data.clips import state_of
from mgc.data.dataset import as_text
from mgc.predict.answers import UNKNOWN, Answer, Answers, Stretch
from mgc.predict.calibrate import Calibration
from mgc.predict.export import CONFIG, read_export
from mgc.predict.models import RunModels, load_models
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.derived import per_window
from mgc.representations.pooling import represent
from mgc.runs import find_run
from mgc.runs.record import load_record
from mgc.util.devices import make_accelerator, tune_cpu
from mgc.util.errors import MgcError, counted
from mgc.util.progress import Progress, say
from mgc.workspace import Workspace

STRETCH_SECONDS = 10.0  # of --over-time, at least: from less hardly anybody tells a genre
FILES_AT_ONCE = 16


@dataclass(frozen=True)
class Ready:
    """A run that can predict."""

    models: RunModels
    calibration: Calibration
    device: Device


def open_run(
    run: str,
    workspace: Workspace,
    *,
    model: str | None = None,
    trust_remote_code: bool = False,
    device: Device = "auto",
) -> Ready:
    """By a run's id, a run's folder, or a folder that `mgc export` made.

    Raises:
        MgcError: there is none, or as `load_models`.
    """
    folder = Path(run).expanduser()
    if (folder / CONFIG).is_file():
        record, calibration, model = read_export(folder, model)
        models = load_models(record, workspace, trust_remote_code, model=model, device=device)
        if len(calibration.temperatures) != len(models.folds):
            what = f"{len(calibration.temperatures)} temperatures for {len(models.folds)} models"
            raise MgcError(what, where=folder / CONFIG, fix="make it again by mgc export RUN DIR")
        return Ready(models, calibration, device)
    if not (folder / "record.json").is_file():
        folder = find_run(run, workspace).folder
    record = load_record(folder / "record.json")
    models = load_models(record, workspace, trust_remote_code, model=model, device=device)
    if not (folder / "validation.parquet").exists():
        return Ready(models, Calibration(temperatures=(1.0,) * len(models.folds)), device)
    return Ready(models, _calibration(models), device)


def _calibration(models: RunModels) -> Calibration:
    sides = models.record.validation()
    if len(sides) != len(models.folds) or any(side.classes != models.classes for side in sides):
        raise MgcError(
            "the validation sides are not those of the run's models: other folds or genres",
            where=models.record.folder / "validation.parquet",
            fix="run the same command again, with --again",
        )
    return Calibration.of(sides)


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Files as given, whatever their names; in folders those named like audio, at any depth, in order.

    Raises:
        MgcError: no file at all, or a folder that cannot be listed.
    """
    found: dict[Path, None] = {}
    other = 0
    for path in paths:
        inside = list(_inside(path, {_identity(path)})) if path.is_dir() else [path]
        named = [file for file in inside if file == path or file.suffix.lower() in SUFFIXES]
        other += len(inside) - len(named)
        found |= dict.fromkeys(named)
    if other:
        say(f"{counted(other, 'file')} not looked at, whose names do not end like audio")
    if not found:
        raise MgcError("no audio was found", where=", ".join(as_text(path) for path in paths))
    return [*found]


def _inside(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Files that are not hidden, also behind links, each real folder once."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield entry
        elif (identity := _identity(entry)) not in seen:
            seen.add(identity)
            yield from _inside(entry, seen)


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def predict_files(ready: Ready, files: Sequence[Path], over_time: bool = False) -> Answers:
    """An answer a file, in their order; of a file that cannot be used, the reason.

    What the encoder makes of the files goes through the store: an interrupted call goes on from there, and
    a second one computes nothing. A store that cannot be written is replaced by one that ends with the call.

    Raises:
        MgcError: the encoder cannot be loaded, or a store that fails while it is written.
    """
    representation = ready.models.representation
    if over_time and representation.pooled and representation.spec.keep == "clip":
        representation = per_window(representation)
    with _writable_cache(ready.models.workspace.cache) as cache:
        clips = inspect_all(files, cache)
        store = EmbeddingCache(representation, cache)
        errors = {clip.content: clip.problem for clip in clips if clip.problem}
        usable = {c.content: file for file, c in zip(files, clips, strict=True) if c.problem is None}
        errors |= _fill(store, usable, ready.device)
        answers: dict[int, Answer] = {}
        todo = [k for k, clip in enumerate(clips) if not (clip.problem or clip.content in errors)]
        with Progress("predict", len(todo), "files") as progress:
            for at in range(0, len(todo), FILES_AT_ONCE):
                some = todo[at : at + FILES_AT_ONCE]
                stretches = _predict(ready, store, [clips[k] for k in some], over_time)
                answers |= {k: Answer(as_text(files[k]), own) for k, own in zip(some, stretches, strict=True)}
                progress.step(len(some))
    for k, clip in enumerate(clips):
        if k not in answers:
            answers[k] = Answer(as_text(files[k]), error=clip.problem or str(errors[clip.content]))
    return Answers(
        ready.models.record.run_id,
        ready.models.classes,
        ready.calibration.threshold,
        ready.calibration.tracks > 0,
        over_time,
        tuple(answers[k] for k in range(len(files))),
    )


@contextmanager
def _writable_cache(cache: Path) -> Iterator[Path]:
    """The embedding cache or, where it cannot be written, an empty one that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mgc-") as own:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache):
                pass
        except OSError as error:
            say(
                f"the embedding cache {cache} cannot be written ({error.strerror or error}): embeddings are "
                "discarded at the end, and an interrupted command starts anew"
            )
            cache = Path(own)
        yield cache


def _fill(store: EmbeddingCache, files: dict[str, Path], device: Device) -> dict[str, str]:
    """Compute what the store lacks of `files`, by their hash; the hashes of those that fail, and why."""
    failed: dict[str, str] = {}
    encoder = None
    while missing := store.missing(files) - {*failed}:
        todo = {content: file for content, file in files.items() if content in missing}
        where = make_accelerator(device).device
        tune_cpu()
        encoder = encoder or store.representation.encoder(where)
        states = [state_of(file) for file in todo.values()]
        arrays = represent(store.representation, encoder, [*todo.values()], where, WINDOWS_AT_ONCE)
        clips = [*todo.items()]
        try:
            with (
                store.writer() as writer,
                Progress(f"embed {store.representation.name}", len(todo), "files") as progress,
            ):
                for position, array in arrays:
                    content, file = clips[position]
                    if state_of(file) != states[position]:  # its hash is not that of what was heard
                        raise MgcError("the file was changed while it was read", where=file)
                    writer.add(content, as_text(file), array)
                    progress.step()
        except MgcError as error:  # of one file: the others go on without it
            culprits = [c for c, file in clips if error.where in (file, as_text(file))]
            if not culprits:
                raise
            failed[culprits[0]] = error.what
    return failed


def _predict(
    ready: Ready, store: EmbeddingCache, clips: Sequence[Clip], over_time: bool
) -> list[tuple[Stretch, ...]]:
    """Of each clip its stretches: one, if not over time."""
    arrays = [store.read(clip.content) for clip in clips]
    if not over_time:
        edges = [np.array([0.0, clip.seconds]) for clip in clips]
        mean = ready.calibration.mean([fold.probabilities(arrays) for fold in ready.models.folds])
        each = [*mean[:, np.newaxis]]
    else:
        edges, each = [], []
        for array, clip in zip(arrays, clips, strict=True):
            own, folds = _over_time(ready.models, array, clip.seconds)
            edges.append(own)
            each.append(ready.calibration.mean(folds))
    return [
        tuple(
            Stretch(float(start), float(end), _name(ready, row), row)
            for start, end, row in zip(at[:-1], at[1:], rows, strict=True)
        )
        for at, rows in zip(edges, each, strict=True)
    ]


def _name(ready: Ready, probabilities: np.ndarray) -> str:
    best = int(probabilities.argmax())
    threshold = ready.calibration.threshold
    return (
        UNKNOWN if threshold is not None and probabilities[best] < threshold else ready.models.classes[best]
    )


def _over_time(models: RunModels, array: np.ndarray, seconds: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Edges of S stretches in seconds, (S + 1,), and what each fold says of them, (S, C).

    `array` holds frames, or statistics of windows one after the other.
    """
    representation = models.representation
    if representation.frames_a_second:
        rate, rows = representation.frames_a_second, len(array)
        # A stretch is never shorter than a network's crop: it would be filled up with silence.
        least = max(math.ceil(STRETCH_SECONDS * rate), models.record.frames)
    else:
        rate, rows = _windows_a_second(representation), len(array) // len(STATISTICS)
        least = math.ceil(STRETCH_SECONDS * rate)
    # The last window may be new in its end only: stretches are counted by what is there, not by windows.
    cuts = np.linspace(0, rows, max(1, int(min(rows, seconds * rate) // least)) + 1).astype(int)
    edges = cuts / rate
    edges[-1] = seconds
    pairs = list(pairwise(cuts))
    if representation.frames_a_second:
        return edges, [fold.of_parts(array, [slice(*pair) for pair in pairs]) for fold in models.folds]
    parts = [array[len(STATISTICS) * start : len(STATISTICS) * end] for start, end in pairs]
    if representation.spec.keep == "clip":
        share = np.clip(seconds * rate - np.arange(rows), 1e-3, 1.0)  # that is new of each window
        parts = [_pooled(part, share[slice(*pair)]) for part, pair in zip(parts, pairs, strict=True)]
    return edges, [fold.probabilities(parts) for fold in models.folds]


def _windows_a_second(representation: Representation) -> float:
    return representation.cut.sample_rate_hz / representation.cut.window


def _pooled(windows: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(3 * W, width), statistics of W windows, and their weights (W,): (3, width), those of all together."""
    mean, deviation, largest = (
        windows.astype(np.float32).reshape(len(share), len(STATISTICS), -1).swapaxes(0, 1)
    )
    weight = share[:, np.newaxis] / share.sum()
    centre = (weight * mean).sum(axis=0)
    variance = (weight * (deviation**2 + (mean - centre) ** 2)).sum(axis=0)
    return np.stack([centre, np.sqrt(variance), largest.max(axis=0)])
