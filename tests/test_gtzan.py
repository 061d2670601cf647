"""GTZAN: the fault-filtered split, and every layout of the dataset."""

import hashlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import here
from miniature import make_gtzan, real_clips

from mgc.config import DataRecipe
from mgc.data import load, make_split
from mgc.data.dataset import Listing
from mgc.data.sources import gtzan
from mgc.util.errors import MgcError


def listed(root: Path, split: str = "auto") -> Listing:
    return gtzan.listing(root, DataRecipe.model_validate({"source": "gtzan", "split": split}))


def test_the_lists_are_those_of_the_fault_filtered_split() -> None:
    file = Path(gtzan.__file__).with_name("gtzan_filtered.csv")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == (
        "5c55cd1f57b37b19ec9beef744b650ad42544f8165a36c9bfe52e0a1f77d1c73"
    )
    rows = file.read_text().splitlines()
    sides = gtzan.filtered_split()
    assert len(rows) - 1 == len(sides) == 930  # no id stands twice, on one side or on two
    assert Counter(sides.values()) == {"train": 443, "val": 197, "test": 290}
    for side in ("train", "val", "test"):
        labels = {track_id.split(".")[0] for track_id, own in sides.items() if own == side}
        assert labels == set(gtzan.GENRES)
    assert all(f"{g}.{int(n):05d}" == i and int(n) < 100 for i in sides for g, n in [i.split(".")])


@pytest.mark.parametrize("spelling", ["hiphop", "hip-hop"])
@pytest.mark.parametrize("suffix", [".au", ".wav"])
@pytest.mark.parametrize("layout", ["genres", "genres_original", "Data/genres_original", "."])
def test_every_layout_and_spelling_lists_the_same(
    tmp_path: Path, layout: str, suffix: str, spelling: str
) -> None:
    mini = make_gtzan(tmp_path, layout, suffix, spelling, counts=(1, 1, 1, 1), seconds=0.1)
    found = listed(tmp_path)
    assert {track.track_id: track.split for track in found.tracks} == gtzan.filtered_split()
    for track in found.tracks:
        assert (track.label, track.group) == (track.track_id.split(".")[0], track.track_id)
    assert all(track.artist is None for track in found.tracks)
    there = {track.track_id: track.path for track in found.tracks if track.path.exists()}
    assert there == {track_id: mini.path(track_id) for track_id in mini.filtered}
    assert len(there) == 31  # one a genre and side, and jazz.00054
    faults = "(repetitions, wrong labels, distortions)"
    assert found.notes == [f"{len(mini.others)} tracks are excluded by the fault-filtered split {faults}"]
    assert (found.name, found.split_name) == ("gtzan", "fault-filtered")
    assert "Kereliuk et al. 2015" in found.split_authority and "443" in found.split_authority
    assert gtzan.SOURCE.present(tmp_path)


@pytest.mark.parametrize("split", ["random", "cv5", "holdout"])
def test_any_other_split_uses_all_tracks_and_warns(tmp_path: Path, split: str) -> None:
    mini = make_gtzan(tmp_path, spelling="hip-hop", seconds=0.1)
    found = listed(tmp_path, split)
    ids = sorted([*mini.filtered, *mini.others])
    assert [track.track_id for track in found.tracks] == ids
    assert [track.path for track in found.tracks] == [mini.path(track_id) for track_id in ids]
    assert all(track.split is None and track.group == track.track_id for track in found.tracks)
    assert "artists are unknown" in found.notes[0]
    assert found.notes[1] == f"{1000 - len(ids)} of the 1,000 tracks are missing"


def test_of_two_files_of_a_track_the_wav_is_used(tmp_path: Path) -> None:
    wav = make_gtzan(tmp_path, suffix=".wav", seconds=0.1, counts=(1, 1, 1, 0))
    au = make_gtzan(tmp_path, suffix=".au", seconds=0.1, counts=(2, 1, 1, 0))
    paths = {track.track_id: track.path for track in listed(tmp_path).tracks}
    assert all(paths[track_id] == wav.path(track_id) for track_id in wav.filtered)
    rest = au.filtered.keys() - wav.filtered.keys()
    assert len(rest) == 10 and all(paths[track_id] == au.path(track_id) for track_id in rest)
    assert listed(tmp_path).notes == ["31 tracks exist more than once: .wav is preferred to .au"]


