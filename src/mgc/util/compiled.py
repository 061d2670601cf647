"""A numba cache for each process, filled from a snapshot that all processes share.

librosa compiles functions with numba and caches them on disk. Two processes that compile into the same cache
at the same time leave files that do not belong together, and every process that loads them later ends in a
segmentation fault (numba issue 10128). Therefore no cache is ever shared: each process extracts the snapshot
into a temporary folder, compiles there what the snapshot lacks, and replaces the snapshot when it exits.
Which functions are compiled, and when, is left to librosa.
"""

import atexit
import io
import multiprocessing
import sys
import tempfile
import zipfile
import zlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path

from mgc.util import files
from mgc.util.progress import say


@cache
def prepare_librosa() -> None:
    """Give this process its own numba cache. Call this before the first use of librosa.

    The snapshot lies in `$NUMBA_CACHE_DIR`, otherwise in `numba/` beside the converted weights. Without one,
    librosa compiles the functions when they are first called, which takes up to half a minute.
    """
    from numba import config

    # numba checks for itself whether a cached function fits its own version, the source file and the CPU.
    name = f"librosa-{version('librosa')}-numba-{version('numba')}-{sys.implementation.cache_tag}.zip"
    snapshot = Path(config.CACHE_DIR or user_cache_path("mgc") / "numba") / name
    folder = _extract(snapshot)
    config.CACHE_DIR = folder.name
    # At exit the folder is deleted after this call, because it was created before.
    atexit.register(_replace_snapshot, snapshot, folder, _files_in(folder))


def _extract(snapshot: Path) -> "tempfile.TemporaryDirectory[str]":
    folder = tempfile.TemporaryDirectory(prefix="mgc-numba-")
    try:
        with zipfile.ZipFile(snapshot) as archive:
            archive.extractall(folder.name)
    except FileNotFoundError:
        if multiprocessing.current_process().name == "MainProcess":
            say("compiling librosa's functions, once on this machine: up to half a minute")
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        say(f"{snapshot}: {error}; librosa's functions are compiled again")
        return tempfile.TemporaryDirectory(prefix="mgc-numba-")  # without the files extracted so far
    return folder


def _replace_snapshot(
    snapshot: Path, folder: "tempfile.TemporaryDirectory[str]", extracted: set[Path]
) -> None:
    """Write the files in `folder` to `snapshot` if there are more than were extracted from it."""
    compiled = _files_in(folder)
    if compiled == extracted:
        return
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(compiled):
            archive.write(path, path.relative_to(folder.name))
    try:
        files.write(snapshot, content.getbuffer())
    except OSError as error:
        say(f"{snapshot}: {error.strerror}; librosa's functions will be compiled again by the next run")


def _files_in(folder: "tempfile.TemporaryDirectory[str]") -> set[Path]:
    return {path for path in Path(folder.name).rglob("*") if path.is_file()}
