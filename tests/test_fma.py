"""FMA: what is listed from tracks.csv, and the errors for wrong tables and missing folders."""

import csv
import hashlib
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import here
from miniature import FMA_GENRES, HEADER, ONLY_IN_MEDIUM, MiniatureFma, make_fma, real_clips

from mgc.config import DataRecipe
from mgc.data import load, make_split
from mgc.data.dataset import Listing
from mgc.data.sources import fma
from mgc.util.errors import MgcError

SIDES = {"training": "train", "validation": "val", "test": "test"}


@pytest.fixture
def mini(tmp_path: Path) -> MiniatureFma:
    """Tables without sound."""
    for subset in fma.SUBSETS:
        (tmp_path / subset).mkdir()
    return make_fma(tmp_path, audio=())


def listed(root: Path, subset: str = "fma_small") -> Listing:
    return fma.SOURCES[subset].listing(root, DataRecipe(source=subset))


def table(root: Path) -> Path:
    return root / "fma_metadata" / "tracks.csv"


def rewrite(root: Path, change: dict[tuple[str, str], str], *rows: int) -> None:
    """Put cells into these rows after the header; the column ("", "") is the index."""
    lines = list(csv.reader(table(root).open(newline="")))
    for row in rows:
        for column, cell in change.items():
            lines[3 + row][0 if column == ("", "") else 1 + HEADER.index(column)] = cell
    with table(root).open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(lines)


@pytest.mark.parametrize("subset", fma.SUBSETS)
def test_a_listing_holds_each_track_of_the_subset_as_tracks_csv_has_it(
    mini: MiniatureFma, subset: str
) -> None:
    expected = mini.of(subset.replace("full", "large"))
    found = listed(mini.root, subset)
    assert len(expected) == {"fma_small": 112, "fma_medium": 134}.get(subset, 147)
    assert [track.track_id for track in found.tracks] == [row.track_id for row in expected]
    for track, row in zip(found.tracks, expected, strict=True):
        assert track.path == mini.path(row.track_id, subset)
        assert (track.label, track.split) == (row.genre, SIDES[row.split])
        assert track.group == f"artist: {row.artist_id}"
        assert track.artist == " ".join(row.artist.split())
        assert track.title == (" ".join(row.title.split()) or None)
        assert track.album == (f"{row.album} (album {row.album_id})" if row.album_id != -1 else None)
    assert (found.name, found.split_name) == (subset, "official")
    assert "Defferrard et al." in found.split_authority and "CC BY 4.0" in str(found.licence)


def test_the_labels_of_a_subset_are_its_genres_and_titles_with_line_ends_stay_whole(
    mini: MiniatureFma,
) -> None:
    assert sorted({track.label for track in listed(mini.root).tracks}) == sorted(FMA_GENRES)
    assert ONLY_IN_MEDIUM in {track.label for track in listed(mini.root, "fma_medium").tracks}
    titles = {track.title for track in listed(mini.root).tracks}
    assert any(title and title.endswith("(live)") and title.startswith('"Song" ') for title in titles)
    assert any(title and title.startswith("<b>Song</b>") for title in titles)


def test_tracks_without_a_genre_are_counted_and_not_used(mini: MiniatureFma) -> None:
    without = sum(not row.genre for row in mini.rows)
    assert without == 13
    notes = listed(mini.root, "fma_large").notes
    assert notes[0].startswith("13 tracks have no genre_top")
    assert notes[1] == "tracks.csv lists 160 tracks of fma_large; 106,574 were published"
    assert listed(mini.root).notes == ["tracks.csv lists 112 tracks of fma_small; 8,000 were published"]


def test_artists_with_the_same_name_are_distinguished_by_their_id(mini: MiniatureFma) -> None:
    twins = {track.group: track.split for track in listed(mini.root).tracks if track.artist == "The Twins"}
    assert len(twins) == 2 and set(twins.values()) == {"train", "test"}


def test_an_album_is_identified_by_its_id_and_may_span_the_split(mini: MiniatureFma) -> None:
    rewrite(mini.root, {("album", "title"): "Live", ("album", "id"): "77"}, 0)
    rewrite(mini.root, {("album", "title"): "Live", ("album", "id"): "78"}, 1)
    rewrite(mini.root, {("album", "title"): "", ("album", "id"): "79"}, 2)
    albums = {track.track_id: track.album for track in listed(mini.root, "fma_large").tracks}
    named = [albums.get(row.track_id) for row in mini.rows[:3]]
    assert named == ["Live (album 77)", "Live (album 78)", "untitled (album 79)"]
    compiled = {
        t.split for t in listed(mini.root).tracks if t.album == "A <i>Compilation</i>, Vol. 1 (album 9000)"
    }
    assert compiled == {"train", "test"}


