"""The music that a report talks of, where it can still be found: its tracks, short excerpts, and pictures."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from mgc import data
from mgc.audio import decode
from mgc.config import DataRecipe
from mgc.data import Dataset, Track
from mgc.report.content import Content
from mgc.util.compiled import prepare_librosa
from mgc.util.errors import MgcError

SECONDS = 12.0  # of an excerpt, from the middle of the track
RATE_HZ = 22_050
HOP, BANDS = 1024, 96  # of a picture: 258 x 96 points


@dataclass(frozen=True)
class Excerpt:
    """`sound`: MP3, mono. `picture`: a mel spectrogram, JPEG, low notes below."""

    sound: bytes
    picture: bytes
    seconds: float


@dataclass(frozen=True)
class Music:
    """The data set of the first section as it is found today; None where it is not, and `problem` says why.

    same: every track is what was judged; else they are those that are still called so.
    """

    dataset: Dataset | None
    same: bool
    problem: str

    def track(self, track_id: str, label: str) -> Track | None:
        """The track of this name, if it is still there and of this genre."""
        track = self.dataset.by_id.get(track_id) if self.dataset else None
        return track if track and track.label == label else None


def find_music(content: Content) -> Music:
    """Load the tracks from where the command says they are, else from where the records say they were."""
    try:
        dataset = data.load(_where(content), content.workspace)
    except (MgcError, OSError) as error:
        what = error.what.split("\n")[0] if isinstance(error, MgcError) else str(error)
        return Music(None, False, f"The audio cannot be found: {what}. --data says where it lies now.")
    if dataset.fingerprint == content.first.data_fingerprint:
        return Music(dataset, True, "")
    problem = (
        "The tracks found today are not all what was judged; excerpts are of those still called the same."
    )
    return Music(dataset, False, problem)


def _where(content: Content) -> DataRecipe:
    """The recipe of the records, with the place that the command names, where it names one."""
    stored, asked = content.first.recipe["data"], content.recipe.data
    known = {key: value for key, value in stored.items() if key in DataRecipe.model_fields}
    recipe = DataRecipe.model_validate(known)
    named = content.workspace.results_of(asked.source).is_dir() and "/" not in asked.source
    update: dict[str, str] = {} if named else {"source": asked.source}
    return recipe.model_copy(update=update)


def excerpt(path: Path, seconds: float) -> Excerpt:
    """The middle `SECONDS` of a file that is `seconds` long, or all of a shorter one.

    Raises:
        AudioError: it cannot be decoded.
    """
    start = max(0, int((seconds - SECONDS) / 2 * RATE_HZ))
    samples = _cut(path, start, int(SECONDS * RATE_HZ))
    stream = io.BytesIO()
    # About 40 kbit/s, good enough to tell a genre by.
    soundfile.write(stream, samples, RATE_HZ, format="MP3", compression_level=0.9)
    return Excerpt(stream.getvalue(), _picture(samples), len(samples) / RATE_HZ)


def _cut(path: Path, start: int, length: int) -> np.ndarray:
    """(length,) samples from `start` on, fewer where the file ends; no more of it is decoded than needed."""
    parts, at = [], 0
    for block in decode(path, RATE_HZ):
        parts.append(block[max(0, start - at) : max(0, start + length - at)])
        at += len(block)
        if at >= start + length:
            break
    return np.concatenate(parts)


def _picture(samples: np.ndarray) -> bytes:
    prepare_librosa()
    import librosa
    from matplotlib.image import imsave

    power = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, hop_length=HOP, n_mels=BANDS)
    decibels = librosa.power_to_db(power, ref=np.max, top_db=60)  # (BANDS, T)
    stream = io.BytesIO()
    imsave(stream, decibels[::-1], cmap="magma", format="jpeg", vmin=-60, vmax=0, pil_kwargs={"quality": 80})
    return stream.getvalue()
