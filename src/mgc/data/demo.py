"""The demo set: real scores with real labels, made on the spot where nothing can be downloaded.

`render` takes 40 pieces each of six styles from the scores that come with music21, plays 12 seconds of each
with symusic and the General MIDI sound font of pretty_midi, and writes clips and a manifest:

    folder/<style>/<piece>.flac    22,050 Hz, mono, 16 bit
    folder/demo.json               what was asked for, and every piece that was passed over, with the reason
    folder/tracks.csv              path, genre, artist, title; written last: where it is, the set is complete

What tells the styles apart is the notes alone. Every style is played with the very same treatments
(instrument, transposition, tempo), handed out by seed; every note has the same velocity; every clip the same
loudness. The tempo is in quarter notes a minute, so that a reel stays busier than a mass, as it is written.

The group ("artist" in the manifest) is what a split must not divide: a mass, a hymn tune, a quartet.
"""

import csv
import io
import json
import multiprocessing
import os
import random
import re
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from mgc import files
from mgc.config import MgcError, did_you_mean
from mgc.progress import Progress

RENDERER = 2  # raise it when the same seed gives other clips; sets rendered before are then made anew
PIECES_PER_STYLE = 40
CLIP_SECONDS = 12.0
SAMPLE_RATE_HZ = 22_050
SYNTH_RATE_HZ = 2 * SAMPLE_RATE_HZ  # the sound font's own rate; halved afterwards by a proper filter
SYNTH_QUALITY = 4  # symusic 0.5.9: the best that sounds, 5 to 7 are silent with this sound font
FADE_SECONDS = 0.02
LOUDNESS_DBFS = -23.0  # root mean square; the level broadcasters agreed on (EBU R 128)
VELOCITY = 80  # of 127, for every note

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
MAX_WORKERS = 8  # unless more are asked for; each holds music21, some 200 MB, and there is little to do
MEASURES = 40  # as many of a MusicXML file are read, from a drawn one: a whole quartet takes minutes

Labels = tuple[str, str]  # group, title


@dataclass(frozen=True)
class Style:
    """Where the pieces of one style lie in music21's corpus, and how a piece is labelled."""

    files: re.Pattern[str]  # of paths relative to the corpus
    labels: Callable[[Path, bytes], Labels]


@dataclass(frozen=True)
class Piece:
    """One score: its style, the name its clip gets, and its file."""

    style: str
    name: str
    file: Path


@dataclass(frozen=True)
class Treatment:
    """What is drawn and not composed: the same 40 of them serve every style."""

    program: int
    semitones: int
    quarters_a_minute: float


@dataclass(frozen=True)
class Job:
    """One piece with one treatment, to be written to one clip."""

    piece: Piece
    treatment: Treatment
    clip: Path
    seed: int


@dataclass(frozen=True)
class Sound:
    """One note: start and end in quarter notes (later in seconds), MIDI pitch, number of its part."""

    start: float
    end: float
    pitch: int
    part: int


class PassedOverError(Exception):
    """This piece cannot fill a clip, and why: the next one is taken."""


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
    corpus = _corpus()
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


# ---- what is rendered ------------------------------------------------------------------------------------


def _corpus() -> Path:
    """music21's folder of scores, found without importing music21 (which takes a second)."""
    missing = [name for name in ("music21", "symusic", "pretty_midi") if find_spec(name) is None]
    if missing:
        raise MgcError(
            f"the demo set needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed", fix='pip install "mgc[demo]"',
        )  # fmt: skip
    corpus = _package_folder("music21") / "corpus"
    if not (corpus / "bach").is_dir():
        raise MgcError(
            "this music21 was installed without its scores", where=corpus, fix='pip install "mgc[demo]"'
        )
    return corpus


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None  # asked before, in _corpus
    return Path(spec.origin).parent


def _catalogue(corpus: Path, style: str) -> list[Piece]:
    """All pieces of a style in a fixed order; of one piece in two formats, or with a backup, the first."""
    pieces: dict[str, Piece] = {}
    for file in sorted(corpus.rglob("*")):
        path = file.relative_to(corpus).as_posix()
        if STYLES[style].files.fullmatch(path):
            name = re.sub(r"[^a-z0-9]+", "_", path.rpartition(".")[0].lower()).strip("_")
            pieces.setdefault(name, Piece(style, name, file))
    return list(pieces.values())