def test_a_track_without_an_artist_is_its_own_group_and_is_noted(mini: MiniatureFma) -> None:
    row = mini.of("fma_small")[5]
    rewrite(mini.root, {("artist", "id"): "", ("artist", "name"): ""}, mini.rows.index(row))
    found = listed(mini.root)
    track = next(track for track in found.tracks if track.track_id == row.track_id)
    assert (track.group, track.artist) == (row.track_id, None)
    assert "1 track without an artist, each a group of its own" in found.notes


def test_columns_are_found_by_name_and_not_by_position(mini: MiniatureFma) -> None:
    before = listed(mini.root).tracks
    rows = [[line[0], *reversed(line[1:])] for line in csv.reader(table(mini.root).open(newline=""))]
    with table(mini.root).open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows(rows)
    assert listed(mini.root).tracks == before


def test_long_texts_with_line_ends_are_read_completely(mini: MiniatureFma) -> None:
    before = listed(mini.root).tracks
    # Longer than the csv module takes, and together than pyarrow reads at once.
    rewrite(mini.root, {("artist", "bio"): 'long "text",\n' * 200_000}, *range(3, 10))
    assert table(mini.root).stat().st_size > 1 << 24
    assert listed(mini.root).tracks == before


def test_files_that_are_not_in_tracks_csv_are_noted(mini: MiniatureFma) -> None:
    (mini.root / "fma_small/000").mkdir()
    (mini.root / "fma_small/000/000001.mp3").touch()
    (mini.root / "fma_small/checksums").touch()
    note = "1 mp3 files in fma_small are not tracks of fma_small and not used"
    assert listed(mini.root).notes[-1] == note
    without_genre = next(row for row in mini.rows if not row.genre)
    place = mini.path(without_genre.track_id, "fma_large")
    place.parent.mkdir()
    place.touch()
    assert not any("mp3 files" in note for note in listed(mini.root, "fma_large").notes)


def test_the_folders_may_be_in_a_folder_fma(mini: MiniatureFma) -> None:
    for name in ("fma_metadata", "fma_small"):
        (mini.root / "fma").mkdir(exist_ok=True)
        (mini.root / name).rename(mini.root / "fma" / name)
    assert fma.SOURCES["fma_small"].present(mini.root)
    assert listed(mini.root).tracks[0].path.is_relative_to(mini.root / "fma/fma_small")


@pytest.mark.parametrize(
    ("gone", "what"),
    [
        (["fma_metadata/tracks.csv"], "there is no fma_metadata/tracks.csv"),
        (["fma_medium"], "there is no fma_medium/"),
        (["fma_metadata/tracks.csv", "fma_medium"], "no fma_metadata/tracks.csv and no fma_medium/"),
    ],
)
def test_an_error_names_what_is_missing_and_how_to_get_it(
    mini: MiniatureFma, gone: list[str], what: str
) -> None:
    source = fma.SOURCES["fma_medium"]
    assert source.present(mini.root)
    for name in gone:
        place = mini.root / name
        place.rmdir() if place.is_dir() else place.unlink()
    assert not source.present(mini.root)
    with pytest.raises(MgcError, match="fma_medium is not here") as caught:
        listed(mini.root, "fma_medium")
    assert what in caught.value.what and caught.value.where == mini.root
    assert "mgc data fetch fma_medium" in str(caught.value.fix) and "--data-root" in str(caught.value.fix)


def _without_column(file: Path) -> None:
    file.write_text(file.read_text().replace("genre_top", "genre_main"))


def _without_index_row(file: Path) -> None:
    lines = file.read_text().split("\n")
    file.write_text("\n".join([*lines[:2], *lines[3:]]))


def _not_utf8(file: Path) -> None:
    before, _, after = file.read_bytes().rpartition(b"Rock")
    file.write_bytes(before + b"R\xf6ck" + after)


