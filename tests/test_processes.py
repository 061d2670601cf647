"""Several processes of a launcher embed together: they divide the work, and survive one another's end."""

import contextlib
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa
import pytest
import soundfile
from conftest import here, tone

from mgc import representations
from mgc.audio import Windowing
from mgc.config import DataRecipe, EmbedRecipe
from mgc.data import load
from mgc.representations import Layer, ModelSpec, Representation
from mgc.representations.cache import embeddings
from mgc.representations.cache.embed import embed
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.util.errors import MgcError

CLIPS = 10
SLOW_SECONDS = 0.05


def load_slow(trap: Path | None, device: object) -> object:
    """Loudness in frames of 1,000 samples, slowly. While the file `trap` is there, the process that `trap`
    names ends by SIGKILL, or fails, at its third batch."""
    batches = 0

    def encode(waveforms, covered, real):  # type: ignore[no-untyped-def]
        nonlocal batches
        batches += 1
        time.sleep(SLOW_SECONDS)
        with contextlib.suppress(FileNotFoundError):  # the process that it names has removed it
            number, how = trap.read_text().split() if trap and batches == 3 else ("", "")
            if number == os.environ.get("RANK"):
                trap.unlink()
                if how == "fails":
                    raise MgcError("the encoder fails", fix="correct it")
                time.sleep(1)  # so that the others are through, or have written a shard
                os.kill(os.getpid(), signal.SIGKILL)
        frames = waveforms.reshape(len(waveforms), -1, 1000).abs().mean(dim=2, keepdim=True)
        return [frames], frames.new_ones(frames.shape[:2])

    return encode


def card(trap: Path | None = None) -> Representation:
    return Representation(
        name="slow", spec=ModelSpec("slow"), source="a test", cut=Windowing(16_000, 16_000),
        layers=(Layer("low", 1),), pooled=True, parameters=None, licence="none", trained_on="nothing",
        weights="weights", revision=1, load=partial(load_slow, trap),
    )  # fmt: skip


