"""Excerpts and spectrograms of the tracks that a report shows, if their audio can still be found."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from mgc import data
from mgc.audio import decode
from mgc.config import DataRecipe
from mgc.data import Dataset
from mgc.report.content import Content
from mgc.runs.record import load_record
from mgc.util.compiled import prepare_librosa
from mgc.util.errors import MgcError

SECONDS = 12.0  # length of an excerpt, from the middle of the track
RATE_HZ = 22_050
HOP, BANDS = 1024, 96  # of a spectrogram: 258 x 96 points


@dataclass(frozen=True)
class Excerpt:
    """`sound`: MP3, mono. `picture`: a mel spectrogram as JPEG, low frequencies at the bottom."""

    sound: bytes
    picture: bytes
    seconds: float


@dataclass(frozen=True)
class FoundDataset:
    """The dataset of the first table as it is today; None if it was not found, for the reason in `problem`.

    unchanged: every track is the one that was evaluated; otherwise only those with the same id can be shown.
    """

    dataset: Dataset | None
    unchanged: bool
    problem: str


def find_dataset(content: Content) -> FoundDataset:
    """Load the tracks from the place that the command names, or else from where the runs found them."""
    stored = load_record(content.first.folder / "record.json").recipe["data"]
    recipe = DataRecipe.model_validate({k: v for k, v in stored.items() if k in DataRecipe.model_fields})
    source = content.recipe.data.source
    if "/" in source or not content.workspace.results_of(source).is_dir():  # not the name of a dataset
        recipe = recipe.model_copy(update={"source": source})
    try:
        dataset = data.load(recipe, content.workspace)
    except (MgcError, OSError) as error:
        what = error.what.split("\n")[0] if isinstance(error, MgcError) else str(error)
        what = what.replace(recipe.source, Path(recipe.source).name)  # reports name no folders
        problem = f"The audio was not found: {what}. Give its present place with --data."
        return FoundDataset(None, False, problem)
    unchanged = dataset.hash == content.first.data_hash
    problem = "The dataset has changed since the runs; only tracks with the same id and label have excerpts."
    return FoundDataset(dataset, unchanged, "" if unchanged else problem)


def excerpt(path: Path, seconds: float) -> Excerpt:
    """The middle `SECONDS` of a file that is `seconds` long, or all of a shorter file.

    Raises:
        AudioError: the file cannot be decoded.
    """
    start = max(0, int((seconds - SECONDS) / 2 * RATE_HZ))
    end, parts, position = start + int(SECONDS * RATE_HZ), [], 0
    for block in decode(path, RATE_HZ):
        parts.append(block)
        position += len(block)
        if position >= end:
            break
    samples = np.concatenate(parts)[start:end]
    stream = io.BytesIO()
    # About 40 kbit/s, which is good enough to recognise a genre.
    soundfile.write(stream, samples, RATE_HZ, format="MP3", compression_level=0.9)
    return Excerpt(stream.getvalue(), _spectrogram(samples), len(samples) / RATE_HZ)


def _spectrogram(samples: np.ndarray) -> bytes:
    prepare_librosa()
    import librosa
    from matplotlib.image import imsave

    power = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, hop_length=HOP, n_mels=BANDS)
    decibels = librosa.power_to_db(power, ref=np.max, top_db=60)  # (BANDS, T)
    stream = io.BytesIO()
    imsave(stream, decibels[::-1], cmap="magma", format="jpeg", vmin=-60, vmax=0, pil_kwargs={"quality": 80})
    return stream.getvalue()
