"""The styles: where the scores of each are in music21's corpus, how they are labelled and performed."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mgc.util.errors import MgcError

Labels = tuple[str, str]  # group, title

# General MIDI programs, from 0. With symusic 0.5.9 and this sound font they sound at every MIDI pitch from 33
# to 96. Others do not: oboe and bass flute have silent notes, program 78 crashes, and notes far above their
# sample (violin from 98) never end.
PROGRAMS = {
    "harpsichord": 6, "church organ": 19, "accordion": 21, "nylon guitar": 24, "steel guitar": 25,
    "violin": 40, "viola": 41, "cello": 42, "string ensemble": 48, "choir": 52, "voices": 53,
    "trumpet": 56, "trombone": 57, "flute": 73, "recorder": 74, "banjo": 105,
}  # fmt: skip
PITCHES = range(34, 96)  # a pitch standard moves them by a semitone

# Each part goes to the first instrument of the family that has its lowest note (MIDI).
FAMILIES = {
    "strings": (("violin", 55), ("viola", 48), ("cello", 0)),
    "brass": (("trumpet", 54), ("trombone", 0)),  # for cornetts and sackbuts, which General MIDI lacks
}

Ensemble = tuple[str, ...]  # instruments or families; all of them play every part


@dataclass(frozen=True)
class Style:
    """Where the scores of a style are, and how they are labelled and performed."""

    files: re.Pattern[str]  # of paths relative to music21's corpus
    labels: Callable[[Path, bytes], Labels]  # of a file and its content
    beats_per_minute: tuple[float, float]
    ensembles: tuple[Ensemble, ...]  # used equally often


def find_corpus() -> Path:
    """music21's folder of scores; an error if the packages of the extra `demo` are not installed."""
    missing = [name for name in ("music21", "symusic", "pretty_midi") if find_spec(name) is None]
    if missing:
        what = f"the demo dataset needs packages that are not installed: {', '.join(missing)}"
        raise MgcError(what, fix='pip install "mgc[demo]"')
    return package_folder("music21") / "corpus"


def package_folder(name: str) -> Path:
    """The folder of an installed package, found without importing it (music21 takes a second)."""
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None  # find_corpus has checked this
    return Path(spec.origin).parent


def catalogue(corpus: Path, style: str) -> dict[str, Path]:
    """All pieces of a style by name, in a fixed order. Of a piece in two files, the first."""
    pieces: dict[str, Path] = {}
    for file in sorted(corpus.rglob("*")):
        path = file.relative_to(corpus).as_posix()
        if STYLES[style].files.fullmatch(path):
            pieces.setdefault(re.sub(r"[^a-z0-9]+", "_", path.rpartition(".")[0].lower()).strip("_"), file)
    return pieces


def _palestrina(file: Path, raw: bytes) -> Labels:
    """One group per mass, from the header of the file (a movement may be in several files)."""
    header = dict(re.findall(r"^!!!(OPR|OTL):\s*(.+?)\s*$", raw.decode("utf-8", "replace"), re.MULTILINE))
    mass, movement = header.get("OPR", file.stem), header.get("OTL", file.stem)
    return f"Palestrina: {mass}", f"{mass}: {file.stem.split('_')[0]}, {movement}"


def _chorale(file: Path, raw: bytes) -> Labels:
    """One group per hymn, since Bach set many tunes several times. The first list lacks a few chorales."""
    from music21.corpus.chorales import ChoraleList, ChoraleListRKBWV

    number = file.stem.removeprefix("bwv")
    listed = ChoraleList().byBWV.get(int(number)) or ChoraleListRKBWV().byBWV[number]
    title = listed["title"].replace("’", "'")
    return f"Bach chorale: {title}", f"{title} (BWV {number})"


def _trecento(file: Path, raw: bytes) -> Labels:
    """One group per piece; its versions (`10a`, `10b`) share it, as do two editions of a Kyrie."""
    title = re.sub(r"[_\s]+", " ", re.sub(r"^PMFC_\d+[-_ ]?", "", file.stem)).strip(" -")
    if "kyrie" in title.lower() and "clementissime" in title.lower():
        return "Trecento: Kyrie Summe Clementissime", title
    numbered = re.match(r"PMFC_\d+[-_](?:[A-Za-z]+[-_])?\d+", file.stem)  # without the letter of the version
    return f"Trecento: {re.sub('[-_]', ' ', numbered[0]) if numbered else title}", title


