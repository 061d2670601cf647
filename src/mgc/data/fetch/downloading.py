"""Downloads that resume where they stopped and are checked against a published digest."""

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mgc.data.fetch.disk import MIB, amount, check_free_space, mib
from mgc.util.errors import MgcError, explaining, printable, reason_of
from mgc.util.progress import Progress, say

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS, SILENT_SECONDS = 20.0, 60.0
# Pauses before retries; the count restarts when new bytes arrive. After the last retry the download fails.
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
LONGEST_WAIT_SECONDS = 300.0  # an upper limit for the server's Retry-After
BLOCK_BYTES = 1 << 18


def download(url: str, file: Path, digest: str | None, *, by_hand: str) -> None:
    """Download `url` to `file` and check its digest, such as "sha1:..." or "md5:...".

    Until it is complete, the download is `<file>.part`. After an interrupt or a lost connection, the next
    call resumes it, if the server still has the same version of the file. An existing `file` is only checked.
    A file with a wrong digest is renamed to `<file>.wrong-sha1`. `by_hand` describes what to do without a
    network and is part of every error message.

    Raises:
        MgcError: no network, no such file on the server, too little disk space, or a wrong digest.
    """
    fix = "make it writable, or free space; the part that is downloaded is kept"
    with explaining(f"{file.name} cannot be written", file, fix):
        if file.exists():
            check_digest(file, digest, by_hand=by_hand)
        else:
            _Download(url, file, digest, by_hand).run()


def check_digest(file: Path, digest: str | None, *, by_hand: str = "") -> None:
    """Raise `MgcError` if `file` is unreadable or its digest is not `digest` ("sha1:..."; None: any)."""
    with explaining(f"{file.name} cannot be read", file, "make it readable"):
        wrong = _wrong_digest(file, file.name, digest)
    if wrong:
        raise MgcError(wrong, where=file, fix=_join("delete it and download it again", by_hand))


def _wrong_digest(file: Path, name: str, digest: str | None) -> str | None:
    size = file.stat().st_size  # raises if there is no such file
    if digest is None:
        return None
    kind, _, expected = digest.partition(":")
    found = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as stream, Progress(f"check the {kind} of {name}", mib(size), "MiB") as progress:
        while block := stream.read(MIB):
            found.update(block)
            progress.reach(mib(stream.tell()))
    if found.hexdigest() == expected.lower():
        return None
    return f"{name} is not the published file: its {kind} is {found.hexdigest()}, expected {expected}"


