"""Datasets of the hub: what becomes of their rows, and the errors for datasets that are not available."""

import csv
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import nobody, tone

from mgc.audio import inspect, load
from mgc.config import DataRecipe
from mgc.data.dataset import Listing
from mgc.data.sources import hub
from mgc.util.errors import MgcError

RATE = 8000


def clip(seed: int, kind: str = "WAV") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, tone(seed % 2, 0.6, RATE, seed), RATE, format=kind)
    return stream.getvalue()


def audio(seed: int, kind: str = "WAV") -> dict[str, Any]:
    return {"bytes": clip(seed, kind), "path": f"{seed}.{kind.lower()}"}


def rows(numbers: range, **more: Any) -> list[dict[str, Any]]:
    return [{"audio": audio(n), "genre": ("rock", "pop")[n % 2], **more} for n in numbers]


def parquet(file: Path, table: list[dict[str, Any]]) -> None:
    """As anybody writes it: nothing in it says that the column is audio."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), file)


def typed(table: list[dict[str, Any]], names: list[str], column: str = "genre") -> Any:
    """As `datasets` writes it: an Audio column and a ClassLabel."""
    import datasets

    made = datasets.Dataset(pa.Table.from_pylist(table)).cast_column("audio", datasets.Audio(decode=False))
    return made.cast_column(column, datasets.ClassLabel(names=names))


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    return tmp_path / "sets" / "mine"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def listed(address: object, root: Path, **recipe: Any) -> Listing:
    return hub.listing(f"hf:{address}", root, DataRecipe(**recipe))


def complaint(address: object, root: Path, **recipe: Any) -> str:
    with pytest.raises(MgcError) as caught:
        listed(address, root, **recipe)
    return str(caught.value)


def written(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in (".json", "", ".lock"))


# Rows become tracks


@pytest.mark.parametrize("layout", ["parquet", "save_to_disk"])
def test_audio_becomes_files_and_columns_become_tracks(sets: Path, root: Path, layout: str) -> None:
    import datasets

    kinds = ("WAV", "FLAC", "MP3", "OGG")
    said = {"artist": "Nina", "title": "One", "album": "First"}
    train = [{"audio": audio(n, kinds[n]), "genre": n % 2, **said} for n in range(4)]
    test = [{"audio": audio(n), "genre": n % 2, **said, "artist": " nina"} for n in range(4, 6)]
    both = datasets.DatasetDict(train=typed(train, ["rock", "pop"]), test=typed(test, ["rock", "pop"]))
    if layout == "save_to_disk":
        both.save_to_disk(sets)
    else:
        for split, made in both.items():
            (sets / "data").mkdir(parents=True, exist_ok=True)
            made.to_parquet(sets / "data" / f"{split}-00000-of-00001.parquet")
    (sets / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")

    found = listed(sets, root)

    assert found.name == hub.name_of(f"hf:{sets}") == "mine"
    assert found.licence == "cc-by-4.0"
    assert found.split_authority == "given by the splits train, test of the dataset"
    assert (
        "columns: path = audio, label = genre, artist = artist, album = album, title = title" in found.notes
    )
    tracks = found.tracks
    assert not found.excluded
    assert [t.track_id for t in tracks] == ["0.wav", "1.flac", "2.mp3", "3.ogg", "4.wav", "5.wav"]
    assert [t.label for t in tracks] == ["rock", "pop"] * 3
    assert [t.split for t in tracks] == ["train"] * 4 + ["test"] * 2
    assert {(t.group, t.title, t.album) for t in tracks} == {("artist: nina", "One", "First")}
    assert [t.path.suffix for t in tracks] == [".wav", ".flac", ".mp3", ".ogg", ".wav", ".wav"]
    for row, track in zip((*train, *test), tracks, strict=True):
        assert track.path.read_bytes() == row["audio"]["bytes"]
        assert track.path.parent == root / "hf" / "mine" / str(track.split)
        assert inspect(track.path).problem is None
    assert not [*(root / "hf" / "mine").glob(".arrow*")]  # no second copy of the audio stays behind


def test_a_single_saved_split_gives_no_split(sets: Path, root: Path) -> None:
    typed([{"audio": audio(n), "genre": n % 2} for n in range(4)], ["rock", "pop"]).save_to_disk(sets)
    found = listed(sets, root)
    assert [t.label for t in found.tracks] == ["rock", "pop"] * 2
    assert {t.split for t in found.tracks} == {None}


def test_an_audiofolder_stays_where_it_is(sets: Path, root: Path) -> None:
    table = [("a.wav", "rock"), ("b.wav", "pop"), ("gone.wav", "pop")]
    sets.mkdir(parents=True)
    for number, name in enumerate(("a.wav", "b.wav", "unnamed.wav")):
        (sets / name).write_bytes(clip(number))
    with (sets / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file_name", "genre"), *table])
    found = listed(sets, root)
    assert [(t.track_id, t.path, t.label) for t in found.tracks] == [
        ("a.wav", sets / "a.wav", "rock"),
        ("b.wav", sets / "b.wav", "pop"),
    ]
    assert [(bad.track_id, bad.label) for bad in found.excluded] == [("gone.wav", "pop")]
    assert "no such file" in found.excluded[0].reason
    assert "in no row of the dataset: 1 file of the folder: unnamed.wav" in found.notes
    assert not written(root)


def test_files_in_an_archive_are_exported(sets: Path, root: Path) -> None:
    sets.mkdir(parents=True)
    with zipfile.ZipFile(sets / "clips.zip", "w") as archive:
        for number in range(2):
            archive.writestr(f"in/{number}.wav", clip(number))
        archive.writestr("metadata.csv", "file_name,genre\nin/0.wav,rock\nin/1.wav,pop\nin/2.wav,pop\n")
    found = listed(sets, root)
    assert [t.track_id for t in found.tracks] == ["in/0.wav", "in/1.wav"]
    assert [t.path.read_bytes() for t in found.tracks] == [clip(0), clip(1)]
    assert "cannot be read from clips.zip" in found.excluded[0].reason


def test_rows_without_audio_or_label_are_accounted_for(sets: Path, root: Path) -> None:
    table = [{"audio": audio(n), "genre": genre} for n, genre in enumerate((0, 1, -1, None))]
    table += [{"audio": None, "genre": 0}, {"audio": {"bytes": b"", "path": None}, "genre": 1}]
    typed(table, ["rock", "pop"]).save_to_disk(sets)
    found = listed(sets, root)
    assert [t.label for t in found.tracks] == ["rock", "pop"]
    reasons = {bad.track_id: (bad.label, bad.reason) for bad in found.excluded}
    assert reasons == {
        "2.wav": ("", "no label in the column 'genre'"),
        "3.wav": ("", "no label in the column 'genre'"),
        "train/000004": ("rock", "the row has no audio"),
        "train/000005": ("pop", "the row has no audio"),
    }


def test_samples_are_written_without_loss(sets: Path, root: Path) -> None:
    mono, left = tone(0, 0.6, RATE, 1), tone(1, 0.6, RATE, 2)
    right = np.zeros_like(left)
    integers = (mono * 32767).astype(int).tolist()
    parquet(
        sets / "train.parquet",
        [
            {"audio": {"array": [mono.tolist()], "sampling_rate": RATE}, "genre": "mono"},
            {"audio": {"array": [left.tolist(), right.tolist()], "sampling_rate": RATE}, "genre": "stereo"},
            {"audio": {"array": [mono.tolist()], "sampling_rate": None}, "genre": "mono"},
            {"audio": {"array": [[]], "sampling_rate": RATE}, "genre": "mono"},
        ],
    )
    found = listed(sets, root)
    np.testing.assert_array_equal(load(found.tracks[0].path), mono)
    np.testing.assert_allclose(load(found.tracks[1].path), left / 2, atol=1e-7)
    assert "without a sampling rate" in found.excluded[0].reason
    assert "cannot be saved as audio" in found.excluded[1].reason
    ints = sets.with_name("ints")
    parquet(ints / "train.parquet", [{"audio": {"array": integers, "sampling_rate": RATE}, "genre": "mono"}])
    np.testing.assert_allclose(load(listed(ints, root).tracks[0].path), mono, atol=1e-4)


def test_no_name_in_a_dataset_leads_out_of_it(sets: Path, root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(clip(9))
    names = ["../../../evil.wav", "/etc/passwd", str(secret), "../../secret.wav", "a\0b", "x" * 3000 + ".wav"]
    held = [{"audio": {"bytes": clip(n), "path": name}, "genre": "rock"} for n, name in enumerate(names)]
    named = [{"audio": {"bytes": None, "path": name}, "genre": "pop"} for name in (*names, ".")]
    parquet(sets / "train.parquet", [*held, *named])
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(root)}
    found = listed(sets, root)
    assert [t.path.read_bytes() for t in found.tracks] == [clip(n) for n in range(len(names))]
    assert all(t.path.resolve().is_relative_to(root / "hf" / "mine" / "train") for t in found.tracks)
    assert len(found.excluded) == len(named)
    assert all("no such file" in bad.reason for bad in found.excluded)
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(root)} == before


# Columns, ids and splits


def test_several_audio_columns_have_to_be_chosen_from(sets: Path, root: Path) -> None:
    table = [{"mix": audio(n), "voice": audio(n + 10), "genre": ("a", "b")[n % 2]} for n in range(2)]
    parquet(sets / "train.parquet", table)
    assert "2 audio columns: mix, voice" in complaint(sets, root)
    for column, first in (("mix", 0), ("voice", 10)):
        found = listed(sets, root, path_column=column)
        assert [t.path.read_bytes() for t in found.tracks] == [clip(first), clip(first + 1)]
    assert "no column 'voise'" in (text := complaint(sets, root, path_column="voise"))
    assert "did you mean 'voice'?" in text


def test_the_label_column_is_found_or_asked_for(sets: Path, root: Path) -> None:
    # "label" is also who publishes music; a ClassLabel of a usual name is meant, and one of another is not.
    table = [{"audio": audio(n), "label": "Sub Pop", "genre": n % 2, "mood": n % 2} for n in range(2)]
    import datasets

    made = typed(table, ["rock", "pop"]).cast_column("mood", datasets.ClassLabel(names=["sad", "glad"]))
    made.save_to_disk(sets)
    assert [t.label for t in listed(sets, root).tracks] == ["rock", "pop"]
    assert [t.label for t in listed(sets, root, label_column="mood").tracks] == ["sad", "glad"]
    assert "did you mean 'genre'" in complaint(sets, root, label_column="genres")
    only = sets.with_name("only")
    made.remove_columns(["label", "genre"]).save_to_disk(only)
    assert [t.label for t in listed(only, root).tracks] == ["sad", "glad"]
    none = sets.with_name("none")
    made.remove_columns(["label"]).rename_column("genre", "scene").save_to_disk(none)
    assert "2 are ClassLabels" in (text := complaint(none, root))
    assert "scene, mood" in text


def test_splits_are_used_only_if_they_are_complete(sets: Path, root: Path) -> None:
    import datasets

    def of(folder: str, splits: dict[str, range], **recipe: Any) -> Listing:
        for name, numbers in splits.items():
            parquet(sets.with_name(folder) / "data" / f"{name}-0-of-1.parquet", rows(numbers, set="dev"))
        return listed(sets.with_name(folder), root, **recipe)

    three = {"train": range(4), "validation": range(4, 6), "test": range(6, 8)}
    assert [t.split for t in of("three", three).tracks] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert {t.split for t in of("three", three, split="cv5").tracks} == {None}
    half = of("half", {"train": range(4), "validation": range(4, 6)})
    assert {t.split for t in half.tracks} == {None}
    assert any("a training or test set is missing" in note for note in half.notes)
    passed_over = of("passed_over", {"train": range(4), "more": range(4, 6)})  # as `datasets` does it
    assert len(passed_over.tracks) == 4
    assert "in no row of the dataset: 1 file of the folder: data/more-0-of-1.parquet" in passed_over.notes
    parts = {name: datasets.Dataset.from_list(rows(range(4))) for name in "ab"}
    datasets.DatasetDict(parts).save_to_disk(sets)
    strange = listed(sets, root)
    assert [t.track_id for t in strange.tracks] == [f"{split}/{n}.wav" for split in "ab" for n in range(4)]
    assert any("'a' is not a split name" in note for note in strange.notes)


def test_a_named_split_column_is_preferred_to_the_splits(sets: Path, root: Path) -> None:
    words = ("training", "valid", "eval", "training")
    parquet(sets / "train.parquet", [row | {"part": w} for row, w in zip(rows(range(4)), words, strict=True)])
    assert {t.split for t in listed(sets, root).tracks} == {None}
    found = listed(sets, root, split_column="part")
    assert [t.split for t in found.tracks] == ["train", "val", "test", "train"]
    assert found.split_authority == "given by the column 'part' of the dataset"
    assert "'pop' is not a split name" in complaint(sets, root, split_column="genre")


def test_pieces_of_one_track_stay_together(sets: Path, root: Path) -> None:
    ids = (7, 7, 8, 9)
    parquet(sets / "train.parquet", [row | {"id": i} for row, i in zip(rows(range(4)), ids, strict=True)])
    found = listed(sets, root)
    assert [t.group for t in found.tracks] == ["track: 7", "track: 7", "track: 8", "track: 9"]
    assert len({t.track_id for t in found.tracks}) == 4
    assert "2 rows have the track id '7'" in complaint(sets, root, id_column="id")
    again = sets.with_name("again")  # ids that begin anew in every split are other tracks
    for split, start in (("train", 0), ("test", 2)):
        table = [row | {"id": n} for n, row in enumerate(rows(range(start, start + 2)))]
        parquet(again / "data" / f"{split}-0-of-1.parquet", table)
    assert [t.group for t in listed(again, root).tracks] == ["train/0", "train/1", "test/0", "test/1"]


# The export


def test_a_second_call_only_reads_the_table(sets: Path, root: Path) -> None:
    parquet(sets / "train.parquet", rows(range(4)))
    first = listed(sets, root)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from mgc.config import DataRecipe\nfrom mgc.data.sources import hub\n"
        f"found = hub.listing({f'hf:{sets}'!r}, Path({str(root)!r}), DataRecipe())\n"
        "print(len(found.tracks), sorted({'datasets', 'huggingface_hub', 'pandas'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[0] == "4 []"
    assert listed(sets, root) == first


def test_a_changed_folder_is_exported_again_and_stale_files_are_removed(sets: Path, root: Path) -> None:
    file = sets / "train.parquet"
    parquet(file, rows(range(4)))
    before = {t.path: t.path.stat().st_mtime_ns for t in listed(sets, root).tracks}
    stat = file.stat()
    parquet(file, rows(range(2, 6)))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the time alone must not hide it
    after = {t.path: t.path.stat().st_mtime_ns for t in listed(sets, root).tracks}
    assert sorted(path.read_bytes() for path in after) == sorted(clip(n) for n in range(2, 6))
    kept = {*before} & {*after}
    assert len(kept) == 2
    assert all(before[path] == after[path] for path in kept)
    assert written(root) == sorted(after)
    assert len([*root.rglob("rows-*.json")]) == 1


def test_an_interrupted_call_resumes(sets: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(sets / "train.parquet", rows(range(6)))
    real: Callable[..., Any] = Path.replace
    count = 0

    def interrupted(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        listed(sets, root)
    assert not [*root.rglob("rows-*")]
    first = {path: path.stat().st_mtime_ns for path in written(root / "hf" / "mine" / "train")}
    assert len(first) == 3
    torn = next(iter(first))
    torn.write_bytes(torn.read_bytes()[:100])  # what a full disk leaves behind
    monkeypatch.undo()
    found = listed(sets, root)
    assert [t.path.read_bytes() for t in found.tracks] == [clip(n) for n in range(6)]
    assert all(path.stat().st_mtime_ns == time for path, time in first.items() if path != torn)


def test_damaged_files_and_tables_are_exported_again(sets: Path, root: Path) -> None:
    parquet(sets / "train.parquet", rows(range(2)))
    gone, torn = (track.path for track in listed(sets, root).tracks)
    gone.unlink()
    torn.write_bytes(b"RIFF")
    assert [t.path.read_bytes() for t in listed(sets, root).tracks] == [clip(0), clip(1)]
    (table,) = root.rglob("rows-*.json")
    table.write_text(table.read_text()[:-20])
    assert len(listed(sets, root).tracks) == 2
    json.loads(table.read_text())


def test_datasets_of_one_name_share_a_place_without_conflict(sets: Path, root: Path) -> None:
    other = sets.parent / "elsewhere" / "mine"
    parquet(sets / "train.parquet", rows(range(3)))
    parquet(other / "train.parquet", rows(range(1, 5)))
    first = listed(sets, root)
    assert [t.path.read_bytes() for t in listed(other, root).tracks] == [clip(n) for n in range(1, 5)]
    assert listed(sets, root) == first
    assert len(written(root)) == 5


# Addresses and errors


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("owner/name", "owner__name"),
        ("owner/name:fma small", "owner__name__fma-small"),
        ("owner/name@refs/convert/parquet", "owner__name"),
        ("owner/name@1a2b:../x", "owner__name__-x"),
        ("owner/name:en@main", "owner__name__en"),
        ("//datasets/owner/name", "owner__name"),
    ],
)
def test_the_name_of_an_address(address: str, name: str) -> None:
    assert hub.name_of(f"hf:{address}") == name


def test_the_name_of_a_downloaded_snapshot_is_that_of_the_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "datasets--owner--name" / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    assert hub.name_of(f"hf:{folder}") == "owner__name"
    assert hub.name_of(f"hf:{folder}:en") == "owner__name__en"


@pytest.mark.parametrize(
    "address", ["", "csv", "/nowhere/at/all", "a/b/c", "o/n@a@b", "~nobody0/x", "x" * 400]
)
def test_invalid_addresses(address: str, root: Path) -> None:
    assert "there is no such folder" in complaint(address, root)
    assert not root.exists()


def test_folders_that_cannot_be_opened(sets: Path, root: Path) -> None:
    sets.mkdir(parents=True)
    assert "cannot open this folder" in complaint(sets, root)
    (sets / "train.parquet").write_bytes(b"PAR1 and nothing")
    assert "cannot open this folder" in complaint(sets, root)
    assert "this is a file" in complaint(sets / "train.parquet", root)
    parquet(sets / "train.parquet", [{"text": "a", "genre": "rock"}])
    assert "no audio column" in (text := complaint(sets, root))
    assert "columns: text, genre" in text
    assert "is within this folder" in complaint(sets, sets / "data")
    parquet(sets / "train.parquet", rows(range(2)))
    (sets / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files: t*\n- config_name: fr\n  data_files: t*\n---\n"
    )
    assert f"choose a config, for example hf:{sets}:en" in complaint(sets, root)
    assert f"choose a config, for example hf:{sets}:en" in complaint(f"{sets}:de", root)
    assert listed(f"{sets}:fr", root).name == "mine__fr"


def test_a_place_that_is_not_writable(sets: Path, tmp_path: Path) -> None:
    parquet(sets / "train.parquet", rows(range(2)))
    (tmp_path / "file").touch()
    text = complaint(sets, tmp_path / "file")
    assert "cannot be exported: Not a directory" in text
    assert "--data-root" in text
    with nobody():
        assert "cannot be read: Permission denied" in complaint(sets, tmp_path)


# The hub, simulated by a small server


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as `datasets` asks for: a commit a set, its files, who may not see it."""

    protocol_version = "HTTP/1.1"
    sets: dict[str, dict[str, bytes]]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/").replace("refs/convert/parquet", "PARQUET")
        api, path = path.startswith("api/"), path.removeprefix("api/").removeprefix("datasets/")
        owner, name, what, revision, file = [*path.split("/", 4), "", "", "", ""][:5]
        repo = f"{owner}/{name}"
        files = self.sets.get(repo)
        if repo == "o/gated":
            self.answer(401, error="GatedRepo")
        elif files is None:
            self.answer(401, error="RepoNotFound")
        elif revision not in ("", "main", "PARQUET", commit(repo)):
            self.answer(404, error="RevisionNotFound")
        elif what == "resolve" and file in files:
            self.answer(200, files[file], repo=repo)
        elif api and what in ("", "revision"):
            self.answer(200, json.dumps({"id": repo, "sha": commit(repo), "siblings": []}).encode())
        elif (
            api
            and what == "tree"
            and (below := [f for f in files if f.startswith(f"{file}/" if file else "")])
        ):
            tree = [{"type": "file", "path": f, "size": len(files[f]), "oid": commit(f)} for f in below]
            folders = {str(folder) for f in below for folder in PurePosixPath(f).parents} - {".", file}
            tree += [{"type": "directory", "path": f, "size": 0, "oid": commit(f)} for f in folders]
            self.answer(200, json.dumps(tree).encode())
        else:
            self.answer(404, error="EntryNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes = b"", error: str = "", repo: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json" if not repo else "application/octet-stream")
        if error:
            self.send_header("X-Error-Code", error)
        if repo:
            self.send_header("X-Repo-Commit", commit(repo))
            self.send_header("ETag", f'"{commit(str(hash(body)))}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def commit(text: str) -> str:
    return text.encode().hex().ljust(40, "0")[:40]


@pytest.fixture
def fake_hub(tmp_path: Path) -> Iterator[str]:
    files = {}
    for name, numbers in (("train", range(4)), ("test", range(4, 6))):
        parquet(tmp_path / "made.parquet", rows(numbers))
        files[f"data/{name}-0-of-1.parquet"] = (tmp_path / "made.parquet").read_bytes()
    card = b"---\nlicense: cc0-1.0\n---\n"
    en, fr = b"{config_name: en, data_files: data/train*}", b"{config_name: fr, data_files: data/*}"
    configs = b"---\nconfigs:\n- %b\n- %b\n---\n" % (en, fr)
    FakeHub.sets = {
        "o/plain": {"README.md": card, **files},
        "o/script": {"README.md": card, "script.py": b"", "dataset_infos.json": b"{}"},
        "o/configs": {"README.md": configs, **files},
        "o/folder": {f"train/{genre}/{n}.wav": clip(n) for n, genre in enumerate(("rock", "pop"))},
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


ASK = """
import os, socket, sys
from pathlib import Path
tried = []
if "HF_HUB_OFFLINE" in os.environ:
    def refuse(*address, **more):
        tried.append(address)
        raise OSError("a connection was tried")
    socket.socket.connect = socket.getaddrinfo = refuse
from mgc.config import DataRecipe
from mgc.util.errors import MgcError
from mgc.data.sources import hub
root, *addresses = sys.argv[1:]
for address in addresses:
    print("#", address)
    try:
        found = hub.listing(address, Path(root), DataRecipe())
    except MgcError as error:
        print(error)
        continue
    sides = sorted({str(track.split) for track in found.tracks})
    print(found.name, len(found.tracks), found.licence, *sides, found.tracks[0].track_id)
    print(found.notes[0])
print("# tried"); print(tried)
"""


def ask(root: Path, addresses: list[str], **environment: str) -> dict[str, str]:
    """What each address gives in a process of its own: the hub's client reads its settings when imported."""
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", ASK, str(root), *(f"hf:{address}" for address in addresses)]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [part.partition("\n") for part in done.stdout.split("# ")[1:]]
    return {head.removeprefix("hf:"): answer for head, _, answer in answers}


def test_datasets_of_the_hub_and_of_its_cache(fake_hub: str, tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": fake_hub, "HF_HUB_DISABLE_XET": "1"}
    addresses = [
        "o/plain",
        "o/plain@nope",
        "o/plain@refs/convert/parquet",
        "o/script",
        "o/configs",
        "o/configs:en",
    ]
    told = ask(tmp_path / "root", [*addresses, "o/folder", "o/gated", "o/none"], **home)
    assert told["o/plain"].startswith("o__plain 6 cc0-1.0 test train 0.wav")
    assert f"o/plain of the hub, main when first used: commit {commit('o/plain')}" in told["o/plain"]
    assert "refs/convert/parquet when first used" in told["o/plain@refs/convert/parquet"]
    assert "Revision 'nope' doesn't exist" in told["o/plain@nope"]
    assert "hf:o/script@refs/convert/parquet" in told["o/script"]
    assert "choose a config, for example hf:o/configs:en" in told["o/configs"]
    assert told["o/configs:en"].startswith("o__configs__en 4 ")
    assert told["o/folder"].startswith("o__folder 2 None None train/pop/1.wav")
    assert "accept its terms" in told["o/gated"]
    assert "HF_TOKEN" in told["o/gated"]
    assert "doesn't exist on the Hub" in told["o/none"]
    for address in ("o/plain@nope", "o/script", "o/gated", "o/none"):
        assert f"hf download {address.partition('@')[0]} --repo-type dataset" in told[address]
        assert "--data hf:FOLDER" in told[address]

    # Offline: what the cache holds can be had, no other revision is passed off for it, nothing is tried.
    offline = ["o/plain", "o/plain@refs/convert/parquet", "o/plain@abcdef", "o/configs:fr", "o/none"]
    told = ask(tmp_path / "root2", offline, **home, HF_HUB_OFFLINE="1")
    assert told["o/plain"].startswith("o__plain 6 cc0-1.0 test train 0.wav")
    assert "from the local cache" in told["o/plain"]
    assert commit("o/plain") in told["o/plain@refs/convert/parquet"]
    assert "maybe not this revision" in told["o/plain@abcdef"]
    assert "choose a config, for example hf:o/configs:en" in told["o/configs:fr"]
    assert "the hub cannot be reached" in told["o/none"]
    assert told["tried"].strip() == "[]"
