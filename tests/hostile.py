"""Malformed and malicious input for the data commands; `test_hostile.py` runs them on it.

A kind of input is a generator in `FILES` (single files of a folder) or `DATASETS` (manifests, quarantine
files, zips, tables of FMA). Each yields the same inputs for the same `Material`.
"""

import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import socket
import struct
import tempfile
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile
from miniature import make_fma

from mgc.audio import SUFFIXES

GOOD_CLIPS = 6  # per genre: enough for a split

Outcome = Literal["used", "excluded", "noted", "refused"]
Expect = tuple[Outcome, ...]
Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Input:
    """One file in a folder of music, in the genre named like its kind.

    `path` is relative to the genre ("../x": beside the genres), with bytes that are not UTF-8 as surrogates.
    `make` is the content, or a function that creates the file. `expect`: the outcomes that are right.
    """

    kind: str
    what: str
    path: str
    make: bytes | Callable[[Path], None]
    expect: Expect = ("used", "excluded", "noted")

    @property
    def genre(self) -> str:
        """The folder."""
        return self.kind.replace(" ", "-")


@dataclass(frozen=True)
class Place:
    """The folders of one case: `inputs` must not change; `results` and `root` (the data root) may."""

    inputs: Path
    results: Path
    root: Path
    clips: Path  # good clips <genre>-<number>.wav, shared by all cases


@dataclass(frozen=True)
class Whole:
    """A whole dataset. `make` creates it and returns the options that name it.

    `rows`: the number of tracks that must be accounted for, unless the dataset is refused.
    """

    kind: str
    what: str
    make: Callable[[Place], list[str]]
    expect: Expect = ("used", "refused")
    rows: int | Callable[[Place], int | None] | None = None


# Good audio


@dataclass(frozen=True)
class Material:
    """What the inputs are made of: good files by suffix, and a source of random numbers."""

    good: dict[str, bytes]
    draw: random.Random


FORMATS = {
    ".wav": ("WAV", "PCM_16", 22_050),
    ".flac": ("FLAC", "PCM_16", 44_100),
    ".mp3": ("MP3", "MPEG_LAYER_III", 44_100),
    ".ogg": ("OGG", "VORBIS", 44_100),
    ".opus": ("OGG", "OPUS", 48_000),
    ".au": ("AU", "PCM_16", 22_050),
    ".aiff": ("AIFF", "PCM_16", 22_050),
    ".caf": ("CAF", "PCM_16", 22_050),
}


def material(seed: int) -> Material:
    """Good files of every format."""
    good = {
        suffix: encoded(chord(1.2, rate, number), suffix)
        for number, (suffix, (_, _, rate)) in enumerate(FORMATS.items())
    }
    return Material(good, random.Random(seed))


def chord(seconds: float, rate: int, seed: int) -> np.ndarray:
    """(samples,) float32: three partials and some noise, different for every seed."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    base = 110 * 2 ** (seed % 36 / 12)
    wave = sum(np.sin(2 * np.pi * base * k * t) / k for k in (1, 2.5, 3))
    return (0.2 * wave + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def encoded(samples: np.ndarray, suffix: str, rate: int = 0, subtype: str = "") -> bytes:
    """The samples, (n,) or (n, channels), as a file of the format."""
    form, usual, hz = FORMATS[suffix]
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate or hz, format=form, subtype=subtype or usual)
    return stream.getvalue()


def small_wav(seed: int) -> bytes:
    """A good clip of 13 kB, different for every seed."""
    return encoded(chord(0.8, 8_000, seed), ".wav", 8_000)


# Files: damaged


def truncated(m: Material) -> Iterator[Input]:
    """Cut within the first bytes, the header, at block edges, in the middle and just before the end."""
    for suffix, data in m.good.items():
        cuts = {1, 3, 11, 20, 27, 43, 44, 45, 100, 4096, len(data) // 3, len(data) // 2, len(data) - 1}
        for at in sorted(cuts):
            yield Input("truncated", f"{suffix} after {at} bytes", f"cut-{at}{suffix}", data[:at])
    for number, at in enumerate(m.draw.sample([*frame_edges(m.good[".mp3"])], 3)):
        yield Input("truncated", f"mp3 at frame edge {at}", f"edge-{number}.mp3", m.good[".mp3"][:at])
    own = pages(m.good[".ogg"])
    for number in range(1, len(own)):
        cut = b"".join(own[:number])
        yield Input("truncated", f"ogg after page {number}", f"page-{number}.ogg", cut)


def flipped(m: Material) -> Iterator[Input]:
    """1, 10 or 1000 flipped bits, in the first 64 bytes or after them."""
    for (suffix, data), bits in product(m.good.items(), (1, 10, 1000)):
        for where, start, end in (("header", 0, 64), ("body", 64, len(data))):
            damaged = flip(data, bits, start, end, m.draw)
            yield Input("bit flips", f"{suffix}, {bits} in the {where}", f"{where}-{bits}{suffix}", damaged)


def flip(data: bytes, bits: int, start: int, end: int, draw: random.Random) -> bytes:
    """`data` with so many bits between two positions flipped (some of them twice)."""
    array = bytearray(data)
    for _ in range(bits):
        array[draw.randrange(start, end)] ^= 1 << draw.randrange(8)
    return bytes(array)


def overwritten(m: Material) -> Iterator[Input]:
    """Runs of zeros or 0xFF."""
    for (suffix, data), (byte, name) in product(m.good.items(), ((b"\0", "zeros"), (b"\xff", "ones"))):
        places = {
            "start": (0, 16),
            "header": (16, 40),
            "middle": (len(data) // 2, 2_000),
            "end": (len(data) - 500, 500),
        }
        for where, (at, length) in places.items():
            damaged = data[:at] + byte * length + data[at + length :]
            yield Input("overwritten", f"{suffix}, {name} at the {where}", f"{name}-{where}{suffix}", damaged)


def spliced(m: Material) -> Iterator[Input]:
    """The first half of one format and the second half of another; and one whole file after another."""
    names = [*m.good]
    for number, first in enumerate(names):
        for second in (names[(number + 1) % len(names)], names[(number + 3) % len(names)]):
            one, two = m.good[first], m.good[second]
            name = f"{first[1:]}-{second[1:]}"
            halves = one[: len(one) // 2] + two[len(two) // 2 :]
            yield Input("spliced", f"half {name}", f"half-{name}{first}", halves)
            yield Input("spliced", f"whole {name}", f"whole-{name}{first}", one + two)


def mislabelled(m: Material) -> Iterator[Input]:
    """Every format under every other suffix."""
    for suffix, data in m.good.items():
        for other in sorted(SUFFIXES - {suffix}):
            yield Input("wrong suffix", f"{suffix} as {other}", f"{suffix[1:]}-as{other}", data)


def no_audio(m: Material) -> Iterator[Input]:
    """Other content under the name of audio."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("song.wav", m.good[".wav"])
    contents = {
        "text": b"all work and no play\n" * 500,
        "html": b"<!DOCTYPE html><html><title>404</title><body>Not found</body></html>\n" * 20,
        "json": b'{"error": "rate limit", "code": 429}',
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" * 30,
        "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + m.draw.randbytes(20_000) + b"\xff\xd9",
        "elf": b"\x7fELF\2\1\1" + bytes(9) + m.draw.randbytes(5_000),
        "zip": stream.getvalue(),
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "utf16": "all work and no play".encode("utf-16"),
        "noise": m.draw.randbytes(200_000),
        "zeros": bytes(1 << 20),
        "ones": b"\xff" * (1 << 20),
        "syncs": b"\xff\xfb\x90\x64" * 100_000,
    }
    for (name, data), suffix in product(contents.items(), (".mp3", ".wav", ".flac", ".ogg", ".m4a")):
        yield Input("no audio", f"{name} as {suffix}", f"{name}{suffix}", data)


def tiny(m: Material) -> Iterator[Input]:
    """No bytes, one byte, no samples, one or two samples, silence."""
    for suffix in FORMATS:
        contents = {f"samples-{n}": encoded(np.full(n, 0.5, np.float32), suffix) for n in (0, 1, 2)}
        for name, data in (contents | {"empty": b"", "byte": b"R"}).items():
            yield Input("tiny", f"{suffix} {name}", f"{name}{suffix}", data, ("excluded",))
    silent = encoded(np.zeros(22_050, np.float32), ".wav")
    yield Input("tiny", "silence", "silent.wav", silent, ("excluded",))


