"""A numba cache for each process, filled from a snapshot that all processes share.

librosa compiles functions with numba and caches them on disk. Two processes that compile into the same cache
at the same time leave files that do not belong together, and every process that loads them later ends in a
segmentation fault (numba issue 10128). Therefore no cache is ever shared: each process extracts the snapshot
into a temporary folder, compiles there what the snapshot lacks, and replaces the snapshot when it exits.
Which functions are compiled, and when, is left to librosa.
"""

import io
import multiprocessing
import shutil
import sys
import tempfile
import zipfile
import zlib
from functools import cache
from importlib.metadata import version
from multiprocessing.util import Finalize
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
    config.CACHE_DIR = str(folder)
    # At the exit of this process. atexit would not do: children of multiprocessing do not call it.
    Finalize(None, _close, (snapshot, folder, _files_in(folder)), exitpriority=0)


def _extract(snapshot: Path) -> Path:
    """A new temporary folder with the files of the snapshot."""
    folder = Path(tempfile.mkdtemp(prefix="mgc-numba-"))
    try:
        with zipfile.ZipFile(snapshot) as archive:
            archive.extractall(folder)
    except FileNotFoundError:
        if multiprocessing.current_process().name == "MainProcess":
            say("compiling librosa's functions, once on this machine: up to half a minute")
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        say(f"{snapshot}: {error}; librosa's functions are compiled again")
        shutil.rmtree(folder)  # an extracted part may be incomplete
        folder.mkdir()
    return folder


def _close(snapshot: Path, folder: Path, extracted: set[Path]) -> None:
    """Replace the snapshot if `folder` holds more than was extracted from it, and delete the folder."""
    compiled = _files_in(folder)
    if compiled != extracted:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(compiled):
                archive.write(path, path.relative_to(folder))
        try:
            files.write(snapshot, content.getbuffer())
        except OSError as error:
            say(f"{snapshot}: {error.strerror}; librosa's functions will be compiled again by the next run")
    shutil.rmtree(folder, ignore_errors=True)


def _files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}
