"""Sources, splits, inspection and the loader: what they guarantee, and what they refuse."""

import contextlib
import csv
import json
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import SHARED, here, needs_emotify, nobody, tone

from mgc.audio import AudioError, Clip, Windowing, load_windows, loader, windows
from mgc.config import DataRecipe
from mgc.data import (
    Dataset,
    Fold,
    Split,
    Track,
    clips,
    describe,
    load,
    make_split,
    name_of,
    subsample_training,
    unevaluated_classes,
)
from mgc.data.clips import file_hash, inspect_all
from mgc.data.dataset import Listing
from mgc.data.loading import limit_tracks
from mgc.data.quarantine import Quarantined, read_quarantine, write_quarantine
from mgc.data.sources.local import from_manifest
from mgc.util.errors import MgcError

RATE = 8_000


def recipe(source: object = "x", **fields: Any) -> DataRecipe:
    return DataRecipe(source=str(source), **fields)


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(MgcError) as caught:
        work()
    return str(caught.value)


def sound(file: Path, seed: int, seconds: float = 0.6) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, tone(seed % 2, seconds, RATE, seed), RATE, format="WAV")
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two genres with six short files each."""
    for seed in range(12):
        sound(tmp_path / "songs" / ("jazz", "rock")[seed % 2] / f"{seed:02}.wav", seed)
    return tmp_path / "songs"


# ---- folders ---------------------------------------------------------------------------------------------


def test_a_folder_of_genres(root: Path) -> None:
    dataset = load(recipe(root), workspace=here())
    assert dataset.name == name_of(recipe(root)) == "songs"
    assert dataset.classes == ("jazz", "rock") and len(dataset) == 12 and not dataset.notes
    first = dataset.tracks[0]
    assert (first.track_id, first.label, first.group, first.artist) == (
        "jazz/00.wav",
        "jazz",
        "jazz/00.wav",
        None,
    )
    assert first.seconds == pytest.approx(0.6) and len(first.content) == 32
    assert [t.track_id for t in dataset.tracks] == sorted(t.track_id for t in dataset.tracks)


def test_other_contents_of_a_folder_are_reported(root: Path) -> None:
    (root / "jazz/cover.jpg").write_bytes(b"jpg")
    (root / "jazz/._00.wav").write_bytes(b"left by a Mac")
    (root / ".git").mkdir()
    (root / "empty").mkdir()
    sound(root / "loose.wav", 1)
    sound(root / "rock/album/01.wav", 20)
    (root / "README.txt").write_text("hello")
    (root / "tracks.csv").write_text("path,genre\n")
    dataset = load(recipe(root), workspace=here())
    assert len(dataset) == 13 and dataset.classes == ("jazz", "rock")
    assert dataset.by_id["rock/album/01.wav"].label == "rock"
    notes = " ".join(dataset.notes)
    for words in (
        "2 files skipped: their names do not end like audio",
        "2 hidden files or folders",
        "of the genres are not taken for artists",
        "1 audio file skipped beside the genre folders",
        "not genres: empty",
        "not read: tracks.csv",
    ):
        assert words in notes
    assert len(dataset.notes) == 6


def test_folders_within_every_genre_are_artists(tmp_path: Path) -> None:
    for number in range(20):
        artist = ("Ada", "ada ", "Bix", "Cab", "Duke", "Ella")[number % 6]
        sound(
            tmp_path / "music" / ("jazz", "rock")[number % 2] / f"{artist}" / "album" / f"{number}.wav",
            number,
        )
    for number in range(6):  # so that both genres have five
        for genre in ("jazz", "rock"):
            sound(
                tmp_path / "music" / genre / f"artist {number}" / f"{genre}.wav",
                100 + 2 * number + len(genre),
            )
    dataset = load(recipe(tmp_path / "music"), workspace=here())
    assert {t.artist for t in dataset.tracks} >= {"Ada", "ada ", "Bix", "artist 3"}
    assert dataset.by_id["jazz/Ada/album/0.wav"].group == dataset.by_id["rock/ada /album/1.wav"].group
    assert "taken for artists, and a split never separates an artist" in " ".join(dataset.notes)
    assert "grouped by artist" in make_split(dataset).authority


def test_links_are_followed_and_never_in_circles(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for number in range(3):
        sound(elsewhere / f"{number}.wav", 50 + number)
    (root / "folk").symlink_to(elsewhere)
    (root / "jazz/linked.wav").symlink_to(sound(tmp_path / "one.wav", 60))
    (root / "jazz/round").symlink_to(root)
    (root / "jazz/self").symlink_to(root / "jazz")
    (root / "rock/again").symlink_to(elsewhere)
    (root / "rock/gone.wav").symlink_to(tmp_path / "nowhere.wav")
    dataset = load(recipe(root, max_excluded=0.2), workspace=here())
    assert dataset.classes == ("folk", "jazz", "rock") and len(dataset) == 12 + 3 + 1
    assert [bad.track_id for bad in dataset.excluded] == ["rock/gone.wav"]
    assert "3 folders skipped: links lead to them again" in dataset.notes


def test_the_only_folder_may_not_be_the_only_genre(root: Path, tmp_path: Path) -> None:
    message = refusal(lambda: load(recipe(tmp_path), workspace=here()))
    assert "only one folder contains audio, 'songs'" in message and f"--data {root}" in message
    (tmp_path / "tracks.csv").write_text("path,genre\n")
    assert f"--data {tmp_path / 'tracks.csv'}" in refusal(lambda: load(recipe(tmp_path), workspace=here()))


def test_a_folder_has_no_columns(root: Path) -> None:
    assert "a folder has no columns" in refusal(
        lambda: load(recipe(root, label_column="style"), workspace=here())
    )


def test_folders_without_music(tmp_path: Path) -> None:
    assert "no audio was found" in refusal(lambda: load(recipe(tmp_path), workspace=here()))
    sound(tmp_path / "a.wav", 1)
    assert "1 audio file skipped beside the genre folders" in refusal(
        lambda: load(recipe(tmp_path), workspace=here())
    )
    sound(tmp_path / "jazz/album/a.wav", 1)
    message = refusal(lambda: load(recipe(tmp_path), workspace=here()))
    assert "only the class 'jazz'" in message
    sound(tmp_path / "jazz/a.wav", 1)
    assert "only the class 'jazz'" in refusal(lambda: load(recipe(tmp_path), workspace=here()))


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    message = refusal(lambda: load(recipe("dmo"), workspace=here()))
    assert "'dmo'" in message and "did you mean 'demo'?" in message
    sound(tmp_path / "a.wav", 1)
    assert "not a manifest" in refusal(lambda: load(recipe(tmp_path / "a.wav"), workspace=here()))


def test_names_that_are_not_utf8(root: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        shutil.copytree(root / "jazz", root / name)
    except (OSError, shutil.Error):
        pytest.skip("this file system takes UTF-8 names only")
    dataset = load(recipe(root), workspace=here())
    assert r"caf\udce9" in dataset.classes
    assert len(dataset) == 18
    assert len(load(recipe(root, limit=12), workspace=here())) == 12
    describe(recipe(root), workspace=here()).encode()


# ---- manifests -------------------------------------------------------------------------------------------

ROWS = [
    {"path": "a.wav", "genre": "jazz", "artist": "Ärger", "title": 'Zwei\n"Zeilen", 音楽'},
    {"path": "b.wav", "genre": "rock", "artist": "", "title": ""},
]


def manifest(folder: Path, rows: list[dict[str, Any]], suffix: str = ".csv", bom: bool = False) -> Path:
    file = folder / f"music{suffix}"
    encoding = "utf-8-sig" if bom else "utf-8"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        file.write_text("\n".join(lines) + "\n\n", encoding=encoding)
    else:
        with file.open("w", encoding=encoding, newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return file


def listed(folder: Path, rows: list[dict[str, Any]], suffix: str = ".csv", **fields: Any) -> Listing:
    return from_manifest(manifest(folder, rows, suffix), recipe(**fields))


SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet"]


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_manifest(tmp_path: Path, suffix: str, bom: bool) -> None:
    listing = from_manifest(manifest(tmp_path, ROWS, suffix, bom), recipe())
    first, second = listing.tracks
    assert listing.name == "music"
    assert first.path == tmp_path / "a.wav" and first.track_id == "a.wav" and first.label == "jazz"
    assert (
        first.title == 'Zwei\n"Zeilen", 音楽' and first.artist == "Ärger" and first.group == "artist: ärger"
    )
    assert (second.artist, second.title, second.group, second.split) == (None, None, "b.wav", None)
    assert listing.notes == ["columns: path = path, label = genre, artist = artist, title = title"]


def test_ids_are_relative_to_the_manifest_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"path": str(tmp_path / "in" / "a.wav"), "genre": "x"},
        {"path": "b.wav", "genre": "y"},
        {"path": "/elsewhere/c.wav", "genre": "y"},
    ]
    file = manifest(tmp_path, rows, ".csv", False)
    monkeypatch.chdir(tmp_path)
    for named in (file, Path(file.name)):
        ids = [track.track_id for track in from_manifest(named, recipe()).tracks]
        assert ids == ["in/a.wav", "b.wav", "/elsewhere/c.wav"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_named_columns_and_absolute_paths(tmp_path: Path, suffix: str) -> None:
    rows = [
        {
            "Where": str(tmp_path / "else" / "a.wav"),
            "style": "x",
            "by": "A",
            "no": "007",
            "part": "TRAIN",
            "genre": "-",
        },
        {"Where": "sub/../b.wav", "style": "y", "by": "B", "no": "008", "part": " Validation", "genre": "-"},
    ]
    named = {"path": "Where", "label": "style", "artist": "by", "id": "no", "split": "part"}
    listing = listed(tmp_path, rows, suffix, **{f"{key}_column": name for key, name in named.items()})
    first, second = listing.tracks
    assert first.path == tmp_path / "else" / "a.wav" and second.path.name == "b.wav"
    assert [(t.track_id, t.label, t.split) for t in (first, second)] == [
        ("007", "x", "train"),
        ("008", "y", "val"),
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_type_is_guessed(tmp_path: Path, suffix: str) -> None:
    words = ["None", "NA", "nan", "null", "1e5", "True", "007", "1.0", "2024-01-01"]
    rows = [
        {"track_id": f"0{n}", "path": f"{n}.wav", "label": word, "artist": word}
        for n, word in enumerate(words)
    ]
    listing = listed(tmp_path, rows, suffix)
    assert [t.label for t in listing.tracks] == [t.artist for t in listing.tracks] == words
    assert [t.track_id for t in listing.tracks] == [f"0{n}" for n in range(len(words))]
    assert not listing.excluded


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_numbers_stay_whole_beside_unknown_values(tmp_path: Path, suffix: str) -> None:
    big = 2**53 + 1
    rows = [
        {"id": big, "path": "a.wav", "label": 1, "artist_id": 12},
        {"id": big + 1, "path": "b.wav", "label": 2, "artist_id": None},
        {"id": 3, "path": "c.wav", "label": None, "artist_id": 12},
    ]
    listing = listed(tmp_path, rows, suffix)
    assert [(t.track_id, t.label, t.artist) for t in listing.tracks] == [
        (str(big), "1", "12"), (str(big + 1), "2", None),
    ]  # fmt: skip
    assert [(bad.track_id, bad.reason) for bad in listing.excluded] == [("3", "no label in the manifest")]


def test_a_column_that_is_missing_names_the_columns_and_the_option(tmp_path: Path) -> None:
    message = refusal(lambda: listed(tmp_path, [{"where": "a.wav", "genre": "x"}]))
    assert (
        "no path column" in message and "columns: where, genre" in message and "--column path=NAME" in message
    )
    message = refusal(lambda: listed(tmp_path, [{"path": "a.wav", "style": "x"}]))
    assert (
        "no label column" in message
        and "columns: path, style" in message
        and "--column label=NAME" in message
    )
    message = refusal(lambda: listed(tmp_path, ROWS, label_column="gnre"))
    assert "no column 'gnre'" in message and "did you mean 'genre'?" in message


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    good = {"path": "a.wav", "label": "x"}
    assert "row 2 has no path" in refusal(lambda: listed(tmp_path, [good, {"path": " ", "label": "x"}]))
    message = refusal(lambda: listed(tmp_path, [good, {"path": "b.wav", "label": "x"}, good]))
    assert "rows 1 and 3 have the same track id 'a.wav'" in message and "--column id=NAME" in message
    listing = listed(tmp_path, [good, {"path": "b.wav", "label": ""}])
    assert [(bad.track_id, bad.reason) for bad in listing.excluded] == [("b.wav", "no label in the manifest")]
    message = refusal(
        lambda: listed(tmp_path, [good | {"set": "train"}, {"path": "b", "label": "x", "set": "Tset"}])
    )
    assert "row 2, column 'set'" in message and "data.split=cv5" in message
    message = refusal(lambda: listed(tmp_path, [{"audio": {"bytes": "x"}, "label": "x"}], ".jsonl"))
    assert "row 1 has a dict in the column 'audio'" in message


def test_a_split_column_is_not_read_where_another_split_is_asked_for(tmp_path: Path) -> None:
    rows = [{"path": "a.wav", "label": "x", "set": "greatest hits"}]
    assert listed(tmp_path, rows, split="cv5").tracks[0].split is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "no rows"),
        ("a.csv", b"path,label\n", "no rows"),
        ("a.csv", b"path,label\na.wav,rock,and,roll\n", "row 1 has more cells than the header"),
        ("a.csv", b'path,label\n"a.wav,rock\nb.wav,jazz\n', "cannot be read as csv"),
        ("a.csv", b"path,label\na.wav,caf\xe9\n", "cannot be read as csv"),
        ("a.csv", b"path,label\na.wav,caf\xe9\n", "save it as UTF-8"),
        ("a.csv", b"path;label\na.wav;rock\n", "replace ';' by commas"),
        ("a.jsonl", b'{"path": "a.wav"\n', "cannot be read as jsonl"),
        ("a.jsonl", b'["a.wav", "rock"]\n', "row 1 is not a JSON object"),
        ("a.parquet", b"PAR1 no", "cannot be read as parquet"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(lambda: from_manifest(tmp_path / name, recipe()))
    assert words in message and name in message


def test_short_rows_and_empty_cells_at_the_end_are_unknown_values(tmp_path: Path) -> None:
    (tmp_path / "tracks.csv").write_text("path,label,artist\na.wav,rock\nb.wav,jazz,B,\n\n")
    listing = from_manifest(tmp_path / "tracks.csv", recipe())
    assert [(t.label, t.artist) for t in listing.tracks] == [("rock", None), ("jazz", "B")]
    assert listing.name == tmp_path.name  # "tracks" tells nothing


def test_an_artist_is_the_same_however_the_name_is_typed(tmp_path: Path) -> None:
    names = ["Beyonc\u00e9", "beyonce\u0301", " BEYONC\u00c9 ", "Miles  Davis", "miles davis"]
    rows = [{"path": f"{n}.wav", "label": "x", "artist": name} for n, name in enumerate(names)]
    assert len({track.group for track in listed(tmp_path, rows).tracks}) == 2


# ---- splits ----------------------------------------------------------------------------------------------


def made_up(
    tracks_of: dict[str, int],
    artists_of: dict[str, int] | None = None,
    side: Callable[[int], str | None] | None = None,
) -> Dataset:
    """Tracks without files: so many a class, by so many artists (None: unknown)."""
    tracks = []
    for label, count in tracks_of.items():
        for n in range(count):
            track_id = f"{label}/{n:04}"
            artist = f"{label} {n % artists_of[label]}" if artists_of else None
            group = f"artist: {artist}" if artist else track_id
            tracks.append(
                Track(track_id, Path(track_id), label, group, artist, split=side(n) if side else None)
            )
    return Dataset("made up", tuple(tracks))


def assert_valid(split: Split) -> None:
    """The guarantees of every split."""
    tracks = split.dataset.by_id
    for fold in split.folds:
        assert set(fold.train) | set(fold.val) | set(fold.test) == set(tracks)
        assert len(fold.train) + len(fold.val) + len(fold.test) == len(tracks)
        groups = [{tracks[i].group for i in side} for side in (fold.train, fold.val, fold.test)]
        assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
        assert {tracks[i].label for i in fold.train} == set(split.dataset.classes)


@pytest.mark.parametrize("seed", range(10))
def test_cv5_and_holdout(seed: int) -> None:
    dataset = made_up({"a": 60, "b": 40, "c": 100}, {"a": 15, "b": 20, "c": 25})
    five = make_split(dataset, "cv5", seed)
    assert_valid(five)
    assert len(five.folds) == 5 and five.tested == tuple(sorted(dataset.by_id))
    for fold in five.folds:
        counts = Counter(dataset.by_id[i].label for i in fold.test)
        assert all(abs(counts[label] - of / 5) <= 4 for label, of in {"a": 60, "b": 40, "c": 100}.items())
        assert 10 <= len(fold.val) <= 30
    one = make_split(dataset, "holdout", seed)
    assert_valid(one)
    assert one.folds == five.folds[:1]
    assert make_split(dataset, "cv5", seed).hash == five.hash
    assert make_split(dataset, "cv5", seed + 1).hash != five.hash
    assert "grouped by artist" in five.authority and f"seed {seed}" in five.authority


def test_auto_takes_the_given_split_or_chooses_by_size() -> None:
    sides = ("train",) * 3 + ("val", "test")
    given = made_up({"a": 20, "b": 20}, side=lambda n: sides[n % 5])
    assert make_split(given).name == "given"
    assert make_split(given, "cv5").name == "cv5"
    assert make_split(made_up({"a": 20, "b": 20})).name == "cv5"
    large = make_split(made_up({"a": 1000, "b": 1000}))
    assert large.name == "holdout"
    assert large.authority.startswith(
        "one fifth for testing, stratified, artists unknown: every track is its own group"
    )
    assert large.authority.endswith("seed 0, 10 % of the tracks for validation")
    partly = made_up({"a": 20, "b": 20}, side=lambda n: "train" if n else None)
    assert "needs a split for every track" in refusal(lambda: make_split(partly, "given"))


def test_a_subsampled_split_has_fewer_training_tracks_and_the_same_test_set() -> None:
    whole = make_split(made_up({"a": 40, "b": 20}), "cv5")
    some, fewer = subsample_training(whole, 8, 3), subsample_training(whole, 4, 3)
    assert len({whole.hash, some.hash, fewer.hash, subsample_training(whole, 4, 4).hash}) == 4
    assert "at most 4 training tracks per class, seed 3" in fewer.authority
    for full, eight, four in zip(whole.folds, some.folds, fewer.folds, strict=True):
        assert full.test == eight.test == four.test
        assert full.val == eight.val == four.val
        assert set(four.train) < set(eight.train) < set(full.train)
        labels = Counter(whole.dataset.by_id[track_id].label for track_id in four.train)
        assert labels == {"a": 4, "b": 4}
    assert subsample_training(whole, 1000, 0).hash == whole.hash


def test_a_random_split_leaks_and_is_marked() -> None:
    dataset = made_up({"a": 60, "b": 40}, {"a": 6, "b": 5})
    split = make_split(dataset, "random", 3)
    assert split.leaky and not make_split(dataset, "cv5").leaky
    assert split.name == "random" and split.tested == tuple(sorted(dataset.by_id))
    for fold in split.folds:
        assert Counter(dataset.by_id[i].label for i in fold.test) == {"a": 12, "b": 8}
        assert not set(fold.train) & set(fold.test) and not set(fold.val) & set(fold.test)
    assert split.authority.startswith("LEAKY: random, five folds, stratified, not grouped by artist (100 %")
    assert "seed 3" in split.authority
    assert {t.group for t in split.dataset.tracks} == {t.group for t in dataset.tracks}
    assert make_split(dataset, "random", 3).hash == split.hash
    assert make_split(dataset, "random", 4).hash != split.hash
    assert "not grouped, artists unknown" in make_split(made_up({"a": 20, "b": 20}), "random").authority


def test_a_random_split_is_as_large_as_the_given_one() -> None:
    sides = ("train",) * 6 + ("val", "test")
    given = made_up({"a": 40, "b": 40}, side=lambda n: sides[n % 8])
    (honest,), (random,) = make_split(given).folds, make_split(given, "random").folds
    assert [len(s) for s in (random.train, random.val, random.test)] == [60, 10, 10]
    assert [len(s) for s in (honest.train, honest.val, honest.test)] == [60, 10, 10]
    assert set(random.test) != set(honest.test)
    small = made_up({"a": 5, "b": 1}, side=lambda n: sides[5 + n % 3])
    assert "no random split" in refusal(lambda: make_split(small, "random"))


def test_a_given_split_is_used_unchanged() -> None:
    sides = ("train",) * 6 + ("val", "val", "test", "test")
    dataset = made_up({"a": 20, "b": 20}, side=lambda n: sides[n % 10])
    (fold,) = make_split(dataset).folds
    assert all(
        dataset.by_id[i].split == side for side in ("train", "val", "test") for i in getattr(fold, side)
    )
    assert make_split(dataset, seed=1).hash == make_split(dataset).hash


@pytest.mark.parametrize("seed", range(5))
def test_validation_is_drawn_from_training_if_a_given_split_has_none(seed: int) -> None:
    dataset = made_up({"a": 60, "b": 45}, {"a": 15, "b": 15}, lambda n: "test" if n % 5 == 0 else "train")
    split = make_split(dataset, seed=seed)
    assert_valid(split)
    (fold,) = split.folds
    assert {dataset.by_id[i].split for i in fold.test} == {"test"} and len(fold.test) == 21
    assert 4 <= len(fold.val) <= 14
    assert "a tenth of its training tracks for validation, grouped by artist" in split.authority


def test_an_artist_in_two_parts_of_a_given_split_is_refused() -> None:
    dataset = made_up({"a": 20, "b": 20}, {"a": 4, "b": 4}, lambda n: ("train", "val", "test")[n % 3])
    message = refusal(lambda: make_split(dataset))
    assert (
        "the artist 'a 0' is in the training set and in the validation set" in message
        and "--split cv5" in message
    )


def test_genres_without_test_or_validation_tracks_are_named() -> None:
    tracks = made_up({"a": 4, "b": 4, "c": 4})
    sides = {"a": ["train", "val", "test", "test"], "b": ["train", "train", "val", "val"]}
    sides["c"] = ["train", "train", "test", "test"]
    seen = Counter[str]()
    given = []
    for track in tracks.tracks:
        given.append(replace(track, split=sides[track.label][seen[track.label]]))
        seen[track.label] += 1
    split = make_split(replace(tracks, tracks=tuple(given)))
    assert unevaluated_classes(split) == [
        "genres without tracks in the test set are not evaluated: b",
        "genres without tracks in the validation set are ignored in choosing epochs and hyperparameters: c",
    ]


@pytest.mark.parametrize(("name", "other"), [("training", "test"), ("test", "train")])
def test_a_given_split_with_an_empty_part_is_refused(name: str, other: str) -> None:
    dataset = made_up({"a": 20, "b": 20}, side=lambda n: other)
    assert f"the {name} set is empty" in refusal(lambda: make_split(dataset))


@pytest.mark.parametrize("count", [5, 6, 7, 9, 12])
def test_small_classes_can_be_split_down_to_five_tracks(count: int) -> None:
    for seed in range(2):
        split = make_split(made_up({"a": count, "b": count}), "cv5", seed)
        assert_valid(split)
        assert len(split.tested) == 2 * count
        assert_valid(make_split(made_up({"a": 40, "b": count}), "cv5", seed))


def test_classes_too_small_to_split_are_named() -> None:
    message = refusal(lambda: make_split(made_up({"a": 20, "b": 4}), "cv5"))
    assert "the class 'b' has 4 tracks, but splitting needs at least 5" in message
    lonely = made_up({"a": 20, "b": 20}, {"a": 20, "b": 1})  # its only artist is tested in some fold
    assert "the class 'b' is in the test set but not in the training set" in refusal(
        lambda: make_split(lonely, "cv5")
    )
    one = made_up({"a": 20, "b": 20}, {"a": 1, "b": 1})
    one = replace(one, tracks=tuple(replace(track, group="artist: x") for track in one.tracks))
    assert "set is empty" in refusal(lambda: make_split(one, "cv5"))


def test_few_artists_never_cost_a_class_its_last_one_in_training() -> None:
    """Of two artists one is tested and one is left to learn from; another class validates."""
    for seed in range(4):
        for artists_of in ({"a": 2, "b": 30}, {"a": 3, "b": 8}, {"a": 4, "b": 4}):
            assert_valid(make_split(made_up({"a": 30, "b": 30}, artists_of), "cv5", seed))


def test_a_split_refuses_a_track_in_two_parts() -> None:
    dataset = made_up({"a": 3, "b": 3})
    fold = Fold(("a/0000", "b/0000"), ("a/0001",), ("a/0000", "b/0002"))
    assert "the track 'a/0000' is in the training set and in the test set" in refusal(
        lambda: Split("x", "x", (fold,), dataset)
    )
    fold = Fold(("a/0000", "b/0000"), ("a/0001",), ("b/0002",))
    assert "in the test set of two folds" in refusal(lambda: Split("x", "x", (fold, fold), dataset))
    fold = Fold(("a/0000",), ("a/0001",), ("b/0002",))
    assert "'b' is in the test set but not in the training set" in refusal(
        lambda: Split("x", "x", (fold,), dataset)
    )


# ---- load ------------------------------------------------------------------------------------------------


def test_unusable_tracks_are_excluded_and_stop_a_run_if_they_are_many(root: Path) -> None:
    (root / "jazz/00.wav").write_bytes(b"")
    (root / "rock/01.wav").write_text("no music" * 99)
    message = refusal(lambda: load(recipe(root), workspace=here()))
    assert "2 of 12 tracks cannot be used, more than the 5 % allowed" in message
    assert "jazz/00.wav: empty file (0 bytes)" in message and "rock/01.wav: cannot be decoded" in message
    assert "--set data.max_excluded=" in message and str(root) in message
    dataset = load(recipe(root, max_excluded=0.2), workspace=here())
    assert len(dataset) == 10 and [bad.label for bad in dataset.excluded] == ["jazz", "rock"]
    for file in root.glob("*/*.wav"):
        file.write_bytes(b"")
    message = refusal(lambda: load(recipe(root), workspace=here()))
    assert "12 tracks (jazz/00.wav, jazz/02.wav, jazz/04.wav ...): empty file" in message
    assert "no usable track" in refusal(lambda: load(recipe(root, max_excluded=1.0), workspace=here()))


def test_a_limit_keeps_every_part_of_a_given_split() -> None:
    sides = ("train",) * 8 + ("val", "test")
    tracks = [*made_up({"a": 100, "b": 50}, side=lambda n: sides[n % 10]).tracks]
    for limit in (12, 20, 60):
        part = limit_tracks(tracks, recipe(limit=limit))
        assert len(part) == limit
        counts = Counter((t.label, t.split) for t in part)
        assert all(abs(counts[label, "test"] - limit / 20) <= 1 for label in "ab")
        assert all(counts[label, side] for label in "ab" for side in ("train", "val", "test"))
        assert {t.track_id for t in limit_tracks(tracks, recipe(limit=10))} < {t.track_id for t in part}
    assert limit_tracks(tracks, recipe(limit=9, split_seed=1)) != limit_tracks(tracks, recipe(limit=9))


# ---- quarantine ------------------------------------------------------------------------------------------


def quarantined(root: Path, track_id: str, kind: str = "short", excluded: str = "yes") -> Quarantined:
    clip = inspect_all([root / track_id], cache=here().cache)[0]
    return Quarantined(
        track_id, excluded, kind, f"{kind} indeed", "", "jazz", str(root / track_id), clip.content
    )


def test_quarantined_tracks_are_excluded_while_their_content_is_the_same(root: Path) -> None:
    rows = [quarantined(root, "jazz/00.wav"), quarantined(root, "jazz/02.wav", excluded="keep")]
    file = here().quarantine_file("songs")
    write_quarantine(file, ["jazz/00.wav", "jazz/02.wav"], rows)
    dataset = load(recipe(root), workspace=here())
    assert [(bad.track_id, bad.reason) for bad in dataset.excluded] == [
        ("jazz/00.wav", "quarantined: short indeed")
    ]
    assert len(dataset) == 11 and any("quarantine file" in note for note in dataset.notes)
    sound(root / "jazz/00.wav", 77)  # fixed
    assert len(load(recipe(root), workspace=here())) == 12


def test_quarantined_files_do_not_stop_a_run_and_are_used_once_decodable(root: Path) -> None:
    whole = (root / "jazz/00.wav").read_bytes()
    for name in ("jazz/00.wav", "rock/01.wav"):
        (root / name).write_bytes(b"")
    assert "2 of 12 tracks cannot be used" in refusal(lambda: load(recipe(root), workspace=here()))
    rows = [quarantined(root, name, "unusable") for name in ("jazz/00.wav", "rock/01.wav")]
    write_quarantine(here().quarantine_file("songs"), ["jazz/00.wav", "rock/01.wav"], rows)
    assert len(load(recipe(root), workspace=here())) == 10
    (root / "jazz/00.wav").write_bytes(whole)
    write_quarantine(
        here().quarantine_file("songs"), ["jazz/00.wav"], [quarantined(root, "jazz/00.wav", "unusable")]
    )
    assert len(load(recipe(root), workspace=here())) == 11  # decodable by now: another decoder, say


def test_a_later_check_preserves_keep_and_rows_of_other_tracks(root: Path) -> None:
    out = quarantined(root, "jazz/00.wav")
    file = here().quarantine_file("songs")
    write_quarantine(file, ["jazz/00.wav", "rock/01.wav"], [out, quarantined(root, "rock/01.wav")])
    file.write_text(file.read_text().replace('"jazz/00.wav","yes"', '"jazz/00.wav","keep"'))
    write_quarantine(here().quarantine_file("songs"), ["jazz/00.wav"], [out])
    assert {i: row.excluded for i, row in read_quarantine(here().quarantine_file("songs")).items()} == {
        "jazz/00.wav": "keep",
        "rock/01.wav": "yes",
    }
    write_quarantine(here().quarantine_file("songs"), ["rock/01.wav"], [])
    assert [*read_quarantine(here().quarantine_file("songs"))] == ["jazz/00.wav"]


def test_copies_found_by_a_check_are_grouped(root: Path) -> None:
    copy = replace(quarantined(root, "rock/01.wav", "copy", "no"), copy_of="jazz/00.wav")
    write_quarantine(here().quarantine_file("songs"), ["rock/01.wav"], [copy])
    dataset = load(recipe(root), workspace=here())
    assert len(dataset) == 12
    assert dataset.by_id["rock/01.wav"].group == dataset.by_id["jazz/00.wav"].group
    assert any("1 track similar to others" in note for note in dataset.notes)


def test_a_row_by_hand_always_applies(root: Path) -> None:
    row = replace(quarantined(root, "rock/01.wav", "by hand"), content="")
    write_quarantine(here().quarantine_file("songs"), [], [row])
    assert "rock/01.wav" not in load(recipe(root), workspace=here()).by_id
    write_quarantine(
        here().quarantine_file("songs"), ["rock/01.wav"], [quarantined(root, "rock/01.wav", "copy", "no")]
    )
    assert read_quarantine(here().quarantine_file("songs"))["rock/01.wav"] == row


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("track_id,reason\na,b\n", "has no column 'excluded'"),
        (
            "track_id,excluded,kind,reason,copy_of,label,path,content\na,maybe,x,x,,x,x,x\n",
            "not yes, no or keep",
        ),
        ('track_id,excluded\n"a,b\n', "cannot be read"),
    ],
)
def test_a_damaged_quarantine_file_is_refused(root: Path, text: str, words: str) -> None:
    file = here().quarantine_file("songs")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    message = refusal(lambda: load(recipe(root), workspace=here()))
    assert words in message and str(file) in message


def test_identical_files_are_grouped(root: Path) -> None:
    for number in range(4):
        shutil.copy(root / "jazz/00.wav", root / f"rock/copy{number}.wav")
    dataset = load(recipe(root), workspace=here())
    assert "4 files identical to others: kept in one part of the split" in dataset.notes
    assert [note for note in dataset.notes if note.startswith("4 files identical to one of another genre")]
    copies = {t.group for t in dataset.tracks if "copy" in t.track_id or t.track_id == "jazz/00.wav"}
    assert copies == {"jazz/00.wav"}
    for seed in range(5):
        assert_valid(make_split(dataset, "cv5", seed))


def test_copies_join_the_artists_who_share_them(root: Path) -> None:
    rows = [{"path": f"songs/jazz/{n:02}.wav", "label": "j", "artist": f"A{n}"} for n in range(0, 12, 2)]
    rows += [{"path": f"songs/rock/{n:02}.wav", "label": "r", "artist": f"A{n}"} for n in range(1, 12, 2)]
    for source, copy in (("jazz/00", "jazz/02"), ("jazz/02", "rock/01"), ("jazz/04", "rock/03")):
        shutil.copy(root / f"{source}.wav", root / f"{copy}.wav")
    groups = {t.artist: t.group for t in load(recipe(manifest(root.parent, rows)), workspace=here()).tracks}
    assert groups["A0"] == groups["A2"] == groups["A1"] and groups["A4"] == groups["A3"]
    assert len(set(groups.values())) == 9


def test_copies_across_a_given_split_are_reported(root: Path) -> None:
    files = sorted(root.glob("*/*.wav"))
    rows = [
        {
            "path": str(file),
            "label": file.parent.name,
            "split": ("train", "train", "train", "train", "val", "test")[n % 6],
        }
        for n, file in enumerate(files)
    ]
    shutil.copy(files[0], files[1])  # both train
    shutil.copy(files[0], files[5])  # test
    table = manifest(root.parent, rows)
    dataset = load(recipe(table), workspace=here())
    assert dataset.notes[1:] == (
        "1 file identical to others: kept in one part of the split",
        "1 file identical to one in another part of the given split",
    )
    assert make_split(dataset).name == "given"
    assert (
        "2 files identical to others: kept in one part of the split"
        in load(recipe(table, split="cv5"), workspace=here()).notes
    )


def test_a_limit_is_balanced_over_genres(root: Path) -> None:
    dataset = load(recipe(root, limit=5), workspace=here())
    assert Counter(track.label for track in dataset.tracks) in (
        {"jazz": 3, "rock": 2},
        {"jazz": 2, "rock": 3},
    )
    assert load(recipe(root, limit=5), workspace=here()).hash == dataset.hash
    drawn = {load(recipe(root, limit=5, split_seed=seed), workspace=here()).hash for seed in range(5)}
    assert len(drawn) > 1
    assert {t.track_id for t in dataset.tracks} < {
        t.track_id for t in load(recipe(root, limit=7), workspace=here()).tracks
    }
    assert len(load(recipe(root, limit=99), workspace=here())) == 12


def test_the_hash_covers_the_tracks_and_not_where_they_lie(root: Path, tmp_path: Path) -> None:
    before = load(recipe(root), workspace=here()).hash
    shutil.move(root, tmp_path / "elsewhere")
    assert load(recipe(tmp_path / "elsewhere"), workspace=here()).hash == before
    sound(tmp_path / "elsewhere/jazz/00.wav", 99)
    assert load(recipe(tmp_path / "elsewhere"), workspace=here()).hash != before


def test_describe(root: Path) -> None:
    (root / "jazz/00.wav").write_bytes(b"")
    text = describe(recipe(root, max_excluded=0.5), workspace=here())
    for line in (
        "songs: 11 tracks, 2 genres, 0:07 of audio",
        "  licence: not stated",
        "  jazz  5 tracks, artists unknown, 0.6 to 0.6 s",
        "split cv5: five folds, stratified, artists unknown: every track is its own group, seed 0",
        "excluded: 1",
        "  jazz/00.wav: empty file (0 bytes)",
    ):
        assert line in text
    assert text.count("  fold ") == 5


def test_ids_are_unique_and_classes_two() -> None:
    track = Track("a", Path("a"), "x", "a")
    assert "first 'a'" in refusal(lambda: Dataset("n", (track, replace(track, label="y"))))
    assert "only the class 'x'" in refusal(lambda: Dataset("n", (track,)))


# ---- inspecting every file ------------------------------------------------------------------------------


def no_inspection(path: Path) -> Clip:
    raise AssertionError(f"{path} is inspected again")


def test_unchanged_files_are_not_inspected_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(recipe(root), workspace=here())
    monkeypatch.setattr(clips, "inspect", no_inspection)
    assert load(recipe(root), workspace=here()) == first
    monkeypatch.chdir(root.parent)
    assert load(recipe("songs"), workspace=here()).hash == first.hash


def test_a_file_replaced_in_place_is_inspected_again(root: Path) -> None:
    file = root / "jazz/00.wav"
    before, times = load(recipe(root), workspace=here()).by_id["jazz/00.wav"].content, file.stat()
    time.sleep(0.02)  # more than a tick of the file system's clock
    sound(file, 77)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    now = file.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (times.st_size, times.st_mtime_ns, times.st_ino)
    assert load(recipe(root), workspace=here()).by_id["jazz/00.wav"].content != before


def test_a_file_that_changes_during_inspection_is_inspected_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = root / "jazz/00.wav"

    def slow_inspect(path: Path) -> Clip:
        clip = inspect(path)
        time.sleep(0.02)
        sound(path, 55)
        return clip

    inspect = clips.inspect
    monkeypatch.setattr(clips, "inspect", slow_inspect)
    (before,) = inspect_all([file], cache=here().cache)
    monkeypatch.setattr(clips, "inspect", inspect)
    assert inspect_all([file], cache=here().cache)[0].content != before.content


def test_an_unusable_file_is_inspected_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason may be the machine: ffmpeg can be installed meanwhile."""
    files = sorted(root.glob("*/*.wav"))
    inspect = clips.inspect
    monkeypatch.setattr(clips, "inspect", lambda path: replace(inspect(path), problem="needs ffmpeg"))
    assert inspect_all(files, cache=here().cache)[0].problem == "needs ffmpeg"
    monkeypatch.setattr(clips, "inspect", inspect)
    assert inspect_all(files, cache=here().cache)[0].problem is None