def _treatments(seed: int, count: int) -> list[Treatment]:
    """`count` treatments: every instrument and transposition as often as any other, the tempo log-uniform."""
    draw = random.Random(f"{seed} treatments")
    slow, fast = QUARTERS_A_MINUTE
    programs = [INSTRUMENTS[i % len(INSTRUMENTS)] for i in range(count)]
    semitones = [SEMITONES[i % len(SEMITONES)] for i in range(count)]
    tempi = [slow * (fast / slow) ** ((i + 0.5) / count) for i in range(count)]
    for column in (programs, semitones, tempi):
        draw.shuffle(column)
    return [Treatment(*each) for each in zip(programs, semitones, tempi, strict=True)]


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
        pieces, treatments = _catalogue(corpus, style), _treatments(seed, count)
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
    raw = _read(job.piece.file)
    try:
        sounds = _excerpt(_sounds(job.piece.file, raw, draw), job.treatment, draw)
        audio = _play(sounds, job.treatment.program)
    except PassedOverError as why:
        return str(why)
    labels = STYLES[job.piece.style].labels(job.piece.file, raw)
    _write_clip(job.clip, audio, labels)
    return labels


# ---- score to notes --------------------------------------------------------------------------------------


def _read(file: Path) -> bytes:
    """A score's bytes; those of the score within, if it is a compressed MusicXML file."""
    if file.suffix != ".mxl":
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        inside = [n for n in archive.namelist() if n.endswith("xml") and not n.startswith("META-INF")]
        return archive.read(inside[0])


def _text(raw: bytes) -> str:
    """Text of a kern or ABC file: UTF-8, or the Latin-1 of the older ones."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _sounds(file: Path, raw: bytes, draw: random.Random) -> list[Sound]:
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
    data = _cut_musicxml(raw, draw) if kind == "musicxml" else _text(raw)
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


# The order that the MusicXML schema prescribes.
ATTRIBUTES_ORDER = (
    "footnote", "level", "divisions", "key", "time", "staves", "part-symbol", "instruments", "clef",
    "staff-details", "transpose", "for-part", "directive", "measure-style",
)  # fmt: skip


# ---- notes to sound --------------------------------------------------------------------------------------


def _excerpt(sounds: list[Sound], treatment: Treatment, draw: random.Random) -> list[Sound]:
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


def _play(sounds: list[Sound], program: int) -> npt.NDArray[np.float64]:
    """The clip as waveform, at SAMPLE_RATE_HZ and LOUDNESS_DBFS: # (S,)."""
    from symusic import Note, Score, Synthesizer, Track

    score = Score(0, ttype="second")
    for part in sorted({s.part for s in sounds}):
        track = Track(f"{part}", program, False, ttype="second")
        for s in sounds:
            if s.part == part:
                track.notes.append(Note(s.start, s.end - s.start, s.pitch, VELOCITY, ttype="second"))
        score.tracks.append(track)
    fonts = sorted(_package_folder("pretty_midi").glob("*.sf2"))
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


def _write_clip(clip: Path, audio: npt.NDArray[np.float64], labels: Labels) -> None:
    """Write a FLAC that carries its own labels."""
    buffer = io.BytesIO()  # so that a full disk is an OSError that says so
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as file:
        file.artist, file.title = labels
        file.write(audio)
    files.write(clip, buffer.getvalue())


# ---- the styles ------------------------------------------------------------------------------------------


def _palestrina(file: Path, raw: bytes) -> Labels:
    """One group a mass, after the file's own header (the same movement is in several files)."""
    header = dict(re.findall(r"^!!!(OPR|OTL):\s*(.+?)\s*$", _text(raw), re.MULTILINE))
    mass, movement = header.get("OPR", file.stem), header.get("OTL", file.stem)
    return f"Palestrina: {mass}", f"{mass}: {file.stem.split('_')[0]}, {movement}"


