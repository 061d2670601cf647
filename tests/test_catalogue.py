"""Known sets: what the list says, and how they are fetched, with a network and without."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import make_archive

import pytest
from conftest import here
from miniature import make_fma, make_gtzan
from typer.testing import CliRunner, Result

from mgc.cli import app
from mgc.config import DataRecipe
from mgc.data import SOURCES, catalogue, overview, scan
from mgc.data.dataset import Archive


def mgc(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server on this machine serves as if it were that of FMA, and two archives in it."""
    folder = tmp_path / "served"
    folder.mkdir()
    make_fma(tmp_path / "made", seconds=1.0)
    for name in ("fma_metadata", "fma_small"):
        make_archive(str(folder / name), "zip", tmp_path / "made", name)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    archives = tuple(
        Archive(
            f"{name}.zip",
            name,
            f"http://127.0.0.1:{server.server_port}/{name}.zip",
            f"sha1:{hashlib.sha1((folder / f'{name}.zip').read_bytes()).hexdigest()}",
        )
        for name in ("fma_metadata", "fma_small")
    )
    monkeypatch.setitem(SOURCES, "fma_small", replace(SOURCES["fma_small"], archives=archives))
    yield folder
    server.shutdown()
    server.server_close()


def test_a_set_is_fetched_once_and_then_used_by_name(served: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert "not available" in overview(root).split("fma_small")[1].split("fma_medium")[0]
    done = mgc("data", "fetch", "fma_small", "--data-root", root)
    assert done.exit_code == 0, done.output
    assert "fma_small.zip: removed" in done.stdout
    assert not list(root.glob("*.zip"))
    assert "[available]" in overview(root).split("fma_small")[1].split("fma_medium")[0]
    assert len(scan(DataRecipe(source="fma_small"), replace(here(), data=root)).tracks) == 112
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = mgc("data", "fetch", "fma_small", "--data-root", root)
    assert again.stdout.splitlines() == ["fma_metadata: up to date", "fma_small: up to date"]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_archives_brought_by_hand(served: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("fma_metadata", "fma_small"):
        done = mgc("data", "fetch", "fma_small", "--from", served / f"{name}.zip", "--data-root", root)
        assert done.exit_code == 0, done.output
        assert (served / f"{name}.zip").exists()
    assert len(scan(DataRecipe(source="fma_small"), replace(here(), data=root)).tracks) == 112
    wrong = served / "fma_large.zip"
    wrong.write_bytes(b"PK")
    refused = mgc("data", "fetch", "fma_small", "--from", wrong, "--data-root", root)
    assert refused.exit_code == 2
    assert "is not an archive of fma_small" in refused.stderr
    damaged = served / "fma_small.zip"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    refused = mgc("data", "fetch", "fma_small", "--from", damaged, "--data-root", root)
    assert refused.exit_code == 2
    assert "sha1" in refused.stderr


def test_another_copy_of_a_set_is_unpacked_unchecked_and_says_so(tmp_path: Path) -> None:
    made = make_gtzan(tmp_path / "made", "Data/genres_original", ".wav", seconds=1.0)
    archive = Path(make_archive(str(tmp_path / "archive"), "zip", tmp_path / "made" / "gtzan", "Data"))
    root = tmp_path / "data"
    done = mgc("data", "fetch", "gtzan", "--from", archive, "--data-root", root)
    assert done.exit_code == 0, done.output
    assert "not verified" in done.stdout
    listed = scan(DataRecipe(source="gtzan", split="random"), replace(here(), data=root)).tracks
    assert {track.track_id for track in listed} == {*made.filtered, *made.others}


def test_without_a_network_the_message_says_what_to_bring_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = Archive("fma_metadata.zip", "fma_metadata", "http://127.0.0.1:9/fma_metadata.zip", "sha1:00")
    monkeypatch.setitem(SOURCES, "fma_small", replace(SOURCES["fma_small"], archives=(closed,)))
    refused = mgc("data", "fetch", "fma_small", "--data-root", tmp_path)
    assert refused.exit_code == 2
    assert "no answer from 127.0.0.1" in refused.stderr
    assert "mgc data fetch fma_small --from fma_metadata.zip" in refused.stderr
    missing = mgc("data", "info", "--data", "fma_small", "--data-root", tmp_path)
    assert missing.exit_code == 2
    assert "mgc data fetch fma_small" in missing.stderr
    assert str(tmp_path) in missing.stderr


def test_what_cannot_be_fetched(tmp_path: Path) -> None:
    assert "did you mean 'gtzan'" in mgc("data", "fetch", "gtzn").stderr
    assert "needs no download" in mgc("data", "fetch", "demo").stderr
    nowhere = mgc("data", "fetch", "gtzan", "--from", tmp_path / "genres.tar.gz")
    assert nowhere.exit_code == 2
    assert "the archive does not exist" in nowhere.stderr


@pytest.mark.parametrize("name", SOURCES)
def test_every_known_set_says_what_a_person_must_know(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    text = overview(tmp_path)
    for word in (name, source.licence, source.size, source.about):
        assert word
        assert word in text
    assert source.tracks > 0
    assert source.genres > 1
    assert not source.present(tmp_path)
    assert catalogue.name_of(DataRecipe(source=name)) == name
