"""A piece as a recording: an excerpt of its notes, played by an ensemble with symusic, in a room."""

import random
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import soxr

from mgc.data.sources.demo.scores import Note
from mgc.data.sources.demo.styles import FAMILIES, PITCHES, PROGRAMS, Ensemble, package_folder

Audio = npt.NDArray[np.float64]

CLIP_SECONDS = 12.0
MAX_REST_SECONDS = 1.0  # an excerpt in which all parts are silent for longer is not used
TRIES = 20  # excerpts of a piece
SAMPLE_RATE_HZ = 22_050
SYNTH_RATE_HZ = 2 * SAMPLE_RATE_HZ  # the sound font's own rate; soxr halves it with a proper filter
SYNTH_QUALITY = 4  # symusic 0.5.9: the highest that works; 5 to 7 are silent with this sound font
LOUDNESS_DBFS = -23.0  # root mean square; the target level of EBU R 128

# How recordings of one ensemble differ. The same for every style, so that none is known by its recordings.
SEMITONES = (-1, 0, 1)  # pitch standards: A4 at 415, 440 and 466 Hz
VELOCITY = (60, 100)  # of 127; one for each instrument
REVERBERATION_SECONDS = (0.3, 3.0)  # RT60, from a studio to a church
DIRECT_TO_REVERBERANT_DB = (0.0, 12.0)  # from a distant microphone to a close one
TILT_DB_PER_OCTAVE = (-3.0, 3.0)  # microphones and equalisation
SIGNAL_TO_NOISE_DB = (30.0, 60.0)  # from a worn tape to a quiet digital recording


def excerpt(notes: list[Note], quarter_seconds: float, draw: random.Random) -> list[Note] | None:
    """CLIP_SECONDS of a piece, in seconds, from a randomly drawn note on.

    None if the piece is too short at this tempo, or its excerpts have long rests or pitches outside PITCHES.
    Short pieces are not slowed down, since otherwise their style could be recognised by its tempo.
    """
    notes = sorted(n._replace(start=n.start * quarter_seconds, end=n.end * quarter_seconds) for n in notes)
    last_start = max((note.end for note in notes), default=0.0) - CLIP_SECONDS
    starts = sorted({note.start for note in notes if note.start <= last_start})
    for begin in draw.sample(starts, min(TRIES, len(starts))):
        end = begin + CLIP_SECONDS
        clip = [
            note._replace(start=max(note.start, begin) - begin, end=min(note.end, end) - begin)
            for note in notes
            if note.start < end and note.end > begin + 1e-6
        ]
        ends = accumulate((note.end for note in clip), max)
        onsets = [*(note.start for note in clip[1:]), CLIP_SECONDS]
        rests = any(b - a > MAX_REST_SECONDS for a, b in zip(ends, onsets, strict=True))
        if not rests and all(note.pitch in PITCHES for note in clip):
            return clip
    return None


def assign(notes: list[Note], ensemble: Ensemble) -> dict[str, list[Note]]:
    """The notes of each instrument. Within a family the lowest pitch of a part decides who plays it."""
    played: dict[str, list[Note]] = {}
    for part in sorted({note.part for note in notes}):
        own = [note for note in notes if note.part == part]
        lowest = min(note.pitch for note in own)
        for member in ensemble:
            family = FAMILIES.get(member, ((member, 0),))
            instrument = next(name for name, bottom in family if lowest >= bottom)
            played.setdefault(instrument, []).extend(own)
    return played


def play(played: dict[str, list[Note]], draw: random.Random) -> Audio:
    """The recording at SAMPLE_RATE_HZ and LOUDNESS_DBFS: # (S,)."""
    import symusic

    score, semitones = symusic.Score(0, ttype="second"), draw.choice(SEMITONES)
    for instrument, notes in played.items():
        track = symusic.Track(instrument, PROGRAMS[instrument], False, ttype="second")
        velocity = draw.randint(*VELOCITY)
        for note in notes:
            length, pitch = note.end - note.start, note.pitch + semitones
            track.notes.append(symusic.Note(note.start, length, pitch, velocity, ttype="second"))
        score.tracks.append(track)
    font = min(package_folder("pretty_midi").glob("*.sf2"))
    rendered = symusic.Synthesizer(font, SYNTH_RATE_HZ, SYNTH_QUALITY).render(score, stereo=False)[0]
    size = round(CLIP_SECONDS * SAMPLE_RATE_HZ)
    audio = soxr.resample(rendered.astype(np.float64), SYNTH_RATE_HZ, SAMPLE_RATE_HZ)[:size]
    audio = _record(np.pad(audio, (0, size - len(audio))), draw)
    audio *= 10 ** (LOUDNESS_DBFS / 20) / _rms(audio)
    return audio / max(1.0, float(np.abs(audio).max()) / 0.99)  # (S,)


def _record(audio: Audio, draw: random.Random) -> Audio:
    """Add a room (exponentially decaying noise), a spectral tilt around 1 kHz, and white noise: # (S,)."""
    from scipy.signal import fftconvolve  # imports scipy.stats, which takes half a second

    noise = np.random.default_rng(draw.getrandbits(32))
    shortest, longest = REVERBERATION_SECONDS
    size = round(SAMPLE_RATE_HZ * shortest * (longest / shortest) ** draw.random())
    tail = noise.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)  # 60 dB over its length
    tail *= 10 ** (-draw.uniform(*DIRECT_TO_REVERBERANT_DB) / 20) / np.sqrt(np.sum(tail**2))
    audio = audio + fftconvolve(audio, tail)[: len(audio)]
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE_HZ), 20.0) / 1000)
    gain = 10 ** (draw.uniform(*TILT_DB_PER_OCTAVE) * octaves / 20)
    audio = np.fft.irfft(np.fft.rfft(audio) * gain, len(audio))
    level = _rms(audio) * 10 ** (-draw.uniform(*SIGNAL_TO_NOISE_DB) / 20)
    return audio + level * noise.standard_normal(len(audio))


def _rms(audio: Audio) -> float:
    return float(np.sqrt(np.mean(audio**2)))
