"""The embedding cache: what is written is read again, whatever happens in between."""

import contextlib
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from conftest import here, tone

from mgc import audio
from mgc.audio import Windowing
from mgc.representations import Layer, ModelSpec, Representation, open_representation
from mgc.representations.cache import embeddings
from mgc.representations.cache.embeddings import EmbeddingCache, cards
from mgc.representations.derived import in_bfloat16, per_window, variant
from mgc.util.errors import MgcError

DIM = 24
CARD = Representation(
    name="owner/an encoder",
    spec=ModelSpec("owner/an encoder"),
    source="a test",
    cut=Windowing(16_000, 16_000),
    layers=(Layer("low", 16), Layer("high", 8)),
    pooled=True,
    parameters=None,
    licence="none",
    trained_on="nothing",
    weights="weights",
    revision=1,
    load=NotImplemented,
)


def clip(number: int) -> str:
    return f"{number:032x}"


def array(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(0, 10, (3, DIM))


def fill(numbers: range, card: Representation = CARD) -> EmbeddingCache:
    with EmbeddingCache(card, here().cache).writer() as writer:
        for number in numbers:
            writer.add(clip(number), f"track {number}", array(number))
    return EmbeddingCache(card, here().cache)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.arrow"))


def rows(folder: Path) -> Counter[str]:
    """How often each clip is written, read by nothing of mgc."""
    tables = [pa.ipc.open_file(str(shard)).read_all() for shard in shards(folder)]
    return Counter(name for table in tables for name in table.column("clip").to_pylist())


def assert_holds(numbers: range) -> None:
    kept_now = EmbeddingCache(CARD, here().cache)
    assert kept_now.missing(map(clip, numbers)) == set()
    for number in numbers:
        assert np.array_equal(kept_now.read(clip(number)), array(number).astype(np.float16))


# --- contents ---------------------------------------------------------------------------------------------


def test_what_was_added_is_read_in_float16() -> None:
    filled = fill(range(5))
    assert_holds(range(5))
    assert filled.missing([clip(4), clip(7), clip(9)]) == {clip(7), clip(9)}
    pooled = filled.pooled([clip(3), clip(1)], "high")
    assert pooled.dtype == np.float32
    assert np.array_equal(pooled[0], array(3)[:, 16:].astype(np.float16))
    assert np.array_equal(pooled[1], filled.pooled([clip(1)])[0])
    assert 0 <= filled.seconds([clip(1), clip(1)]) <= filled.seconds(map(clip, range(5))) < 60
    for ask in (filled.read, lambda name: filled.seconds([clip(1), name])):
        with pytest.raises(MgcError, match=f"{clip(99)} is not cached"):
            ask(clip(99))


def test_arrays_of_any_length_are_kept() -> None:
    card = replace(CARD, layers=(Layer("mel", 8),), pooled=False)
    arrays = {
        clip(frames): np.random.default_rng(frames).normal(-40, 9, (frames, 8)) for frames in (1, 77, 1293)
    }
    with EmbeddingCache(card, here().cache).writer() as writer:
        for name, one in arrays.items():
            writer.add(name, "track", one)
    for name, one in arrays.items():
        assert np.array_equal(EmbeddingCache(card, here().cache).read(name), one.astype(np.float16))


def test_float32_keeps_what_float16_cannot() -> None:
    card = replace(CARD, dtype="float32")
    large = array(0) * 1e5
    with EmbeddingCache(card, here().cache).writer() as writer:
        writer.add(clip(0), "loud", large)
    assert EmbeddingCache(card, here().cache).folder != EmbeddingCache(CARD, here().cache).folder
    assert EmbeddingCache(card, here().cache).read(clip(0)).dtype == np.float32
    assert np.array_equal(
        EmbeddingCache(card, here().cache).pooled([clip(0)], "low")[0], large[:, :16].astype(np.float32)
    )
    with (
        pytest.raises(MgcError, match=r"beyond 3.4028e\+38, the limit of float32"),
        EmbeddingCache(card, here().cache).writer() as writer,
    ):
        writer.add(clip(1), "too loud", large * 1e40)


@pytest.mark.parametrize("value", [7e4, np.inf, np.nan])
def test_a_value_that_float16_cannot_hold_is_refused_with_the_track(value: float) -> None:
    with (
        pytest.raises(MgcError, match="beyond 65504, the limit of float16") as caught,
        EmbeddingCache(CARD, here().cache).writer() as writer,
    ):
        writer.add(clip(0), "good", array(0))
        writer.add(clip(1), "the bad one", np.full((3, DIM), value))
    assert "the bad one" in str(caught.value)
    assert_holds(range(1))


def test_shards_open_in_pandas_and_datasets(tmp_path: Path) -> None:
    import datasets
    import pandas as pd

    filled = fill(range(4))
    [shard] = shards(filled.folder)
    frame = pd.read_feather(shard)
    assert list(frame.columns) == ["clip", "track_id", "seconds", "frames", "values"]
    assert list(frame["track_id"]) == [f"track {number}" for number in range(4)]
    assert np.array_equal(frame["values"][2].reshape(3, DIM), array(2).astype(np.float16))
    datasets.disable_progress_bars()
    rows_ = datasets.load_dataset("arrow", data_files=[str(shard)], cache_dir=str(tmp_path / "hf"))["train"]
    assert rows_.column_names == list(frame.columns)
    assert rows_[1]["clip"] == clip(1)
    assert np.array_equal(np.float16(rows_[1]["values"]).reshape(3, -1), array(1).astype(np.float16))


# --- keys -------------------------------------------------------------------------------------------------


def test_what_changes_the_numbers_has_another_folder() -> None:
    made = [
        CARD,
        replace(CARD, weights="other"),
        replace(CARD, revision=2),
        replace(CARD, layers=CARD.layers[::-1]),
        replace(CARD, cut=Windowing(16_000, 32_000)),
        replace(CARD, dtype="float32"),
        replace(CARD, pooled=False),
        in_bfloat16(CARD),
        per_window(CARD),
        variant(replace(CARD, pooled=False), semitones=2.0),
        variant(replace(CARD, pooled=False), rate=1.1),
    ]
    assert len({fill(range(1), card).folder for card in made}) == len(made)
    assert {str(card["key"]) for card in cards(here().cache)} == {card.key for card in made}


def test_the_name_and_place_of_an_encoder_and_of_a_clip_decide_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0, 1.0, 16_000, 0), 16_000)
    with EmbeddingCache(CARD, here().cache).writer() as writer:
        writer.add(audio.inspect(tmp_path / "a.wav").content, "a", array(0))
    (tmp_path / "a.wav").rename(tmp_path / "b.wav")
    moved = replace(CARD, name="elsewhere", spec=ModelSpec("/else/where"))
    assert (
        EmbeddingCache(moved, root=here().cache).missing([audio.inspect(tmp_path / "b.wav").content]) == set()
    )
    # the card tells where the encoder was when something was last computed
    assert fill(range(1, 2), moved).folder == EmbeddingCache(CARD, here().cache).folder
    assert [card["spec"]["name"] for card in cards(here().cache)] == ["/else/where"]


