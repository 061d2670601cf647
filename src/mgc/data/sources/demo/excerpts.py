"""A piece cut to what its clip holds: the notes of the score, then as many as fill it, as the draw has it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mgc.data.sources.demo.styles import text_of

CLIP_SECONDS = 12.0

# General MIDI programs, from 0. All sound at every pitch of PITCHES, which is not a matter of course: with
# symusic 0.5.9 and this sound font tenor sax and bass flute notes fall silent, program 78 crashes, and notes
# pitched far above their sample (violin from 98) never end.
INSTRUMENTS = (
    0, 6, 16, 19, 20, 21, 22, 24,  # piano, harpsichord, organs, accordion, harmonica, guitar
    40, 42, 48, 52,  # violin, cello, string ensemble, choir
    56, 57, 60, 64,  # trumpet, trombone, horn, soprano saxophone
    69, 71, 73, 74,  # cor anglais, clarinet, flute, recorder
)  # fmt: skip
PITCHES = range(33, 97)  # MIDI: A1 to C7
SEMITONES = range(-5, 7)
QUARTERS_A_MINUTE = (80.0, 140.0)
MAX_REST_SECONDS = 1.0  # a clip in which all parts are silent for longer is not taken
MEASURES = 40  # as many of a MusicXML file are read, from a drawn one: a whole quartet takes minutes

# The order that the MusicXML schema prescribes.
ATTRIBUTES_ORDER = (
    "footnote", "level", "divisions", "key", "time", "staves", "part-symbol", "instruments", "clef",
    "staff-details", "transpose", "for-part", "directive", "measure-style",
)  # fmt: skip


@dataclass(frozen=True)
class Treatment:
    """What is drawn and not composed: the same 40 of them serve every style."""

    program: int
    semitones: int
    quarters_a_minute: float


@dataclass(frozen=True)
class Sound:
    """One note: start and end in quarter notes (later in seconds), MIDI pitch, number of its part."""

    start: float
    end: float
    pitch: int
    part: int


class PassedOverError(Exception):
    """This piece cannot fill a clip, and why: the next one is taken."""


def draw_treatments(seed: int, count: int) -> list[Treatment]:
    """`count` treatments: every instrument and transposition as often as any other, the tempo log-uniform."""
    draw = random.Random(f"{seed} treatments")
    slow, fast = QUARTERS_A_MINUTE
    programs = [INSTRUMENTS[i % len(INSTRUMENTS)] for i in range(count)]
    semitones = [SEMITONES[i % len(SEMITONES)] for i in range(count)]
    tempi = [slow * (fast / slow) ** ((i + 0.5) / count) for i in range(count)]
    for column in (programs, semitones, tempi):
        draw.shuffle(column)
    return [Treatment(*each) for each in zip(programs, semitones, tempi, strict=True)]


def sounds_of(file: Path, raw: bytes, draw: random.Random) -> list[Sound]:
    """The notes of a score as they sound, in quarter notes.

    Ties are joined. A first ending is left out and its second played: once through, without repeats, so
    that nothing has to be expanded. Grace notes, which have no length, and chord symbols are left out.
    Pitches are taken as they stand: no score here is for transposing instruments, and where the Trecento
    files say that a part sounds an octave lower, their pitches already do.

    Raises:
        PassedOverError: music21 cannot read it, or nothing sounds.
    """
    from music21 import converter
    from music21.exceptions21 import Music21Exception

    formats = {".krn": "humdrum", ".abc": "abc"}
    kind = formats.get(file.suffix, "musicxml")
    data = _cut_musicxml(raw, draw) if kind == "musicxml" else text_of(raw)
    try:
        score = converter.parseData(data, format=kind)
        parts = list(score.parts)
        sounds = [sound for number, part in enumerate(parts) for sound in _part_sounds(part, number)]
        first_endings = {span for part in parts for span in _first_endings(part)}
    except Music21Exception as error:
        raise PassedOverError(f"music21 cannot read it: {type(error).__name__}: {error}") from error
    if not sounds:
        raise PassedOverError("no note sounds")
    return _leave_out(sounds, sorted(first_endings))


def _part_sounds(part: Any, number: int) -> list[Sound]:
    """The notes of one part, ties joined."""
    sounds: list[Sound] = []
    tied: dict[int, int] = {}  # pitch -> the sound that a tie leads on from
    for element in part.flatten().notes:
        if element.duration.isGrace or "Harmony" in element.classes or "Unpitched" in element.classes:
            continue
        start = float(element.offset)
        end = start + float(element.quarterLength)
        for note in element.notes if element.isChord else (element,):
            pitch, tie = int(note.pitch.midi), note.tie or element.tie
            before = tied.pop(pitch, None)
            leads_on = tie is not None and tie.type in ("stop", "continue")
            if leads_on and before is not None and sounds[before].end >= start:
                sounds[before] = Sound(sounds[before].start, end, pitch, number)
            else:
                before = len(sounds)
                sounds.append(Sound(start, end, pitch, number))
            if tie and tie.type in ("start", "continue"):
                tied[pitch] = before
    return [sound for sound in sounds if sound.end > sound.start]


def _first_endings(part: Any) -> Iterator[tuple[float, float]]:
    """Where the first endings of a part begin and end, in quarter notes."""
    for bracket in part.recurse().getElementsByClass("RepeatBracket"):
        measures = bracket.getSpannedElements()
        if 1 in bracket.numberRange and 2 not in bracket.numberRange and measures:
            yield (
                min(float(m.offset) for m in measures),
                max(float(m.offset + m.duration.quarterLength) for m in measures),
            )


def _leave_out(sounds: list[Sound], spans: list[tuple[float, float]]) -> list[Sound]:
    """The sounds without those that begin in a span; what follows moves up."""
    kept = []
    for sound in sounds:
        if any(a <= sound.start < b for a, b in spans):
            continue
        gone = sum(b - a for a, b in spans if b <= sound.start)
        kept.append(Sound(sound.start - gone, sound.end - gone, sound.pitch, sound.part))
    return kept


def _cut_musicxml(raw: bytes, draw: random.Random) -> str:
    """MEASURES measures of a MusicXML score, from a drawn one.

    What was said before about divisions, key, clef, time and transposition is said again in the first
    measure kept; brackets and lines that may have lost their other end are taken out.
    """
    root = ElementTree.fromstring(raw)
    parts = root.findall("part")
    count = min(len(part.findall("measure")) for part in parts)
    first = draw.randrange(max(count - MEASURES, 0) + 1)
    for part in parts:
        said: dict[tuple[str, str | None], ElementTree.Element] = {}
        for number, measure in enumerate(part.findall("measure")):
            if number < first:
                said |= {(e.tag, e.get("number")): e for a in measure.findall("attributes") for e in a}
            if not first <= number < first + MEASURES:
                part.remove(measure)
            elif number == first and said:
                attributes = ElementTree.Element("attributes")
                attributes.extend(sorted(said.values(), key=lambda e: ATTRIBUTES_ORDER.index(e.tag)))
                measure.insert(0, attributes)
        if first or count > MEASURES:
            for measure in part.findall("measure"):
                for barline in measure.findall("barline"):
                    measure.remove(barline)
                for direction in measure.findall("direction"):
                    measure.remove(direction)
                for notations in measure.iterfind("note/notations"):
                    for mark in [mark for mark in notations if mark.tag not in ("tied", "tuplet")]:
                        notations.remove(mark)
    return ElementTree.tostring(root, encoding="unicode")


def excerpt(sounds: list[Sound], treatment: Treatment, draw: random.Random) -> list[Sound]:
    """CLIP_SECONDS of a piece in seconds, transposed, from a drawn note on.

    A piece too short at the tempo it was given is passed over rather than slowed down: else short pieces,
    and with them their style, would be known by their tempo.

    Raises:
        PassedOverError: too short, too long a rest wherever it begins, or a note the instruments lack.
    """
    seconds = 60 / treatment.quarters_a_minute  # a quarter note
    moved = [Sound(s.start * seconds, s.end * seconds, s.pitch + treatment.semitones, s.part) for s in sounds]
    length = max(s.end for s in moved)
    starts = sorted({s.start for s in moved if s.start + CLIP_SECONDS <= length})
    if not starts:
        raise PassedOverError("too short for a clip at the tempo it was given")
    rests = _rests(moved)
    starts = [t for t in starts if not any(a < t + CLIP_SECONDS and b > t for a, b in rests)]
    if not starts:
        raise PassedOverError(f"all parts rest for more than {MAX_REST_SECONDS:g} s wherever it begins")
    begin = draw.choice(starts)
    end = begin + CLIP_SECONDS
    clip = [
        Sound(max(s.start, begin) - begin, min(s.end, end) - begin, s.pitch, s.part)
        for s in moved
        if s.start < end and s.end > begin + 1e-6
    ]
    if any(s.pitch not in PITCHES for s in clip):
        raise PassedOverError("it leaves the compass that all instruments have")
    return clip


def _rests(sounds: list[Sound]) -> list[tuple[float, float]]:
    """Spans longer than MAX_REST_SECONDS in which no part sounds."""
    ordered = sorted(sounds, key=lambda s: s.start)
    ends = accumulate((s.end for s in ordered), max)
    starts = [s.start for s in ordered[1:]]
    return [(a, b) for a, b in zip(ends, starts, strict=False) if b - a > MAX_REST_SECONDS]
