"""Downloads from a server that misbehaves, and damaged or malicious archives."""

import gzip
import hashlib
import io
import itertools
import resource
import shutil
import signal
import socket
import stat
import struct
import sys
import tarfile
import tempfile
import threading
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3
from conftest import nobody

from mgc.data.fetch import Unpacked, check_digest, download, downloading, unpack
from mgc.util.errors import MgcError

MIB = 1 << 20
CONTENT = bytes(range(251)) * 8400  # two MiB and a bit; no block of it is like another one's beginning
SHA1 = "sha1:" + hashlib.sha1(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
BY_HAND = "copy it from the other machine"


def refusal(work: Callable[[], object]) -> MgcError:
    with pytest.raises(MgcError) as caught:
        work()
    assert caught.value.fix, "the message does not say what to do"
    assert "Errno" not in str(caught.value)
    assert "object at 0x" not in str(caught.value)
    return caught.value


# The server


@dataclass
class Behaviour:
    """What the server does. `asked` records the (range, if-range) of each request."""

    content: bytes = CONTENT
    tag: str | None = '"one"'
    changed: str | None = None
    ranges: bool = True
    if_range: bool = True
    length: bool = True
    drops: list[int] = field(default_factory=list)  # after so many bytes, one a request
    stall: float = 0.0  # seconds before a drop
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # instead, one a request
    redirect: bool = False
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    does = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            if does.redirect and self.path == "/file.zip":
                self.answer(302, {"Location": "/elsewhere"})
                return
            if self.headers["Accept-Encoding"] != "identity":
                self.answer(406, {})
            does.asked.append((self.headers["Range"], self.headers["If-Range"]))
            if does.answers:
                self.answer(*does.answers.pop(0))
                return
            version = does.tag or does.changed
            same = not does.if_range or self.headers["If-Range"] in (None, version)
            start = 0
            if self.headers["Range"] and does.ranges and same:
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if start >= len(does.content):
                    self.answer(416, {"Content-Range": f"bytes */{len(does.content)}"})
                    return
            body = does.content[start:]
            size = len(does.content)
            headers = {"Content-Length": str(len(body))} if does.length else {}
            headers |= {"ETag": does.tag} if does.tag else {}
            headers |= {"Last-Modified": does.changed} if does.changed else {}
            headers |= {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
            self.answer(206 if start else 200, headers)
            self.wfile.write(body[: does.drops[0]] if does.drops else body)
            if does.drops:
                does.drops.pop(0)
                time.sleep(does.stall)

        def answer(self, code: int, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(downloading, "WAITS_SECONDS", (0.0, 0.0, 0.0))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        does.url = f"http://127.0.0.1:{listening.server_address[1]}/file.zip"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield does
        listening.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "file.zip"


def get(server: Behaviour, file: Path, digest: str | None = SHA1) -> None:
    download(server.url, file, digest, by_hand=BY_HAND)


def start(server: Behaviour, file: Path, count: int = MIB) -> Path:
    """A part of `count` bytes, as an interrupted download leaves it."""
    server.drops = [count]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(MgcError):
        patch.setattr(downloading, "WAITS_SECONDS", ())
        get(server, file, None)
    server.drops, server.asked = [], []
    part = file.with_name("file.zip.part")
    assert part.stat().st_size == count
    return part


def only(file: Path) -> None:
    """The file is complete, and no other file is left."""
    assert file.read_bytes() == CONTENT
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


# Downloads


@pytest.mark.parametrize("digest", [SHA1, MD5, SHA1.upper().replace("SHA1", "sha1"), None])
def test_a_download(server: Behaviour, file: Path, digest: str | None, capsys: Any) -> None:
    server.redirect = True
    get(server, file, digest)
    only(file)
    assert "download file.zip: 3/3 MiB" in capsys.readouterr().err
    get(server, file, digest)  # nothing to do
    assert len(server.asked) == 1


def test_a_dropped_connection_is_resumed(server: Behaviour, file: Path, capsys: Any) -> None:
    server.drops = [700_001, 0, 1, 400_000]
    get(server, file)
    only(file)
    assert [asked[0] for asked in server.asked] == [
        None,
        *(f"bytes={at}-" for at in (700_001, 700_001, 700_002, 1_100_002)),
    ]
    assert {asked[1] for asked in server.asked[1:]} == {'"one"'}
    assert "683.6 KiB downloaded, retrying in 0 s" in capsys.readouterr().err


def test_it_fails_at_last_and_can_be_resumed_later(server: Behaviour, file: Path) -> None:
    server.drops = [MIB] + [0] * 99
    error = refusal(lambda: get(server, file))
    assert "1.0 MiB are kept" in str(error)
    assert BY_HAND in str(error)
    assert len(server.asked) == 1 + 3  # three waits, each before a try that brings nothing
    server.drops, server.asked = [], []
    get(server, file)
    only(file)
    assert server.asked == [(f"bytes={MIB}-", '"one"')]


def test_a_download_without_progress_fails(server: Behaviour, file: Path) -> None:
    server.ranges = False
    server.drops = [900_000, 800_000, 900_001, 800_000, 900_001] + [5] * 99
    refusal(lambda: get(server, file))
    assert len(server.asked) == 6


def test_without_ranges_the_download_starts_again(server: Behaviour, file: Path, capsys: Any) -> None:
    start(server, file)
    server.ranges = False
    get(server, file)
    only(file)
    assert "starts again" in capsys.readouterr().err


def test_a_changed_file_is_downloaded_again(server: Behaviour, file: Path) -> None:
    server.content = CONTENT[::-1]
    start(server, file)
    server.content, server.tag = CONTENT, '"two"'
    get(server, file, None)  # no digest that would tell
    only(file)
    assert len(server.asked) == 1

    # A server that gives the range of the new file although it was asked for the old one.
    file.unlink()
    server.content, server.tag = CONTENT[::-1], '"three"'
    start(server, file)
    server.content, server.tag, server.if_range = CONTENT, '"four"', False
    get(server, file, None)
    only(file)
    assert [asked[0] for asked in server.asked] == [f"bytes={MIB}-", None]


def test_a_weak_tag_is_not_a_version_but_a_date_is(server: Behaviour, file: Path) -> None:
    server.tag, server.changed = 'W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT"
    start(server, file)
    get(server, file, None)
    assert server.asked[0] == (f"bytes={MIB}-", server.changed)
    only(file)


def test_without_a_version_it_resumes_only_with_a_digest(server: Behaviour, file: Path) -> None:
    server.tag = None
    start(server, file)
    get(server, file, None)
    assert server.asked == [(None, None)]
    file.unlink()
    start(server, file)
    get(server, file)
    assert server.asked == [(f"bytes={MIB}-", None)]
    only(file)


def test_a_part_of_another_address_or_without_card(server: Behaviour, file: Path) -> None:
    part = start(server, file)
    card = part.with_name("file.zip.part.json")
    for text in ("{", "[]", '{"url": "http://elsewhere/file.zip", "version": "\\"one\\""}'):
        card.write_text(text)
        server.asked = []
        get(server, file, None)
        assert server.asked == [(None, None)]
        only(file)
        file.rename(part)
        with part.open("r+b") as stream:
            stream.truncate(MIB)


def test_a_range_beyond_the_end_starts_again(server: Behaviour, file: Path) -> None:
    start(server, file)
    server.answers = [(416, {"Content-Range": "bytes */10"})]
    get(server, file)
    only(file)
    assert [asked[0] for asked in server.asked] == [f"bytes={MIB}-", None]
    # What is here is kept until something better comes.
    file.unlink()
    part = start(server, file)
    card = part.with_name("file.zip.part.json")
    about = card.read_text()
    server.answers = [(416, {}), (404, {})]
    refusal(lambda: get(server, file))
    assert part.stat().st_size == MIB
    get(server, file)
    # A part as long as the file needs no server; one that is longer is of no use.
    server.asked = []
    file.rename(part)
    card.write_text(about)
    get(server, file)
    assert not server.asked
    only(file)
    part.write_bytes(CONTENT + b"x")
    card.write_text(about)
    file.unlink()
    get(server, file)
    only(file)
    assert server.asked == [(None, None)]


def test_temporary_and_permanent_failures_of_the_server(
    server: Behaviour, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(downloading.time, "sleep", slept.append)
    server.answers = [(500, {}), (503, {"Retry-After": "7"}), (429, {"Retry-After": "99999"})]
    get(server, file)
    only(file)
    assert slept == [0, 7, downloading.LONGEST_WAIT_SECONDS]
    file.unlink()
    server.answers = [(500, {})] * 9
    assert "500" in str(refusal(lambda: get(server, file)))
    for code, phrase in ((404, "no longer on"), (410, "no longer on"), (403, "refuses the file")):
        server.answers, server.asked = [(code, {})], []
        error = refusal(lambda: get(server, file))
        assert phrase in error.what
        assert str(code) in error.what
        assert error.where == server.url
        assert error.fix == BY_HAND
        assert len(server.asked) == 1


def test_a_server_that_does_not_report_a_size_is_refused(server: Behaviour, file: Path) -> None:
    server.length = False
    error = refusal(lambda: get(server, file))
    assert "does not report the size" in error.what
    assert error.fix == BY_HAND
    assert not list(file.parent.iterdir())


def test_a_login_page_in_place_of_a_resumed_file_is_noticed(server: Behaviour, file: Path) -> None:
    start(server, file)
    server.content, server.tag = b"<html>Please log in</html>", None
    assert "is not the published file" in refusal(lambda: get(server, file)).what
    server.content, server.tag = CONTENT, '"one"'
    get(server, file)
    assert file.read_bytes() == CONTENT


def test_a_file_with_a_wrong_digest_is_renamed(server: Behaviour, file: Path) -> None:
    server.content = CONTENT[::-1]
    found = hashlib.sha1(CONTENT[::-1]).hexdigest()
    for _ in range(2):
        error = refusal(lambda: get(server, file))
        assert found in error.what
        assert SHA1.removeprefix("sha1:") in error.what
        assert BY_HAND in str(error.fix)
        assert error.where == file.with_name("file.zip.wrong-sha1")
        assert file.with_name("file.zip.wrong-sha1").read_bytes() == server.content
    assert len(list(file.parent.iterdir())) == 1
    server.content = CONTENT
    get(server, file)


def test_a_file_brought_by_hand(tmp_path: Path, server: Behaviour) -> None:
    file = tmp_path / "file.zip"
    file.write_bytes(CONTENT)
    for digest in (SHA1, MD5, None):
        check_digest(file, digest)
    wrong = refusal(lambda: check_digest(file, "md5:" + "0" * 32, by_hand=BY_HAND))
    assert MD5.removeprefix("md5:") in wrong.what
    assert BY_HAND in str(wrong.fix)
    for digest in (SHA1, None):
        error = refusal(lambda digest=digest: check_digest(tmp_path / "none.zip", digest))
        assert "No such file" in error.what
    # Where the download would go, it is checked and left alone.
    assert refusal(lambda: get(server, file, "sha1:" + "0" * 40)).where == file
    assert file.read_bytes() == CONTENT
    assert not server.asked


def test_no_network(server: Behaviour, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    def slow(_: float) -> None:
        raise AssertionError("nobody waits for a network that was never there")

    monkeypatch.setattr(downloading.time, "sleep", slow)
    closed = "http://127.0.0.1:9/file.zip"
    tls = server.url.replace("http:", "https:")
    cases = [(closed, "Connection refused"), (tls, "TLS"), ("gopher://x/file.zip", "address cannot be used")]
    for url, phrase in cases:
        error = refusal(lambda url=url: download(url, file, None, by_hand=BY_HAND))
        assert phrase in error.what
        assert (error.where, error.fix) == (url, BY_HAND)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", none)
        error = refusal(lambda: download("http://mgc.invalid/f", file, None, by_hand=BY_HAND))
    assert "mgc.invalid: Temporary failure in name resolution; check the network" in error.what
    monkeypatch.setenv("http_proxy", "http://who:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    error = refusal(lambda: get(server, file))
    assert "proxy" in error.what
    assert "secret" not in str(error)


def test_a_temporary_loss_of_the_network_is_waited_for(
    server: Behaviour, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = socket.getaddrinfo, []

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        if len(server.asked) == 1 and len(away) < 2:
            away.append(1)
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", sometimes)
    server.drops = [MIB]
    get(server, file)
    only(file)
    assert len(away) == 2


def test_a_silent_server_is_retried(
    server: Behaviour, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(downloading, "SILENT_SECONDS", 0.1)
    server.drops, server.stall = [MIB], 0.4
    get(server, file)
    only(file)
    assert len(server.asked) == 2
    assert "timed out; 1.0 MiB downloaded" in capsys.readouterr().err


@contextmanager
def between_blocks(action: Callable[[int], None]) -> Iterator[None]:
    """Call `action` with the number of each block of a download before it arrives."""
    real = urllib3.HTTPResponse.stream

    def stream(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        for number, block in enumerate(real(*args, **kwargs)):
            action(number)
            yield block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib3.HTTPResponse, "stream", stream)
        yield


def test_an_interrupt_keeps_the_part(server: Behaviour, file: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 4:
            raise KeyboardInterrupt

    with between_blocks(interrupt), pytest.raises(KeyboardInterrupt):
        get(server, file)
    server.asked = []
    get(server, file)
    assert server.asked == [(f"bytes={MIB}-", '"one"')]
    only(file)


def test_two_downloads_of_one_file_do_not_mix(server: Behaviour, file: Path) -> None:
    def meddle(_: int) -> None:
        with file.with_name("file.zip.part").open("ab") as other:
            other.write(b"x")

    with between_blocks(meddle):
        assert "another process" in refusal(lambda: get(server, file)).what


def free(count: int) -> Callable[[object], Any]:
    return lambda _: shutil._ntuple_diskusage(count, 0, count)  # type: ignore[attr-defined]


def test_free_space_is_checked_first(server: Behaviour, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", free(MIB))
        error = refusal(lambda: get(server, file))
    assert error.what == "file.zip needs 2.0 MiB, but only 1.0 MiB are free"
    assert not list(file.parent.iterdir())
    start(server, file)
    monkeypatch.setattr(shutil, "disk_usage", free(MIB))
    error = refusal(lambda: get(server, file))
    assert error.what == "file.zip needs 1.0 MiB, but only 1.0 MiB are free"
    assert "free 11.0 KiB more" in str(error.fix)
    assert not server.asked
    monkeypatch.setattr(shutil, "disk_usage", free(len(CONTENT) - MIB))
    get(server, file)


@contextmanager
def small_files(count: int) -> Iterator[None]:
    """Limit the size of files, which has the effect of a full disk."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_write_that_fails_keeps_what_is_there(server: Behaviour, file: Path) -> None:
    with small_files(MIB):
        assert "File too large" in refusal(lambda: get(server, file)).what
    server.asked = []
    get(server, file)
    only(file)
    assert server.asked[0][0] == f"bytes={MIB}-"
    blocked = file.parent / "file.zip" / "inner.zip"
    assert "cannot be written" in refusal(lambda: get(server, blocked)).what


# Good archives

KINDS = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"]
MUSIC = {
    f"music/{genre}/{n}.wav": f"{genre} {n}".encode() * 999 for genre in ("calm", "pulse") for n in (1, 2)
}
METHODS = itertools.cycle([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])


def entry(name: str, data: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], kind: str = "", form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{kind}", format=form) as tar:  # type: ignore[call-overload]
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_of(*entries: tuple[str, bytes], mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of one name
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.filename, info.external_attr, info.compress_type = name, mode << 16, method
            opened.writestr(info, data)
    return out.getvalue()


def pack(archive: Path, content: dict[str, bytes]) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for name, data in content.items():
                opened.writestr(name, data, next(METHODS))
    else:
        ends = {"gz": "gz", "tgz": "gz", "bz2": "bz2", "xz": "xz", "tar": ""}
        entries = [entry(name, data) for name, data in content.items()]
        archive.write_bytes(tar_of(*entries, kind=ends[archive.suffix[1:]]))
    return archive


def below(into: Path) -> dict[str, bytes]:
    files = (path for path in into.rglob("*") if not path.is_dir())
    return {path.relative_to(into).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_unpacked_and_resumed(tmp_path: Path, kind: str, capsys: Any) -> None:
    archive, into = pack(tmp_path / f"music{kind}", MUSIC), tmp_path / "into"
    result = unpack(archive, into)
    assert result == Unpacked([into / name for name in MUSIC], [])
    assert below(into) == MUSIC
    assert f"unpack music{kind}: 4/4 files" in capsys.readouterr().err

    times = {path: path.stat().st_mtime_ns for path in result.files}
    result.files[0].unlink()
    result.files[1].write_bytes(b"cut off by another program")
    assert unpack(archive, into) == result
    assert below(into) == MUSIC
    written = {path for path in result.files if path.stat().st_mtime_ns != times[path]}
    assert written == {*result.files[:2]}
    told = capsys.readouterr().err
    assert "2 files are already unpacked" in told
    assert f"unpack music{kind}: 2/2 files" in told


def test_an_interrupted_unpacking_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, into = pack(tmp_path / "music.zip", MUSIC), tmp_path / "into"
    real, count = Path.replace, itertools.count()

    def interrupted(*args: Any) -> Any:
        if next(count) == 2:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupted)
        unpack(archive, into)
    assert below(into) == dict([*MUSIC.items()][:2])
    unpack(archive, into)
    assert below(into) == MUSIC


def test_the_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "into").symlink_to("real")
    unpack(pack(tmp_path / "music.tar", MUSIC), tmp_path / "into")
    assert below(tmp_path / "real") == MUSIC


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_a_top_folder_and_litter(tmp_path: Path, kind: str) -> None:
    strange = {"README": b"x", "musical/1.wav": b"y", "music2": b"z"}
    litter = {"__MACOSX/music/1.wav": b"", "music/.DS_Store": b"", "music/calm/._1.wav": b"\0\5\x16\7"}
    archive = pack(tmp_path / f"a{kind}", MUSIC | strange | litter)
    result = unpack(archive, tmp_path / "into", "music")
    assert below(tmp_path / "into") == MUSIC
    assert dict(result.refused) == dict.fromkeys(strange, "it is not in the folder music")
    assert result.litter == 3
    everything = unpack(archive, tmp_path / "all")
    assert below(tmp_path / "all") == MUSIC | strange
    assert everything.litter == 3
    file = pack(tmp_path / f"b{kind}", {"music": b"no folder"})
    assert [name for name, _ in unpack(file, tmp_path / "into2", "music").refused] == ["music"]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    fine, root = tmp_path / "fine.tar", tmp_path / "into"
    fine.write_bytes(
        tar_of(
            entry("./", type=tarfile.DIRTYPE, mode=0),
            entry("./shell", b"#!", mode=0o6777, uid=0),
        )
    )
    assert unpack(fine, root) == Unpacked([root / "shell"], [])
    (tmp_path / "plain").touch()
    assert (root / "shell").stat().st_mode == (tmp_path / "plain").stat().st_mode
    suid = tmp_path / "suid.zip"
    suid.write_bytes(zip_of(("shell.zip", b"#!"), mode=stat.S_IFREG | 0o6777))
    assert unpack(suid, root).files[0].stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_names_in_any_encoding(tmp_path: Path) -> None:
    archive = tmp_path / "names.zip"
    raw = zip_of(("Beyonc_1.wav", b"a"), ("Beyonc__2.wav", b"b"), ("Beyoncé3.wav", b"c"))
    raw = raw.replace(b"Beyonc_1", b"Beyonc\x821").replace(b"Beyonc__2", "Beyoncé2".encode())
    archive.write_bytes(raw)
    names = {"Beyoncé1.wav": b"a", "Beyoncé2.wav": b"b", "Beyoncé3.wav": b"c"}
    assert unpack(archive, tmp_path / "zip").refused == []
    assert below(tmp_path / "zip") == names
    longest = {"é" * 125 + ".wave": b"x", "CON": b"y", "a" * 250 + ".part": b"z"}
    for kind in (".zip", ".tar"):
        assert unpack(pack(tmp_path / f"long{kind}", longest), tmp_path / f"long-{kind}").refused == []
        assert below(tmp_path / f"long-{kind}") == longest
    if sys.platform == "linux":
        latin = tmp_path / "latin.tar"
        latin.write_bytes(tar_of(entry("Beyonc\udce9.wav", b"x"), form=tarfile.GNU_FORMAT))
        assert unpack(latin, tmp_path / "tar").refused == []
        assert [path.name for path in (tmp_path / "tar").iterdir()] == ["Beyonc\udce9.wav"]


# Damaged and malicious archives


def patched(raw: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in raw
    return raw.replace(old, new)


def central(raw: bytes, offset: int, form: str, value: int) -> bytes:
    """A zip of one member with another field in its central directory."""
    at = raw.index(b"PK\x01\x02") + offset
    new = struct.pack(form, value)
    return raw[:at] + new + raw[at + len(new) :]


def header(raw: bytes, block: int, at: int, new: bytes) -> bytes:
    """A tar with other bytes in the header at `block`, and a valid checksum."""
    head = bytearray(raw[block * 512 : block * 512 + 512])
    head[at : at + len(new)] = new
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return raw[: block * 512] + bytes(head) + raw[block * 512 + 512 :]


ONE = zip_of(("a.wav", b"music" * 99))
STORED = zip_of(("a.wav", b"music" * 99), method=zipfile.ZIP_STORED)
BZIP2 = zip_of(("a.wav", b"music" * 99), method=zipfile.ZIP_BZIP2)
LINK, HARD, PIPE, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE
TAR = tar_of(entry("a.wav", b"a" * 600), entry("b.wav", b"b" * 600))

# name: (archive, members, those that are written, words of the reasons or of the error)
HOSTILE: dict[str, tuple[bytes, int, list[str], list[str]]] = {
    # Names in a zip.
    "up.zip": (zip_of(("../evil.wav", b"x")), 1, [], ["leads out"]),
    "down and up.zip": (zip_of(("a/b/../../../evil.wav", b"x")), 1, [], ["leads out"]),
    "up within.zip": (zip_of(("a/../evil.wav", b"x")), 1, [], ["leads out"]),
    "absolute.zip": (zip_of(("/tmp/mgc-evil.wav", b"x")), 1, [], ["absolute"]),
    "drive.zip": (zip_of(("C:\\evil.wav", b"x"), ("C:evil.wav", b"x")), 2, [], ["absolute"]),
    "backslash up.zip": (zip_of(("a\\..\\..\\evil.wav", b"x")), 1, [], ["leads out"]),
    "backslash.zip": (zip_of(("a\\b.wav", b"x"), ("c\\", b"")), 1, ["a/b.wav"], []),
    "unc.zip": (zip_of(("\\\\server\\share\\evil.wav", b"x")), 1, [], ["absolute"]),
    "nul.zip": (patched(zip_of(("a.wav?/../../x", b"x")), b"wav?", b"wav\0"), 1, [], ["control"]),
    "newline.zip": (zip_of(("a\nb.wav", b"x"), ("c\r.wav", b"x")), 2, [], ["control", "a\\nb.wav"]),
    "escape.zip": (zip_of(("a\x1b[2Jb.wav", b"x"), ("c\x9b2J", b"x")), 2, [], ["control", "a\\x1b[2Jb.wav"]),
    "long.zip": (
        zip_of(("x" * 300, b"x"), ("y" * 300 + "/a", b"x"), ("z", b"x")),
        3,
        ["z"],
        ["no such name"],
    ),
    "deep.zip": (zip_of(("d/" * 2500 + "x", b"x")), 1, [], ["64 folders deep"]),
    "empty name.zip": (zip_of(("", b"x"), (".", b"x"), ("./.", b"x")), 3, [], ["has no name"]),
    "folder only up.zip": (zip_of(("../evil/", b"")), 0, [], []),
    "not utf-8.zip": (
        patched(zip_of(("é.wav", b"x")), "é".encode(), b"\xff\xff"),
        1,
        [],
        ["damaged", "utf-8"],
    ),
    # Links and other things in a zip.
    "link.zip": (zip_of(("l", b"../outside"), mode=stat.S_IFLNK | 0o777), 1, [], ["a link"]),
    "link below.zip": (
        zip_of(("out/evil.wav", b"x"), ("out", b"x")),
        2,
        [],
        ["a link leads out"],
    ),
    "pipe.zip": (zip_of(("p", b""), mode=stat.S_IFIFO | 0o777), 1, [], ["device or pipe"]),
    "device.zip": (zip_of(("p", b""), mode=stat.S_IFBLK | 0o777), 1, [], ["device or pipe"]),
    "twice.zip": (zip_of(("a", b"1"), ("a", b"22"), ("./a", b"1")), 3, ["a"], ["same name"]),
    "folder then file.zip": (zip_of(("a/b", b"1"), ("a", b"2")), 2, ["a/b"], ["a folder of the same name"]),
    "file then folder.zip": (
        zip_of(("a", b"2"), ("a/b", b"1"), ("a/", b"")),
        2,
        ["a"],
        ["same name as its folder"],
    ),
    "folder with data.zip": (zip_of(("a/", b"data")), 1, [], ["contains data"]),
    "alike.zip": (zip_of(("same.wav", b"1"), ("SAME.wav", b"1")), 2, ["same.wav"], ["same name"]),
    # Data in a zip.
    "encrypted.zip": (central(ONE, 8, "<H", 1), 1, [], ["encrypted"]),
    "strongly encrypted.zip": (central(ONE, 8, "<H", 0x41), 1, [], ["encrypted"]),
    "patched.zip": (central(ONE, 8, "<H", 0x20), 1, [], ["cannot be read"]),
    "crc.zip": (patched(STORED, b"music", b"musik"), 1, [], ["Bad CRC-32"]),
    "crc of bzip2.zip": (central(BZIP2, 16, "<I", 7), 1, [], ["Bad CRC-32"]),
    "cut bzip2.zip": (central(BZIP2, 20, "<I", 30), 1, [], ["cannot be read"]),
    "garbage.zip": (ONE[:40] + b"\xff" * 4 + ONE[44:], 1, [], ["cannot be read"]),
    "deflate64.zip": (central(ONE, 10, "<H", 9), 1, [], ["method is not supported"]),
    "bzip2 that is none.zip": (central(ONE, 10, "<H", 12), 1, [], ["cannot be read"]),
    "lzma that is none.zip": (central(ONE, 10, "<H", 14), 1, [], ["cannot be read"]),
    "announces less.zip": (central(ONE, 24, "<I", 7), 1, [], ["Bad CRC-32"]),
    "announces nothing.zip": (central(ONE, 24, "<I", 0), 1, [], ["Bad CRC-32"]),
    "announces more.zip": (central(ONE, 24, "<I", 10**6), 1, [], ["495 of the announced 1,000,000"]),
    "another's header.zip": (ONE[:30] + b"b" + ONE[31:], 1, [], ["differ"]),
    "no header.zip": (central(ONE, 42, "<I", 7), 1, [], ["cannot be read"]),
    "header behind the end.zip": (central(ONE, 42, "<I", 10**6), 1, [], ["cannot be read"]),
    "too new.zip": (central(ONE, 6, "<H", 99), 1, [], ["damaged", "zip file version"]),
    "cut.zip": (ONE[:-30], 1, [], ["damaged", "not a zip file"]),
    "cut before.zip": (ONE[20:], 1, [], ["cannot be read"]),
    "page.zip": (b"<html>Please log in</html>", 1, [], ["damaged", "not a zip file"]),
    "nothing.zip": (b"", 1, [], ["damaged"]),
    "no members.zip": (zip_of(), 0, [], []),
    # Tars.
    "up.tar": (tar_of(entry("../evil.wav", b"x"), entry("a/../../e", b"x")), 2, [], ["leads out"]),
    "absolute.tar": (tar_of(entry("/tmp/mgc-evil.wav", b"x"), entry("//x/y", b"x")), 2, [], ["absolute"]),
    "backslash.tar": (tar_of(entry("..\\evil.wav", b"x"), entry("a\\b", b"x")), 2, ["a/b"], ["leads out"]),
    "newline.tar.gz": (tar_of(entry("a\nb", b"x"), kind="gz"), 1, [], ["control"]),
    "long.tar": (
        tar_of(entry("x" * 300, b"x"), entry("d/" * 65 + "x", b"x")),
        2,
        [],
        ["no such name", "deep"],
    ),
    "link.tar": (
        tar_of(entry("l", type=LINK, linkname="../outside"), entry("l/evil", b"x")),
        2,
        ["l/evil"],
        ["it is a link"],
    ),
    "link over.tar": (
        tar_of(entry("out", type=LINK, linkname="/etc"), entry("out/e", b"x")),
        2,
        [],
        ["link"],
    ),
    "hardlink.tar": (tar_of(entry("h", type=HARD, linkname="../outside/secret")), 1, [], ["it is a link"]),
    "pipe.tar": (tar_of(entry("p", type=PIPE), entry("d", type=DEVICE)), 2, [], ["device or pipe"]),
    "sparse.tar": (header(TAR, 0, 156, b"S"), 2, ["b.wav"], ["sparse"]),
    "twice.tar.xz": (tar_of(entry("a", b"1"), entry("a", b"2"), kind="xz"), 2, ["a"], ["same name"]),
    "folder and file.tar": (
        tar_of(entry("a", type=tarfile.DIRTYPE), entry("a", b"x"), entry("b", b"x"), entry("b/c", b"x")),
        3,
        ["a", "b"],
        ["same name as its folder"],
    ),
    "cut in data.tar": (TAR[:700], 2, [], ["damaged"]),
    "cut between.tar": (TAR[: 3 * 512], 2, [], ["damaged"]),
    "cut in header.tar": (TAR[: 3 * 512 + 99], 2, [], ["damaged"]),
    "garbage between.tar": (TAR[: 3 * 512] + b"\xaa" * 512 + TAR[4 * 512 :], 2, [], ["damaged"]),
    "cut.tar.gz": (gzip.compress(TAR)[:-20], 2, [], ["damaged"]),
    "crc.tar.gz": (gzip.compress(TAR)[:-8] + b"\0" * 8, 2, [], ["damaged", "CRC"]),
    "cut.tar.xz": (tar_of(entry("a", bytes(9999)), kind="xz")[:-40], 1, [], ["damaged"]),
    "cut.tar.bz2": (tar_of(entry("a", bytes(9999)), kind="bz2")[:-9], 1, [], ["damaged"]),
    "negative.tar": (header(TAR, 0, 124, b"\xff" * 10 + b"\xfe\x00"), 2, [], ["damaged", "size -512"]),
    "giant.tar": (header(TAR, 0, 124, b"\x80" + b"\0" * 3 + b"\x0f" + b"\xff" * 7), 2, [], ["damaged"]),
    "giant name.tar": (
        header(header(TAR, 0, 156, b"L"), 0, 124, b"\x80" + b"\0" * 3 + b"\x0f" + b"\xff" * 7),
        2,
        [],
        ["damaged"],
    ),
    "nested headers.tar": (header(tar_of(entry("a")), 0, 156, b"L")[:512] * 3000 + TAR, 2, [], ["damaged"]),
    "page.tar.gz": (b"<html>Please log in</html>", 1, [], ["damaged"]),
    "nothing.tar": (b"", 1, [], ["damaged"]),
    "music.rar": (b"Rar!", 1, [], ["unknown type", ".tar.xz"]),
}


def snapshot(root: Path, without: Path) -> dict[str, object]:
    """Everything below `root` but `without`: kinds, rights, contents."""
    seen: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        if without not in (path, *path.parents):
            state = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(state.st_mode) else None
            seen[str(path)] = (state.st_mode, state.st_nlink, content)
    return seen


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive(tmp_path: Path, name: str) -> None:
    raw, count, written, words = HOSTILE[name]
    into, outside = tmp_path / "home" / "into", tmp_path / "home" / "outside"
    into.mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    archive = tmp_path / name
    archive.write_bytes(raw)
    ours = set()
    if "link below" in name or "link over" in name:
        (into / "out").symlink_to(outside)
        ours = {"out"}
    if "alike" in name:  # what a file system does that does not tell case
        (into / "same.wav").write_bytes(b"1")
        (into / "SAME.wav").hardlink_to(into / "same.wav")
        ours = {"SAME.wav"}
    before = snapshot(tmp_path, into)

    def accounted() -> str:
        try:
            result = unpack(archive, into)
        except MgcError as error:
            assert not below(into)
            assert error.fix
            return str(error)
        assert len(result.files) + len(result.refused) + result.litter == count
        assert sorted(path.relative_to(into).as_posix() for path in result.files) == sorted(written)
        assert all(stat.S_ISREG(path.lstat().st_mode) for path in result.files)
        assert {*below(into)} - {"out/secret"} - ours == {*written}
        return "; ".join(f"{name}: {reason}" for name, reason in result.refused)

    first = accounted()
    assert accounted() == first  # a second call finds what the first has found
    assert snapshot(tmp_path, into) == before
    assert all(word in first for word in words), first
    assert bool(first) == bool(words)
    assert first.isprintable() or "\n  where: " in first
    assert not list(into.rglob("*.part"))
    assert not Path("/tmp/mgc-evil.wav").exists()


def test_free_space_is_needed_for_the_announced_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    into, whole = tmp_path / "into", len(b"calm 1") * 999 * 2 + len(b"pulse 1") * 999 * 2
    for kind in (".zip", ".tar.gz"):
        archive = pack(tmp_path / f"music{kind}", MUSIC)
        monkeypatch.setattr(shutil, "disk_usage", free(whole - 1024))
        error = refusal(lambda archive=archive: unpack(archive, into))
        assert f"music{kind} unpacks to 25.4 KiB, but only 24.4 KiB are free" in error.what
        assert "free 1.0 KiB more" in str(error.fix)
        assert not below(into)
    monkeypatch.setattr(shutil, "disk_usage", free(whole))
    unpack(archive, into)
    monkeypatch.setattr(shutil, "disk_usage", free(0))
    unpack(archive, into)  # all is there: nothing is needed


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_stays_small_in_memory_and_on_disk(tmp_path: Path, method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as opened, opened.open("bomb.wav", "w") as stream:
        for _ in range(64):
            stream.write(bytes(MIB))
    archive, into = tmp_path / "bomb.zip", tmp_path / "into"
    archive.write_bytes(central(out.getvalue(), 24, "<I", 3 * MIB))
    tracemalloc.start()
    with small_files(4 * MIB):
        result = unpack(archive, into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [name for name, _ in result.refused] == ["bomb.wav"]
    assert not below(into)
    assert peak < 100 * MIB


def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"music/a.wav": b"a" * 1000, "music/b.wav": bytes(MIB), "music/c.wav": b"c" * 1000}
    into = tmp_path / "into"
    for kind in (".zip", ".tar"):
        archive = pack(tmp_path / f"music{kind}", content)
        usage = iter([free(9 * MIB)(0), free(1000)(0)])
        with monkeypatch.context() as patch, small_files(300_000):
            patch.setattr(shutil, "disk_usage", lambda _, usage=usage: next(usage))
            error = refusal(lambda archive=archive: unpack(archive, into))
        assert error.what == f"music/b.wav of music{kind} cannot be written: File too large"
        assert error.where == into
        assert (
            "free space or make it writable, and run the same command again; 2 files (1.0 MiB) remain"
            in str(error.fix)
        )
        assert below(into) == {"music/a.wav": b"a" * 1000}
        unpack(archive, into)
        assert below(into) == content
        shutil.rmtree(into)


def test_unwritable_folders_and_unreadable_archives(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let nobody else in
        folder = Path(name)
        folder.chmod(0o555)
        archive = pack(folder / "music.zip", MUSIC)
        (folder / "into").mkdir()
        (folder / "into").chmod(0o555)
        with nobody():
            for into in (folder / "into", folder / "new"):
                assert "Permission denied" in refusal(lambda into=into: unpack(archive, into)).what
        folder.chmod(0o755)
        archive.chmod(0)
        with nobody():
            assert "cannot be opened: Permission denied" in str(
                refusal(lambda: unpack(archive, folder / "x"))
            )
        (folder / "file").touch()
        archive.chmod(0o644)
        assert "cannot be written: File exists" in str(refusal(lambda: unpack(archive, folder / "file")))
    assert "No such file" in str(refusal(lambda: unpack(tmp_path / "none.zip", tmp_path / "into")))
    (tmp_path / "folder.zip").mkdir()
    assert "Is a directory" in str(refusal(lambda: unpack(tmp_path / "folder.zip", tmp_path / "into")))