def test_a_folder_without_a_shard_is_not_listed_and_a_damaged_card_is_an_error() -> None:
    filled = fill(range(0))
    assert cards(here().cache) == []
    assert filled.missing([clip(0)]) == {clip(0)}
    fill(range(1))
    assert [card["name"] for card in cards(here().cache)] == [CARD.name]
    (filled.folder / "representation.json").write_text("{")
    with pytest.raises(MgcError, match="card in the embedding cache is damaged") as caught:
        cards(here().cache)
    assert "representation.json" in str(caught.value)
    fill(range(1))
    assert cards(here().cache) == [
        json.loads(json.dumps(CARD.card() | {"libraries": [embeddings.library_versions()]}))
    ]


def test_bfloat16_is_an_encoder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from mgc.util import devices as device

    class Encoder:
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())

        def __call__(self, waveforms: torch.Tensor, *_: torch.Tensor) -> tuple[list[torch.Tensor], None]:
            return [self.model(waveforms)], None

    torch.manual_seed(0)
    waves, cpu = torch.rand(3, 4), torch.device("cpu")
    [exact], _ = Encoder()(waves)
    card = in_bfloat16(replace(CARD, load=lambda device: Encoder()))  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(device, "_half_types", lambda device: set())
    with pytest.raises(MgcError, match="does not compute in bfloat16"):
        card.load(cpu)
    monkeypatch.setattr(device, "_half_types", lambda device: {"bfloat16"})
    [narrow], _ = card.load(cpu)(waves, waves, waves)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), exact, rtol=2e-2, atol=2e-2)
    assert not torch.equal(narrow.float(), exact)
    spec = ModelSpec("musicnn", keep="windows", precision="bfloat16")
    assert open_representation(spec, here()).spec == spec
    with pytest.raises(MgcError, match="has no weights"):
        open_representation(ModelSpec("logmel", precision="bfloat16"), here())


