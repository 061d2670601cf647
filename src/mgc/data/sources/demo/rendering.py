"""The set as a whole: planned by the seed, rendered in rounds, gone on with, and told in its manifest."""

import csv
import io
import json
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import soundfile

from mgc.data.sources.demo.excerpts import (
    CLIP_SECONDS,
    PassedOverError,
    Treatment,
    draw_treatments,
    excerpt,
    sounds_of,
)
from mgc.data.sources.demo.styles import STYLES, Labels, Piece, catalogue, find_corpus, read_score
from mgc.data.sources.demo.synthesis import SAMPLE_RATE_HZ, play, write_clip
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.progress import Progress

RENDERER = 2  # raise it when the same seed gives other clips; sets rendered before are then made anew
PIECES_PER_STYLE = 40
MAX_WORKERS = 8  # unless more are asked for; each holds music21, some 200 MB, and there is little to do


@dataclass(frozen=True)
class Job:
    """One piece with one treatment, to be written to one clip."""

    piece: Piece
    treatment: Treatment
    clip: Path
    seed: int


def render(
    folder: Path,
    *,
    seed: int = 0,
    workers: int | None = None,
    pieces_per_style: int = PIECES_PER_STYLE,
    styles: Sequence[str] | None = None,
) -> Path:
    """Make the demo set in `folder`, or the part of it that is missing, and return its `tracks.csv`.

    The same seed gives the same samples, whatever the number of workers. A complete set is returned at
    once; one that was broken off goes on where it stopped; one of another seed is replaced.

    Args:
        folder: made if it is not there.
        seed: draws the pieces, where each begins, and which treatment it gets.
        workers: processes; 1 renders in this one, None takes as many as there are cores, up to MAX_WORKERS.
        pieces_per_style: clips in each style.
        styles: names out of `STYLES`; None takes all.

    Raises:
        MgcError: the extra `demo` is not installed, the folder cannot be written, no such style, or a
            style has too few usable pieces.
    """
    names = tuple(STYLES) if styles is None else tuple(styles)
    if unknown := [name for name in names if name not in STYLES]:
        raise MgcError(f"no demo style is called {unknown[0]!r}", fix=did_you_mean(unknown[0], STYLES))
    plan = {"renderer": RENDERER, "seed": seed, "pieces_per_style": pieces_per_style, "styles": list(names)}
    manifest, record = folder / "tracks.csv", folder / "demo.json"
    before = _plan_of(record)
    if before == plan and manifest.exists():
        return manifest
    corpus = find_corpus()
    try:
        if before != plan:
            _clear(folder, remove_clips=before is not None)
            files.write(record, json.dumps({"plan": plan}, indent=2))
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
        rows, passed_over = _render_all(corpus, folder, names, pieces_per_style, seed, workers)
        for leftover in folder.glob("*/.*.part"):
            leftover.unlink()
        about = {
            "plan": plan,
            "clip_seconds": CLIP_SECONDS,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "versions": {name: version(name) for name in ("music21", "symusic", "pretty_midi")},
            "passed_over": passed_over,
        }
        files.write(record, json.dumps(about, indent=2, ensure_ascii=False))
        files.write(manifest, _csv(rows))
    except OSError as error:
        raise MgcError(
            f"the demo set cannot be written: {error.strerror or error}", where=error.filename or folder,
            fix="choose a data folder you may write to, with 100 MB free",
        ) from error  # fmt: skip
    except BrokenProcessPool as error:
        raise MgcError(
            "a process that renders the demo set died", where=folder,
            fix="run it again: it goes on where it stopped; with less memory, give it fewer workers",
        ) from error  # fmt: skip
    return manifest