def test_an_interrupted_inspection_keeps_its_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(root.glob("*/*.wav"))
    inspect, seen = clips.inspect, []

    class Interrupted(clips.Progress):
        def step(self, count: int = 1, note: str = "") -> None:
            super().step(count, note)
            if self.done == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(clips, "Progress", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        inspect_all(files, cache=here().cache)
    assert not running("inspect")
    monkeypatch.undo()
    monkeypatch.setenv("MGC_EMBEDDINGS_CACHE", str(root.parent / "mgc_embeddings_cache"))
    monkeypatch.setattr(clips, "inspect", lambda path: seen.append(path) or inspect(path))
    assert all(clip.problem is None for clip in inspect_all(files, cache=here().cache))
    assert len(seen) == 8


def test_weights_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"weights")
    first = file_hash(file, cache=here().cache)
    monkeypatch.setattr(clips, "content_hash", no_inspection)
    assert file_hash(file, cache=here().cache) == first


def test_a_cache_that_is_a_file_or_is_damaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here().cache.parent.mkdir(exist_ok=True)
    here().cache.write_text("a file")
    message = refusal(lambda: load(recipe(root), workspace=here()))
    assert "the cache cannot be used" in message and "$MGC_EMBEDDINGS_CACHE" in message
    here().cache.unlink()
    here().cache.mkdir()
    (here().cache / "clips.sqlite").write_text("this is no database" * 99)
    assert "can be deleted" in refusal(lambda: load(recipe(root), workspace=here()))


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let nobody else in
        folder = Path(name)
        files = [sound(folder / "a.wav", 1), sound(folder / "b.wav", 2)]
        monkeypatch.setenv("MGC_EMBEDDINGS_CACHE", str(folder / "cache"))
        inspect_all(files[:1], cache=here().cache)
        for path, mode in (
            (folder / "cache/clips.sqlite", 0o444),
            (folder / "cache", 0o555),
            (folder, 0o555),
        ):
            path.chmod(mode)
        with nobody():
            assert (
                inspect_all(files[:1], cache=here().cache)[0].problem is None
            )  # all is known: nothing to write
            assert "the cache cannot be used" in refusal(lambda: inspect_all(files, cache=here().cache))
            monkeypatch.setenv("MGC_EMBEDDINGS_CACHE", str(folder / "new"))
            assert "the cache cannot be used" in refusal(lambda: inspect_all(files, cache=here().cache))
        (folder / "cache").chmod(0o755)
        folder.chmod(0o755)