def test_a_call_of_many_hours_does_not_leave_thousands_of_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with EmbeddingCache(CARD, here().cache).writer() as writer:
        for number in range(1000):
            now += 40.0  # eleven hours
            writer.add(clip(number), "t", array(number))
    assert 200 < len(shards(EmbeddingCache(CARD, here().cache).folder)) < 300


# --- accidents --------------------------------------------------------------------------------------------


def write_slowly(cache: str, numbers: range, log: str, per_shard: int) -> None:
    """In a process of its own: what is missing is added, and written down in `log` when it was."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["MGC_EMBEDDINGS_CACHE"] = cache
    embeddings.SHARD_BYTES = per_shard * 2 * DIM * 2
    missing = EmbeddingCache(CARD, here().cache).missing(map(clip, numbers))
    with EmbeddingCache(CARD, here().cache).writer() as writer, Path(log).open("a") as diary:
        for number in numbers:
            if clip(number) in missing:
                writer.add(clip(number), f"track {number}", array(number))
                diary.write(f"{number}\n")
                diary.flush()
                time.sleep(0.002)


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Children of a process that has imported the store once, and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mgc.representations.cache.embeddings", "pytest", "soundfile"])
    return context


Start = Callable[..., BaseProcess]


@pytest.fixture
def start(processes: multiprocessing.context.ForkServerContext, tmp_path: Path) -> Start:
    def run(numbers: range, per_shard: int) -> BaseProcess:
        arguments = (os.environ["MGC_EMBEDDINGS_CACHE"], numbers, str(tmp_path / "log"), per_shard)
        process = processes.Process(target=write_slowly, args=arguments)
        process.start()
        return process

    return run


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_killed_writer_loses_nothing_that_a_shard_held(start: Start) -> None:
    numbers, folder = (
        range(400),
        EmbeddingCache(CARD, here().cache).folder,
    )  # more than ten slow kills let through
    held: set[str] = set()
    for _ in range(10):
        process = start(numbers, 2)
        enough = len(held) + 4
        wait_for(lambda enough=enough: len(rows(folder)) >= enough)
        time.sleep(random.random() * 0.01)
        process.kill()
        process.join()
        now = set(rows(folder))
        assert held < now
        held = now
    fill_missing = start(numbers, 2)
    fill_missing.join()
    assert fill_missing.exitcode == 0
    assert rows(folder) == Counter(map(clip, numbers))
    assert_holds(numbers)


def test_an_interrupted_writer_keeps_all_that_was_added(start: Start, tmp_path: Path) -> None:
    process = start(range(10_000), 10_000)
    wait_for(lambda: (tmp_path / "log").exists() and len((tmp_path / "log").read_text().split()) > 20)
    assert process.pid
    os.kill(process.pid, signal.SIGINT)
    process.join()
    added = [int(word) for word in (tmp_path / "log").read_text().split()]
    assert 20 < len(added) < 10_000
    assert_holds(range(len(added)))
    assert not list(EmbeddingCache(CARD, here().cache).folder.glob(".*.part"))


def test_two_writers_of_the_same_clips_do_no_harm(start: Start) -> None:
    numbers = range(40)
    both = [start(numbers, 5), start(numbers, 3)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert_holds(numbers)
    assert len(EmbeddingCache(CARD, here().cache).pooled([clip(number) for number in numbers])) == 40


def test_a_reader_sees_what_another_has_written_since() -> None:
    first = fill(range(2))
    assert first.missing(map(clip, range(4))) == {clip(2), clip(3)}
    fill(range(2, 4))
    assert np.array_equal(first.read(clip(3)), array(3).astype(np.float16))


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("step", [(os, "fsync"), (Path, "open"), (Path, "replace"), (Path, "mkdir")])
def test_a_full_disk_is_told_and_harms_nothing(
    step: tuple[object, str], problem: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(range(3)).folder
    (folder / embeddings.CARD).unlink()  # so that it is written first
    before = {shard: shard.read_bytes() for shard in shards(folder)}

    def full(*_: object, **__: object) -> None:
        raise OSError(problem, os.strerror(problem))

    with monkeypatch.context() as patch:
        patch.setattr(*step, full)
        with pytest.raises(MgcError, match="cannot be written") as caught:
            fill(range(3, 6))
    assert os.strerror(problem) in str(caught.value)
    assert "MGC_EMBEDDINGS_CACHE" in str(caught.value)
    assert {shard: shard.read_bytes() for shard in shards(folder)} == before
    assert not list(folder.glob(".*.part"))
    fill(range(3, 6))
    assert_holds(range(6))


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache on a disk of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    monkeypatch.setenv("MGC_EMBEDDINGS_CACHE", str(disk))
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_really_full_keeps_what_it_holds(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "SHARD_BYTES", 40 * 3 * DIM * 2)
    fill(range(40))
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(1 << 20))
    with pytest.raises(MgcError, match="No space left on device"):
        fill(range(40, 200))
    assert_holds(range(40))
    [shard] = shards(EmbeddingCache(CARD, here().cache).folder)
    aside = shard.with_name("moved away")
    shard.rename(aside)
    assert EmbeddingCache(CARD, here().cache).missing([clip(0)]) == {
        clip(0)
    }  # the index, which cannot be written, is no hindrance
    aside.rename(shard)
    ballast.unlink()
    fill(range(40, 200))
    assert_holds(range(200))


def test_a_cache_that_is_read_only_is_read_and_a_new_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(range(2))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    assert_holds(range(2))
    with pytest.raises(MgcError, match="cannot be written: Permission denied"):
        fill(range(3), replace(CARD, revision=2))


def test_incomplete_files_are_ignored() -> None:
    folder = fill(range(1)).folder
    old, new = folder / ".shard-old.arrow.1.part", folder / ".shard-new.arrow.2.part"
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert_holds(range(1))
    fill(range(1, 2))
    assert_holds(range(2))


def test_a_damaged_shard_is_set_aside_whatever_byte_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(range(3)).folder
    fill(range(3, 4))
    shard = next(shard for shard in shards(folder) if len(pa.ipc.open_file(str(shard)).read_all()) == 3)
    whole = shard.read_bytes()
    spoiled = [b"", whole[:-1], whole[:100], whole + b"\0", bytes(len(whole))]
    rng = random.Random(0)
    places = rng.sample(range(len(whole)), 60)
    spoiled += [whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :] for at in places]
    assert_holds(range(4))  # so that the index knows its clips
    for content in spoiled:
        shard.write_bytes(content)
        assert EmbeddingCache(CARD, here().cache).missing(map(clip, range(4))) == {
            clip(0),
            clip(1),
            clip(2),
        }
        aside = shard.with_name(f"{shard.name}.damaged")
        assert aside.read_bytes() == content
        said = capsys.readouterr().err
        assert str(shard) in said
        assert aside.name in said
    assert [card["name"] for card in cards(here().cache)] == [CARD.name]
    fill(range(3))
    assert_holds(range(4))
    assert aside.exists()


def rot(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit flips in the middle of the values, and neither size nor times tell."""
    state = embeddings.state_of(shard)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    monkeypatch.setattr(embeddings, "state_of", lambda path: state if path == shard else "missing")