def mixtures(m: Material) -> Iterator[Input]:
    """200 files with several kinds of damage at once, often under a wrong name."""
    for number in range(200):
        suffix = m.draw.choice([*m.good])
        data, done = m.good[suffix], []
        for _ in range(m.draw.randint(1, 4)):
            at, length = m.draw.randrange(len(data)), m.draw.choice((1, 4, 100, 3_000))
            other = m.good[m.draw.choice([*m.good])]
            extreme = m.draw.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
            early = at % min(200, len(data))
            damages = {
                "flip": lambda d=data: flip(d, m.draw.choice((1, 30, 3_000)), 0, len(d), m.draw),
                "header": lambda d=data: flip(d, 3, 0, min(100, len(d)), m.draw),
                "cut": lambda d=data, a=at: d[: max(1, a)],
                "repeat": lambda d=data, a=at, n=length: d[:a] + d[a : a + n] * 3 + d[a + n :],
                "drop": lambda d=data, a=at, n=length: d[:a] + d[a + n :] or b"x",
                "insert": lambda d=data, a=at, n=length, o=other: d[:a] + o[:n] + d[a:],
                "numbers": lambda d=data, a=early, e=extreme: d[:a] + e + d[a + 4 :],
            }
            done.append(m.draw.choice([*damages]))
            data = damages[done[-1]]()
        name = m.draw.choice((suffix, suffix, m.draw.choice(sorted(SUFFIXES))))
        yield Input(
            "mixtures", f"{number}: {suffix} as {name}, {', '.join(done)}", f"mix-{number}{name}", data
        )


# Files: wrong headers


def wav(
    samples: bytes, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, *,
    align: int | None = None, data_size: int | None = None, riff_size: int | None = None,
    fmt_size: int = 16, before: bytes = b"", order: str = "<", form: bytes = b"RIFF",
) -> bytes:  # fmt: skip
    """A RIFF file with the given header."""
    align = channels * bits // 8 % 65_536 if align is None else align
    fmt = struct.pack(order + "HHIIHH", tag, channels, rate, rate * align % (1 << 32), align, bits)
    body = b"WAVE" + chunk(b"fmt ", fmt, fmt_size, order) + before + chunk(b"data", samples, data_size, order)
    return form + struct.pack(order + "I", len(body) if riff_size is None else riff_size) + body


def chunk(name: bytes, data: bytes, size: int | None = None, order: str = "<") -> bytes:
    """A chunk of RIFF or IFF, with its own size unless another is given."""
    return name + struct.pack(order + "I", len(data) if size is None else size) + data


