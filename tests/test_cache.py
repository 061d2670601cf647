"""The store through the commands: embedding into it, looking at it, tidying it."""

import json
import multiprocessing
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import here, tone
from typer.testing import CliRunner

from mgc import data, representations
from mgc.audio import Windowing
from mgc.cli import app
from mgc.config import DataRecipe
from mgc.data import Dataset
from mgc.representations import Layer, ModelSpec, Representation
from mgc.representations.cache import embeddings
from mgc.representations.cache import maintenance as cache
from mgc.representations.cache.embed import Embedded, embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache, cards
from mgc.representations.derived import per_window
from mgc.util.errors import MgcError


def load_slow(seconds: float, device: object) -> object:
    """An encoder that takes its time over a batch: loudness, and its square, in frames of 1,000 samples."""

    def encode(waveforms, covered, real):  # type: ignore[no-untyped-def]
        time.sleep(seconds)
        frames = waveforms.reshape(len(waveforms), -1, 1000).abs().mean(dim=2, keepdim=True)
        return [frames, frames**2], frames.new_ones(frames.shape[:2])

    return encode


def card(seconds: float = 0.0) -> Representation:
    return Representation(
        name="slow", spec=ModelSpec("slow"), source="a test", cut=Windowing(16_000, 16_000),
        layers=(Layer("low", 1), Layer("high", 1)), pooled=True, parameters=None, licence="none",
        trained_on="nothing", weights="weights", revision=1, load=partial(load_slow, seconds),
    )  # fmt: skip


def load(folder: Path) -> Dataset:
    return data.load(DataRecipe(source=str(folder)), workspace=here())


def embed(folder: Path, seconds: float = 0.0) -> Embedded:
    return embed_tracks(load(folder).tracks, card(seconds), here(), "cpu", 1)


def vectors(dataset: Dataset) -> dict[str, bytes]:
    held = EmbeddingCache(card(), here().cache)
    return {track.track_id: held.read(track.content).tobytes() for track in dataset.tracks}


def shards(of: Representation) -> list[Path]:
    return sorted(EmbeddingCache(of, here().cache).folder.glob("shard-*.arrow"))


@pytest.fixture(autouse=True)
def the_slow_encoder_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(representations.REPRESENTATIONS, "slow", lambda workspace: card())


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["cache", *words])
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout


def fill(of: Representation, numbers: range) -> None:
    with EmbeddingCache(of, here().cache).writer() as writer:
        for number in numbers:
            writer.add(f"{number:032x}", f"track {number}", np.full((3, of.width), number))


# --- mgc embed --------------------------------------------------------------------------------------------


