"""Archives unpacked without leaving their folder, every member accounted for."""

import errno
import os
import re
import shutil
import stat
import unicodedata
import uuid
from dataclasses import dataclass
from pathlib import Path

from mgc.data.fetch.archives import Member, RefusedError, members_of
from mgc.data.fetch.words import amount, kind_of, look_for_room, on_disk
from mgc.util.errors import MgcError, printable
from mgc.util.progress import Progress, say

DEEPEST = 64  # folders a member may lie in: a thousand would be more than many programs can walk through
# The file system has no such names; any other trouble with writing concerns all members.
_NAME_TROUBLE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


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
    with members_of(archive) as members, on_disk(into, "make it writable, or choose another folder"):
        into.mkdir(parents=True, exist_ok=True)
        return _Unpacking(archive.name, into, place, members).run()


class _Unpacking:
    """One archive on its way into a folder: names are judged first, then room is looked for, then written."""

    def __init__(self, name: str, into: Path, place: str | None, members: list[Member]) -> None:
        self.name, self.into = name, into
        self.files: list[Path] = []
        self.refused: list[Refused] = []
        self.litter = 0
        self._folders: set[tuple[str, ...]] = {()}
        self._done: dict[str, set[Path]] = {}
        self._planned: list[tuple[Member, tuple[str, ...]]] = []
        for member in members:
            try:
                parts = _parts(member)
                if _is_litter(parts):
                    self.litter += 1
                else:
                    self._planned.append((member, _taken(member, parts, place)))
            except RefusedError as refused:
                self._refuse(member, refused)

    def run(self) -> Unpacked:
        """Write what is not there yet."""
        todo = {
            number: member.size
            for number, (member, parts) in enumerate(self._planned)
            if not member.is_folder and not self._is_there(parts, member.size)
        }
        left = sum(todo.values())
        look_for_room(self.into, f"{self.name} unpacks to", left)
        kept = sum(not member.is_folder for member, _ in self._planned) - len(todo)
        if kept:
            say(f"{self.name}: {kept} files are here already")
        with Progress(f"unpack {self.name}", len(todo), "files") as progress:
            for number, (member, parts) in enumerate(self._planned):
                try:
                    self._take(member, parts)
                except RefusedError as refused:
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

    def _refuse(self, member: Member, reason: object) -> None:
        self.refused.append(Refused(printable(member.name), str(reason)))

    def _is_there(self, parts: tuple[str, ...], size: int) -> bool:
        try:
            state = self.into.joinpath(*parts).lstat()
        except (OSError, UnicodeEncodeError):  # said when it is to be written
            return False
        return stat.S_ISREG(state.st_mode) and state.st_size == size

    def _take(self, member: Member, parts: tuple[str, ...]) -> None:
        """Make the folder, or the file if it is not there.

        Raises:
            RefusedError: what lies there stands in the way, or the member's data is not as announced.
            OSError: of writing.
        """
        folder = self._folder(parts if member.is_folder else parts[:-1])
        if member.is_folder:
            return
        target = folder / parts[-1]
        lies = _lies(target)
        if lies and not stat.S_ISREG(lies.st_mode):
            raise RefusedError(f"{kind_of(lies.st_mode)} of this name lies there")
        # Names that some file systems take for one: case, and ways to write an accent.
        alike = self._done.setdefault(unicodedata.normalize("NFC", "/".join(parts)).casefold(), set())
        if target in alike:
            raise RefusedError("an earlier member has the same name")
        if lies and any(target.samefile(earlier) for earlier in alike):
            raise RefusedError("the file system takes its name for that of an earlier member")
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
                raise RefusedError(f"{name} is {kind_of(lies.st_mode)}, not a folder")
            self._folders.add(parts[:depth])
        return self.into.joinpath(*parts)

    def _unwritten(self, member: Member, error: OSError, left: int, files: int) -> MgcError:
        what = f"{printable(member.name)} of {self.name} cannot be written: {error.strerror or error}"
        missing = left - shutil.disk_usage(self.into).free
        room = f"make {amount(missing)} more free" if missing > 0 else "make room, or make it writable"
        fix = f"{room}; {files} files ({amount(left)}) are still to be written, the same command goes on"
        return MgcError(what, where=self.into, fix=fix)


def _parts(member: Member) -> tuple[str, ...]:
    """The folders and the name that a member's name stands for, none of which leads up or out.

    Raises:
        RefusedError: there are none.
    """
    if re.search(r"[\x00-\x1f\x7f-\x9f]", member.name):
        raise RefusedError("its name holds a control character")
    path = member.name.replace("\\", "/")
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        raise RefusedError("its name is an absolute path")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise RefusedError("its name leads out of the folder")
    if not parts and not member.is_folder:
        raise RefusedError("it has no name")
    if len(parts) > DEEPEST:
        raise RefusedError(f"it lies more than {DEEPEST} folders deep")
    return parts


def _is_litter(parts: tuple[str, ...]) -> bool:
    return "__MACOSX" in parts or any(part == ".DS_Store" or part.startswith("._") for part in parts[-1:])


def _taken(member: Member, parts: tuple[str, ...], place: str | None) -> tuple[str, ...]:
    """`parts`, if the member is to be unpacked at all."""
    if member.problem:
        raise RefusedError(member.problem)
    if place and parts and (parts[0] != place or (len(parts) == 1 and not member.is_folder)):
        raise RefusedError(f"it does not lie in the folder {place}")
    return parts


def _lies(path: Path) -> os.stat_result | None:
    """What lies there, itself and not what it points to."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _write(member: Member, target: Path) -> None:
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
                    raise RefusedError(f"it holds more than the {member.size:,} bytes it announces")
                out.write(block)
        if written < member.size:
            raise RefusedError(f"it holds {written:,} of the {member.size:,} bytes it announces")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