def _render_all(
    corpus: Path, folder: Path, styles: tuple[str, ...], count: int, seed: int, workers: int | None
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows of the manifest, and the pieces passed over.

    In rounds: each treatment gets a piece; those whose piece failed get the next piece in the next round.
    So which piece goes with which treatment depends on the seed alone, not on who was ready first.
    """
    queues: dict[str, Iterator[Piece]] = {}
    open_: list[tuple[str, Treatment]] = []
    for style in styles:
        pieces, treatments = catalogue(corpus, style), draw_treatments(seed, count)
        random.Random(f"{seed} {style} pieces").shuffle(pieces)
        random.Random(f"{seed} {style} treatments").shuffle(treatments)
        queues[style] = iter(pieces)
        open_ += [(style, treatment) for treatment in treatments]
    rows: list[dict[str, str]] = []
    passed_over: list[dict[str, str]] = []
    with Progress("render the demo set", len(open_), "clips") as progress:
        while open_:
            jobs = []
            for style, treatment in open_:
                piece = next(queues[style], None)
                if piece is None:
                    raise MgcError(
                        f"music21 has too few usable pieces for {count} clips of {style}", where=corpus,
                        fix="install the music21 that mgc asks for, or ask for fewer pieces",
                    )  # fmt: skip
                jobs.append(Job(piece, treatment, folder / style / f"{piece.name}.flac", seed))
            outcomes = _run(jobs, workers, progress)
            left = []
            for job, slot in zip(jobs, open_, strict=True):
                outcome = outcomes[job]
                if isinstance(outcome, str):
                    passed_over.append({"style": slot[0], "piece": job.piece.name, "why": outcome})
                    left.append(slot)
                else:
                    path = job.clip.relative_to(folder).as_posix()
                    rows.append({"path": path, "genre": slot[0], "artist": outcome[0], "title": outcome[1]})
            open_ = left
    return sorted(rows, key=lambda row: row["path"]), passed_over


def _run(jobs: list[Job], workers: int | None, progress: Progress) -> dict[Job, Labels | str]:
    """Labels of every clip, or why its piece was passed over. Clips that are there are not made again."""
    outcomes: dict[Job, Labels | str] = {}

    def note(job: Job, outcome: Labels | str) -> None:
        outcomes[job] = outcome
        if not isinstance(outcome, str):
            progress.step()

    todo = [job for job in jobs if not job.clip.exists()]
    for job in jobs:
        if job.clip.exists():
            with soundfile.SoundFile(job.clip) as clip:
                note(job, (clip.artist, clip.title))
    workers = min(workers or min(os.cpu_count() or 1, MAX_WORKERS), len(todo))
    if workers <= 1:
        for job in todo:
            note(job, _render_one(job))
        return outcomes
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker)
    try:
        futures = {pool.submit(_render_one, job): job for job in todo}
        for future in as_completed(futures):
            note(futures[future], future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # on Ctrl-C: the clips in hand, then no worker is left
    return outcomes


def _begin_worker() -> None:
    """Ctrl-C is for the parent, which ends its workers; a parent that was killed takes them with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _render_one(job: Job) -> Labels | str:
    """Write one clip and return its labels, or say why the piece was passed over."""
    draw = random.Random(f"{job.seed} {job.piece.style} {job.piece.name}")
    raw = read_score(job.piece.file)
    try:
        sounds = excerpt(sounds_of(job.piece.file, raw, draw), job.treatment, draw)
        audio = play(sounds, job.treatment.program)
    except PassedOverError as why:
        return str(why)
    labels = STYLES[job.piece.style].labels(job.piece.file, raw)
    write_clip(job.clip, audio, labels)
    return labels


def _plan_of(record: Path) -> dict[str, Any] | None:
    """What the set that is there was asked for; None if there is none."""
    try:
        plan = json.loads(record.read_text(encoding="utf-8"))["plan"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        return {}  # not one of ours, or of an older renderer: equal to no plan
    return plan if isinstance(plan, dict) else {}


def _clear(folder: Path, *, remove_clips: bool) -> None:
    """Make way for another set: the manifest goes first, so that no half-new set looks complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tracks.csv").unlink(missing_ok=True)
    for style in STYLES if remove_clips else ():
        for clip in (folder / style).glob("*.flac"):
            clip.unlink()


def _csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["path", "genre", "artist", "title"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
