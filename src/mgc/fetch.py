"""Large files brought here and opened: downloads that go on where they stopped, archives unpacked safely.

Nothing here knows what the files are. A name within an archive, a size it announces and whatever a server
answers are taken for what a stranger wrote.
"""

import bz2
import contextlib
import copy
import errno
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import time
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mgc.config import MgcError, printable
from mgc.progress import Progress, say

if TYPE_CHECKING:
    import requests

MIB = 1 << 20
CONNECT_SECONDS, SILENT_SECONDS = 20.0, 60.0
# Before each new try that follows one without a new byte; after the last of them it is given up.
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
LONGEST_WAIT_SECONDS = 300.0  # however long a server asks us to wait
NETWORK_BLOCK = 1 << 18
CLOSED = "the connection was closed too early"

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
DEEPEST = 64  # folders a member may lie in: a thousand would be more than many programs can walk through

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
# The file system has no such names; any other trouble with writing concerns all members.
_NAME_TROUBLE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


# --- downloading ------------------------------------------------------------------------------------------


def download(
    url: str,
    file: Path,
    bytes: int | None,  # noqa: A002
    digest: str | None,
    *,
    by_hand: str,
) -> None:
    """Bring `url` to `file`, which has exactly `bytes` bytes and the digest "sha1:..." or "md5:...".

    `bytes` None takes the size that the server tells.

    `file` gets its name when it is whole and right; until then it is `<file>.part`, which an interrupt or
    a lost connection leaves behind and the next call goes on with, as long as the server's file is the
    same. A `file` that is there already is only checked. A file of a wrong digest is set aside as
    `<file>.wrong-sha1`. `by_hand` tells a person what to download otherwise, and where to put it.

    Raises:
        MgcError: no network, a server that does not give the file or gives another one, no room, or a
            wrong digest.
    """
    with _on_disk(file, "make it writable, or make room; what is here of the download is kept"):
        if file.exists():
            check_digest(file, digest, bytes, by_hand=by_hand)
            return
        _Download(url, file, bytes, digest, by_hand).run()


def check_digest(
    file: Path,
    digest: str | None,
    bytes: int | None = None,  # noqa: A002
    *,
    by_hand: str = "",
) -> None:
    """Nothing, if `file` has `bytes` bytes and the digest "sha1:..." or "md5:...", as far as they are given.

    Raises:
        MgcError: another size, another digest (with the expected and the found one), an unreadable file.
    """
    with _on_disk(file, "make it readable", "read"):
        wrong = _wrong(file, file.name, digest, bytes)
    if wrong:
        raise MgcError(wrong, where=file, fix=_and("delete it and get it again", by_hand))


def _wrong(file: Path, name: str, digest: str | None, total: int | None) -> str | None:
    size = file.stat().st_size
    if total is not None and size != total:
        told = ": it was not downloaded to its end" if size < total else ": it is another file"
        return f"{name} has {size:,} bytes and not {total:,}{told}"
    if digest is None:
        return None
    kind, _, expected = digest.partition(":")
    found = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as stream, _Mebibytes(f"check the {kind} of {name}", size) as progress:
        while block := stream.read(MIB):
            found.update(block)
            progress.add(len(block))
    if found.hexdigest() == expected.lower():
        return None
    return f"{name} is not the file that was published: its {kind} is {found.hexdigest()}, not {expected}"


class _DroppedError(Exception):
    """A try that failed for a reason that may pass. `reached`: there was a server at all."""

    def __init__(self, what: str, *, reached: bool = True, wait: float = 0.0) -> None:
        super().__init__(what)
        self.reached, self.wait = reached, wait