def launched(environment: dict[str, str], source: str, trap: Path, said: Path) -> None:
    """What a launcher starts: `mgc embed --model slow --device cpu`, a window a batch, a clip a shard."""
    os.environ |= environment
    with said.open("w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        embeddings.SHARD_BYTES = 1
        representations.REPRESENTATIONS["slow"] = lambda workspace: card(trap)
        from mgc.cli import main

        words = ["embed", "--model", "slow", "--device", "cpu", "--set", "batch_size=1", "--data", source]
        sys.argv = ["mgc", *words]
        main()


class Launch:
    """As many processes as a launcher would start, with its environment, from a server that has torch
    imported already."""

    def __init__(self, folder: Path, music: Path) -> None:
        self.folder, self.music = folder, music
        self.trap = folder / "trap"
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["mgc.util.devices", "mgc.representations.pooling", "mgc.cli"])

    def __call__(self, size: int) -> tuple[list[int | None], list[str]]:
        """Exit codes and words of each process."""
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        kept = {name: os.environ[name] for name in ("MGC_EMBEDDINGS_CACHE", "MGC_DATA_ROOT")}
        of_all = {
            "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        said = [self.folder / f"said{number}" for number in range(size)]
        processes: list[BaseProcess] = []
        for number in range(size):
            environment = {**kept, **of_all, "RANK": str(number), "LOCAL_RANK": str(number)}
            arguments = environment, str(self.music), self.trap, said[number]
            processes.append(self.context.Process(target=launched, args=arguments))
            processes[-1].start()
        for process in processes:
            process.join(60)
            assert process.exitcode is not None, "it hangs"
        return [process.exitcode for process in processes], [file.read_text() for file in said]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Ten clips of one to three seconds, two of them the same bytes."""
    root = tmp_path / "clips"
    for genre, name in enumerate(("calm", "pulse")):
        (root / name).mkdir(parents=True)
        for number in range(CLIPS // 2):
            seconds, seed = 1.0 + number % 3, min(number, 3)
            wave = tone(genre, 1.0 + min(number, 3) % 3 if number > 2 else seconds, 16_000, seed)
            soundfile.write(root / name / f"{number}.wav", wave, 16_000)
    return root


@pytest.fixture
def launch(tmp_path: Path, clips: Path) -> Launch:
    return Launch(tmp_path, clips)


@pytest.fixture
def alone(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The vectors that one process computes."""
    monkeypatch.setitem(representations.REPRESENTATIONS, "slow", lambda workspace: card())
    with monkeypatch.context() as patch:
        patch.setenv("MGC_EMBEDDINGS_CACHE", str(tmp_path / "alone"))
        embed(EmbedRecipe(data=DataRecipe(source=str(clips)), model="slow", device="cpu"), workspace=here())
        return vectors(clips)


def vectors(clips: Path) -> dict[str, bytes]:
    held, tracks = (
        EmbeddingCache(card(), here().cache),
        load(DataRecipe(source=str(clips)), workspace=here()).tracks,
    )
    missing = held.missing(track.content for track in tracks)
    return {t.track_id: held.read(t.content).tobytes() for t in tracks if t.content not in missing}


def times_computed() -> Counter[str]:
    tables = [
        pa.ipc.open_file(str(file)).read_all()
        for file in EmbeddingCache(card(), here().cache).folder.glob("shard-*.arrow")
    ]
    return Counter(name for table in tables for name in table.column("clip").to_pylist())


@pytest.mark.parametrize("size", [2, 3])
def test_they_divide_the_clips_and_the_first_tells(
    size: int, launch: Launch, clips: Path, alone: dict[str, bytes]
) -> None:
    codes, said = launch(size)
    assert codes == [0] * size, said
    assert vectors(clips) == alone
    assert set(times_computed().values()) == {1}
    assert f"{CLIPS} tracks: 8 computed, 2 cached" in said[0]
    assert ": 10/10" in said[0]
    assert f"(process 1 of {size})" in said[0]
    assert said[1:] == [""] * (size - 1)
    _, said = launch(size)
    assert "all cached, up to date" in said[0]
    assert set(times_computed().values()) == {1}


def test_the_death_of_one_loses_its_own_last_clip_and_any_number_goes_on(
    launch: Launch, clips: Path, alone: dict[str, bytes]
) -> None:
    launch.trap.write_text("1 dies")
    codes, said = launch(2)
    assert codes == [2, -signal.SIGKILL]
    assert "another process was killed" in said[0]
    assert "Traceback" not in said[0]
    held = vectors(clips)
    assert held.items() < alone.items()
    assert len(times_computed()) >= 4  # all of the first process: half of eight
    codes, said = launch(3)
    assert codes == [0, 0, 0], said
    assert vectors(clips) == alone
    assert set(times_computed().values()) == {1}


def test_the_death_of_the_first_is_told_by_another(launch: Launch, clips: Path) -> None:
    launch.trap.write_text("0 dies")
    codes, said = launch(2)
    assert codes == [-signal.SIGKILL, 2]
    assert "another process was killed" in said[1]
    assert len(times_computed()) >= 4


def test_trouble_in_one_is_told_by_the_first_when_all_are_through(launch: Launch, clips: Path) -> None:
    launch.trap.write_text("1 fails")
    codes, said = launch(2)
    assert codes == [2, 0], said
    assert "process 2 of 2: the encoder fails" in said[0]
    assert "run the same command again" in said[0]
    assert len(times_computed()) >= 4
    assert launch(2)[0] == [0, 0]


def test_what_the_first_cannot_plan_is_told_once(launch: Launch, tmp_path: Path) -> None:
    launch.music = tmp_path / "nowhere"
    codes, said = launch(2)
    assert codes == [2, 0]
    assert "there is no folder" in said[0]
    assert said[1] == ""


def test_what_cannot_be_divided_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mgc.util.devices import make_accelerator

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    make_accelerator("cpu")  # one process of torchrun is as good as none
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MgcError, match="only mgc embed divides it"):
        make_accelerator("cpu")


def test_processes_share_the_cores_unless_a_person_said_how(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from mgc.util.devices import share_cores

    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    for threads in ("1", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        share_cores(16)
    share_cores(2)
    monkeypatch.delenv("OMP_NUM_THREADS")
    share_cores(2)
    assert set_to == [5, 1]


@pytest.mark.slow
def test_torchrun_starts_again_after_a_death(
    clips: Path, tmp_path: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without it the next round finds the addresses of the last, see docs/scale.md.
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    script = tmp_path / "rank.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import pathlib, test_processes as t\n"
        f"t.launched({{}}, {str(clips)!r}, pathlib.Path({str(tmp_path / 'trap')!r}), "
        f"pathlib.Path({str(tmp_path)!r}, 'said' + t.os.environ['RANK']))\n"
    )
    (tmp_path / "trap").write_text("1 dies")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*torchrun, "--max-restarts", "1", str(script)], check=True, timeout=300)
    assert vectors(clips) == alone
    assert set(times_computed().values()) == {1}
    said = (tmp_path / "said0").read_text()
    computed, there = map(int, re.findall(r"(\d+) computed, (\d+) cached", said)[0])
    assert 0 < computed < 8 and there > 2  # the second round had less to do
