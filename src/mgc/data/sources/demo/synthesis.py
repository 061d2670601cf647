"""Notes played by symusic, and written as a clip: one loudness, one velocity, whatever the style."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from mgc.data.sources.demo.excerpts import CLIP_SECONDS, PassedOverError, Sound
from mgc.data.sources.demo.styles import Labels, package_folder
from mgc.util import files

SAMPLE_RATE_HZ = 22_050
SYNTH_RATE_HZ = 2 * SAMPLE_RATE_HZ  # the sound font's own rate; halved afterwards by a proper filter
SYNTH_QUALITY = 4  # symusic 0.5.9: the best that sounds, 5 to 7 are silent with this sound font
FADE_SECONDS = 0.02
LOUDNESS_DBFS = -23.0  # root mean square; the level broadcasters agreed on (EBU R 128)
VELOCITY = 80  # of 127, for every note


def play(sounds: list[Sound], program: int) -> npt.NDArray[np.float64]:
    """The clip as waveform, at SAMPLE_RATE_HZ and LOUDNESS_DBFS: # (S,)."""
    from symusic import Note, Score, Synthesizer, Track

    score = Score(0, ttype="second")
    for part in sorted({s.part for s in sounds}):
        track = Track(f"{part}", program, False, ttype="second")
        for s in sounds:
            if s.part == part:
                track.notes.append(Note(s.start, s.end - s.start, s.pitch, VELOCITY, ttype="second"))
        score.tracks.append(track)
    fonts = sorted(package_folder("pretty_midi").glob("*.sf2"))
    played = Synthesizer(fonts[0], SYNTH_RATE_HZ, SYNTH_QUALITY).render(score, stereo=False)[0]
    size = round(CLIP_SECONDS * SAMPLE_RATE_HZ)
    audio = soxr.resample(played.astype(np.float64), SYNTH_RATE_HZ, SAMPLE_RATE_HZ)[:size]
    audio = np.pad(audio, (0, size - len(audio)))
    fade = round(FADE_SECONDS * SAMPLE_RATE_HZ)
    audio[-fade:] *= np.linspace(1, 0, fade)
    rms = float(np.sqrt(np.mean(audio**2)))
    if rms == 0:
        raise PassedOverError("the synthesizer gave silence")
    audio *= 10 ** (LOUDNESS_DBFS / 20) / rms
    return audio / max(1.0, float(np.abs(audio).max()) / 0.99)  # (S,)


def write_clip(clip: Path, audio: npt.NDArray[np.float64], labels: Labels) -> None:
    """Write a FLAC that carries its own labels."""
    buffer = io.BytesIO()  # so that a full disk is an OSError that says so
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as file:
        file.artist, file.title = labels
        file.write(audio)
    files.write(clip, buffer.getvalue())