class _Download:
    """One file on its way: `<file>.part`, and beside it `.part.json`, the server's word for its version."""

    def __init__(self, url: str, file: Path, total: int | None, digest: str | None, by_hand: str) -> None:
        self.url, self.file, self.digest, self.by_hand = url, file, digest, by_hand
        self.part = file.with_name(f"{file.name}.part")
        self.card = file.with_name(f"{file.name}.part.json")
        self.anew = False  # the next answer replaces the part, which is kept until there is one
        self.total = self._announced() if total is None else total

    def run(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self._have() > self.total:
            self._drop()
        have = self._have()
        if have:
            say(f"{self.file.name}: {_amount(have)} of {_amount(self.total)} are here already")
        self._look_for_room(self.total - have)
        self._bring()
        self._accept()

    def _announced(self) -> int:
        """The size that the server tells before it sends anything."""
        self.total = -1
        try:
            with self._ask({"Accept-Encoding": "identity"}) as response:
                self._start_of(response, 0, None)
                told = response.headers.get("Content-Length", "")
        except _DroppedError as dropped:
            raise self._stop(str(dropped)) from None
        if not told.isdecimal():
            raise self._stop("the server does not tell how large the file is")
        return int(told)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.card.unlink(missing_ok=True)

    def _look_for_room(self, need: int) -> None:
        free = shutil.disk_usage(self.file.parent).free
        if need > free:
            what = f"{self.file.name} needs {_amount(need)}, and {_amount(free)} are free"
            fix = f"make {_amount(need - free)} more free, or choose another folder"
            raise MgcError(what, where=self.file.parent, fix=fix)

    def _bring(self) -> None:
        """Try until all bytes are here. A try that brings more than any before starts the count anew."""
        most = first = self._have()
        tries = 0
        while self._have() != self.total:
            try:
                self._receive()
            except _DroppedError as dropped:
                if self._have() > most:
                    most, tries = self._have(), 0
                if tries == len(WAITS_SECONDS) or (not dropped.reached and most == first):
                    raise self._stop(str(dropped)) from None
                wait = max(WAITS_SECONDS[tries], dropped.wait)
                tries += 1
                here = f"{_amount(self._have())} of {_amount(self.total)} are here"
                say(f"{self.file.name}: {dropped}; {here}, trying again in {wait:.0f} s")
                time.sleep(wait)

    def _receive(self) -> None:
        """One answer of the server, written behind what is here, or from the start."""
        have, version = self._have(), self._version()
        headers = {"Accept-Encoding": "identity"}
        # With neither a version nor a digest nobody would notice two halves of different files.
        if have and not self.anew and (version or self.digest):
            headers["Range"] = f"bytes={have}-"
            if version:
                headers["If-Range"] = version
        with self._ask(headers) as response:
            at = self._start_of(response, have, version)
            with self.part.open("ab" if at else "wb") as out:
                if not at:
                    self._begin(response, have)
                self._copy(response, out, at)

    def _begin(self, response: "requests.Response", lost: int) -> None:
        if lost and not self.anew:
            say(f"{self.file.name}: the server cannot go on with what is here: from the start")
        card = {"url": self.url, "version": _version_of(response)}
        self.card.write_text(json.dumps(card), encoding="utf-8")
        self.anew = False

    def _copy(self, response: "requests.Response", out: IO[bytes], at: int) -> None:
        """Write what comes behind the `at` bytes that are here, no more than is expected."""
        with _Mebibytes(f"download {self.file.name}", self.total - at) as progress:
            while block := self._block(response):
                if os.fstat(out.fileno()).st_size != at:
                    fix = "wait for it, or stop it and run the same command again"
                    raise MgcError("another process writes to this download", where=self.part, fix=fix)
                if at + len(block) > self.total:
                    self._drop()
                    raise self._stop(f"the server sends more than the {self.total:,} bytes expected")
                out.write(block)
                out.flush()
                at += len(block)
                progress.add(len(block))
        if at < self.total:
            raise _DroppedError(CLOSED)

    def _version(self) -> str | None:
        """What the server called the version that the part belongs to, if it said so."""
        try:
            card = json.loads(self.card.read_text(encoding="utf-8"))
            return card["version"] if card["url"] == self.url else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _ask(self, headers: dict[str, str]) -> "requests.Response":
        import requests

        try:
            return requests.get(
                self.url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENT_SECONDS)
            )
        except requests.exceptions.RequestException as error:
            raise self._trouble(error) from None

    def _trouble(self, error: "requests.exceptions.RequestException") -> _DroppedError | MgcError:
        """What kept us from the server, told by what lies at the bottom of the exceptions."""
        import socket
        import ssl

        import requests

        host = urlsplit(self.url).hostname or self.url
        root, reason = _root_of(error)
        if isinstance(error, requests.exceptions.ProxyError):
            return self._stop(f"the proxy does not let us through to {host}: {reason}")
        if isinstance(root, ssl.SSLCertVerificationError):
            return self._stop(f"the certificate of {host} is not accepted: {root.verify_message}")
        if isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError):
            return self._stop(f"no safe connection to {host} (TLS): {reason}")
        if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
            late = isinstance(error, requests.exceptions.ReadTimeout)
            reached = late or isinstance(root, ConnectionResetError | ssl.SSLEOFError)
            offline = "; is there a network?" if isinstance(root, socket.gaierror) else ""
            return _DroppedError(f"no answer from {host}: {reason}{offline}", reached=reached)
        return self._stop(f"this address cannot be asked: {reason}")

    def _start_of(self, response: "requests.Response", have: int, version: str | None) -> int:
        """The byte at which the answer begins.

        Raises:
            _DroppedError: a status that may pass, or an answer that does not go with what is here.
            MgcError: the server does not give the file, or gives one of another size.
        """
        code, said = response.status_code, printable(f"{response.status_code} {response.reason}")
        if code == 416:
            self.anew = True
            raise _DroppedError("the server has nothing behind what is here: starting anew")
        if code in (408, 425, 429) or code >= 500:
            after = response.headers.get("Retry-After", "")
            wait = min(float(after), LONGEST_WAIT_SECONDS) if after.isdecimal() else 0.0
            raise _DroppedError(f"the server answered {said}", wait=wait)
        if code in (404, 410):
            raise self._stop(f"there is no such file on the server any more ({said})")
        if code not in (200, 206):
            raise self._stop(f"the server does not give the file ({said})")
        total: str | None = response.headers.get("Content-Length")
        start = 0
        if code == 206:
            told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            start, total = (int(told[1]), told[2]) if told else (-1, None)
            now = _version_of(response)
            if start != have or (version and now and now != version):
                self.anew = True
                raise _DroppedError("the server's file is another one now: starting anew")
        if total and total.isdecimal() and self.total >= 0 and int(total) != self.total:
            kind = printable(response.headers.get("Content-Type", "unknown type"))
            raise self._stop(f"the server has {int(total):,} bytes ({kind}), not the {self.total:,} expected")
        return start

    def _block(self, response: "requests.Response") -> Any:
        """The next bytes as they are sent: a server may call a .tar.gz an encoding and have it undone."""
        from urllib3.exceptions import HTTPError, IncompleteRead

        try:
            return response.raw.read(NETWORK_BLOCK, decode_content=False)
        except (HTTPError, OSError) as error:
            root, reason = _root_of(error)
            early = isinstance(root, IncompleteRead)
            raise _DroppedError(CLOSED if early else f"the connection broke: {reason}") from None

    def _stop(self, what: str) -> MgcError:
        have = self._have()
        kept = f"{_amount(have)} are kept, and the same command goes on with them" if have else ""
        return MgcError(what, where=self.url, fix=_and(kept, self.by_hand))

    def _accept(self) -> None:
        """Give the file its name, or one that says what is wrong with it."""
        wrong = _wrong(self.part, self.file.name, self.digest, self.total)
        self.card.unlink(missing_ok=True)
        if not wrong:
            self.part.replace(self.file)
            return
        kind = (self.digest or "size").partition(":")[0]
        aside = _unused(self.file.with_name(f"{self.file.name}.wrong-{kind}"))
        self.part.replace(aside)
        fix = "delete it and run the same command again; the same again: the publisher changed the file"
        raise MgcError(wrong, where=aside, fix=_and(fix, self.by_hand))


