"""Sizes and free space, for downloads and archives."""

import shutil
from pathlib import Path

from mgc.util.errors import MgcError

MIB = 1 << 20


def mib(count: int) -> int:
    """A number of bytes in MiB, rounded up, for progress bars."""
    return -(-count // MIB)


def amount(count: int) -> str:
    """A number of bytes in the unit that suits it: `1.0 MiB`."""
    if count < 1024:
        return f"{count} bytes"
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{count / 1024**power:.1f} {' KMGT'[power]}iB"


def check_free_space(folder: Path, what: str, need: int) -> None:
    """Raise `MgcError` if fewer than `need` bytes are free; `what` is the start of the message."""
    free = shutil.disk_usage(folder).free
    if need > free:
        fix = f"free {amount(need - free)} more, or choose another folder"
        raise MgcError(f"{what} {amount(need)}, but only {amount(free)} are free", where=folder, fix=fix)