def test_no_byte_is_used_unlooked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = fill(range(3))
    assert_holds(range(3))
    [shard] = shards(filled.folder)
    rot(shard, monkeypatch)
    assert EmbeddingCache(CARD, here().cache).missing([clip(1)]) == set()  # the index answers
    with pytest.raises(MgcError, match=f"{clip(1)} is not cached"):
        EmbeddingCache(CARD, here().cache).read(clip(1))
    assert "3 clips: track 0, track 1, track 2" in capsys.readouterr().err
    fill(range(3))
    assert_holds(range(3))


def test_a_clip_of_a_damaged_shard_is_read_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(range(3))
    folder = fill(range(3)).folder
    assert_holds(range(3))
    reader = EmbeddingCache(CARD, here().cache)
    reader.refresh()
    rot(shards(folder)[0], monkeypatch)
    assert np.array_equal(reader.read(clip(2)), array(2).astype(np.float16))
    assert len(shards(folder)) == 1
    shards(folder)[0].unlink()  # pruned by another process
    reader = EmbeddingCache(CARD, here().cache)
    with pytest.raises(MgcError, match="not cached"):
        reader.read(clip(2))


def test_a_shard_is_opened_once_for_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(range(3)).folder
    seconds = EmbeddingCache(CARD, here().cache).seconds([clip(0), clip(2)])

    def never(path: Path) -> None:
        raise AssertionError(f"{path} was opened")

    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "open_shard", never)
        assert EmbeddingCache(CARD, here().cache).missing([clip(2), clip(3)]) == {clip(3)}
        assert EmbeddingCache(CARD, here().cache).seconds([clip(0), clip(2)]) == seconds
    index = folder / embeddings.INDEX
    whole = index.read_bytes()
    for content in (b"", whole[:-9], whole.replace(clip(1).encode(), clip(7).encode()), b"00000000\n"):
        index.write_bytes(content)
        assert EmbeddingCache(CARD, here().cache).missing([clip(1), clip(7)]) == {clip(7)}
        assert index.read_bytes() == whole