def _zipped(file: Path) -> None:
    with zipfile.ZipFile(file.with_suffix(".zip"), "w") as archive:
        archive.write(file)
    file.with_suffix(".zip").rename(file)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_without_column, "this is not the tracks.csv of FMA: it lacks track/genre_top"),
        (_without_index_row, "it lacks the row track_id below"),
        (
            lambda file: file.write_text("track_id,album_id,artist_id\n2,1,1\n"),
            "it lacks set/subset, set/split",
        ),
        (lambda file: file.write_text(""), "it lacks all columns"),
        (_zipped, "tracks.csv cannot be read: 'utf-8' codec can't decode"),
        (
            lambda file: file.write_bytes(file.read_bytes()[:40_000] + b"\xff,\n"),
            "tracks.csv cannot be read: ",
        ),
        (lambda file: file.write_bytes(file.read_bytes()[:40_000]), "'' is not a subset"),
        (lambda file: file.write_bytes(file.read_bytes().rpartition(b'"')[0]), "EOF inside string"),
        (_not_utf8, "tracks.csv cannot be read: 'utf-8' codec can't decode"),
    ],
)
def test_other_tables_are_refused(mini: MiniatureFma, spoil: object, what: str) -> None:
    spoil(table(mini.root))  # type: ignore[operator]
    with pytest.raises(MgcError) as caught:
        listed(mini.root)
    assert what in caught.value.what and caught.value.where == table(mini.root)
    assert "mgc data fetch fma_small" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("column", "cell", "what"),
    [
        (("set", "subset"), "Small", "row 8 after the header: 'Small' is not a subset"),
        (("set", "split"), "", "row 8 after the header: '' is not a split name"),
        (("", ""), "12.0", "row 8 after the header: '12.0' is not a track id"),
    ],
)
def test_an_invalid_cell_is_reported_with_its_row(
    mini: MiniatureFma, column: tuple[str, str], cell: str, what: str
) -> None:
    rewrite(mini.root, {column: cell}, 7)
    with pytest.raises(MgcError) as caught:
        listed(mini.root, "fma_full")
    assert caught.value.what == what


def test_a_table_without_the_subset_is_refused(mini: MiniatureFma) -> None:
    file = table(mini.root)
    file.write_text(file.read_text().replace(",small,", ",medium,"))
    with pytest.raises(MgcError, match="no track of fma_small with a genre"):
        listed(mini.root)


def test_known_bad_clips_are_the_six_of_small_and_more_in_the_larger_ones(mini: MiniatureFma) -> None:
    small, medium, large, full = (fma.SOURCES[subset].known_bad for subset in fma.SUBSETS)
    assert {bad: "without" in how for bad, how in small.items()} == {
        "098565": False,
        "098567": False,
        "098569": False,
        "099134": True,
        "108925": True,
        "133297": True,
    }
    assert len(medium) == 21
    assert small.items() < medium.items() <= large.items()
    assert full == {}
    assert set(small) < {track.track_id for track in listed(mini.root).tracks}


@pytest.mark.parametrize("subset", fma.SUBSETS)
def test_a_source_describes_what_to_fetch(subset: str) -> None:
    source = fma.SOURCES[subset]
    metadata, audio = source.archives
    assert (metadata.file, metadata.place) == ("fma_metadata.zip", "fma_metadata")
    assert (audio.file, audio.place) == (f"{subset}.zip", subset)
    for archive in source.archives:
        kind, _, digest = str(archive.digest).partition(":")
        assert kind == "sha1" and len(bytes.fromhex(digest)) == hashlib.sha1().digest_size
        assert archive.url == f"https://os.unil.cloud.switch.ch/fma/{archive.file}"
        assert archive.file in source.about_archives


def test_the_official_split_is_kept_after_every_file_is_inspected(tmp_path: Path) -> None:
    mini = make_fma(tmp_path, real_clips())
    dataset = load(DataRecipe(source="fma_small"), workspace=replace(here(), data=tmp_path))
    assert sorted(bad.track_id for bad in dataset.excluded) == mini.unusable
    assert len(mini.unusable) == 4
    split = make_split(dataset, "auto", 0)
    assert (split.name, split.leaky) == ("official", False)
    (fold,) = split.folds
    for word, side in SIDES.items():
        ids = [row.track_id for row in mini.of("fma_small") if row.split == word]
        assert sorted(getattr(fold, side)) == [i for i in ids if i not in mini.unusable]
    assert any("another part of the given split" in note for note in dataset.notes)
    assert len({track.content for track in dataset.tracks}) == len(dataset) - len(mini.copies)
    seconds = Counter(round(track.seconds, 1) for track in dataset.tracks)
    assert {1.6, 0.5, 1.5} < set(seconds) and seconds[5.5] >= 100
    assert len(make_split(dataset, "cv5", 0).folds) == 5
    assert make_split(dataset, "random", 0).leaky
