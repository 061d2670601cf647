"""Files that are there whole or not at all."""

import io
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any


def write(file: Path, content: str | bytes | memoryview) -> Path:
    """Write under another name beside `file`, sync, rename; folders on the way are made.

    A text is written as UTF-8. The other name, `.<random>.part`, is short, so that a name of 255 bytes
    remains possible; only a process that is killed leaves one.

    Raises:
        OSError: no room, no right; it names `file`.
    """
    part = file.with_name(f".{uuid.uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError as error:
        error.filename, error.filename2 = str(file), None  # a full disk names no file by itself
        raise
    finally:
        with suppress(OSError):  # what has gone wrong before is what counts
            part.unlink()
    return file


def write_figure(figure: Any, file: Path, **options: Any) -> Path:
    """Draw a matplotlib figure in the form that the suffix of `file` names, and `write` it.

    Raises:
        OSError: as `write` does.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format=file.suffix[1:], **options)
    return write(file, drawn.getvalue())


def as_label(text: str) -> str:
    """For a figure: a dollar in a name is a dollar, and begins no formula."""
    return text.replace("$", r"\$")
