"""Headers of mp3 files, where libsndfile does not read them as far as decoding needs."""

import os
import re
import struct
from io import BufferedReader, FileIO
from pathlib import Path
from typing import NamedTuple

# MPEG layer III, for version 1 (True) and versions 2 and 2.5: kbit/s by the index in the frame header.
KBITS = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
CONSECUTIVE_FRAMES = 4  # so many in a row are unlikely to be random bytes
SEARCHED_BYTES = 1 << 16  # searched for the first frame after a tag
LONGEST_FRAME_BYTES = 1_441
PROBES = 16  # frames compared to see whether the bitrate is constant
MAX_TAGS = 100  # read before the first frame; bounds the time for a file of nothing but tags


class Mp3Header(NamedTuple):
    """What the start of an mp3 file promises."""

    promised_seconds: float | None
    count_from: int | None  # byte from which libsndfile must count frames (see `UncountedMp3`), if it must
    unread: bool = False  # another mp3 follows that cannot be decoded with the first


class UncountedMp3(FileIO):
    """An mp3 file that hides its size and everything before byte `start`, so that libsndfile counts frames.

    Otherwise libsndfile believes a header, or guesses from the size and the bitrate of the first frame, and
    stops reading there.
    """

    def __init__(self, path: Path, start: int) -> None:
        super().__init__(path)
        self.start = start
        self.seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As in any file, except that the end is at byte 0."""
        if whence == os.SEEK_CUR:
            return super().seek(offset, whence) - self.start
        return super().seek(self.start + (offset if whence == os.SEEK_SET else 0)) - self.start

    def tell(self) -> int:
        """Bytes since `start`."""
        return super().tell() - self.start


class _Frame(NamedTuple):
    """A frame of MPEG layer III. All frames of a stream are equal except for their length."""

    length_bytes: int
    samples: int
    sample_rate_hz: int
    mono: bool


def read_mp3_header(stream: BufferedReader) -> Mp3Header | None:
    """The length in the first frame (Xing, Info or VBRI header); None if the file is not an mp3.

    Without such a header, libsndfile 1.2 guesses the length: it may read a quarter of a file with variable
    bitrate. With one, it reads no further, even if a second mp3 was appended to the first.
    """
    if (found := _first_frame(stream, 0)) is None:
        return None
    start, frame = found
    stream.seek(start)
    head = stream.read(frame.length_bytes)
    count = size = 0
    if (at := max(head.find(b"Xing", 4, 44), head.find(b"Info", 4, 44))) > 0:
        flags, *numbers = struct.unpack(">3I", head[at + 4 : at + 16].ljust(12, b"\0"))
        count = numbers.pop(0) if flags & 1 else 0
        size = numbers.pop(0) if flags & 2 else 0
    elif head[36:40] == b"VBRI":
        size, count = struct.unpack(">2I", head[46:54].ljust(8, b"\0"))
    if not count:
        # If frames all over the file are as long as the first one, libsndfile's guess is right. Counting
        # frames is slow, since every read goes through Python.
        size = stream.seek(0, os.SEEK_END) - start
        probes = (_first_frame(stream, start + size * part // PROBES) for part in range(1, PROBES))
        lengths = (found[1].length_bytes for found in probes if found)
        is_constant = all(abs(length - frame.length_bytes) <= 1 for length in lengths)  # 1 byte of padding
        return Mp3Header(None, None if is_constant else start)
    seconds = count * frame.samples / frame.sample_rate_hz
    more = _first_frame(stream, start + size) if size else None
    if more and more[1][1:] == frame[1:]:
        return Mp3Header(seconds, start + frame.length_bytes)
    return Mp3Header(seconds, None, unread=more is not None)


def _first_frame(stream: BufferedReader, at: int) -> tuple[int, _Frame] | None:
    """Position and header of the first frame after byte `at` and the tags there that others follow."""
    for _ in range(MAX_TAGS):
        stream.seek(at)
        head = stream.read(32)
        if head[:3] == b"ID3" and len(head) == 32:
            size = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            at += 10 + size + (10 if head[5] & 16 else 0)
        elif head[:3] == b"TAG":
            at += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            at += max(int.from_bytes(head[12:16], "little"), 32) + (32 if head[23] & 32 else 0)
        else:
            break
    if at == 0 and head[:1] != b"\xff":
        return None
    stream.seek(at)
    data = stream.read(SEARCHED_BYTES + CONSECUTIVE_FRAMES * LONGEST_FRAME_BYTES)
    for match in re.finditer(b"\xff", data[:SEARCHED_BYTES]):
        first = following = _frame(data, match.start())
        behind, count = match.start(), 0
        while following and first and following[1:] == first[1:] and count < CONSECUTIVE_FRAMES:
            behind, count = behind + following.length_bytes, count + 1
            following = _frame(data, behind)
        if first and count == CONSECUTIVE_FRAMES:
            return at + match.start(), first
    return None


def _frame(data: bytes, at: int) -> _Frame | None:
    """The frame header at byte `at`, if there is one (ISO 11172-3, 2.4.1.3; ISO 13818-3; version 2.5)."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version, kbits, rate = data[at + 1] >> 3 & 3, data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return None
    hz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 1_152 if version == 3 else 576
    length = samples // 8 * KBITS[version == 3][kbits - 1] * 1_000 // hz + (data[at + 2] >> 1 & 1)
    return _Frame(length, samples, hz, data[at + 3] >> 6 == 3)