def test_files_that_are_not_tracks_are_noted_except_hidden_ones(tmp_path: Path) -> None:
    folder = make_gtzan(tmp_path, seconds=0.1, counts=(1, 1, 1, 0)).folder
    for name in ("blues.00100.wav", "blues.1.wav", "rock.00000.wav", "blues.00000.mp3", "notes.txt"):
        (folder / "blues" / name).touch()
    (folder / "blues" / "._blues.00000.wav").touch()  # as in the mirror's archive
    (folder / "bextract_single.mf").touch()  # as in the first one
    assert listed(tmp_path).notes == [
        "5 files in the genre folders are not among the 1,000 tracks and are not used"
    ]
    assert len(listed(tmp_path, "random").tracks) == 31


def test_of_two_layouts_one_is_used_and_that_is_noted(tmp_path: Path) -> None:
    first = make_gtzan(tmp_path, "genres", ".au", seconds=0.1, counts=(1, 1, 1, 0))
    make_gtzan(tmp_path, "Data/genres_original", ".wav", seconds=0.1, counts=(2, 1, 1, 0))
    found = listed(tmp_path)
    assert {t.path for t in found.tracks if t.path.exists()} == {first.path(i) for i in first.filtered}
    assert found.notes == ["read from gtzan/genres; not used: gtzan/Data/genres_original"]


def test_an_error_says_how_to_get_the_dataset(tmp_path: Path) -> None:
    assert not gtzan.SOURCE.present(tmp_path)
    (tmp_path / "gtzan/genres/polka").mkdir(parents=True)
    with pytest.raises(MgcError, match="gtzan is not here") as caught:
        listed(tmp_path)
    assert caught.value.where == tmp_path / "gtzan"
    assert "mgc data fetch gtzan" in str(caught.value.fix) and "--data-root" in str(caught.value.fix)
    (tmp_path / "gtzan/genres/blues").mkdir()
    with pytest.raises(MgcError, match="no track was found") as caught:
        listed(tmp_path)
    assert caught.value.where == tmp_path / "gtzan/genres"


def test_a_missing_genre_is_listed_for_the_loader_to_report(tmp_path: Path) -> None:
    mini = make_gtzan(tmp_path, seconds=0.1, counts=(1, 1, 1, 0))
    shutil.rmtree(mini.folder / "metal")
    paths = {track.track_id: track.path for track in listed(tmp_path).tracks}
    assert len(paths) == 930
    metal = {path.parent for track_id, path in paths.items() if track_id.startswith("metal.")}
    assert metal == {mini.folder / "metal"}


def test_the_fault_filtered_split_is_kept_after_every_file_is_inspected(tmp_path: Path) -> None:
    mini = make_gtzan(tmp_path, clips=real_clips())
    recipe = DataRecipe(source="gtzan", max_excluded=1.0)
    workspace = replace(here(), data=tmp_path)
    dataset = load(recipe, workspace=workspace)
    good = {track_id: side for track_id, side in mini.filtered.items() if track_id != "jazz.00054"}
    assert set(gtzan.SOURCE.known_bad) == {"jazz.00054"}
    assert {track.track_id: track.split for track in dataset.tracks} == good
    reasons = {bad.track_id: bad.reason for bad in dataset.excluded}
    assert len(reasons) == 930 - len(good) and reasons["jazz.00054"].startswith("cannot be decoded")
    split = make_split(dataset, "auto", 0)
    assert (split.name, split.leaky, len(split.folds)) == ("fault-filtered", False, 1)
    assert len(split.tested) == 20
    whole = load(recipe.model_copy(update={"split": "random"}), workspace=workspace)
    assert len(whole) == len(good) + len(mini.others)
    assert make_split(whole, "random", 0).leaky


def test_the_archive_is_the_mirror_with_a_published_digest() -> None:
    archive, old = gtzan.SOURCE.archives
    assert (old.url, old.file, old.place) == (None, archive.file, archive.place)
    assert (archive.file, archive.place) == ("genres.tar.gz", "gtzan/genres")
    assert str(archive.url).startswith("https://huggingface.co/datasets/marsyas/gtzan/resolve/")
    kind, _, digest = str(archive.digest).partition(":")
    assert kind == "sha256" and len(bytes.fromhex(digest)) == hashlib.sha256().digest_size
    assert "archive.zip" in gtzan.SOURCE.about_archives
