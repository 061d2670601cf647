"""The styles: where the scores of each lie in music21's corpus, and how a piece is labelled."""

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mgc.util.errors import MgcError

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


def find_corpus() -> Path:
    """music21's folder of scores, found without importing music21 (which takes a second)."""
    missing = [name for name in ("music21", "symusic", "pretty_midi") if find_spec(name) is None]
    if missing:
        raise MgcError(
            f"the demo set needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed", fix='pip install "mgc[demo]"',
        )  # fmt: skip
    corpus = package_folder("music21") / "corpus"
    if not (corpus / "bach").is_dir():
        raise MgcError(
            "this music21 was installed without its scores", where=corpus, fix='pip install "mgc[demo]"'
        )
    return corpus


def package_folder(name: str) -> Path:
    """Where an installed package lies, found without importing it."""
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None  # asked before, in find_corpus
    return Path(spec.origin).parent


def catalogue(corpus: Path, style: str) -> list[Piece]:
    """All pieces of a style in a fixed order; of one piece in two formats, or with a backup, the first."""
    pieces: dict[str, Piece] = {}
    for file in sorted(corpus.rglob("*")):
        path = file.relative_to(corpus).as_posix()
        if STYLES[style].files.fullmatch(path):
            name = re.sub(r"[^a-z0-9]+", "_", path.rpartition(".")[0].lower()).strip("_")
            pieces.setdefault(name, Piece(style, name, file))
    return list(pieces.values())


def read_score(file: Path) -> bytes:
    """A score's bytes; those of the score within, if it is a compressed MusicXML file."""
    if file.suffix != ".mxl":
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        inside = [n for n in archive.namelist() if n.endswith("xml") and not n.startswith("META-INF")]
        return archive.read(inside[0])


def text_of(raw: bytes) -> str:
    """Text of a kern or ABC file: UTF-8, or the Latin-1 of the older ones."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _palestrina(file: Path, raw: bytes) -> Labels:
    """One group a mass, after the file's own header (the same movement is in several files)."""
    header = dict(re.findall(r"^!!!(OPR|OTL):\s*(.+?)\s*$", text_of(raw), re.MULTILINE))
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
    found = re.search(r"^T:\s*(.+?)\s*$", text_of(raw), re.MULTILINE)
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
