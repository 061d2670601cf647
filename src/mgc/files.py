"""Files that are there whole or not at all."""

import os
import uuid
from pathlib import Path


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
        part.unlink(missing_ok=True)
    return file
