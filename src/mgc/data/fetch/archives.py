"""What a zip or tar archive holds, as a stranger wrote it: its members, and their data in blocks."""

import bz2
import contextlib
import copy
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from mgc.data.fetch.words import MIB, Mebibytes, kind_of, reason_of
from mgc.util.errors import MgcError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

# What zipfile and tarfile raise on bytes that are no archive: each was seen in a test or in their sources.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,  # bz2 says so
    EOFError,
    ValueError,  # a name that is not in the encoding it should be
    RuntimeError,  # a compression Python does not know, headers nested a thousand deep
    MemoryError,  # a header that announces more than there is memory
    OverflowError,
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive. `problem`: why it is not unpacked, whatever its name is."""

    name: str
    size: int
    is_folder: bool
    problem: str | None
    blocks: Callable[[], Iterator[bytes]]


class RefusedError(Exception):
    """A member that is not unpacked; the message is the reason."""


@contextmanager
def members_of(archive: Path) -> Iterator[list[Member]]:
    """The members of an archive, which stays open for their data.

    Raises:
        MgcError: it is none, it is damaged where its members are listed, or it cannot be read.
    """
    name = archive.name.lower()
    if not name.endswith((".zip", *TAR_SUFFIXES)):
        known = ", ".join((".zip", *TAR_SUFFIXES))
        fix = f"unpack it by hand; what is unpacked here: {known}"
        raise MgcError("this archive is of no known kind", where=archive, fix=fix)
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(archive.open("rb"))
        except OSError as error:
            fix = "make it readable, or name the right one"
            raise MgcError(
                f"the archive cannot be opened: {error.strerror}", where=archive, fix=fix
            ) from None
        try:
            if name.endswith(".zip"):
                members = _zip_members(stack.enter_context(zipfile.ZipFile(stream)))
            else:
                members = _tar_members(stream, archive, stack)
        except _DAMAGE as error:
            what = f"the archive is damaged, cut off or no archive: {reason_of(error)}"
            fix = "get it again; if it stays so, unpack it by hand with another program"
            raise MgcError(what, where=archive, fix=fix) from None
        yield members


def _zip_members(opened: zipfile.ZipFile) -> list[Member]:
    members = []
    for info in opened.infolist():
        name = _zip_name(info)
        is_folder = name.replace("\\", "/").endswith("/")
        mode = info.external_attr >> 16
        problem = None
        if info.flag_bits & 0x1:
            problem = "it is encrypted"
        elif stat.S_IFMT(mode) in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
            problem = f"it is {kind_of(mode)}"
        elif is_folder and info.file_size:
            problem = "it is named like a folder and holds data"
        # zipfile undoes LZMA for as many bytes as it reads at once, however much comes out: few, therefore.
        size = 4096 if info.compress_type == zipfile.ZIP_LZMA else MIB
        blocks = partial(_blocks, partial(_zip_data, opened, info), size, info.CRC)
        members.append(Member(name, info.file_size, is_folder, problem, blocks))
    return members


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The whole name. Without the flag for UTF-8 it is taken for code page 437, but macOS writes UTF-8."""
    name = info.orig_filename
    if info.flag_bits & 0x800:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _zip_data(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """A member's data. bzip2, of which 4 KiB may hold 4 GiB, is undone here, where memory stays bounded."""
    if info.compress_type != zipfile.ZIP_BZIP2:
        return opened.open(info)
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # that of what is inside
    return bz2.BZ2File(opened.open(packed))


class _StrictHeader(tarfile.TarInfo):
    """Says that a header is damaged or missing, where `TarFile` would take it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictHeader":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # a block of zeros is the end
                raise
            raise tarfile.ReadError(str(error)) from None


def _tar_members(stream: IO[bytes], archive: Path, stack: contextlib.ExitStack) -> list[Member]:
    """All members, by one walk through the whole archive, which also checks what a compressed one holds."""
    members = []
    with Mebibytes(f"look through {archive.name}", archive.stat().st_size) as progress:
        opened = stack.enter_context(tarfile.TarFile.open(fileobj=stream, mode="r:*", tarinfo=_StrictHeader))
        while (info := opened.next()) is not None:
            # A negative size would lead back to a member seen before, for ever.
            if info.size < 0 or opened.offset <= info.offset:
                raise tarfile.ReadError(f"impossible size {info.size}")
            problem = None
            if info.issparse():
                problem = "it is a sparse file"
            elif info.issym() or info.islnk():
                problem = "it is a link"
            elif not info.isreg() and not info.isdir():
                problem = "it is a device or pipe"
            blocks = partial(_blocks, partial(_tar_data, opened, info), MIB)
            members.append(Member(info.name, info.size, info.isdir(), problem, blocks))
            progress.reach(stream.tell())
        while opened.fileobj.read(MIB):  # to the checksum at its end
            progress.reach(stream.tell())
    return members


def _tar_data(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    data = opened.extractfile(info)
    assert data is not None  # of a regular file it never is
    return data


def _blocks(open_data: Callable[[], IO[bytes]], size: int, crc: int | None = None) -> Iterator[bytes]:
    """A member's bytes, in blocks of about `size`, with the checksum `crc` if one is given.

    Raises:
        RefusedError: they cannot be read.
    """
    try:
        with open_data() as data:
            found = 0
            while block := data.read(size):
                found = zlib.crc32(block, found)
                yield block
        if crc is not None and found != crc:
            raise zipfile.BadZipFile("its checksum is another one")
    except _DAMAGE as error:
        raise RefusedError(f"its data cannot be read: {reason_of(error)}") from None
