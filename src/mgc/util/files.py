"""Files that are written completely or not at all."""

import io
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any


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