class _DroppedError(Exception):
    """An attempt failed for a reason that may pass. `reached`: the server was reached at all."""

    def __init__(self, what: str, *, reached: bool = True, wait_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.reached, self.wait_seconds = reached, wait_seconds


@dataclass
class _Download:
    """One download: `<file>.part`, and `<file>.part.json` with the server's version and size of the file."""

    url: str
    file: Path
    digest: str | None
    by_hand: str
    restart: bool = False  # the next answer replaces the part, which is kept until then

    def run(self) -> None:
        self.part = self.file.with_name(f"{self.file.name}.part")
        self.card = self.file.with_name(f"{self.file.name}.part.json")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.version, self.total = self._read_card()
        if self.total is None:
            self.part.unlink(missing_ok=True)
        else:
            say(f"{self.file.name}: {amount(self._size())} of {amount(self.total)} are already downloaded")
            check_free_space(self.file.parent, f"{self.file.name} needs", self.total - self._size())
        self._receive_all()
        wrong = _wrong_digest(self.part, self.file.name, self.digest)
        self.card.unlink(missing_ok=True)
        if wrong is None:
            self.part.replace(self.file)
            return
        kind = str(self.digest).partition(":")[0]
        aside = self.part.replace(self.file.with_name(f"{self.file.name}.wrong-{kind}"))
        fix = "delete it and run the same command again; if the digest stays, the publisher changed the file"
        raise MgcError(wrong, where=aside, fix=_join(fix, self.by_hand))

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _read_card(self) -> tuple[str | None, int | None]:
        """The version (None: the server names none) and the size of the file that the part belongs to."""
        try:
            card = json.loads(self.card.read_text(encoding="utf-8"))
            belongs = card["url"] == self.url and self._size() <= card["size"]
            return (card["version"], card["size"]) if belongs else (None, None)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None, None

    def _receive_all(self) -> None:
        """Retry until the part is complete. An attempt that gets further than all others resets the count."""
        most = first = self._size()
        tries = 0
        while self._size() != self.total:
            try:
                self._receive()
            except _DroppedError as dropped:
                have = self._size()
                if have > most:
                    most, tries = have, 0
                if tries == len(WAITS_SECONDS) or (not dropped.reached and most == first):
                    raise self._failure(str(dropped)) from None
                wait = max(WAITS_SECONDS[tries], dropped.wait_seconds)
                tries += 1
                say(f"{self.file.name}: {dropped}; {amount(have)} downloaded, retrying in {wait:.0f} s")
                time.sleep(wait)

    def _receive(self) -> None:
        """One request; the answer is appended to the part or replaces it."""
        have = self._size()
        headers = {"Accept-Encoding": "identity"}
        # Without a version and a digest, two halves of different files would go unnoticed.
        if have and not self.restart and (self.version or self.digest):
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": self.version} if self.version else {})
        with self._request(headers) as response:
            start, size = self._range_of(response)
            # A strong ETag, else the time of the last change (RFC 9110, section 13.1.5).
            tag = response.headers.get("ETag", "")
            version = tag if tag.startswith('"') else response.headers.get("Last-Modified")
            changed = self.version and version and version != self.version
            if start and (start != have or size != self.total or changed):
                self.restart = True
                raise _DroppedError("the file on the server has changed, so the download starts again")
            if not start:
                if have and not self.restart:
                    say(f"{self.file.name}: the server cannot resume, so the download starts again")
                check_free_space(self.file.parent, f"{self.file.name} needs", size - have)
                self.part.unlink(missing_ok=True)
                self.restart, self.version, self.total = False, version, size
                card = {"url": self.url, "version": version, "size": size}
                self.card.write_text(json.dumps(card), encoding="utf-8")
            self._copy(response, start, size)

    def _copy(self, response: "requests.Response", start: int, size: int) -> None:
        """Write the answer to the part from the byte `start` on, up to `size` bytes in all.

        Bytes are taken as they are sent: a server may declare a .tar.gz as an encoding of a .tar.
        """
        from urllib3.exceptions import HTTPError, IncompleteRead

        at, lost = start, "it was closed too early"
        progress = Progress(f"download {self.file.name}", mib(size - start), "MiB")
        with self.part.open("ab" if at else "wb") as out, progress:
            try:
                for block in response.raw.stream(BLOCK_BYTES, decode_content=False):
                    if os.fstat(out.fileno()).st_size != at:
                        fix = "wait for it, or stop it and run the same command again"
                        raise MgcError("another process writes to this download", where=self.part, fix=fix)
                    at += out.write(block[: size - at])
                    out.flush()
                    progress.reach(mib(at - start))
            except HTTPError as error:
                if not isinstance(root := _root_of(error), IncompleteRead):
                    lost = f"it broke: {reason_of(root)}"
        if at < size:
            raise _DroppedError(f"lost the connection: {lost}")

    def _request(self, headers: dict[str, str]) -> "requests.Response":
        """Send the request; `_DroppedError` if a retry may help, `MgcError` if not."""
        import socket

        import requests
        from requests import exceptions

        host = urlsplit(self.url).hostname or self.url
        try:
            timeout = (CONNECT_SECONDS, SILENT_SECONDS)
            return requests.get(self.url, headers=headers, stream=True, timeout=timeout)
        except exceptions.RequestException as error:
            root = _root_of(error)
            if isinstance(error, exceptions.ProxyError):
                what = f"the proxy refuses the connection to {host}"
            elif isinstance(error, exceptions.SSLError):
                what = f"no secure connection to {host} (TLS)"
            elif isinstance(error, exceptions.ConnectionError | exceptions.Timeout):
                hint = "; check the network" if isinstance(root, socket.gaierror) else ""
                reached = isinstance(error, exceptions.ReadTimeout) or isinstance(root, ConnectionResetError)
                what = f"no answer from {host}: {reason_of(root)}{hint}"
                raise _DroppedError(what, reached=reached) from None
            else:
                what = "the address cannot be used"
            raise self._failure(f"{what}: {reason_of(root)}") from None

    def _range_of(self, response: "requests.Response") -> tuple[int, int]:
        """The byte at which the answer begins, and the size of the file; `_DroppedError` if that may pass."""
        code, status = response.status_code, printable(f"{response.status_code} {response.reason}")
        length = response.headers.get("Content-Length", "")
        if code == 206:
            sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            return (int(sent[1]), int(sent[2])) if sent else (-1, -1)
        if code == 200 and length.isdecimal():
            return 0, int(length)
        if code == 416:
            self.restart = True
            raise _DroppedError("the file on the server is shorter, so the download starts again")
        if code in (408, 425, 429) or code >= 500:
            after = response.headers.get("Retry-After", "")
            wait = min(float(after), LONGEST_WAIT_SECONDS) if after.isdecimal() else 0.0
            raise _DroppedError(f"the server answered {status}", wait_seconds=wait)
        gone = f"the file is no longer on the server ({status})"
        failures = {200: "the server does not report the size of the file", 404: gone, 410: gone}
        raise self._failure(failures.get(code, f"the server refuses the file ({status})"))

    def _failure(self, what: str) -> MgcError:
        have = self._size()
        kept = f"{amount(have)} are kept, and the same command resumes the download" if have else ""
        return MgcError(what, where=self.url, fix=_join(kept, self.by_hand))


def _root_of(error: BaseException) -> BaseException:
    """The exception at the bottom of a chain."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return error


def _join(*sentences: str) -> str:
    return "; ".join(filter(None, sentences))