def _root_of(error: BaseException) -> tuple[BaseException, str]:
    """What lies at the bottom of a chain of exceptions, and what it says."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return error, _why(error)


def _version_of(response: "requests.Response") -> str | None:
    """An ETag that stands for the very bytes, else the time of the last change (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


# --- unpacking --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """A member of an archive that was not unpacked, and why. What cannot be printed stands as an escape."""

    name: str
    reason: str


@dataclass(frozen=True)
class Unpacked:
    """What became of the members of an archive; folders are made but not listed. `files` are in its order.

    `litter` counts what macOS puts beside the files (`__MACOSX/`, `.DS_Store`, `._*`) and was passed over.
    """

    files: list[Path]
    refused: list[Refused]
    litter: int = 0


@dataclass(frozen=True)
class _Member:
    """One entry of an archive. `problem`: why it is not unpacked, whatever its name is."""

    name: str
    size: int
    is_folder: bool
    problem: str | None
    blocks: Callable[[], Iterator[bytes]]


class _RefusedError(Exception):
    """A member that is not unpacked; the message is the reason."""


def unpack(archive: Path, into: Path, place: str | None = None) -> Unpacked:
    """Unpack a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz below `into`, and account for every member.

    Nothing is ever written outside `into` (which may itself be a link), nor through a link below it. With
    `place`, only members below that top folder are taken. A member that is there with the announced size
    is not written again, so that an interrupted unpacking goes on; one of another size is replaced. Of
    members of one name the first is taken. A backslash in a name counts as a slash: some Windows programs
    write it so.

    A tar has no index. Where one is damaged or cut off, what stood behind is unknown, so that nothing of it
    is unpacked; of a zip, only the members concerned are refused.

    Raises:
        MgcError: no such archive or one that cannot be read, no room for what it announces, or a file that
            cannot be written; what is unpacked by then is kept.
    """
    with _members(archive) as members, _on_disk(into, "make it writable, or choose another folder"):
        into.mkdir(parents=True, exist_ok=True)
        return _Unpacking(archive.name, into, place, members).run()


class _Unpacking:
    """One archive on its way into a folder: names are judged first, then room is looked for, then written."""

    def __init__(self, name: str, into: Path, place: str | None, members: list[_Member]) -> None:
        self.name, self.into = name, into
        self.files: list[Path] = []
        self.refused: list[Refused] = []
        self.litter = 0
        self._folders: set[tuple[str, ...]] = {()}
        self._done: dict[str, set[Path]] = {}
        self._planned: list[tuple[_Member, tuple[str, ...]]] = []
        for member in members:
            try:
                parts = _parts(member)
                if _is_litter(parts):
                    self.litter += 1
                else:
                    self._planned.append((member, _taken(member, parts, place)))
            except _RefusedError as refused:
                self._refuse(member, refused)

    def run(self) -> Unpacked:
        """Write what is not there yet."""
        todo = {
            number: member.size
            for number, (member, parts) in enumerate(self._planned)
            if not member.is_folder and not self._is_there(parts, member.size)
        }
        left = sum(todo.values())
        self._look_for_room(left)
        kept = sum(not member.is_folder for member, _ in self._planned) - len(todo)
        if kept:
            say(f"{self.name}: {kept} files are here already")
        with Progress(f"unpack {self.name}", len(todo), "files") as progress:
            for number, (member, parts) in enumerate(self._planned):
                try:
                    self._take(member, parts)
                except _RefusedError as refused:
                    self._refuse(member, refused)
                except OSError as error:
                    if error.errno not in _NAME_TROUBLE:
                        raise self._unwritten(member, error, left, len(todo) - progress.done) from None
                    self._refuse(member, f"the file system has no such name ({error.strerror})")
                except UnicodeEncodeError:
                    self._refuse(member, "the file system has no such name")
                if number in todo:
                    left -= member.size
                    progress.step()
        return Unpacked(self.files, self.refused, self.litter)

    def _refuse(self, member: _Member, reason: object) -> None:
        self.refused.append(Refused(printable(member.name), str(reason)))

    def _is_there(self, parts: tuple[str, ...], size: int) -> bool:
        try:
            state = self.into.joinpath(*parts).lstat()
        except (OSError, UnicodeEncodeError):  # said when it is to be written
            return False
        return stat.S_ISREG(state.st_mode) and state.st_size == size

    def _look_for_room(self, need: int) -> None:
        free = shutil.disk_usage(self.into).free
        if need > free:
            what = f"{self.name} unpacks to {_amount(need)}, and {_amount(free)} are free"
            fix = f"make {_amount(need - free)} more free, or choose another folder"
            raise MgcError(what, where=self.into, fix=fix)

    def _take(self, member: _Member, parts: tuple[str, ...]) -> None:
        """Make the folder, or the file if it is not there.

        Raises:
            _RefusedError: what lies there stands in the way, or the member's data is not as announced.
            OSError: of writing.
        """
        folder = self._folder(parts if member.is_folder else parts[:-1])
        if member.is_folder:
            return
        target = folder / parts[-1]
        lies = _lies(target)
        if lies and not stat.S_ISREG(lies.st_mode):
            raise _RefusedError(f"{_kind(lies.st_mode)} of this name lies there")
        # Names that some file systems take for one: case, and ways to write an accent.
        alike = self._done.setdefault(unicodedata.normalize("NFC", "/".join(parts)).casefold(), set())
        if target in alike:
            raise _RefusedError("an earlier member has the same name")
        if lies and any(target.samefile(earlier) for earlier in alike):
            raise _RefusedError("the file system takes its name for that of an earlier member")
        if not lies or lies.st_size != member.size:
            _write(member, target)
        alike.add(target)
        self.files.append(target)

    def _folder(self, parts: tuple[str, ...]) -> Path:
        """The folder, made if need be, with no link on the way from `into`."""
        for depth in range(1, len(parts) + 1):
            if parts[:depth] in self._folders:
                continue
            folder = self.into.joinpath(*parts[:depth])
            lies = _lies(folder)
            if lies is None:
                folder.mkdir(exist_ok=True)
            elif not stat.S_ISDIR(lies.st_mode):
                name = printable("/".join(parts[:depth]))
                raise _RefusedError(f"{name} is {_kind(lies.st_mode)}, not a folder")
            self._folders.add(parts[:depth])
        return self.into.joinpath(*parts)

    def _unwritten(self, member: _Member, error: OSError, left: int, files: int) -> MgcError:
        what = f"{printable(member.name)} of {self.name} cannot be written: {error.strerror or error}"
        missing = left - shutil.disk_usage(self.into).free
        room = f"make {_amount(missing)} more free" if missing > 0 else "make room, or make it writable"
        fix = f"{room}; {files} files ({_amount(left)}) are still to be written, the same command goes on"
        return MgcError(what, where=self.into, fix=fix)


def _parts(member: _Member) -> tuple[str, ...]:
    """The folders and the name that a member's name stands for, none of which leads up or out.

    Raises:
        _RefusedError: there are none.
    """
    if re.search(r"[\x00-\x1f\x7f-\x9f]", member.name):
        raise _RefusedError("its name holds a control character")
    path = member.name.replace("\\", "/")
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        raise _RefusedError("its name is an absolute path")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _RefusedError("its name leads out of the folder")
    if not parts and not member.is_folder:
        raise _RefusedError("it has no name")
    if len(parts) > DEEPEST:
        raise _RefusedError(f"it lies more than {DEEPEST} folders deep")
    return parts


def _is_litter(parts: tuple[str, ...]) -> bool:
    return "__MACOSX" in parts or any(part == ".DS_Store" or part.startswith("._") for part in parts[-1:])


def _taken(member: _Member, parts: tuple[str, ...], place: str | None) -> tuple[str, ...]:
    """`parts`, if the member is to be unpacked at all."""
    if member.problem:
        raise _RefusedError(member.problem)
    if place and parts and (parts[0] != place or (len(parts) == 1 and not member.is_folder)):
        raise _RefusedError(f"it does not lie in the folder {place}")
    return parts


def _lies(path: Path) -> os.stat_result | None:
    """What lies there, itself and not what it points to."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a device or pipe")


def _write(member: _Member, target: Path) -> None:
    """Write under another name and rename: the file is there whole or not at all.

    The other name is random and short: no member can have it, and a name of 255 bytes remains possible.
    """
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    written = 0
    try:
        with part.open("xb") as out:
            for block in member.blocks():
                written += len(block)
                if written > member.size:
                    raise _RefusedError(f"it holds more than the {member.size:,} bytes it announces")
                out.write(block)
        if written < member.size:
            raise _RefusedError(f"it holds {written:,} of the {member.size:,} bytes it announces")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
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
            what = f"the archive is damaged, cut off or no archive: {_why(error)}"
            fix = "get it again; if it stays so, unpack it by hand with another program"
            raise MgcError(what, where=archive, fix=fix) from None
        yield members


def _zip_members(opened: zipfile.ZipFile) -> list[_Member]:
    members = []
    for info in opened.infolist():
        name = _zip_name(info)
        is_folder = name.replace("\\", "/").endswith("/")
        mode = info.external_attr >> 16
        problem = None
        if info.flag_bits & 0x1:
            problem = "it is encrypted"
        elif stat.S_IFMT(mode) in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
            problem = f"it is {_kind(mode)}"
        elif is_folder and info.file_size:
            problem = "it is named like a folder and holds data"
        # zipfile undoes LZMA for as many bytes as it reads at once, however much comes out: few, therefore.
        size = 4096 if info.compress_type == zipfile.ZIP_LZMA else MIB
        blocks = partial(_blocks, partial(_zip_data, opened, info), size, info.CRC)
        members.append(_Member(name, info.file_size, is_folder, problem, blocks))
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


def _tar_members(stream: IO[bytes], archive: Path, stack: contextlib.ExitStack) -> list[_Member]:
    """All members, by one walk through the whole archive, which also checks what a compressed one holds."""
    members = []
    with _Mebibytes(f"look through {archive.name}", archive.stat().st_size) as progress:
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
            members.append(_Member(info.name, info.size, info.isdir(), problem, blocks))
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
        _RefusedError: they cannot be read.
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
        raise _RefusedError(f"its data cannot be read: {_why(error)}") from None


# --- words ------------------------------------------------------------------------------------------------


class _Mebibytes(Progress):
    """Progress in whole MiB, told in bytes."""

    def __init__(self, what: str, total: int) -> None:
        super().__init__(what, -(-total // MIB), "MiB")
        self._bytes = 0

    def __enter__(self) -> "_Mebibytes":
        return self

    def add(self, count: int) -> None:
        """Count `count` more bytes."""
        self.reach(self._bytes + count)

    def reach(self, position: int) -> None:
        """Count up to the byte `position`; one before the last is none."""
        self._bytes = max(position, self._bytes)
        whole = min(-(-self._bytes // MIB), self.total)
        if whole > self.done:
            self.step(whole - self.done)


@contextmanager
def _on_disk(where: Path, fix: str, what: str = "written") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise MgcError(f"{where.name} cannot be {what}: {why}", where=where, fix=fix) from None


def _why(error: BaseException) -> str:
    first, *_ = str(getattr(error, "strerror", None) or error).splitlines() or [""]
    return printable(first) or ("it ends too early" if isinstance(error, EOFError) else type(error).__name__)


def _amount(count: int) -> str:
    """Bytes as a person reads them."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _and(*sentences: str) -> str:
    return "; ".join(sentence for sentence in sentences if sentence)


def _unused(file: Path) -> Path:
    """`file`, or the first of `file.2`, `file.3` ... that is not there."""
    number, free = 1, file
    while free.exists():
        number += 1
        free = file.with_name(f"{file.name}.{number}")
    return free