def test_a_shard_that_nobody_may_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    [shard] = shards(fill(range(2)).folder)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(MgcError, match="cannot be read: Permission denied") as caught:
        EmbeddingCache(CARD, here().cache).missing([clip(0)])
    assert caught.value.where == shard


def test_a_damaged_shard_of_a_read_only_cache_is_told_and_not_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(range(3))
    shard = shards(fill(range(3, 5)).folder)[0]
    lost = {clip(n) for n in (range(3) if len(pa.ipc.open_file(str(shard)).read_all()) == 3 else range(3, 5))}
    shard.write_bytes(shard.read_bytes()[:-1])

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("rename", "replace", "mkdir", "unlink"):
        monkeypatch.setattr(Path, name, refused)
    reader = EmbeddingCache(CARD, here().cache)
    assert reader.missing(map(clip, range(5))) == lost
    assert reader.missing(map(clip, range(5))) == lost
    assert capsys.readouterr().err.count("cannot be set aside (Read-only file system)") == 1
    [other, *_] = {clip(n) for n in range(5)} - lost
    assert reader.read(other).shape == (3, DIM)
    assert shard.exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_a_store_of_many_shards_holds_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "SHARD_BYTES", 1)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    filled = fill(range(300))
    assert len(shards(filled.folder)) == 300
    before = len(list(Path("/proc/self/fd").iterdir()))
    views = [filled.read(clip(number)) for number in range(300)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert all(np.array_equal(view, array(n).astype(np.float16)) for n, view in enumerate(views))
