"""How often `mgc predict` answers "unknown" or "novel" for sounds of no known genre.

    python scripts/measure_novelty.py TRACKS.csv MODEL...

For each model and each genre of the manifest, a probe (logistic head, split `holdout`) is fitted on the other
genres and predicts the excluded genre. A probe on all genres predicts synthetic sounds: white and pink noise,
noise 80 to 112 dB below full scale, sines, and babble of random formants over a pulse train. Babble has the
spectrum and rhythm of speech but is not speech. Digital silence is missing because every command excludes it.
Results go to a temporary folder, embeddings to $MGC_EMBEDDINGS_CACHE.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy.signal import lfilter

from mgc.config import DataRecipe, ProbeRecipe
from mgc.experiments.systems import probe
from mgc.predict import open_run, predict_files
from mgc.workspace import Workspace

RATE, SECONDS, EACH = 22_050, 30, 5
COUNT = RATE * SECONDS


def babble(rng: np.random.Generator) -> np.ndarray:
    """Voiced and unvoiced syllables of 80 to 250 ms with random formants (Hz), and pauses."""
    pitch, parts = rng.uniform(90, 220), []
    while sum(map(len, parts)) < COUNT:
        length, kind = int(RATE * rng.uniform(0.08, 0.25)), rng.random()
        pulses = np.diff(np.floor(np.arange(length) * pitch * rng.uniform(0.85, 1.15) / RATE), prepend=0)
        sound = np.zeros(length) if kind < 0.2 else rng.standard_normal(length) if kind < 0.35 else pulses
        for low, high, width in ((250, 850, 80), (850, 2300, 100), (2300, 3200, 150)):
            radius, angle = np.exp(-np.pi * width / RATE), 2 * np.pi * rng.uniform(low, high) / RATE
            sound = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], sound)
        parts.append(sound * np.hanning(length) / (np.abs(sound).max() + 1e-9))
    return 0.3 * np.concatenate(parts)[:COUNT]


def sounds() -> Iterator[tuple[str, np.ndarray]]:
    """Names and samples; `EACH` of a kind."""
    for seed in range(EACH):
        rng = np.random.default_rng(seed)
        white = rng.standard_normal(COUNT)
        pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.arange(COUNT // 2 + 1).clip(1)), COUNT)
        yield "white noise", 0.1 * white
        yield "pink noise", 0.1 * pink / pink.std()
        yield "near silence", 10 ** -(4 + 0.4 * seed) * white
        yield "sine", 0.3 * np.sin(2 * np.pi * 110 * 2**seed * np.arange(COUNT) / RATE)
        yield "babble", babble(rng)


def predicted(workspace: Workspace, manifest: Path, model: str, files: list[Path]) -> list[str]:
    """The genre column of `mgc predict` for files, by a probe on the tracks of a manifest."""
    recipe = ProbeRecipe(data=DataRecipe(source=str(manifest), split="holdout"), model=model)
    (record,) = probe(recipe, workspace)
    results = predict_files(open_run(str(record.folder), workspace), files)
    return [file.segments[0].genre for file in results.files]


def show(*cells: object) -> None:
    """A row of the table, at once."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def show_shares(model: str, kind: str, answers: list[str]) -> None:
    """The row of one kind of sounds."""
    novel, unknown = (np.mean([each == word for each in answers]) for word in ("novel", "unknown"))
    shares = (f"{100 * share:.0f} %" for share in (novel, unknown, 1 - novel - unknown))
    show(model, kind, len(answers), *shares)


def main(manifest: Path, models: list[str]) -> None:
    """Print the table: the share of files that each answer was given for."""
    table = pd.read_csv(manifest)
    table["path"] = [str((manifest.parent / path).resolve()) for path in table["path"]]
    show("representation", "sounds", "files", "novel", "unknown", "a genre")
    show(*["---"] * 6)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        workspace = replace(
            Workspace.from_environment(), results=root / "results", quarantine=root / "quarantine"
        )
        kinds, files = [], []
        for number, (kind, samples) in enumerate(sounds()):
            kinds.append(kind)
            files.append(root / f"{number}.wav")
            soundfile.write(files[-1], samples, RATE)
        table.to_csv(root / "all.csv", index=False)
        for model in models:
            for genre, tracks in table.groupby("genre"):
                table[table["genre"] != genre].to_csv(root / f"without_{genre}.csv", index=False)
                paths = [Path(path) for path in tracks["path"]]
                answers = predicted(workspace, root / f"without_{genre}.csv", model, paths)
                show_shares(model, f"{genre}, excluded from training", answers)
            answers = predicted(workspace, root / "all.csv", model, files)
            for kind in dict.fromkeys(kinds):
                of_kind = [answer for answer, of in zip(answers, kinds, strict=True) if of == kind]
                show_shares(model, kind, of_kind)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
