"""Files that are written completely or not at all, and whose damage is found when they are read."""

import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.util.errors import MgcError, reason_of
from mgc.util.progress import say

if TYPE_CHECKING:
    import pyarrow as pa

Bytes = bytes | memoryview


def write(file: Path, content: str | Bytes | Iterable[Bytes], sync: bool = True) -> Path:
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
            stream.writelines([content] if isinstance(content, Bytes) else content)
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


def sha256(content: bytes) -> str:
    """The checksum that `sha256sum` prints."""
    return hashlib.sha256(content).hexdigest()


def write_sealed(file: Path, content: memoryview, owner: str) -> Path:
    """`write` the content after a checksum of it and of `owner`, which says what the file belongs to."""
    return write(file, [_seal(content, owner), content])


def read_sealed(file: Path, owner: str) -> memoryview:
    """The content that `write_sealed` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, was written for another owner, or not by `write_sealed`.
    """
    data = memoryview(file.read_bytes())
    seal, content = data[: hashlib.sha256().digest_size], data[hashlib.sha256().digest_size :]
    if seal != _seal(content, owner):
        raise ValueError("it is damaged, belongs to another training, or is of another version of mgc")
    return content


def _seal(content: memoryview, owner: str) -> bytes:
    digest = hashlib.sha256(owner.encode() + b"\0")
    digest.update(content)
    return digest.digest()


def read_parquet(source: Path | bytes, check: Callable[[Any], None] = lambda metadata: None) -> "pa.Table":
    """The table in a Parquet file. `check` is called with its metadata before anything else is read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a Parquet file, or damaged; pyarrow has many unrelated exceptions for that.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(source if isinstance(source, Path) else pa.BufferReader(source)) as file:
            check(file.metadata)
            table = file.read()
        table.validate(full=True)
    except (MgcError, OSError):
        raise
    except Exception as error:
        raise ValueError(reason_of(error)) from error
    return table


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time works on `folder`; another one says that it waits, and waits.

    The lock of a process that is killed is released. A process may nest this for the same folder. The lock
    files stay in `.locks/` beside the folder, since removing one that another process waits for would break
    its lock.
    """
    from filelock import FileLock, Timeout

    file = folder.absolute().parent / ".locks" / folder.name
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process works on {folder}: waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
