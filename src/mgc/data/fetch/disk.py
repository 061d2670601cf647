"""Sizes, free space and file errors in words, for downloads and archives."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgc.util.errors import MgcError, printable
from mgc.util.progress import Progress

MIB = 1 << 20


class ByteProgress(Progress):
    """Progress through `total` bytes, displayed in MiB."""

    def __init__(self, what: str, total: int) -> None:
        super().__init__(what, -(-total // MIB), "MiB")

    def reach(self, position: int) -> None:
        """Advance to the byte `position`; a position before the last one is ignored."""
        whole = min(-(-position // MIB), self.total)
        if whole > self.done:
            self.step(whole - self.done)


@contextmanager
def disk_errors(where: Path, fix: str, action: str = "written") -> Iterator[None]:
    """Turn an OSError into an `MgcError` with the place and what to do."""
    try:
        yield
    except OSError as error:
        what = f"{where.name} cannot be {action}: {error.strerror or error}"
        raise MgcError(what, where=where, fix=fix) from None


def check_free_space(folder: Path, what: str, need: int) -> None:
    """Raise `MgcError` if fewer than `need` bytes are free; `what` is the start of the message."""
    free = shutil.disk_usage(folder).free
    if need > free:
        fix = f"free {amount(need - free)} more, or choose another folder"
        raise MgcError(f"{what} {amount(need)}, but only {amount(free)} are free", where=folder, fix=fix)


def reason_of(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class."""
    first, *_ = str(getattr(error, "strerror", None) or error).splitlines() or [""]
    return printable(first) or type(error).__name__


def amount(count: int) -> str:
    """A number of bytes in the unit that suits it: `1.0 MiB`."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