# Cycles of madrigals: the number of the first madrigal, for each of the others.
MONTEVERDI_CYCLES = {
    "3.9": "3.8", "3.10": "3.8", "3.16": "3.15", "3.17": "3.15", "3.20": "3.19", "4.7": "4.6",
    "5.5": "5.4", "5.6": "5.4", "5.7": "5.4", "5.8": "5.4",
}  # fmt: skip


def _monteverdi(file: Path, raw: bytes) -> Labels:
    """One group per madrigal or cycle of madrigals; titles are in the analyses next to the scores."""
    number = file.stem.removeprefix("madrigal.")
    cycle = MONTEVERDI_CYCLES.get(number, number)
    analysis = file.with_suffix(".rntxt").read_text(encoding="utf-8")
    found = re.search(r"^Title:\s*(.+?)\s*$", analysis, re.MULTILINE)
    title = found[1] if found else "Madrigal"
    if number == "3.8":
        title = "Vattene pur, crudel"  # music21's analysis has the title of 4.9 here
    return f"Monteverdi: madrigal {cycle}", f"{title} ({number})"


def _fiddle_tune(file: Path, raw: bytes) -> Labels:
    """One group per tune, in whatever dance form ("Money Musk" is there as a reel and as a strathspey)."""
    found = re.search(r"^T:\s*(.+?)\s*$", raw.decode("utf-8", "replace"), re.MULTILINE)
    title = found[1] if found else file.stem
    tune = " ".join(re.findall(r"[^\W_]+", title.split("--")[0].replace("'", ""))).title()
    return f"Fiddle tune: {tune}", title


def _quartet(file: Path, raw: bytes) -> Labels:
    """One group per quartet, with all its movements: `haydn/opus1no1/movement2` or `beethoven/opus74`."""
    whole = file.parent.name in ("beethoven", "haydn", "mozart")
    composer, work = (file.parent.name, file.stem) if whole else (file.parts[-3], file.parent.name)
    work = re.sub(r"opus(\d+)(?:no(\d+))?", lambda m: f"op. {m[1]}" + (f" no. {m[2]}" if m[2] else ""), work)
    work = re.sub(r"^k(\d+)$", r"K. \1", work)
    quartet = f"{composer.title()}: String Quartet {work}"
    return quartet, quartet if whole else f"{quartet}, {file.stem.replace('movement', 'movement ')}"


# Tempi are those of recordings and dance manuals, since the scores give none or unreliable ones. The beat is
# that of the metre: the half note of Palestrina's 4/2, the dotted quarter of a jig in 6/8.
STYLES: dict[str, Style] = {
    "bach_chorale": Style(
        re.compile(r"bach/bwv(2[5-9]\d|3\d\d|4[0-2]\d|43[0-8])\.mxl"), _chorale, (60, 84),
        (("choir",), ("choir", "church organ"), ("choir", "string ensemble"), ("church organ",), ("brass",)),
    ),
    "fiddle_tune": Style(
        re.compile(r"ryansMammoth/.+\.abc"), _fiddle_tune, (90, 120),
        (("violin",), ("flute",), ("accordion",), ("banjo",), ("violin", "steel guitar")),
    ),
    "monteverdi": Style(
        re.compile(r"monteverdi/madrigal\.\d\.\d+\.mxl"), _monteverdi, (90, 130),
        (("voices",), ("choir",), ("voices", "harpsichord"), ("strings",), ("recorder",)),
    ),
    "palestrina": Style(
        re.compile(r"palestrina/.+\.krn"), _palestrina, (60, 84),
        (("choir",), ("voices",), ("choir", "church organ"), ("church organ",), ("voices", "brass")),
    ),
    "string_quartet": Style(
        re.compile(r"(beethoven|haydn|mozart)/(opus[^/]+|(opus|k)[^/]+/movement\d)\.mxl"), _quartet,
        (56, 152), (("strings",),),
    ),
    "trecento": Style(
        re.compile(r"trecento/(?!.*_bak\.).+\.(xml|mxl)"), _trecento, (60, 96),
        (("voices",), ("strings",), ("recorder",), ("church organ",), ("voices", "nylon guitar")),
    ),
}  # fmt: skip