def test_two_at_once_do_not_wait_for_each_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process inspects files, another can write its results."""
    files = sorted(root.glob("*/*.wav"))
    inspect = clips.inspect

    def inspect_and_write(path: Path) -> Clip:
        with contextlib.closing(sqlite3.connect(here().cache / "clips.sqlite", timeout=0.05)) as other, other:
            other.execute("CREATE TABLE IF NOT EXISTS others (x)")
            other.execute("INSERT INTO others VALUES (1)")
        return inspect(path)

    monkeypatch.setattr(clips, "cores", lambda: 1)
    monkeypatch.setattr(clips, "inspect", inspect_and_write)
    assert len(inspect_all(files, cache=here().cache)) == 12


# ---- the loader ------------------------------------------------------------------------------------------

CUT = Windowing(RATE, 1_000, left=100, right=50, pad=True)


def running(prefix: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


def test_windows_come_in_order(root: Path) -> None:
    files = sorted(root.glob("*/*.wav"))
    loaded = [(n, w.samples.tolist(), w.covered, w.real) for n, w in load_windows(files, CUT)]
    wanted = [
        (n, w.samples.tolist(), w.covered, w.real) for n, file in enumerate(files) for w in windows(file, CUT)
    ]
    assert loaded == wanted and len(loaded) == 12 * 5
    assert not running("decode")
    assert list(load_windows([], CUT)) == []


def test_the_first_error_is_raised_in_its_turn(root: Path) -> None:
    files = sorted(root.glob("*/*.wav"))
    files[3].write_text("no music")
    files[4].unlink()
    seen = []
    with pytest.raises(AudioError, match="Format not recognised") as caught:
        for position, _ in load_windows(files, CUT):
            seen.append(position)
    assert caught.value.where == files[3]
    assert sorted(set(seen)) == [0, 1, 2]
    assert not running("decode")


@pytest.mark.parametrize("after", [0, 1, 30])
def test_closing_early_leaves_nothing_running(root: Path, after: int) -> None:
    long = [sound(root / f"jazz/long{n}.wav", n, seconds=90.0) for n in range(4)]
    loader = load_windows(long, Windowing(RATE, 800))
    for _ in range(after):
        next(loader)
    began = time.monotonic()
    loader.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 2.0
    assert not running("decode")


def test_long_files_are_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = 20
    file = tmp_path / "long.wav"
    with soundfile.SoundFile(file, "w", RATE, 1, subtype="ULAW") as stream:
        for minute in range(minutes):
            stream.write(tone(0, 60.0, RATE, minute))
    monkeypatch.setattr(loader, "cores", lambda: 2)
    tracemalloc.start()
    try:
        count = sum(1 for _ in load_windows([file] * 5, Windowing(16_000, 160_000, left=400)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5 * minutes * 6
    assert peak < 80e6  # all waveforms are 384 MB


# ---- real music ------------------------------------------------------------------------------------------


@needs_emotify
def test_emotify(monkeypatch: pytest.MonkeyPatch) -> None:
    table = SHARED / "data/emotify/tracks.csv"
    dataset = load(recipe(table), workspace=here())
    assert dataset.name == "emotify" and len(dataset) == 400 and not dataset.excluded
    assert dataset.classes == ("classical", "electronic", "pop", "rock")
    assert len({track.artist for track in dataset.tracks}) == 138
    for seed in range(10):
        split = make_split(dataset, "auto", seed)
        assert split.name == "cv5" and split.tested == tuple(sorted(dataset.by_id))
        assert_valid(split)
    monkeypatch.setattr(clips, "inspect", no_inspection)
    assert "emotify: 400 tracks, 4 genres, 3:19:56 of audio" in describe(recipe(table), workspace=here())
