"""Downloads that go on where they stopped, and are what was published."""

import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mgc.data.fetch.words import MIB, Mebibytes, amount, look_for_room, on_disk, reason_of
from mgc.util.errors import MgcError, printable
from mgc.util.progress import say

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS, SILENT_SECONDS = 20.0, 60.0
# Before each new try that follows one without a new byte; after the last of them it is given up.
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
LONGEST_WAIT_SECONDS = 300.0  # however long a server asks us to wait
NETWORK_BLOCK = 1 << 18
CLOSED = "the connection was closed too early"


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
    with on_disk(file, "make it writable, or make room; what is here of the download is kept"):
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
    with on_disk(file, "make it readable", "read"):
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
    with file.open("rb") as stream, Mebibytes(f"check the {kind} of {name}", size) as progress:
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
            say(f"{self.file.name}: {amount(have)} of {amount(self.total)} are here already")
        look_for_room(self.file.parent, f"{self.file.name} needs", self.total - have)
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
                here = f"{amount(self._have())} of {amount(self.total)} are here"
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
        with Mebibytes(f"download {self.file.name}", self.total - at) as progress:
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
        kept = f"{amount(have)} are kept, and the same command goes on with them" if have else ""
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
    return error, reason_of(error)


def _version_of(response: "requests.Response") -> str | None:
    """An ETag that stands for the very bytes, else the time of the last change (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _and(*sentences: str) -> str:
    return "; ".join(sentence for sentence in sentences if sentence)


def _unused(file: Path) -> Path:
    """`file`, or the first of `file.2`, `file.3` ... that is not there."""
    number, free = 1, file
    while free.exists():
        number += 1
        free = file.with_name(f"{file.name}.{number}")
    return free