def _chorale(file: Path, raw: bytes) -> Labels:
    """One group a hymn: Bach set many a tune several times. Two lists, as the first lacks a few."""
    from music21.corpus.chorales import ChoraleList, ChoraleListRKBWV

    number = file.stem.removeprefix("bwv")
    listed = ChoraleList().byBWV.get(int(number)) or ChoraleListRKBWV().byBWV[number]
    title = listed["title"].replace("’", "'")
    return f"Bach chorale: {title}", f"{title} (BWV {number})"


def _trecento(file: Path, raw: bytes) -> Labels:
    """One group a piece; versions of one piece (`10a`, `10b`) share it, as do two prints of a Kyrie."""
    title = re.sub(r"[_\s]+", " ", re.sub(r"^PMFC_\d+[-_ ]?", "", file.stem)).strip(" -")
    if "kyrie" in title.lower() and "clementissime" in title.lower():
        return "Trecento: Kyrie Summe Clementissime", title
    numbered = re.match(r"PMFC_\d+[-_](?:[A-Za-z]+[-_])?\d+", file.stem)  # without the letter of the version
    return f"Trecento: {re.sub('[-_]', ' ', numbered[0]) if numbered else title}", title


# Cycles: the first madrigal of the cycle for each of the others.
MONTEVERDI_CYCLES = {
    "3.9": "3.8", "3.10": "3.8", "3.16": "3.15", "3.17": "3.15", "3.20": "3.19", "4.7": "4.6",
    "5.5": "5.4", "5.6": "5.4", "5.7": "5.4", "5.8": "5.4",
}  # fmt: skip


def _monteverdi(file: Path, raw: bytes) -> Labels:
    """One group a madrigal or cycle of madrigals; the titles stand in the analyses beside the scores."""
    number = file.stem.removeprefix("madrigal.")
    cycle = MONTEVERDI_CYCLES.get(number, number)
    analysis = file.with_suffix(".rntxt").read_text(encoding="utf-8")
    found = re.search(r"^Title:\s*(.+?)\s*$", analysis, re.MULTILINE)
    title = found[1] if found else "Madrigal"
    if number == "3.8":
        title = "Vattene pur, crudel"  # music21's analysis has the title of 4.9 here
    return f"Monteverdi: madrigal {cycle}", f"{title} ({number})"


def _fiddle_tune(file: Path, raw: bytes) -> Labels:
    """One group a tune, whichever dance it was made into ("Money Musk" is there as reel and strathspey)."""
    found = re.search(r"^T:\s*(.+?)\s*$", _text(raw), re.MULTILINE)
    title = found[1] if found else file.stem
    tune = " ".join(re.findall(r"[^\W_]+", title.split("--")[0].replace("'", ""))).title()
    return f"Fiddle tune: {tune}", title


def _quartet(file: Path, raw: bytes) -> Labels:
    """One group a quartet, with all its movements: `haydn/opus1no1/movement2` or `beethoven/opus74`."""
    whole = file.parent.name in ("beethoven", "haydn", "mozart")
    composer, work = (file.parent.name, file.stem) if whole else (file.parts[-3], file.parent.name)
    work = re.sub(r"opus(\d+)(?:no(\d+))?", lambda m: f"op. {m[1]}" + (f" no. {m[2]}" if m[2] else ""), work)
    work = re.sub(r"^k(\d+)$", r"K. \1", work)
    quartet = f"{composer.title()}: String Quartet {work}"
    return quartet, quartet if whole else f"{quartet}, {file.stem.replace('movement', 'movement ')}"


STYLES: dict[str, Style] = {
    "bach_chorale": Style(re.compile(r"bach/bwv(2[5-9]\d|3\d\d|4[0-2]\d|43[0-8])\.mxl"), _chorale),
    "fiddle_tune": Style(re.compile(r"ryansMammoth/.+\.abc"), _fiddle_tune),
    "monteverdi": Style(re.compile(r"monteverdi/madrigal\.\d\.\d+\.mxl"), _monteverdi),
    "palestrina": Style(re.compile(r"palestrina/.+\.krn"), _palestrina),
    "string_quartet": Style(
        re.compile(r"(beethoven|haydn|mozart)/(opus[^/]+|(opus|k)[^/]+/movement\d)\.mxl"), _quartet
    ),
    "trecento": Style(re.compile(r"trecento/(?!.*_bak\.).+\.(xml|mxl)"), _trecento),
}


# ---- files -----------------------------------------------------------------------------------------------


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
