"""Files that are written completely or not at all, and whose damage is found when they are read."""

import errno
import io
import os
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.util.errors import reason_of
from mgc.util.progress import say

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROWS, MAX_BYTES = 2_000_000, 1 << 30  # of a Parquet file, uncompressed


def write(file: Path, content: str | bytes | memoryview | Iterable[bytes], sync: bool = True) -> Path:
    """Write a temporary file beside `file`, `sync` it and rename it. Missing folders are created.

    Text is written as UTF-8. The temporary name, `.<random>.part`, is short, so that `file` may have a name
    of 255 bytes. Only a process that is killed leaves a temporary file behind.

    Raises:
        OSError: the file cannot be written; the error names `file`.
    """
    if isinstance(content, str):
        content = content.encode()
    part = file.with_name(f".{uuid.uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as stream:
            stream.writelines([content] if isinstance(content, bytes | memoryview) else content)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        part.replace(file)
    except OSError as error:
        error.filename, error.filename2 = str(file), None  # the error for a full disk names no file
        raise
    finally:
        with suppress(OSError):  # an error above matters more than this one
            part.unlink()
    return file


def read(file: Path) -> bytes:
    """The bytes of a regular file; OSError for anything else: a pipe or a device may never end."""
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    return file.read_bytes()


def read_parquet(content: bytes) -> "pa.Table":
    """The table in a Parquet file, unless it would fill the memory: 200 kB can hold forty million rows.

    Raises:
        ValueError: it is damaged, no Parquet file, or too large; pyarrow has many exceptions for that.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(pa.BufferReader(content))
        rows, groups = file.metadata.num_rows, range(file.num_row_groups)
        size = sum(file.metadata.row_group(number).total_byte_size for number in groups)
        if rows > MAX_ROWS or size > MAX_BYTES:
            limits = f"at most {MAX_ROWS:,} rows and {MAX_BYTES:,} bytes are read"
            raise ValueError(f"it has {rows:,} rows of {size:,} bytes in all; {limits}")
        table = file.read()
        table.validate(full=True)
        return table
    except Exception as error:
        raise ValueError(reason_of(error)) from error


def lock(folder: Path) -> AbstractContextManager[object]:
    """For `with`: only one process at a time works on `folder`; another one says that it waits. It nests.

    The files in `.locks/` beside the folder are kept: removing one that a process waits for breaks its lock.
    """
    from filelock import FileLock, Timeout

    file = folder.absolute().parent / ".locks" / folder.name
    file.parent.mkdir(parents=True, exist_ok=True)
    found = FileLock(file, is_singleton=True)
    try:
        return found.acquire(timeout=0)
    except Timeout:
        say(f"another process works on {folder}: waiting for it to end")
        return found.acquire()


def is_file(path: Path, size: int | None = None) -> bool:
    """Whether `path` is a regular file, of `size` bytes if given."""
    try:
        return path.is_file() and size in (None, path.stat().st_size)
    except (OSError, ValueError):  # a name that is too long, contains a zero byte or cannot be encoded
        return False


def write_figure(figure: Any, file: Path, **options: Any) -> Path:
    """Render a matplotlib figure in the format that the suffix of `file` names, and `write` it."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=file.suffix[1:], **options)
    return write(file, drawn.getvalue())


def as_label(text: str) -> str:
    """`text` for a matplotlib figure, where an unescaped dollar sign would begin a formula."""
    return text.replace("$", r"\$")