def test_what_is_embedded_again_and_what_is_not(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(music).computed == 20
    first = vectors(load(music))
    (music / "calm/3.wav").rename(music / "calm/three.wav")
    moved = music.rename(music.with_name("moved"))
    assert embed(moved).computed == 0
    soundfile.write(moved / "calm/0.wav", tone(1, 3.0, 16_000, 99), 16_000)
    assert embed(moved).computed == 1
    for shard in shards(card()):
        shard.write_bytes(shard.read_bytes()[:-7])
    again = embed(moved)
    assert again.computed == 20
    said = capsys.readouterr().err
    assert said.count("set aside as shard-") == 2
    assert len(list(again.folder.glob("*.damaged"))) == 2
    last = vectors(load(moved))
    assert {key for key in last if first.get(key) != last[key]} == {"calm/0.wav", "calm/three.wav"}
    assert last["calm/three.wav"] == first["calm/3.wav"]


def test_a_file_that_changes_while_it_is_read_is_not_kept(music: Path) -> None:
    dataset = load(music)
    track = dataset.tracks[4]

    def touch(device: object) -> object:
        encode = load_slow(0.0, device)

        def changing(*batch: object) -> object:
            os.utime(track.path)
            return encode(*batch)  # type: ignore[operator]

        return changing

    with pytest.raises(MgcError, match=f"1 file changed while being read: {track.track_id}"):
        embed_tracks(dataset.tracks, replace(card(), load=touch), here(), "cpu", 1)
    assert EmbeddingCache(card(), root=here().cache).missing(t.content for t in dataset.tracks) == {
        track.content
    }
    assert embed(music).computed == 1


def embed_in_a_process(environment: dict[str, str], folder: str) -> None:
    os.environ.update(environment)
    embeddings.SHARD_SECONDS = 0.1
    embed(Path(folder), 0.005)


def test_two_processes_embed_the_same_at_once(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(music)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["mgc.representations.cache.embed", "mgc.util.devices", "mgc.representations.pooling", "pytest"]
    )
    environment = {key: value for key, value in os.environ.items() if key.startswith("MGC_")}
    both = [context.Process(target=embed_in_a_process, args=(environment, str(music))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    together = vectors(dataset)
    assert embed(music).computed == 0
    monkeypatch.setenv("MGC_EMBEDDINGS_CACHE", os.environ["MGC_EMBEDDINGS_CACHE"] + " alone")
    embed(music)
    assert vectors(dataset) == together


# --- library versions -------------------------------------------------------------------------------------

OTHER = {"torch": "1.0", "transformers": "1", "librosa": "0.1", "soxr": "0", "numpy": "1", "libsndfile": "1"}


def as_if_by_other_versions(change: float = 0.0) -> None:
    """The cached arrays pretend to come from other library versions; one of them is changed by a share."""
    cache = EmbeddingCache(card(), here().cache)
    cache.refresh()
    clips = [clip for shard in shards(card()) for clip in embeddings.scan(shard.parent)[0][shard].clips]
    arrays = {clip: cache.read(clip).copy() for clip in clips}
    arrays[clips[-1]] *= np.float16(1 + change)
    for shard in shards(card()):
        shard.unlink()
    with EmbeddingCache(card(), here().cache).writer() as writer:
        for clip, array in arrays.items():
            writer.add(clip, "a track", array)
    file = cache.folder / embeddings.CARD
    file.write_text(json.dumps(json.loads(file.read_text()) | {"libraries": [OTHER]}))


def first(music: Path, count: int) -> Dataset:
    """The first tracks of each genre."""
    dataset = load(music)
    some = [track for track in dataset.tracks if int(track.track_id[-5]) < count]
    return replace(dataset, tracks=tuple(some))


def embed_some(dataset: Dataset) -> Embedded:
    return embed_tracks(dataset.tracks, card(), here(), "cpu", 1)


def test_embeddings_of_other_versions_that_agree_are_extended(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed_some(first(music, 1))
    as_if_by_other_versions()
    done = embed(music)
    assert done.computed == 18
    assert done.folder == EmbeddingCache(card(), here().cache).folder
    assert EmbeddingCache(card(), here().cache).libraries() == [OTHER, embeddings.library_versions()]
    message = capsys.readouterr().err
    assert "torch 1.0" in message
    assert "2 cached clips were recomputed and agree" in message
    assert embed(music).computed == 0


def test_a_changed_vector_of_other_versions_is_detected_and_not_extended(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = embed_some(first(music, 1)).folder
    as_if_by_other_versions(change=0.02)
    before = [shard.read_bytes() for shard in sorted(old.glob("shard-*"))]
    done = embed(music)
    assert done.computed == 20
    assert done.folder == old.with_name(f"{old.name}-g2")
    assert [shard.read_bytes() for shard in sorted(old.glob("shard-*"))] == before
    message = " ".join(capsys.readouterr().err.split())
    assert "2 cached clips were recomputed and differ by up to" in message
    assert "0.5 % is accepted" in message
    assert embed(music).computed == 0
    rows = {row.folder: row for row in cache.held(here())}
    assert [rows[name].state for name in (old.name, done.folder.name)] == ["stale", "current"]
    # A process with the old versions still uses the old generation.
    card_file = done.folder / embeddings.CARD
    card_file.write_text(json.dumps(json.loads(card_file.read_text()) | {"libraries": []}))
    old_card = json.loads((old / embeddings.CARD).read_text()) | {
        "libraries": [embeddings.library_versions()]
    }
    (old / embeddings.CARD).write_text(json.dumps(old_card))
    assert EmbeddingCache(card(), here().cache).folder == old


def test_without_a_cached_clip_at_hand_a_new_generation_starts(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = embed_some(first(music, 1)).folder
    as_if_by_other_versions()
    dataset = load(music)
    others = replace(dataset, tracks=tuple(t for t in dataset.tracks if t.track_id[-5] != "0"))
    assert embed_some(others).folder != old
    assert "None of the cached clips is among these tracks" in " ".join(capsys.readouterr().err.split())


def test_verify_recomputes_on_demand(music: Path) -> None:
    tracks = load(music).tracks
    assert cache.recomputed(tracks, 3, here()) == (["the embedding cache is empty"], 0)
    embed_some(first(music, 1))
    lines, differing = cache.recomputed(tracks, 3, here())
    assert differing == 0
    assert "2 clips recomputed: agrees" in lines[0]
    as_if_by_other_versions(change=0.02)
    lines, differing = cache.recomputed(tracks, 3, here())
    assert differing == 1
    assert "2 clips recomputed: differs" in lines[0]
    assert "2 clips recomputed: differs" in run("verify", "--recompute", "3", "--data", str(music), code=1)
    assert "none of these tracks is cached" in cache.recomputed(tracks[5:8], 3, here())[0][0]


# --- mgc cache --------------------------------------------------------------------------------------------


def test_ls_tells_what_is_held_and_whether_it_is_current(tmp_path: Path) -> None:
    assert "0 representations" in run("ls")
    fill(card(), range(3))
    fill(card(), range(2, 5))
    fill(replace(card(), revision=0), range(2))
    fill(per_window(card()), range(1))
    fill(replace(card(), spec=ModelSpec(str(tmp_path / "gone")), weights="others"), range(1))
    rows = json.loads(run("ls", "--format", "json"))
    assert sorted((row["state"], row["clips"], row["shards"]) for row in rows) == [
        ("current", 1, 1), ("current", 5, 2), ("stale", 2, 1), ("unknown", 1, 1),
    ]  # fmt: skip
    [whole] = [row for row in rows if row["clips"] == 5]
    assert whole["megabytes"] == pytest.approx(sum(s.stat().st_size for s in shards(card())) / 1e6, abs=1e-3)
    assert whole["source"] == "a test"
    assert whole["written"][:4] == time.strftime("%Y")
    table = run("ls")
    assert "other revision or settings today" in table
    assert "4 representations in" in table
    shards(card())[0].write_bytes(b"")
    assert "1 damaged shards" in run("ls")
    assert len(shards(card())) == 2  # looking changes nothing
    assert "unknown format" in CliRunner().invoke(app, ["cache", "ls", "--format", "html"]).stderr


def test_verify_finds_what_is_damaged_and_sets_it_aside() -> None:
    fill(card(), range(3))
    assert "1 shard checked, none is damaged" in run("verify")
    EmbeddingCache(card(), here().cache).refresh()  # the index knows the clips
    [shard] = shards(card())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 8
    shard.write_bytes(content)
    fill(card(), range(3, 5))
    wide = replace(card(), layers=(Layer("low", 3),))
    fill(wide, range(2))
    (EmbeddingCache(wide, here().cache).folder / embeddings.CARD).write_text(
        json.dumps(card().card() | {"libraries": []})
    )
    told = run("verify", code=1)
    assert f"{shard} is damaged: its bytes are not those that were written (3 clips: track 0, track 1" in told
    assert "its rows do not have the shape and dtype of its card" in told
    assert "2 of 3 shards damaged" in told
    assert shard.exists()
    assert f"set aside as {shard.name}.damaged" in run("verify", "--apply")
    assert "1 shard checked, none is damaged" in run("verify")
    assert shard.with_name(f"{shard.name}.damaged").read_bytes() == content
    assert len(EmbeddingCache(card(), here().cache).missing(f"{n:032x}" for n in range(5))) == 3
    (EmbeddingCache(card(), here().cache).folder / embeddings.CARD).write_text("[]")
    assert "a card in the embedding cache is damaged: it must hold" in run("verify", code=1)


def test_prune_shows_then_removes_and_keeps_what_is_current(tmp_path: Path) -> None:
    assert "nothing to remove" in run("prune")
    old, gone = replace(card(), revision=0), replace(card(), spec=ModelSpec(str(tmp_path)), weights="others")
    for one in (card(), old, gone):
        fill(one, range(3))
    fill(card(), range(2))  # doubled
    fill(card(), range(1, 5))  # neither it nor the first is in others as a whole
    folder = EmbeddingCache(card(), here().cache).folder
    part = folder / ".shard-old.arrow.1.part"
    part.write_bytes(bytes(2_000_000))
    os.utime(part, (time.time() - 2 * cache.ABANDONED_SECONDS,) * 2)
    (folder / "shard-0-0.arrow.damaged").write_bytes(bytes(1_000_000))
    before = {file for file in folder.parent.rglob("*") if file.suffix != ".json"}
    told = run("prune")
    assert {file for file in folder.parent.rglob("*") if file.suffix != ".json"} == before
    for words in (
        "1.0 MB  slow",
        "2.0 MB  slow",
        "stale, other revision",
        "1 shards whose clips are all",
        "3.0 MB can be removed",
    ):
        assert words in told
    run("prune", "--apply")
    assert not EmbeddingCache(old, here().cache).folder.exists()
    assert len(shards(gone)) == 1
    assert len(shards(card())) == 2
    assert not part.exists()
    for number in range(5):
        assert np.array_equal(
            EmbeddingCache(card(), here().cache).read(f"{number:032x}"), np.full((3, 2), number)
        )
    assert "nothing to remove" in run("prune")


def test_what_is_doubled_stays_where_its_copy_is_damaged() -> None:
    fill(card(), range(3))
    fill(card(), range(2))
    large = max(shards(card()), key=lambda shard: len(embeddings.scan(shard.parent)[0][shard].clips))
    large.write_bytes(large.read_bytes()[:-1])
    assert "nothing to remove" in run("prune")
    assert len(cache.held(workspace=here())) == len(cards(here().cache)) == 1
