"""Unpack zip and tar archives without leaving the target folder. Every member is accounted for."""

import bz2
import copy
import errno
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mgc.data.fetch.disk import MIB, amount, check_free_space, mib
from mgc.util.errors import MgcError, explaining, printable, reason_of
from mgc.util.files import is_file, write
from mgc.util.progress import Progress, say

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_DEPTH = 64  # nested folders; far more than any dataset has, far fewer than recursive programs can walk

# What zipfile and tarfile raise for damaged archives. Tests provoke each of these.
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError,
    ValueError, RuntimeError, MemoryError, OverflowError,
)  # fmt: skip
# Errors that concern the name of a single member. Any other error while writing concerns all members.
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


@dataclass
class Unpacked:
    """The result of `unpack`.

    `files` are in the order of the archive. `refused` are the members that were not unpacked, as (name,
    reason); the name is escaped for printing. `litter` counts skipped files that macOS adds (`__MACOSX/`,
    `.DS_Store`, `._*`).
    """

    files: list[Path] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    litter: int = 0


class _RefusedError(Exception):
    """A member is not unpacked; the message is the reason."""


@dataclass(frozen=True)
class _Member:
    """One entry of an archive that is not a folder. `problem`: why this kind of entry is not unpacked."""

    name: str
    size: int
    problem: str | None
    open: Callable[[], IO[bytes]]
    block_bytes: int = MIB  # read at once
    crc: int | None = None  # if the reader does not check it


def unpack(archive: Path, into: Path, top: str | None = None) -> Unpacked:
    """Unpack a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz below `into`.

    Nothing is written outside `into` (which may itself be a link). Empty folders are not created. With `top`,
    only members below that top-level folder are unpacked. A file that already has the announced size is kept,
    so an interrupted call can be repeated; a file of another size is replaced. Of several members with one
    name, the first is used. Backslashes in names count as slashes, because some Windows programs write them.

    Of a damaged zip, the undamaged members are unpacked. A tar has no index, so nothing of a damaged tar is.

    Raises:
        MgcError: the archive is missing, unreadable or damaged, the disk has too little space, or a file
            cannot be written. Files that are already unpacked are kept.
    """
    result = Unpacked()
    fix = "make it writable, or choose another folder"
    with _members_of(archive) as members, explaining(f"{into.name} cannot be written", into, fix):
        into.mkdir(parents=True, exist_ok=True)
        planned: list[tuple[_Member, Path]] = []
        for member in members:
            name = member.name.replace("\\", "/")
            *folders, last = name.split("/")
            if "__MACOSX" in folders or last == ".DS_Store" or last.startswith("._"):
                result.litter += 1
            elif reason := _refusal(name, member.problem, top):
                result.refused.append((printable(member.name), reason))
            else:
                planned.append((member, into / name))
        _write_all(archive.name, into, planned, result)
    return result


def _refusal(name: str, problem: str | None, top: str | None) -> str | None:
    """Why a member of this name, with this problem, is not unpacked."""
    parts = PurePosixPath(name).parts
    return _first({
        "its name contains a control character": re.search(r"[\x00-\x1f\x7f-\x9f]", name),
        "its name is an absolute path": re.match("/|[A-Za-z]:", name),
        "its name leads out of the folder": ".." in parts,
        "it has no name": not parts,
        f"it is nested more than {MAX_DEPTH} folders deep": len(parts) > MAX_DEPTH,
        f"{problem}": problem,
        f"it is not in the folder {top}": top and (parts[:1] != (top,) or len(parts) == 1),
    })  # fmt: skip


def _first(reasons: Mapping[str, object]) -> str | None:
    """The first reason that applies."""
    return next((reason for reason, applies in reasons.items() if applies), None)


def _write_all(archive: str, into: Path, planned: list[tuple[_Member, Path]], result: Unpacked) -> None:
    """Write the planned members that are missing, after checking the free space."""
    targets = enumerate(planned)
    missing = {n: member.size for n, (member, target) in targets if not _is_complete(member, target)}
    check_free_space(into, f"{archive} unpacks to", sum(missing.values()))
    if kept := len(planned) - len(missing):
        say(f"{archive}: {kept} files are already unpacked")
    written: set[tuple[int, int]] = set()
    with Progress(f"unpack {archive}", len(missing), "files") as progress:
        for number, (member, target) in enumerate(planned):
            try:
                _unpack_member(member, target, into, written)
                result.files.append(target)
            except _RefusedError as error:
                result.refused.append((printable(member.name), str(error)))
            except (OSError, UnicodeEncodeError) as error:
                reason = reason_of(error)
                if isinstance(error, OSError) and error.errno not in _NAME_ERRORS:
                    rest = [size for n, size in missing.items() if n >= number]
                    what = f"{printable(member.name)} of {archive} cannot be written: {reason}"
                    fix = "free space or make it writable, and run the same command again; "
                    fix += f"{len(rest)} files ({amount(sum(rest))}) remain"
                    raise MgcError(what, where=into, fix=fix) from None
                result.refused.append((printable(member.name), f"no such name is possible here: {reason}"))
            progress.step(number in missing)


def _is_complete(member: _Member, target: Path) -> bool:
    return is_file(target, member.size) and not target.is_symlink()