def rf64(pcm: bytes, size: int) -> bytes:
    """A WAV file that claims more than 4 GB."""
    sizes = chunk(b"ds64", struct.pack("<QQQI", size, size, size // 2, 0))
    whole = wav(pcm, data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF, form=b"RF64")
    return whole[:12] + sizes + whole[12:]


def aiff(
    samples: bytes, channels: int = 1, frames: int | None = None, bits: int = 16, rate: float = 16_000, *,
    offset: int = 0, block: int = 0, size: int | None = None, comm: bool = True,
) -> bytes:  # fmt: skip
    """An AIFF file with the given header; the rate is a float of 80 bits."""
    frames = len(samples) // 2 if frames is None else frames
    common = struct.pack(">HIH", channels, frames, bits) + extended(rate)
    sound = chunk(b"SSND", struct.pack(">II", offset, block) + samples, size, ">")
    body = b"AIFF" + (chunk(b"COMM", common, None, ">") if comm else b"") + sound
    return chunk(b"FORM", body, None, ">")


def extended(value: float) -> bytes:
    """A float of 80 bits."""
    if math.isnan(value) or math.isinf(value):
        return struct.pack(">HQ", 0x7FFF, 0 if math.isinf(value) else 1)
    if value == 0:
        return bytes(10)
    mantissa, exponent = math.frexp(abs(value))
    return struct.pack(">HQ", (0x8000 if value < 0 else 0) | (exponent + 16_382), int(mantissa * 2**64))


def au(
    samples: bytes, offset: int = 24, size: int | None = None, encoding: int = 3, rate: int = 16_000,
    channels: int = 1,
) -> bytes:  # fmt: skip
    """A Sun/NeXT file with the given header."""
    size = len(samples) if size is None else size
    return struct.pack(">4s5I", b".snd", offset, size, encoding, rate, channels) + samples


def caf(
    samples: bytes, rate: float = 16_000, channels: int = 1, bits: int = 16, packet: int = 2,
    size: int | None = None,
) -> bytes:  # fmt: skip
    """An Apple CAF file with the given header."""
    desc = struct.pack(">d4s5I", rate, b"lpcm", 0, packet, 1, channels, bits)
    data = struct.pack(">4sq", b"data", len(samples) + 4 if size is None else size) + bytes(4) + samples
    return b"caff" + struct.pack(">HH", 1, 0) + struct.pack(">4sq", b"desc", 32) + desc + data


def flac(data: bytes, **fields: int) -> bytes:
    """A good FLAC file with other `fields` in STREAMINFO (channels and bits: less one)."""
    info = int.from_bytes(data[8:42], "big")  # 16, 16, 24, 24, 20, 3, 5, 36 and 128 bits
    places = {"block_min": (256, 16), "block_max": (240, 16), "rate": (172, 20), "channels": (169, 3),
              "bits": (164, 5), "total": (128, 36)}  # fmt: skip
    for key, value in fields.items():
        shift, width = places[key]
        info = info & ~(((1 << width) - 1) << shift) | (value & ((1 << width) - 1)) << shift
    return data[:8] + info.to_bytes(34, "big") + data[42:]


def wrong_headers(m: Material) -> Iterator[Input]:
    """Wrong sizes, channels, rates, bits, blocks and chunks; floats that are not audio."""
    pcm = (chord(1.0, 16_000, 5) * 32_000).astype("<i2").tobytes()
    swapped = (chord(1.0, 16_000, 5) * 32_000).astype(">i2").tobytes()
    made = wrong_sizes(pcm, swapped) | wrong_numbers(m.good[".flac"], pcm, swapped)
    made |= odd_chunks(m.good[".flac"], pcm, swapped) | odd_floats()
    hopeless = r"-?(nan|inf|1e\+30|3\.4e\+38) as|all -?(nan|inf|1e\+30|3\.4|1e300)|[017] Hz"
    for what, data in made.items():
        expect: Expect = ("excluded",) if re.match(hopeless, what) else ("used", "excluded")
        name = what.replace(" ", "-")
        yield Input("wrong headers", what, name, data, expect)
        if what.endswith((".wav", ".aiff", ".au")) and re.search("Hz|channels|bits", what):
            # Python's own readers open these if there is no ffmpeg.
            yield Input("wrong headers", f"{what} as m4a", f"{name}.m4a", data, expect)


def wrong_sizes(pcm: bytes, swapped: bytes) -> dict[str, bytes]:
    """Sizes of chunks, and counts of frames."""
    made = {}
    sizes = {"0": 0, "all": 0xFFFFFFFF, "sox": 0x7FFFFFFF, "double": 64_000, "half": 16_000, "odd": 31_999}
    for name, size in sizes.items():
        made[f"data of {name} bytes.wav"] = wav(pcm, data_size=size)
        made[f"riff of {name} bytes.wav"] = wav(pcm, riff_size=size)
        made[f"fmt of {name} bytes.wav"] = wav(pcm, fmt_size=size)
        made[f"sound of {name} bytes.aiff"] = aiff(swapped, size=size)
        made[f"{name} frames.aiff"] = aiff(swapped, frames=size)
        made[f"data of {name} bytes.au"] = au(swapped, size=size)
        made[f"data at {name}.au"] = au(swapped, offset=size)
        made[f"data of {name} bytes.caf"] = caf(swapped, size=size)
        made[f"junk of {name} bytes.wav"] = wav(pcm, before=chunk(b"junk", b"abc", size))
    return made


def wrong_numbers(good_flac: bytes, pcm: bytes, swapped: bytes) -> dict[str, bytes]:
    """Channels, rates, bits, formats, sizes of blocks."""
    made = {}
    for count in (0, 2, 255, 1_024, 1_025, 65_535):
        made[f"{count} channels.wav"] = wav(pcm, channels=count)
        made[f"{count} channels.aiff"] = aiff(swapped, count)
        made[f"{count} channels.au"] = au(swapped, channels=count)
        made[f"{count} channels.caf"] = caf(swapped, channels=count, packet=2 * count)
        made[f"{count % 8} channels.flac"] = flac(good_flac, channels=count % 8)
    for rate in (0, 1, 7, 999_999, 2_147_483_647, 2_147_483_648, 3_999_999_999):
        made[f"{rate} Hz.wav"] = wav(pcm, rate=rate)
        made[f"{rate} Hz.aiff"] = aiff(swapped, rate=rate)
        made[f"{rate} Hz.au"] = au(swapped, rate=rate)
        made[f"{rate} Hz.caf"] = caf(swapped, rate)
        made[f"{rate % 1_048_576} Hz.flac"] = flac(good_flac, rate=rate)
    for strange in (math.nan, math.inf, -16_000.0, 1e-30, 1e300):
        made[f"{strange} Hz.aiff"] = aiff(swapped, rate=strange)
        made[f"{strange} Hz.caf"] = caf(swapped, strange)
    for bits in (0, 1, 7, 17, 33, 64, 255, 65_535):
        made[f"{bits} bits.wav"] = wav(pcm, bits=bits)
        made[f"{bits} bits.aiff"] = aiff(swapped, bits=bits)
        made[f"{bits} bits.caf"] = caf(swapped, bits=bits)
        made[f"{bits % 32} bits.flac"] = flac(good_flac, bits=bits)
    for align in (0, 1, 3, 65_535):
        made[f"blocks of {align}.wav"] = wav(pcm, align=align)
        made[f"packets of {align}.caf"] = caf(swapped, packet=align)
    for tag in (0, 2, 3, 6, 17, 49, 80, 85, 0x2000, 0xFFFE, 0xFFFF):
        made[f"format {tag}.wav"] = wav(pcm, tag=tag)
        made[f"format {tag} in 4 bits.wav"] = wav(pcm, tag=tag, bits=4, align=256)
    for encoding in (0, 1, 6, 7, 23, 26, 27, 99, 0xFFFFFFFF):
        made[f"encoding {encoding}.au"] = au(swapped, encoding=encoding)
    for total in (0, 1, 1 << 35, (1 << 36) - 1):
        made[f"{total} samples.flac"] = flac(good_flac, total=total)
    for low, high in ((0, 0), (1, 1), (65_535, 65_535), (4_096, 16)):
        made[f"blocks of {low} to {high}.flac"] = flac(good_flac, block_min=low, block_max=high)
    return made


def odd_chunks(flac_file: bytes, pcm: bytes, swapped: bytes) -> dict[str, bytes]:
    """Chunks that are missing, duplicated, out of order, or too many."""
    head, rest = flac_file[:42], flac_file[42:]
    return {
        "no fmt.wav": b"RIFF" + struct.pack("<I", len(pcm) + 12) + b"WAVE" + chunk(b"data", pcm),
        "no data.wav": wav(pcm)[:36],
        "data first.wav": b"RIFF\0\0\0\0WAVE" + chunk(b"data", pcm) + wav(b"")[12:36],
        "two fmt.wav": wav(pcm, before=wav(b"", channels=2, rate=8_000)[12:36]),
        "two data.wav": wav(pcm, before=chunk(b"data", pcm[:1_000])),
        "20,000 empty chunks.wav": wav(pcm, before=chunk(b"LIST", b"") * 20_000),
        "a million zeros before the data.wav": wav(pcm, before=bytes(1_000_000)),
        "odd chunk unpadded.wav": wav(pcm, before=chunk(b"note", b"abc")),
        "list in list.wav": wav(pcm, before=chunk(b"LIST", b"INFO" + chunk(b"INAM", b"x" * 9, 0xFFFFFFF0))),
        "cue of 4 billion points.wav": wav(pcm, before=chunk(b"cue ", struct.pack("<I", 0xFFFFFFFF))),
        "bext cut off.wav": wav(pcm, before=chunk(b"bext", b"x" * 100, 50_000)),
        "RF64 of 2^63.wav": rf64(pcm, (1 << 63) - 1),
        "RF64 of nothing.wav": rf64(pcm, 0),
        "RIFX.wav": wav(swapped, order=">", form=b"RIFX"),
        "no COMM.aiff": aiff(swapped, comm=False),
        "sound at 4 billion.aiff": aiff(swapped, offset=0xFFFFFFFF),
        "blocks of 4 billion.aiff": aiff(swapped, block=0xFFFFFFFF),
        "metadata of 16 MB announced.flac": head[:4] + b"\x04\xff\xff\xff" + head[8:] + rest,
        "30,000 metadata blocks.flac": head + b"\x01\0\0\0" * 30_000 + rest,
        "STREAMINFO twice.flac": head + head[4:] + rest,
        "seek table of nonsense.flac": head[:4] + b"\0" + head[5:] + b"\x03\0\0\x24" + b"\xfe" * 36 + rest,
    }


def odd_floats() -> dict[str, bytes]:
    """Samples that are not audio."""
    made = {}
    for value in (math.nan, math.inf, -math.inf, 1e30, 3.4e38, 1e-40):
        samples = chord(1.0, 16_000, 6)
        samples[4_000:4_100] = value
        for suffix in (".wav", ".au", ".caf", ".aiff"):
            made[f"{value} as a sample{suffix}"] = encoded(samples, suffix, 16_000, "FLOAT")
        made[f"all {value}.wav"] = encoded(np.full(16_000, value, np.float32), ".wav", 16_000, "FLOAT")
    doubles = np.full(16_000, 1e300)
    made["all 1e300 in 64 bits.wav"] = encoded(doubles, ".wav", 16_000, "DOUBLE")
    return made


# Files: tags and frames of mp3, pages of ogg


def frame_edges(data: bytes) -> Iterator[int]:
    """The positions of the frames of MPEG-1 layer III."""
    kbits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
    at = max(0, data.find(b"\xff\xfb"))
    while at + 4 <= len(data) and data[at] == 0xFF:
        yield at
        rate = (44_100, 48_000, 32_000, 1)[data[at + 2] >> 2 & 3]
        at += max(4, 144_000 * kbits[data[at + 2] >> 4] // rate + (data[at + 2] >> 1 & 1))


def id3(body: bytes = b"", size: int | None = None, flags: int = 0) -> bytes:
    """An ID3v2.3 tag, with its own size unless another is given."""
    size = len(body) if size is None else size
    return b"ID3\3\0" + bytes([flags, *(size >> shift & 127 for shift in (21, 14, 7, 0))]) + body


def tags(m: Material) -> Iterator[Input]:
    """Tags with wrong sizes, damaged sequences of frames, and mp3 headers with absurd counts."""
    mp3 = m.good[".mp3"]
    edges = [*frame_edges(mp3)]
    frames = [mp3[a:b] for a, b in zip(edges, [*edges[1:], len(mp3)], strict=True)]
    sound = b"".join(frames[1:])  # the first holds no sound
    info, at = frames[0], max(frames[0].find(b"Xing"), frames[0].find(b"Info"))
    picture = (
        b"APIC" + struct.pack(">IH", 8_000_000, 0) + b"\0image/jpeg\0\3\0" + m.draw.randbytes(8_000_000 - 14)
    )
    ape = b"APETAGEX" + struct.pack("<IIII8x", 2_000, 0, 0, 0)
    made = {
        "ID3 of 256 MB announced": id3(size=(1 << 28) - 1) + mp3,
        "ID3 and nothing else": id3(bytes(1_000)),
        "ID3 of 256 MB announced and nothing else": id3(size=(1 << 28) - 1),
        "picture of 8 MB": id3(picture) + mp3,
        "picture of 2 GB announced": id3(b"APIC" + struct.pack(">IH", 0x7FFFFFFF, 0) + b"\0x") + mp3,
        "ID3 size not syncsafe": b"ID3\3\0\0\xff\xff\xff\xff" + mp3,
        "10,000 ID3 tags": id3() * 10_000 + mp3,
        "ID3 with footer flag": id3(flags=0x10) + mp3,
        "ID3 cut": id3(bytes(500))[:7],
        "ID3v1 alone": b"TAG" + bytes(125),
        "ID3v1 in front": (b"TAG" + bytes(125)) * 3 + mp3,
        "ID3 within": sound[:8_000] + id3(bytes(3_000)) + sound[8_000:],
        "APE of no size": ape + mp3,
        "APE of 4 GB": ape[:12] + b"\xff\xff\xff\xff" + ape[16:] + mp3,
        "APE with header flag": ape[:23] + b"\xa0" + ape[24:] + mp3,
        "two mp3, one behind the other": mp3 + mp3,
        "one frame": frames[1],
        "three frames": b"".join(frames[1:4]),
        "no header": sound,
        "header alone": info,
        "first frames missing": b"".join(frames[9:]),
        "every other frame": b"".join(frames[1::2]),
        "frames shuffled": b"".join(m.draw.sample(frames, len(frames))),
        "noise between frames": b"".join(frame + m.draw.randbytes(50) for frame in frames),
        "rates in turn": b"".join(f[:2] + bytes([f[2] ^ n % 3 << 2]) + f[3:] for n, f in enumerate(frames)),
        "stereo in turn": b"".join(f[:3] + bytes([f[3] ^ n % 2 << 7]) + f[4:] for n, f in enumerate(frames)),
        "layer II announced": b"".join(f[:1] + bytes([f[1] ^ 6]) + f[2:] for f in frames),
        "free format": b"".join(f[:2] + bytes([f[2] & 15]) + f[3:] for f in frames),
        "VBRI of absurd counts": frames[1][:36] + b"VBRI" + b"\xff" * 22 + frames[1][62:] + sound,
    }  # fmt: skip
    for count in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
        for size in (0, 7, 0xFFFFFFFF):
            head = info[:at] + b"Xing" + struct.pack(">III", 3, count, size) + info[at + 16 :]
            made[f"Xing of {count} frames and {size} bytes"] = head + sound
    for number, (what, data) in enumerate(made.items()):
        yield Input("mp3 tags and frames", what, f"tag-{number}.mp3", data)


def pages(data: bytes) -> list[bytes]:
    """The pages of an Ogg stream."""
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def page(whole: bytes, **fields: int) -> bytes:
    """A page with other `fields` (flags, granule, serial, sequence) and a valid checksum."""
    version, flags, granule, serial, sequence = struct.unpack("<BBqII", whole[4:22])
    values = {"flags": flags, "granule": granule, "serial": serial, "sequence": sequence} | fields
    head = b"OggS" + struct.pack("<BBqII", version, *values.values()) + bytes(4) + whole[26:]
    return head[:22] + struct.pack("<I", ogg_checksum(head)) + head[26:]


def ogg_checksum(data: bytes) -> int:
    """CRC of 32 bits with polynomial 0x04c11db7, neither reflected nor inverted (RFC 3533)."""
    crc = 0
    for byte in data:
        crc = crc << 8 & 0xFFFFFFFF ^ OGG_CRC[crc >> 24 ^ byte]
    return crc


def _crc_of_byte(crc: int) -> int:
    crc <<= 24
    for _ in range(8):
        crc = crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc


OGG_CRC = [_crc_of_byte(byte) for byte in range(256)]


def ogg_chains(m: Material) -> Iterator[Input]:
    """Pages that are missing, out of order or misnumbered; streams that change midway."""
    one = m.good[".ogg"]
    stereo = encoded(np.stack([chord(1.0, 44_100, 8)] * 2, axis=1), ".ogg")
    slow = encoded(chord(1.0, 8_000, 9), ".ogg", 8_000)
    six = encoded(np.stack([chord(1.0, 44_100, 8)] * 6, axis=1), ".ogg")
    opus, own = m.good[".opus"], pages(m.good[".ogg"])
    held = opus.find(b"OpusHead")
    tagged = opus.find(b"OpusTags")
    made = {
        "chain of stereo": one + stereo,
        "chain of another rate": one + slow,
        "chain of six channels": one + six,
        "chain from six to one": six + one,
        "chain of opus": one + opus,
        "chain of vorbis behind opus": opus + one,
        "chain of 200": one * 200,
        "stream in FLAC": encoded(chord(1.0, 44_100, 3), ".ogg", 44_100, "VORBIS")[:100] + m.good[".flac"],
        "without the first page": b"".join(own[1:]),
        "without the second page": own[0] + b"".join(own[2:]),
        "without the last page": b"".join(own[:-1]),
        "pages reversed": b"".join(own[::-1]),
        "pages twice": b"".join(p + p for p in own),
        "pages of another stream between": b"".join(page(p, serial=7) + p for p in own),
        "every page begins a stream": b"".join(page(p, flags=2) for p in own),
        "every page ends the stream": b"".join(page(p, flags=4) for p in own),
        "no page ends the stream": b"".join(page(p, flags=p[5] & 2) for p in own),
        "serial changes": b"".join(page(p, serial=n) for n, p in enumerate(own)),
        "sequence backwards": b"".join(page(p, sequence=99 - n) for n, p in enumerate(own)),
        "wrong checksums": b"".join(p[:22] + b"\1\2\3\4" + p[26:] for p in own),
        "255 segments announced": b"".join(own[:2]) + own[-1][:26] + b"\xff" * 256,
        "comment of 4 GB": rewritten(one, one.find(b"\3vorbis") + 7, b"\xff\xff\xff\xff"),
        "rate 0": rewritten(one, one.find(b"\1vorbis") + 12, bytes(4)),
        "rate of 4 billion": rewritten(one, one.find(b"\1vorbis") + 12, b"\xff" * 4),
        "255 channels": rewritten(one, one.find(b"\1vorbis") + 11, b"\xff"),
        "no channel": rewritten(one, one.find(b"\1vorbis") + 11, b"\0"),
        "opus of 255 channels": rewritten(opus, held + 9, b"\xff"),
        "opus of no channel": rewritten(opus, held + 9, b"\0"),
        "opus skips 65,535": rewritten(opus, held + 10, b"\xff\xff"),
        "opus at 0 Hz": rewritten(opus, held + 12, bytes(4)),
        "opus at full gain": rewritten(opus, held + 16, b"\xff\x7f"),
        "opus of mapping 255": rewritten(opus, held + 18, b"\xff"),
        "opus with a vendor of 4 GB": rewritten(opus, tagged + 8, b"\xff\xff\xff\xff"),
    }
    for granule in (-1, 0, 1, 1 << 40, (1 << 63) - 1, -(1 << 63)):
        made[f"every page at sample {granule}"] = b"".join(page(p, granule=granule) for p in own)
        made[f"last page at sample {granule}"] = b"".join(own[:-1]) + page(own[-1], granule=granule)
        last = pages(opus)[-1]
        made[f"last opus page at sample {granule}"] = opus[: -len(last)] + page(last, granule=granule)
    for number, (what, data) in enumerate(made.items()):
        yield Input("ogg pages", what, f"ogg-{number}.{'opus' if 'opus' in what else 'ogg'}", data)


def rewritten(stream: bytes, at: int, new: bytes) -> bytes:
    """An Ogg stream with other bytes at a position, and valid checksums."""
    changed = stream[:at] + new + stream[at + len(new) :]
    edges = [0]
    for whole in pages(stream):
        edges.append(edges[-1] + len(whole))
    return b"".join(page(changed[a:b]) for a, b in pairwise(edges))


# Files: special files, and names


def special(m: Material) -> Iterator[Input]:
    """Pipes, sockets, links and devices in place of files; a file of 2 GB that takes no disk space."""

    def sparse(path: Path) -> None:
        path.write_bytes(wav(b"", tag=3, channels=2, bits=64, rate=44_100, data_size=2_000_000_000))
        os.truncate(path, 2_000_000_044)

    def behind(path: Path) -> None:  # an odd chunk without padding: readers continue at different positions
        fmt = wav(b"")[20:36] + b"\0"
        path.write_bytes(wav(b"")[:12] + chunk(b"fmt ", fmt) + chunk(b"data", bytes(64)))
        os.truncate(path, 300_000_000)

    def listening(path: Path) -> None:
        with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as here:
            here.bind(f"{short}/s")  # a socket's path must be short
            shutil.move(f"{short}/s", path)

    def below(target: str) -> Callable[[Path], None]:
        return lambda path: path.symlink_to(target)

    def deep(path: Path) -> None:
        """A file in 1,200 nested folders."""
        path = path.joinpath(*["d"] * 1_200)
        for number in range(100, 1_201, 100):
            Path(*path.parts[: len(path.parts) - 1_200 + number]).mkdir(parents=True, exist_ok=True)
        (path / "deep.wav").write_bytes(small_wav(40))

    def unreadable(path: Path) -> None:
        path.write_bytes(m.good[".wav"])
        path.chmod(0)

    yield Input("special", "2 GB of zeros in no space", "sparse.wav", sparse, ("excluded",))
    yield Input("special", "300 MB of zeros behind the header", "behind.wav", behind, ("excluded",))
    yield Input("special", "pipe", "pipe.wav", os.mkfifo, ("excluded",))
    yield Input("special", "link to a pipe", "to-pipe.wav", below("pipe.wav"), ("excluded",))
    yield Input("special", "socket", "socket.mp3", listening, ("excluded",))
    yield Input("special", "folder named like audio", "folder.mp3", Path.mkdir, ("noted",))
    yield Input("special", "link to nothing", "nothing.flac", below("no such file"), ("excluded",))
    yield Input("special", "link to itself", "itself.ogg", below("itself.ogg"), ("excluded",))
    yield Input("special", "link to a device without end", "zero.wav", below("/dev/zero"), ("excluded",))
    yield Input("special", "link to the empty device", "null.wav", below("/dev/null"), ("excluded",))
    yield Input("special", "link to the terminal", "tty.wav", below("/dev/tty"), ("excluded",))
    yield Input("special", "link to a system file", "passwd.mp3", below("/etc/passwd"), ("excluded",))
    yield Input("special", "link to memory", "mem.mp3", below("/proc/self/mem"), ("excluded",))
    yield Input("special", "link to the folder above", "above", below(".."), ("noted",))
    yield Input("special", "link to the folder it is in", "here", below("."), ("noted",))
    yield Input("special", "1,200 folders deep", "d", deep, ("used", "excluded"))
    if os.geteuid() != 0:
        yield Input("special", "unreadable", "secret.wav", unreadable, ("excluded",))


HOSTILE_NAMES = {
    "newline": "two\nFORGED lines",
    "carriage return": "return\rFORGED",
    "tab": "tab\tin it",
    "escape sequence": "red \x1b[31mFORGED\x1b[0m \x1b]0;title\x07",
    "escape of 8 bits": "eight \x9b31mFORGED",
    "control characters": "\x01\x02\x07\x08\x7f end",
    "right to left": "song \u202egpj.exe",
    "isolates and marks": "\u2066a\u2069\u200b\u200d\ufeff\u2028b\u2029",
    "emoji": "\U0001f3b5\U0001f468\u200d\U0001f3a4",
    "accents composed": unicodedata.normalize("NFC", "café"),
    "accents decomposed": unicodedata.normalize("NFD", "café"),
    "not UTF-8": os.fsdecode(b"latin \xe9\xff"),
    "surrogate in UTF-8": os.fsdecode(b"\xed\xa0\x80"),
    "255 bytes": "x" * 251,
    "option": "-rf",
    "long option": "--data=demo",
    "dots": ". .",
    "spaces": "   ",
    "html": "<script>alert(1)<",
    "markdown": "![x](http:) | `b` **c** &lt;script&gt;",
    "formula": "=HYPERLINK(A1,cmd) @+x",
    "csv": 'quoted "," ; \' \\" end',
    "format": "%s%n{0}{{}}$HOME $(id) `id`",
    "glob": "*?[a-z]",
    "backslash": "x\\..\\..\\evil",
    "nul escaped": "\\x00 %00",
    "sql": "'; DROP TABLE clips_1; --",
    "json": '"}], "tracks": 0, "x": [{"',
    "device of Windows": "CON",
    "sixteen bits": "\U0010ffff\uffff",
}


def names(m: Material) -> Iterator[Input]:
    """Good clips under malicious names; they must be used like any other."""
    for number, (what, name) in enumerate(HOSTILE_NAMES.items()):
        expect: Expect = ("noted",) if name.startswith(".") else ("used",)
        yield Input("names", what, f"{name}.wav", small_wav(50 + number), expect)
    for number, suffix in enumerate((".WAV", ".wAv")):
        yield Input("names", f"suffix {suffix}", f"loud{suffix}", small_wav(90 + number), ("used",))
    yield Input("names", "html in full", "<script>alert(1)<∕script>.mp3", m.good[".mp3"], ("used",))
    for name in ("..wav", "...wav", ".hidden.wav", "._litter.wav", ".wav", ".DS_Store"):
        yield Input("names", f"hidden {name}", name, small_wav(95), ("noted",))
    for name in ("no suffix", "song.wav.part", "song.wav ", "song.wav\n", "song.", "cover.jpg"):
        yield Input("names", f"no audio by name: {name!r}", name, small_wav(96), ("noted",))


def genres(m: Material) -> Iterator[Input]:
    """Folders of good clips under malicious names."""

    def fill(number: int) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            path.mkdir()
            for clip in range(GOOD_CLIPS):
                (path / f"{clip}.wav").write_bytes(small_wav(1_000 + number * GOOD_CLIPS + clip))

        return make

    for number, (what, name) in enumerate(HOSTILE_NAMES.items()):
        expect: Expect = ("noted",) if name.startswith(".") else ("used",)
        yield Input("genre names", what, f"../{name}", fill(number), expect)
    yield Input("genre names", "empty", "../empty", Path.mkdir, ("noted",))
    yield Input("genre names", "named like audio", "../genre.mp3", fill(98), ("used",))
    yield Input("genre names", "hidden", "../.hidden", fill(99), ("noted",))
    yield Input("genre names", "litter of macOS", "../__MACOSX", fill(100), ("noted",))
    yield Input("genre names", "audio without a genre", "../loose.wav", small_wav(97), ("noted",))
    yield Input("genre names", "a table beside them", "../x\x1b[31m\udcff.csv", b"path,genre\n", ("noted",))
    yield Input("genre names", "text beside them", "../README", b"no audio\n", ("noted",))
    yield Input("genre names", "link to all", "../all", lambda path: path.symlink_to("."), ("noted",))


FILES: dict[str, Callable[[Material], Iterator[Input]]] = {
    kind.__name__: kind
    for kind in (
        truncated, flipped, overwritten, spliced, mislabelled, no_audio, tiny, mixtures, wrong_headers, tags,
        ogg_chains, special, names, genres,
    )
}  # fmt: skip


# Manifests


def good_rows(count: int = 2 * GOOD_CLIPS) -> list[dict[str, Any]]:
    """Rows of a good manifest of the shared clips."""
    return [
        {"path": f"../../clips/{genre}-{number}.wav", "genre": genre, "artist": f"artist {genre}{number}"}
        for genre in ("calm", "pulse")
        for number in range(count // 2)
    ]


def table(rows: Sequence[dict[str, Any]], comma: str = ",") -> str:
    """Rows as CSV, quoted where they must be."""

    def cell(value: Any) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if re.search(r'[",\n\r\t]', text) else text

    head = [*dict.fromkeys(key for row in rows for key in row)]
    lines = [comma.join(head), *(comma.join(cell(row.get(key, "")) for key in head) for row in rows)]
    return "\n".join(lines) + "\n"


def lines_of(rows: Sequence[Any]) -> str:
    """Rows as JSONL."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def manifests(m: Material) -> Iterator[Whole]:
    """Tables with malicious cells, and with encodings, sizes, shapes and types that no table should have."""
    rows, count = good_rows(), 2 * GOOD_CLIPS
    text, tsv, jsonl = table(rows), table(rows, "\t"), lines_of(rows)
    odd_cells: dict[str, Any] = {
        "up and out": "../../../../../../../../etc/passwd",
        "absolute": "/etc/passwd",
        "device": "/dev/zero",
        "input of the command": "/dev/stdin",
        "url": "http://127.0.0.1:9/song.mp3",
        "file url": "file:///etc/passwd",
        "folder": "../../clips",
        "its own": "bad.csv",
        "empty suffix": "../../clips/",
        "tilde": "~/song.mp3",
        "variable": "$HOME/$(id)/`id`",
        "formula": "=cmd|' /C calc'!A0",
        "quotes": 'a "b" , c',
        "newline": "a\nFORGED\n.mp3",
        "carriage return": "a\rFORGED.mp3",
        "escape sequence": "\x1b[2J\x1b]0;FORGED\x07.mp3",
        "bidi": "a\u202egpm.mp3",
        "nul": "a\0b.mp3",
        "html": "<script>alert(1)</script>.mp3",
        "a long name": "x" * 5_000 + ".mp3",
        "100,000 characters": "x" * 100_000,
        "dot": ".",
    }
    for what, cell in odd_cells.items():
        for suffix, writer in ((".csv", table), (".jsonl", lines_of)):
            bad = [*rows, {"path": cell, "genre": "calm"}]
            yield manifest(f"path {what}", suffix, writer(bad), count + 1)
    for what, cell in odd_cells.items():
        own = [row | {"genre": cell} if row["genre"] == "calm" else row for row in rows]
        yield manifest(f"label {what}", ".jsonl", lines_of(own), count)
    for what, cell in {**odd_cells, "a million characters": "x" * 1_000_000}.items():
        own = [row | {"id": f"{cell}{n}", "artist": cell, "title": cell} for n, row in enumerate(rows)]
        yield manifest(f"id {what}", ".jsonl", lines_of(own), count)
    bad = [*rows, {"path": "x" * 1_000_000, "genre": "calm"}]
    yield manifest("path of a million characters", ".jsonl", lines_of(bad), count + 1)
    broken = {
        "empty": b"",
        "newlines": b"\n\n\n",
        "header alone": b"path,genre\n",
        "no label column": b"path\na.wav\n",
        "no path column": b"genre\ncalm\n",
        "header twice": (text + text).encode(),
        "columns twice": table(rows).replace("artist", "path").encode(),
        "labels twice": table(rows).replace("artist", "genre").encode(),
        "BOM": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "UTF-32": text.encode("utf-32"),
        "latin-1": text.replace("calm", "cálm").encode("latin-1"),
        "NUL bytes": text.encode().replace(b"calm", b"ca\0lm"),
        "NUL bytes only": bytes(1_000),
        "noise": m.draw.randbytes(5_000),
        "a cell of a million characters": (text + "x" * 1_000_000 + ",calm,a\n").encode(),
        "a million commas": (text + "," * 1_000_000 + "\n").encode(),
        "a million lines of nothing": (text + ",\n" * 300_000).encode(),
        "quote never closed": (text + '"a,calm\n').encode(),
        "quote in a cell": (text + 'a"b".wav,calm,x\n').encode(),
        "quote and more": (text + '"a"b,calm,x\n').encode(),
        "ragged short": (text + "../../clips/calm-0.wav\n").encode(),
        "ragged long": (text + "a,b,c,d,e\n").encode(),
        "CR line ends": text.replace("\n", "\r").encode(),
        "semicolons": text.replace(",", ";").encode(),
        "wav inside": m.good[".wav"],
        "html inside": b"<html><body>404</body></html>\n" * 20,
        "zip inside": b"PK\3\4" + bytes(100),
        "rows twice": (text + text.partition("\n")[2]).encode(),
        "labels empty": text.replace(",calm", ",").encode(),
        "all labels empty": re.sub(",(calm|pulse)", ",", text).encode(),
        "one label": text.replace("pulse", "calm").encode(),
        "labels nan": text.replace(",calm", ",nan").replace(",pulse", ",NaN").encode(),
        "cut in a row": text.encode()[:-30],
        "no header": text.partition("\n")[2].encode(),
        "header of escapes": text.replace("artist", "\x1b[31martist").encode(),
    }
    for what, data in broken.items():
        twins = what in ("columns twice", "labels twice", "rows twice")
        expect: Expect = ("refused",) if twins else ("used", "refused")
        yield manifest(what, ".csv", data, None, expect)
        if b"," in data and len(data) < 10_000:
            yield manifest(what, ".tsv", data.replace(b",", b"\t"), None, expect)
    yield manifest("good", ".csv", text, count, ("used",))
    yield manifest("good", ".tsv", tsv, count, ("used",))
    yield manifest("good", ".jsonl", jsonl, count, ("used",))
    yield manifest("split of unknown words", ".csv", table([row | {"split": "dev set"} for row in rows]))
    yield manifest("split half empty", ".jsonl", lines_of([rows[0] | {"split": "train"}, *rows[1:]]), count)
    objects: dict[str, str] = {
        "empty": "",
        "no JSON": "path,genre\n",
        "an array": json.dumps(rows),
        "numbers": "1\n2\n",
        "null": "null\n",
        "text": '"path"\n',
        "100,000 brackets": jsonl + "[" * 100_000 + "\n",
        "100,000 objects": jsonl + '{"a":' * 100_000 + "\n",
        "nested cells": jsonl + '{"path": {"a": 1}, "genre": "calm"}\n',
        "list cells": jsonl + '{"path": ["a"], "genre": "calm"}\n',
        "labels NaN": jsonl.replace('"calm"', "NaN"),
        "labels Infinity": jsonl.replace('"calm"', "Infinity"),
        "labels 1e400": jsonl.replace('"calm"', "1e400"),
        "labels true": jsonl.replace('"calm"', "true"),
        "labels null": jsonl.replace('"calm"', "null"),
        "labels 10,000 digits": jsonl.replace('"calm"', "9" * 10_000),
        "labels of mixed types": jsonl.replace('"calm"', "1", 3),
        "half a pair in the path": jsonl + '{"path": "\\ud800.wav", "genre": "calm"}\n',
        "half a pair in the label": jsonl.replace('"calm"', '"\\ud800"'),
        "half a pair in a key": jsonl.replace('"genre"', '"genre", "\\ud800": 1, "x"') + jsonl,
        "half a pair in the artist": jsonl.replace("artist calm", "\\udcff"),
        "keys twice": jsonl.replace('"genre"', '"path": "/etc/passwd", "genre"'),
        "cut": jsonl[:-20],
        "trailing commas": jsonl.replace("}", ",}"),
        "UTF-16 escape of NUL": jsonl.replace("calm-", "\\u0000calm-"),
        "BOM": "\ufeff" + jsonl,
        "line ends of Unicode": jsonl.replace("artist calm", "a\u2028b\x85c"),
    }
    for what, content in objects.items():
        yield manifest(what, ".jsonl", content)
    yield from parquets(rows)
    odd_files = {
        "name of dots": "...csv",
        "name of two dots": "..csv",
        "name not UTF-8": "\udcff\udcfe.csv",
        "name of an escape": "\x1b[31mFORGED\n.csv",
        "name of HTML": "<script>alert(1)<.csv",
        "name of 255 bytes": "x" * 251 + ".csv",
        "name of 255 bytes not UTF-8": "\udcff" * 251 + ".csv",
        "name of an option": "--help.csv",
        "upper case": "TRACKS.CSV",
    }
    for what, name in odd_files.items():
        yield manifest(what, ".csv", text, count, ("used", "refused"), name)
        yield manifest(f"{what}, damaged", ".csv", text + '"', None, ("refused",), name)


def manifest(
    what: str,
    suffix: str,
    content: bytes | str | Callable[[Path], None],
    rows: int | None = None,
    expect: Expect = ("used", "refused"),
    name: str = "",
) -> Whole:
    """A manifest with this content."""

    def make(place: Place) -> list[str]:
        file = place.inputs / (name or f"bad{suffix}")
        if callable(content):
            content(file)
        else:
            file.write_bytes(
                content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
            )
        return ["--data", str(file)]

    return Whole("manifests", f"{what}, {suffix[1:]}", make, expect, rows)


def parquets(rows: list[dict[str, Any]]) -> Iterator[Whole]:
    """Parquet files: damaged, of types that are not text, of more rows than fit in memory."""
    stream = io.BytesIO()
    good = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(good, stream)
    data, count = stream.getvalue(), len(rows)
    yield manifest("good", ".parquet", data, count, ("used",))
    damaged = {
        "empty": b"",
        "magic alone": b"PAR1",
        "magic twice": b"PAR1PAR1",
        "cut": data[: len(data) // 2],
        "cut by a byte": data[:-1],
        "footer of 2 GB": data[:-8] + b"\xff\xff\xff\x7fPAR1",
        "footer of noise": data[:-200] + bytes(192) + data[-8:],
        "encrypted": b"PARE" + data[4:-4] + b"PARE",
        "csv inside": table(rows).encode(),
    }
    for what, content in damaged.items():
        yield manifest(what, ".parquet", content)
    draw = random.Random(0)
    for number in range(12):
        start = (4, len(data) - 600)[number % 2]
        yield manifest(f"bits flipped {number}", ".parquet", flip(data, 1 + number, start, len(data), draw))
    labels: dict[str, pyarrow.Array] = {
        "labels of bytes": pyarrow.array([b"\xff"] * count),
        "labels not UTF-8": pyarrow.Array.from_buffers(
            pyarrow.string(), count,
            [None, pyarrow.py_buffer(np.arange(count + 1, dtype="i4")), pyarrow.py_buffer(b"\xff" * count)],
        ),
        "labels NaN": pyarrow.array([math.nan] * count),
        "labels null": pyarrow.nulls(count),
        "labels of years out of range": pyarrow.array([1 << 62] * count, pyarrow.timestamp("us")),
        "labels of nanoseconds": pyarrow.array([1] * count, pyarrow.timestamp("ns")),
        "labels of dates out of range": pyarrow.array([1 << 30] * count, pyarrow.date32()),
        "labels of durations": pyarrow.array([1 << 62] * count, pyarrow.duration("s")),
        "labels of a zone unknown": pyarrow.array([1] * count, pyarrow.timestamp("us", "Mars/Olympus")),
        "labels of lists": pyarrow.array([["a"]] * count),
        "labels of structs": pyarrow.array([{"bytes": b"RIFF", "path": "a"}] * count),
        "labels of categories": pyarrow.array(["a", "b"] * (count // 2)).dictionary_encode(),
        "labels of decimals": pyarrow.array([1] * count, pyarrow.int32()).cast(pyarrow.decimal128(38, 2)),
        "labels true": pyarrow.array([True, False] * (count // 2)),
    }  # fmt: skip
    for what, column in labels.items():
        yield manifest(what, ".parquet", _writer(good.set_column(1, "genre", column)))
    double = _writer(good.append_column("path", good["path"]))
    yield manifest("columns twice", ".parquet", double, None, ("refused",))
    yield manifest("no column", ".parquet", _writer(pyarrow.table({})))
    yield manifest("no row", ".parquet", _writer(good.slice(0, 0)))

    def bomb(file: Path) -> None:
        million = {key: pyarrow.repeat(rows[0][key], 1_000_000) for key in rows[0]}
        part = pyarrow.table(million).combine_chunks()
        with pyarrow.parquet.ParquetWriter(file, part.schema, compression="zstd") as writer:
            for _ in range(40):
                writer.write_table(part)

    yield manifest("40 million rows in 200 kB", ".parquet", bomb, None, ("refused",))


def _writer(content: pyarrow.Table) -> Callable[[Path], None]:
    return lambda file: pyarrow.parquet.write_table(content, file)


# Quarantine files


def quarantines(m: Material) -> Iterator[Whole]:
    """A folder of good clips, and a damaged quarantine file."""
    head = "track_id,excluded,kind,reason,copy_of,label,path,content\n"
    row = "calm/0.wav,yes,by hand,because,,calm,calm/0.wav,abc\n"
    files: dict[str, bytes] = {
        "empty": b"",
        "header alone": head.encode(),
        "good": (head + row).encode(),
        "column missing": (head + row).replace("excluded,", "").encode(),
        "columns twice": (head.strip() + ",excluded\n" + row).encode(),
        "ragged short": (head + "calm/0.wav\n").encode(),
        "ragged long": (head + row.strip() + ",x,y,z\n").encode(),
        "excluded maybe": (head + row.replace("yes", "maybe")).encode(),
        "UTF-16": (head + row).encode("utf-16"),
        "latin-1": (head + row.replace("because", "né")).encode("latin-1"),
        "BOM": b"\xef\xbb\xbf" + (head + row).encode(),
        "NUL bytes": (head + row.replace("because", "be\0cause")).encode(),
        "noise": m.draw.randbytes(3_000),
        "quote never closed": (head + '"' + row).encode(),
        "a cell of a million characters": (head + row.replace("because", "x" * 1_000_000)).encode(),
        "escape sequence": (head + row.replace("because", "\x1b[31mFORGED")).encode(),
        "html": (head + row.replace("because", "<script>alert(1)</script>")).encode(),
        "newline quoted": (head + row.replace("because", '"a\nFORGED"')).encode(),
        "rows twice": (head + row + row.replace("yes", "keep")).encode(),
        "copy of itself": (
            head + row.replace("because,", "because,calm/0.wav").replace("yes", "no")
        ).encode(),
        "copies in a ring": (
            head + "calm/0.wav,no,copy,x,calm/1.wav,calm,x,@0\ncalm/1.wav,no,copy,x,calm/0.wav,calm,x,@1\n"
        ).encode(),
        "unknown track": (head + row.replace("calm/0.wav", "../../etc/passwd")).encode(),
        "everything": (
            head
            + "".join(
                row.replace("calm/0.wav", f"{g}/{n}.wav")
                for g in ("calm", "pulse")
                for n in range(GOOD_CLIPS)
            )
        ).encode(),
    }
    for what, data in files.items():
        yield quarantined(what, data)
    yield quarantined("a folder", None)


def quarantined(what: str, data: bytes | None) -> Whole:
    """A folder `music`, and the quarantine file of the dataset of this name."""

    def make(place: Place) -> list[str]:
        contents = {}
        for genre in ("calm", "pulse"):
            (place.inputs / "music" / genre).mkdir(parents=True)
            for number in range(GOOD_CLIPS):
                clip = (place.clips / f"{genre}-{number}.wav").read_bytes()
                (place.inputs / "music" / genre / f"{number}.wav").write_bytes(clip)
                if genre == "calm":
                    contents[f"@{number}".encode()] = blake(clip)
        file = place.results / "quarantine" / "music.csv"
        file.parent.mkdir(parents=True)
        if data is None:
            file.mkdir()
        else:
            text = data
            for mark, content in contents.items() if b"@" in data else ():
                text = text.replace(mark, content)
            file.write_bytes(text)
        return ["--data", str(place.inputs / "music")]

    return Whole("quarantine files", what, make, ("used", "refused"), 2 * GOOD_CLIPS)


def blake(data: bytes) -> bytes:
    """The hash in the column `content`."""
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


# Zips


def zips(m: Material) -> Iterator[Whole]:
    """Zips whose members lead out of the folder, have wrong sizes, or are not files."""
    clip = small_wav(200)
    slips = {
        "slip": "../../../../canary/evil.wav",
        "slip within": "calm/../../../../canary/evil.wav",
        "slip of backslashes": "..\\..\\..\\canary\\evil.wav",
        "absolute": "/tmp/mgc-fuzz-evil.wav",
        "drive": "C:\\evil.wav",
        "share": "\\\\host\\evil.wav",
        "newline": "calm/a\nFORGED.wav",
        "escape sequence": "calm/\x1b[31mFORGED.wav",
        "right to left": "calm/\u202evaw.wav",
        "html": "calm/<script>alert(1)<.wav",
        "70 folders deep": "d/" * 70 + "a.wav",
        "300 bytes": "calm/" + "x" * 300 + ".wav",
        "dots": "calm/...wav",
        "no name": "/",
        "current folder": "./calm/./x.wav",
        "colon": "calm/a:b.wav",
    }
    for what, name in slips.items():
        yield zipped(what, [Member(name, clip)])
    yield zipped("nul", [Member("calm/a!b.wav", clip)], lambda data: data.replace(b"a!b", b"a\0b"))
    modes = {"link": 0o120777, "pipe": 0o010644, "device": 0o020666, "folder": 0o040755, "setuid": 0o104777}
    for what, mode in modes.items():
        yield zipped(f"member is a {what}", [Member("calm/special.wav", b"/etc/passwd", mode)])
    out = Member("calm/out", b"../../../../../canary", modes["link"])
    yield zipped("through a link", [out, Member("calm/out/evil.wav", clip)])
    twice = ("calm/same.wav", "calm/same.wav", "calm/SAME.wav", "calm/same.wav/x.wav", "calm")
    yield zipped("names twice", [Member(name, clip + bytes([n])) for n, name in enumerate(twice)])
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as deeper:
        deeper.writestr("bomb", bytes(10_000_000))
    yield zipped(
        "zip in zip", [Member(f"calm/inner.{suffix}", inner.getvalue()) for suffix in ("zip", "wav")]
    )
    bomb = Member("calm/bomb.wav", bytes(1_000_000), method=zipfile.ZIP_DEFLATED, times=300)
    yield zipped("bomb of 300 MB", [bomb])
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield zipped(f"compression {method}", [Member("calm/packed.wav", clip, method=method)])
    yield zipped("2,000 empty members", [Member(f"calm/{number}.mp3", b"") for number in range(2_000)])
    yield zipped("litter", [Member(name, clip) for name in ("__MACOSX/calm/._a.wav", "calm/.DS_Store")])
    yield zipped("good", expect=("used",))
    yield zipped("name of dots", name="...zip")
    yield zipped("name not UTF-8", name="\udcff.zip")
    yield zipped("name of an escape", name="\x1b[31mFORGED\n.zip")

    local, central, end = b"PK\3\4", b"PK\1\2", b"PK\5\6"

    def patched(magic: bytes, at: int, new: bytes) -> Change:
        """Other bytes at a position after the last header of a kind."""

        def change(data: bytes) -> bytes:
            place = data.rfind(magic) + at
            return data[:place] + new + data[place + len(new) :]

        return change

    noise = m.draw.randbytes(1_000)
    changes: dict[str, Change] = {
        "empty": lambda data: b"",
        "magic alone": lambda data: data[:4],
        "cut to a third": lambda data: data[: len(data) // 3],
        "cut by ten bytes": lambda data: data[:-10],
        "no directory": lambda data: data[: data.find(central)],
        "noise in front": lambda data: noise + data,
        "noise behind": lambda data: data + noise,
        "noise all over": lambda data: flip(data, 300, 0, len(data), random.Random(0)),
        "encrypted": patched(central, 8, b"\1\0"),
        "unknown compression": patched(central, 10, b"\x63\0"),
        "wrong checksum": patched(central, 16, b"\1\2\3\4"),
        "packed size of 4 GB": patched(central, 20, b"\xfe\xff\xff\xff"),
        "size of 4 GB": patched(central, 24, b"\xfe\xff\xff\xff"),
        "size of a byte": patched(central, 24, b"\1\0\0\0"),
        "name of 65,535": patched(central, 28, b"\xff\xff"),
        "starts beyond the end": patched(central, 42, b"\xff\xff\xff\x7f"),
        "other name inside": patched(local, 30, b"/etc/passwd"),
        "65,535 members": patched(end, 8, b"\xff\xff\xff\xff"),
        "no member": patched(end, 8, b"\0\0\0\0"),
        "directory elsewhere": patched(end, 16, b"\xff\xff\xff\x7f"),
        "comment of 65,535": patched(end, 20, b"\xff\xff"),
        "a tar": lambda data: b"music.wav" + bytes(1_015),
        "text": lambda data: b"not a zip\n",
    }
    for what, change in changes.items():
        yield zipped(what, change=change)


@dataclass(frozen=True)
class Member:
    """A member of a zip beside the good clips; its data is repeated `times`."""

    name: str
    data: bytes
    mode: int = 0
    method: int = zipfile.ZIP_STORED
    times: int = 1


def zipped(
    what: str,
    members: Sequence[Member] = (),
    change: Change | None = None,
    expect: Expect = ("used", "refused"),
    name: str = "music.zip",
) -> Whole:
    """A zip of good clips and `members`, changed by `change`."""

    def make(place: Place) -> list[str]:
        file = place.inputs / name
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w") as packed:  # names twice
            for clip in sorted(place.clips.iterdir()):
                packed.writestr(clip.name.replace("-", "/"), clip.read_bytes())
            for member in members:
                info = zipfile.ZipInfo(member.name)
                info.external_attr, info.compress_type = member.mode << 16, member.method
                with packed.open(info, "w") as out:
                    for _ in range(member.times):
                        out.write(member.data)
        if change:
            file.write_bytes(change(file.read_bytes()))
        return ["--data", str(file)]

    def count(place: Place) -> int | None:
        try:
            with zipfile.ZipFile(place.inputs / name) as packed:
                return sum(not info.is_dir() or info.filename == "/" for info in packed.infolist())
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    return Whole("zips", what, make, expect, count)


# FMA's tracks.csv


def fma_tables(m: Material) -> Iterator[Whole]:
    """A miniature of FMA with good clips and a damaged tracks.csv."""
    noise = m.draw.randbytes(2_000)
    changes: dict[str, Change] = {
        "good": lambda data: data,
        "empty": lambda data: b"",
        "headers alone": lambda data: b"\n".join(data.split(b"\n")[:3]) + b"\n",
        "two rows of header": lambda data: b"\n".join(data.split(b"\n")[:2]) + b"\n",
        "cut": lambda data: data[: len(data) // 2],
        "cut in a quote": lambda data: data[: data.rfind(b'"')],
        "UTF-16": lambda data: data.decode().encode("utf-16"),
        "BOM": lambda data: b"\xef\xbb\xbf" + data,
        "NUL bytes": lambda data: data.replace(b"small", b"sm\0all"),
        "latin-1": lambda data: data.replace(b"Artist", b"Artis\xe9"),
        "column missing": lambda data: data.replace(b"subset", b"sub"),
        "columns in another order": lambda data: data.replace(b"album", b"xxx", 3),
        "subset unknown": lambda data: data.replace(b"small", b"tiny"),
        "split unknown": lambda data: data.replace(b"validation", b"dev"),
        "id no number": lambda data: data.replace(b"\n133297,", b"\nabc,"),
        "id negative": lambda data: data.replace(b"\n133297,", b"\n-5,"),
        "id of 5,000 digits": lambda data: data.replace(b"\n133297,", b"\n" + b"9" * 5_000 + b","),
        "id of another script": lambda data: data.replace(b"\n133297,", "\n١٣٣,".encode()),
        "id twice": lambda data: data.replace(b"\n133297,", b"\n99134,"),
        "id leads out": lambda data: data.replace(b"\n133297,", b"\n../../x,"),
        "genre of escapes": lambda data: data.replace(b"Rock", b"\x1b[31mFORGED"),
        "genre of HTML": lambda data: data.replace(b"Rock", b"<script>alert(1)</script>"),
        "artist of newlines": lambda data: data.replace(b"The Twins", b'"a\nFORGED\nb"'),
        "a cell of 20 MB": lambda data: data.replace(b"The Twins", b"x" * 20_000_000, 1),
        "rows ragged": lambda data: data + b"1,2,3\n",
        "noise behind": lambda data: data + noise,
        "html": lambda data: b"<html>404</html>",
        "zip": lambda data: b"PK\3\4" + bytes(500),
        "CR line ends": lambda data: data.replace(b"\n", b"\r"),
    }
    for what, change in changes.items():
        yield fma_table(what, change)


def fma_table(what: str, change: Change) -> Whole:
    """A data root with a changed tracks.csv and the clips of the miniature."""

    def make(place: Place) -> list[str]:
        mini = place.clips.parent / "fma"
        if not mini.exists():  # shared by all cases
            make_fma(mini, seconds=1.0)
        table = place.inputs / "fma_metadata" / "tracks.csv"
        table.parent.mkdir()
        table.write_bytes(change((mini / "fma_metadata" / "tracks.csv").read_bytes()))
        (place.inputs / "fma_small").symlink_to(mini / "fma_small")
        return ["--data", "fma_small", "--data-root", str(place.inputs), "--limit", "16"]

    expect: Expect = ("used",) if what == "good" else ("used", "refused")
    return Whole("tables of FMA", what, make, expect, 16 if what == "good" else None)


DATASETS: dict[str, Callable[[Material], Iterator[Whole]]] = {
    kind.__name__: kind for kind in (manifests, quarantines, zips, fma_tables)
}
