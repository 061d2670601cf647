"""From the file of a score to its notes. MusicXML is read here, kern and ABC by music21."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from zipfile import ZipFile

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}  # semitones above C


class Note(NamedTuple):
    """A note: start and end in quarter notes (of a clip: in seconds), MIDI pitch, number of the part."""

    start: float
    end: float
    pitch: int
    part: int
    tie_stops: bool = False  # a tie from the note before ends here
    tie_starts: bool = False


def read_bytes(file: Path) -> bytes:
    """The content of a score file; a compressed MusicXML file is unpacked."""
    if file.suffix != ".mxl":
        return file.read_bytes()
    with ZipFile(file) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("xml") and "META-INF" not in n))


def read_score(file: Path, raw: bytes) -> tuple[list[Note], float]:
    """The notes of a score, and the beat of its metre in quarter notes.

    Ties are joined; grace notes, cue notes and chord symbols are skipped. Repeats are played in ABC files;
    MusicXML files, which rarely have any, are read through once. Pitches are taken as written: no score here
    is for transposing instruments, and where the Trecento files say that a part sounds an octave lower, it is
    written so already. A score that music21 cannot read has no notes.
    """
    kind = {".krn": "humdrum", ".abc": "abc"}.get(file.suffix)
    written, meter = _from_music21(raw.decode("utf-8", "replace"), kind) if kind else _from_musicxml(raw)
    beats, _, beat_type = meter.partition("/")
    compound = (
        int(beat_type) >= 8 and beats.isdecimal() and int(beats) % 3 == 0
    )  # 6/8: a beat is three eighths
    return _join_ties(written), (3 if compound else 1) * 4 / int(beat_type)


def _from_musicxml(raw: bytes) -> tuple[list[Note], str]:
    """Notes and time signature of a MusicXML score. music21 would take half a minute for a long quartet."""
    root = ElementTree.fromstring(raw)
    notes: list[Note] = []
    for number, part in enumerate(root.findall("part")):
        divisions, measure_end = 1.0, 0.0
        for measure in part.findall("measure"):
            now = previous = measure_end
            for element in measure:
                divisions = float(element.findtext("divisions") or divisions)
                length = float(element.findtext("duration") or 0) / divisions
                if element.tag == "note":
                    if element.find("chord") is None:
                        previous, now = now, now + length
                    notes += _xml_notes(element, previous, length, number)
                elif element.tag in ("backup", "forward"):
                    now += length if element.tag == "forward" else -length
                measure_end = max(measure_end, now)
    time = root.find("part/measure/attributes/time")
    return notes, "4/4" if time is None else f"{time.findtext('beats')}/{time.findtext('beat-type')}"


def _xml_notes(element: ElementTree.Element, start: float, length: float, part: int) -> Iterator[Note]:
    """The note of an element; none of a rest, a grace note, a cue note or percussion."""
    step = element.findtext("pitch/step")
    if step is not None and length > 0 and element.find("cue") is None:
        octave, alter = element.findtext("pitch/octave") or 4, element.findtext("pitch/alter") or 0
        pitch = 12 * (int(octave) + 1) + STEPS[step] + round(float(alter))
        ties = {tie.get("type") for tie in element.findall("tie")}
        yield Note(start, start + length, pitch, part, "stop" in ties, "start" in ties)


def _from_music21(text: str, kind: str) -> tuple[list[Note], str]:
    """The same of a score in kern or ABC."""
    from music21 import converter
    from music21.exceptions21 import Music21Exception

    try:
        score = converter.parseData(text, format=kind)
        score = score.expandRepeats() if kind == "abc" else score
    except Music21Exception:
        return [], "4/4"
    meter = score.recurse().getElementsByClass("TimeSignature").first()
    notes = []
    for number, element in ((i, e) for i, part in enumerate(score.parts) for e in part.flatten().notes):
        start, length = float(element.offset), float(element.quarterLength)
        if length > 0 and "Harmony" not in element.classes:
            for note in element.notes if element.isChord else (element,):
                tie = getattr(note.tie or element.tie, "type", "")
                stops, starts = tie in ("stop", "continue"), tie in ("start", "continue")
                notes.append(Note(start, start + length, int(note.pitch.midi), number, stops, starts))
    return notes, meter.ratioString if meter else "4/4"


def _join_ties(written: list[Note]) -> list[Note]:
    notes: list[Note] = []
    tied: dict[tuple[int, int], int] = {}  # (part, pitch): the note that the tie started from
    for note in sorted(written):
        index = tied.pop((note.part, note.pitch), None)
        if note.tie_stops and index is not None and notes[index].end >= note.start - 1e-6:
            notes[index] = notes[index]._replace(end=note.end)
        else:
            index = len(notes)
            notes.append(note)
        if note.tie_starts:
            tied[note.part, note.pitch] = index
    return notes
