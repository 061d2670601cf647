"""What a person is told of bytes and disks: how far, how many, how much room, and what went wrong."""

import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgc.util.errors import MgcError, printable
from mgc.util.progress import Progress

MIB = 1 << 20


class Mebibytes(Progress):
    """Progress in whole MiB, told in bytes."""

    def __init__(self, what: str, total: int) -> None:
        super().__init__(what, -(-total // MIB), "MiB")
        self._bytes = 0

    def __enter__(self) -> "Mebibytes":
        return self

    def add(self, count: int) -> None:
        """Count `count` more bytes."""
        self.reach(self._bytes + count)

    def reach(self, position: int) -> None:
        """Count up to the byte `position`; one before the last is none."""
        self._bytes = max(position, self._bytes)
        whole = min(-(-self._bytes // MIB), self.total)
        if whole > self.done:
            self.step(whole - self.done)


@contextmanager
def on_disk(where: Path, fix: str, what: str = "written") -> Iterator[None]:
    """Trouble with the disk, told with where it was and what to do."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise MgcError(f"{where.name} cannot be {what}: {why}", where=where, fix=fix) from None


def look_for_room(folder: Path, what: str, need: int) -> None:
    """Nothing, if there are `need` bytes free; `what` says who needs them.

    Raises:
        MgcError: there are fewer.
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        fix = f"make {amount(need - free)} more free, or choose another folder"
        raise MgcError(f"{what} {amount(need)}, and {amount(free)} are free", where=folder, fix=fix)


def reason_of(error: BaseException) -> str:
    """What an exception says, in its first line, or else its kind."""
    first, *_ = str(getattr(error, "strerror", None) or error).splitlines() or [""]
    return printable(first) or ("it ends too early" if isinstance(error, EOFError) else type(error).__name__)


def kind_of(mode: int) -> str:
    """What lies there, by its mode, in words."""
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a device or pipe")


def amount(count: int) -> str:
    """Bytes as a person reads them."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
