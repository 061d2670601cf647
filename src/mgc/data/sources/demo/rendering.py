"""The demo dataset as a whole: planned from a seed, rendered by several processes, listed in a manifest."""

import io
import json
import random
from collections.abc import Iterator
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path

import soundfile

from mgc.data.sources.demo.performance import SAMPLE_RATE_HZ, assign, excerpt, play
from mgc.data.sources.demo.scores import read_bytes, read_score
from mgc.data.sources.demo.styles import STYLES, Ensemble, catalogue, find_corpus
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.util.progress import Progress
from mgc.util.workers import cores, workers

REVISION = 3  # raise it when other clips come out; existing datasets are then rendered again
PIECES_PER_STYLE = 40
SEED = 0
MAX_PROCESSES = 8  # each needs about 200 MB for music21, and the work is small
COLUMNS = ("path", "genre", "artist", "title", "instruments")


def render(folder: Path, *, pieces_per_style: int = PIECES_PER_STYLE, processes: int | None = None) -> Path:
    """Render the demo dataset to `folder`, unless it is there and complete, and return its `tracks.csv`.

    The samples do not depend on the number of processes: by default all cores, up to MAX_PROCESSES.

    Raises
    ------
    MgcError
        The extra `demo` is not installed, or music21 has too few usable pieces.
    OSError
        The folder cannot be written.
    """
    import pandas as pd

    plan = json.dumps({"revision": REVISION, "pieces_per_style": pieces_per_style, "seed": SEED})
    manifest, description = folder / "tracks.csv", folder / "demo.json"
    if manifest.exists() and description.exists() and description.read_bytes() == plan.encode():
        return manifest
    corpus = find_corpus()
    if description.exists():  # an older or incomplete dataset
        manifest.unlink(missing_ok=True)
        for file in folder.glob("*/*"):
            if file.parent.name in STYLES and file.suffix in (".flac", ".part"):
                file.unlink()
    files.write(description, plan)
    jobs = [job for style in STYLES for job in _jobs(corpus, folder, style, pieces_per_style)]
    count = min(processes or min(cores(), MAX_PROCESSES), len(jobs))
    with Progress("render the demo dataset", len(jobs), "clips") as progress, workers(count, False) as pool:
        futures = [pool.submit(job) for job in jobs]
        for future in as_completed(futures):
            future.result()  # an error ends the work at once
            progress.step()
    table = pd.DataFrame([future.result() for future in futures], columns=COLUMNS).sort_values("path")
    return files.write(manifest, table.to_csv(index=False, lineterminator="\n"))


def _jobs(corpus: Path, folder: Path, style: str, count: int) -> Iterator[partial[tuple[str, ...]]]:
    """`count` clips of a style: its ensembles equally often, its tempi evenly on a logarithmic scale."""
    pieces, about = [*catalogue(corpus, style).items()], STYLES[style]
    ensembles = [about.ensembles[i % len(about.ensembles)] for i in range(count)]
    slow, fast = about.beats_per_minute
    tempi = [slow * (fast / slow) ** ((i + 0.5) / count) for i in range(count)]
    draw = random.Random(f"{SEED} {style}")
    for column in (pieces, ensembles, tempi):
        draw.shuffle(column)
    for i in range(count):  # each clip has candidates of its own, and so depends on no other clip
        yield partial(_render_one, folder, style, pieces[i::count], ensembles[i], tempi[i])


def _render_one(
    folder: Path, style: str, candidates: list[tuple[str, Path]], ensemble: Ensemble, beats_per_minute: float
) -> tuple[str, ...]:
    """Write a clip of the first candidate that can fill it, and return its row of the manifest."""
    for name, file in candidates:
        raw, draw = read_bytes(file), random.Random(f"{SEED} {name}")
        notes, beat = read_score(file, raw)
        clip = excerpt(notes, 60 / (beats_per_minute * beat), draw)
        if clip is None:
            continue
        played = assign(clip, ensemble)
        flac = io.BytesIO()  # libsndfile reports a full disk as an unknown error; `files.write` as OSError
        soundfile.write(flac, play(played, draw), SAMPLE_RATE_HZ, "PCM_16", format="FLAC")
        path = f"{style}/{name}.flac"
        files.write(folder / path, flac.getvalue())
        return path, style, *STYLES[style].labels(file, raw), "|".join(sorted(played))
    fix = 'pip install "mgc[demo]" installs a music21 with all scores'
    raise MgcError(f"music21 has too few usable scores of the style {style}", where=folder, fix=fix)
