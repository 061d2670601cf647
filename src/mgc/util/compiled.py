"""What librosa has compiled by numba, compiled by one process at a time.

Two processes that compile librosa's generalised ufuncs at once leave files in numba's cache that do not
belong together; every process that reads them later ends in a segmentation fault (numba issue 10128). On a
new machine that is what two workers do. So there is a cache of our own, and a lock on it.
"""

import atexit
import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mgc.util.errors import MgcError
from mgc.util.progress import say

MODULES = ("librosa.util.utils", "librosa.core.audio", "librosa.core.pitch", "librosa.beat")
"""Those of librosa that compile when they are imported."""


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mgc"


@cache
def librosa_ready() -> None:
    """To be called before the first use of librosa: what it compiles is in numba's cache when this returns.

    Takes half a minute on a machine where that was never done, and nothing afterwards. The cache is
    `$NUMBA_CACHE_DIR`, else `numba` beside the converted weights, else, where that cannot be written, a
    temporary folder of this process.

    Raises:
        MgcError: numba fails.
    """
    from filelock import FileLock

    folder = Path(os.environ.setdefault("NUMBA_CACHE_DIR", str(_user_cache() / "numba")))
    done = folder / f"librosa-{_key()}"
    try:
        if done.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "librosa.lock"):
            if not done.exists():
                say("compiling librosa's functions, once on this machine: half a minute")
                _compile()
                done.touch()
    except OSError as error:
        own = tempfile.mkdtemp(prefix="mgc-numba-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        os.environ["NUMBA_CACHE_DIR"] = own
        say(f"{folder}: {error.strerror}; librosa's functions are compiled for this run alone")


def _compile() -> None:
    """In a process of its own, which has loaded nothing yet: what is loaded is not compiled again."""
    # Ctrl-C is for this process, which then ends the other one.
    ended = subprocess.run([sys.executable, "-m", __name__], check=False, start_new_session=True)
    if ended.returncode:
        what = f"librosa's functions could not be compiled: exit code {ended.returncode}"
        raise MgcError(what, where=os.environ["NUMBA_CACHE_DIR"], fix="what was printed above says why")


def _use() -> None:
    for module in MODULES:
        importlib.import_module(module)
    # Compiled when called: parts of the inverse transform and of the constant-Q transform.
    import librosa
    import numpy as np

    noise = np.random.default_rng(0).standard_normal(22_050).astype(np.float32)
    librosa.istft(librosa.stft(noise))
    librosa.cqt(noise, sr=22_050)


def _key() -> str:
    """What numba looks at before it takes a compiled function from its cache: code, versions, processor."""
    from llvmlite import binding

    spec = importlib.util.find_spec("librosa")
    place = Path(spec.origin) if spec and spec.origin else Path()
    stamp = place.stat().st_mtime_ns
    versions = [version(name) for name in ("librosa", "numba", "numpy")]
    features = binding.get_host_cpu_features().flatten()
    parts = [place, stamp, *versions, sys.version, binding.get_host_cpu_name(), features]
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


if __name__ == "__main__":
    _use()