def _unpack_member(member: _Member, target: Path, into: Path, written: set[tuple[int, int]]) -> None:
    """Write the file unless it is complete. `written` identifies the files of earlier members by inode."""
    if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(into)):
        raise _RefusedError("a link leads out of the folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _RefusedError("a file of the same name as its folder exists") from None
    if target.is_dir():
        raise _RefusedError("a folder of the same name exists")
    # By inode and not by name, because some file systems ignore case or the encoding of accents.
    if os.path.lexists(target) and _inode(target) in written:
        raise _RefusedError("an earlier member has the same name")
    if not _is_complete(member, target):
        write(target, _blocks(member), sync=False)
    written.add(_inode(target))


def _inode(path: Path) -> tuple[int, int]:
    state = path.lstat()
    return state.st_dev, state.st_ino


def _blocks(member: _Member) -> Iterator[bytes]:
    """The data of a member; `_RefusedError` if it is not as announced."""
    crc = size = 0
    try:
        with member.open() as data:
            while block := data.read(member.block_bytes):
                crc, size = zlib.crc32(block, crc), size + len(block)
                if size > member.size:
                    raise _RefusedError(f"it has more than the announced {member.size:,} bytes")
                yield block
        if member.crc not in (None, crc):
            raise zipfile.BadZipFile("Bad CRC-32")
    except _DAMAGE as error:
        raise _RefusedError(f"its data cannot be read: {reason_of(error)}") from None
    if size < member.size:
        raise _RefusedError(f"it has only {size:,} of the announced {member.size:,} bytes")


@contextmanager
def _members_of(archive: Path) -> Iterator[list[_Member]]:
    """The members of an archive, which stays open for their data."""
    name = archive.name.lower()
    if not name.endswith((".zip", *TAR_SUFFIXES)):
        fix = f"unpack it with another program; supported: {', '.join(('.zip', *TAR_SUFFIXES))}"
        raise MgcError("unknown type of archive", where=archive, fix=fix)
    with explaining(f"{archive.name} cannot be opened", archive, "make it readable, or correct its name"):
        stream = archive.open("rb")
    what = "the archive is damaged, truncated or not an archive"
    fix = "download it again; if the error remains, unpack it with another program"
    with stream:
        with explaining(what, archive, fix, _DAMAGE):
            members = _zip_members(stream) if name.endswith(".zip") else _tar_members(stream, archive)
        yield members


def _zip_members(stream: IO[bytes]) -> list[_Member]:
    opened = zipfile.ZipFile(stream)
    members = []
    for info in opened.infolist():
        name = info.orig_filename  # zipfile cuts `filename` at a zero byte
        is_folder = name.endswith(("/", "\\"))
        if is_folder and not info.file_size:
            continue
        # A name not marked as UTF-8 is decoded as code page 437 by zipfile, but macOS writes UTF-8.
        if not info.flag_bits & 0x800:
            with suppress(UnicodeError):
                name = name.encode("cp437").decode("utf-8")
        kind = stat.S_IFMT(info.external_attr >> 16)
        problem = _first({
            "it is encrypted": info.flag_bits & 0x1,
            "it is a link": kind == stat.S_IFLNK,
            "it is a device or pipe": kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK),
            "it is named like a folder but contains data": is_folder,
        })  # fmt: skip
        member = _Member(name, info.file_size, problem, partial(opened.open, info))
        if info.compress_type == zipfile.ZIP_BZIP2:
            member = replace(member, open=partial(_bzip2_data, opened, info), crc=info.CRC)
        elif info.compress_type == zipfile.ZIP_LZMA:
            # zipfile decompresses all of the LZMA data it reads at once, however large the result.
            member = replace(member, block_bytes=4096)
        members.append(member)
    return members


def _bzip2_data(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """bzip2 data, of which 4 KiB can expand to 4 GiB. `bz2` limits the memory; zipfile does not."""
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # of the decompressed data
    return bz2.BZ2File(opened.open(packed))


class _StrictHeader(tarfile.TarInfo):
    """Raises for a damaged or missing header, which `TarFile` would take for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictHeader":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # a block of zeros marks the end
                raise
            raise tarfile.ReadError(str(error)) from None


def _tar_members(stream: IO[bytes], archive: Path) -> list[_Member]:
    """All members. The whole archive is read, so that damage is found before anything is written."""
    members = []
    with Progress(f"read {archive.name}", mib(archive.stat().st_size), "MiB") as progress:
        opened = tarfile.TarFile.open(fileobj=stream, mode="r:*", tarinfo=_StrictHeader)
        while (info := opened.next()) is not None:
            if info.size < 0 or opened.offset <= info.offset:  # would lead back to an earlier member forever
                raise tarfile.ReadError(f"impossible size {info.size}")
            problem = _first({
                "it is a sparse file": info.issparse(),
                "it is a link": info.issym() or info.islnk(),
                "it is a device or pipe": not info.isreg(),
            })  # fmt: skip
            if not info.isdir():
                data: Any = partial(opened.extractfile, info)
                members.append(_Member(info.name, info.size, problem, data))
            progress.reach(mib(stream.tell()))
        while opened.fileobj.read(MIB):  # to the checksum at the end
            progress.reach(mib(stream.tell()))
    return members
