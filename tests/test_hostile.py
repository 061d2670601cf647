"""Malformed and malicious input (`hostile.py`) for `mgc data info`, `mgc data check` and `mgc embed`.

Whatever the input:

- a command exits with 0, or with 2 and a message: no traceback, no crash, within a minute and 2 GB
- nothing is written outside the cache, the results and the data root, and no network is used
- the input does not change
- every file is accounted for: used, excluded with a reason, or counted in a note
- the numbers of `info` and `check` agree; no name reaches the terminal or the report as a control sequence

The fast tests try some inputs of every kind. The slow tests try every third one, or more with
`MGC_HOSTILE_STEP=1`. The commands run in child processes; a failing folder is repeated file by file.
"""

import contextlib
import faulthandler
import json
import os
import re
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hostile import DATASETS, FILES, GOOD_CLIPS, Input, Place, Whole, material, small_wav

import mgc
from mgc.audio import SUFFIXES
from mgc.data.dataset import as_text
from mgc.data.sources.local import is_manifest
from mgc.workspace import Workspace

LIMIT_SECONDS = 60.0  # per command
LIMIT_BYTES = 2_000_000_000  # resident, per command
ADDRESS_BYTES = 16 << 30  # a child that needs more gets a MemoryError
FILES_PER_FOLDER = 40
STEP = int(os.environ.get("MGC_HOSTILE_STEP", "3"))
ENCODED = ("wrong headers", "mp3 tags and frames", "ogg pages", "names", "mixtures")  # with `mgc embed`, too


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "hostile"
    # pytest cannot remove 1,200 nested folders.
    subprocess.run(["rm", "-rf", str(tmp_path / "hostile")], check=True)


def test_some_inputs_of_every_kind(home: Path) -> None:
    inputs: list[Input | Whole] = []
    for kind in (*FILES.values(), *DATASETS.values()):
        own = [*kind(material(0))]
        inputs += own[1 :: len(own) // 3]
    check(inputs, home)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_files(home: Path, kind: str) -> None:
    check([*islice(FILES[kind](material(1)), 0, None, STEP)], home, encode=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATASETS)
def test_datasets(home: Path, kind: str) -> None:
    check([*islice(DATASETS[kind](material(1)), 0, None, STEP)], home)


# The child


def serve(jobs: Path) -> None:
    """Run the commands in the file `jobs` one after another; each adds a line of JSON to `<jobs>.done`.

    A command that takes too long ends this process, after the stacks of all threads.
    """
    from mgc import cli

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    guard = Guard()
    with jobs.with_suffix(".done").open("a") as done:
        sys.addaudithook(guard)
        for job in json.loads(jobs.read_text()):
            os.environ.update(job["environment"])
            guard.allowed = tuple(f"{folder}{os.sep}" for folder in job["writable"])
            for number, command in enumerate(job["commands"]):
                guard.touched = []
                code = run_here(cli.main, command, Path(job["output"], str(number)))
                line = {"code": code, "peak": peak_bytes(), "touched": guard.touched}
                print(json.dumps(line), file=done, flush=True)


def run_here(main: Callable[[], None], command: list[str], output: Path) -> int:
    """Run one command; all that it writes to the streams 1 and 2, also in C code, goes to `output`.*."""
    streams, code = [os.dup(1), os.dup(2)], 0
    with output.with_suffix(".out").open("wb") as out, output.with_suffix(".err").open("wb") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident memory
        faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True, file=err)
        try:
            sys.argv = ["mgc", *command]
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            code = 1
            traceback.print_exc()
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.flush()
        sys.stderr.flush()
    for stream, kept in zip((1, 2), streams, strict=True):
        os.dup2(kept, stream)
        os.close(kept)
    return code


def peak_bytes() -> int:
    """The peak of this process's resident memory; on macOS, that since its start."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


# How many of an audit event's first arguments are paths that change.
CHANGES = {"os.mkdir": 1, "os.rmdir": 1, "os.remove": 1, "os.rename": 2, "os.link": 2, "os.truncate": 1,
           "os.chmod": 1, "os.chown": 1, "os.utime": 1, "shutil.rmtree": 1, "sqlite3.connect": 1}  # fmt: skip
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """An audit hook that records writes outside the folders `allowed`, and uses of a network, by Python."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.touched: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in NETWORK:
            self.touched.append(f"{event} {arguments}")
            return
        paths = arguments[: CHANGES.get(event, 0)]
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            paths = arguments[:1]
        elif event == "os.symlink":
            paths = arguments[1:2]
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                where = os.path.realpath(os.fsdecode(path))
                if not f"{where}{os.sep}".startswith((*self.allowed, "/dev/null/", "/proc/")):
                    self.touched.append(f"{event} {as_text(where)}")


# The parent


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    command: list[str]
    code: int
    peak: int  # bytes
    out: str
    err: str
    touched: list[str]


@dataclass
class Case:
    """The files of one folder, or one `Whole`, and its place. `before`: the input before any command."""

    members: Sequence[Input | Whole]
    place: Place
    commands: list[list[str]] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.place.results.parent / "output"


def check(inputs: Sequence[Input | Whole], home: Path, encode: bool = False) -> None:
    """Run the commands on the inputs and fail with everything that is wrong."""
    clips = home / "clips"
    clips.mkdir(parents=True)
    for genre, first in (("calm", 300), ("pulse", 400)):
        for number in range(GOOD_CLIPS):
            (clips / f"{genre}-{number}.wav").write_bytes(small_wav(first + number))
    files = [each for each in inputs if isinstance(each, Input)]
    folders = [files[at : at + FILES_PER_FOLDER] for at in range(0, len(files), FILES_PER_FOLDER)]
    groups: list[Sequence[Input | Whole]] = [
        *folders,
        *([each] for each in inputs if isinstance(each, Whole)),
    ]
    wrong = run_and_check(groups, home, "a", encode)
    suspects = [[each] for members, texts in wrong if len(members) > 1 for each in members]
    failures = [*wrong, *run_and_check(suspects, home, "b", encode)] if suspects else wrong
    texts = [f"{members[0].kind}: {members[0].what}: {text}" for members, own in failures for text in own]
    assert not texts, "\n".join(texts)


def run_and_check(
    groups: Sequence[Sequence[Input | Whole]], home: Path, name: str, encode: bool
) -> list[tuple[Sequence[Input | Whole], list[str]]]:
    """Create, run and check one case per group; returns the groups in which something is wrong."""
    cases = []
    for number, members in enumerate(groups):
        own = home / "work" / f"{name}{number:04d}"
        inputs = home / "inputs" / own.name
        cases.append(
            create(Case(members, Place(inputs, own / "results", own / "data", home / "clips")), encode)
        )
    before = {path: state for path, state in entries(home).items() if "/work" not in path}
    ran = run_all(cases, home, name)
    now = {path: state for path, state in entries(home).items() if "/work" not in path}
    wrong = [(case.members, faults_of(case, own)) for case, own in zip(cases, ran, strict=True)]
    wrong = [(members, texts) for members, texts in wrong if texts]
    changed = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    return [*wrong, (groups[0], [f"changed: {as_text(path)}" for path in changed[:5]])] if changed else wrong


def create(case: Case, encode: bool) -> Case:
    """Create the inputs of a case; in a folder, with enough good clips in every genre."""
    place = case.place
    place.inputs.mkdir(parents=True)
    case.output.mkdir(parents=True)
    first = case.members[0]
    if isinstance(first, Whole):
        options = first.make(place)
    else:
        music = place.inputs / "music"
        options = ["--data", str(music)]
        files = [each for each in case.members if isinstance(each, Input)]
        for number, genre in enumerate(dict.fromkeys(("calm", "pulse", *(each.genre for each in files)))):
            (music / genre).mkdir(parents=True)
            for clip in range(GOOD_CLIPS):
                (music / genre / f"good-{clip}.wav").write_bytes(small_wav(500 + 10 * number + clip))
        for each in files:
            path = music / each.genre / each.path
            each.make(path) if callable(each.make) else path.write_bytes(each.make)
    case.before = entries(place.inputs)
    everything = ["--set", "data.max_excluded=1"]
    case.commands = [
        ["data", "info", *options, *everything],
        ["data", "check", "--format", "json", *options],
        ["data", "info", *options],
        ["data", "check", *options],
    ]
    has_weights = any(Workspace.from_environment().weights.glob("musicnn*.safetensors"))
    if encode and has_weights and any(each.kind in ENCODED for each in case.members):
        case.commands.append(["embed", "--model", "musicnn", "--device", "cpu", *options, *everything])
    return case


def run_all(cases: Sequence[Case], home: Path, name: str) -> list[list[Ran]]:
    """Run the commands of all cases in a child. If it dies, the last command has its exit code."""
    weights = Workspace.from_environment().weights.absolute()
    numba = Path(os.environ.get("NUMBA_CACHE_DIR", weights))  # compiled once, and not for every test
    shared = [home / "work" / "cache", home / "work" / "tmp", weights, numba]
    shared[1].mkdir(parents=True, exist_ok=True)
    jobs = [
        {
            "commands": case.commands,
            "environment": {
                "MGC_RESULTS": str(case.place.results),
                "MGC_DATA_ROOT": str(case.place.root),
                "MGC_QUARANTINE": str(case.place.results / "quarantine"),
            },
            "output": str(case.output),
            "writable": [*map(str, (case.place.results, case.place.root, case.output, *shared))],
        }
        for case in cases
    ]
    file = home / "work" / f"jobs-{name}.json"
    file.write_text(json.dumps(jobs))
    environment = os.environ | {
        "MGC_EMBEDDINGS_CACHE": str(shared[0]),
        "XDG_CACHE_HOME": str(weights.parent),
        **dict.fromkeys(("TMPDIR", "HOME", "MPLCONFIGDIR"), str(shared[1])),
        "PYTHONPATH": str(Path(mgc.__file__).parents[1]),  # the child has another working directory
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    child = subprocess.run(
        [sys.executable, "-B", "-X", "utf8", __file__, str(file)],
        env=environment, cwd=home / "clips", stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    done = file.with_suffix(".done")
    lines = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    assert lines, child.stderr.decode(errors="replace")[-2_000:]
    if child.returncode:
        lines.append({"code": child.returncode, "peak": 0, "touched": []})
    ran: list[list[Ran]] = []
    for case in cases:
        own, lines = lines[: len(case.commands)], lines[len(case.commands) :]
        ran.append([ran_of(case, number, line) for number, line in enumerate(own)])
    return ran


def ran_of(case: Case, number: int, line: dict[str, Any]) -> Ran:
    out, err = (case.output / f"{number}.{stream}" for stream in ("out", "err"))
    texts = [file.read_bytes().decode("utf-8", "surrogateescape") for file in (out, err)]
    return Ran(case.commands[number], line["code"], line["peak"], *texts, line["touched"])


def entries(folder: Path) -> dict[str, str]:
    """Every entry below a folder, links not followed: kind, size and time of the last change."""
    found, todo = {}, [folder]
    while todo:  # not os.walk, which in Python 3.11 recurses for every level
        for entry in os.scandir(todo.pop()):
            stat = entry.stat(follow_symlinks=False)
            found[entry.path] = f"{stat.st_mode:o} {stat.st_size} {stat.st_mtime_ns}"
            if entry.is_dir(follow_symlinks=False):
                todo.append(Path(entry.path))
    return found


# What is wrong

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def faults_of(case: Case, ran: Sequence[Ran]) -> list[str]:
    """Everything that is wrong with a case."""
    wrong = [f"mgc {' '.join(each.command[:2])}: {text}" for each in ran for text in faults(each)]
    now = entries(case.place.inputs)
    changed = [path for path in {*case.before, *now} if case.before.get(path) != now.get(path)]
    wrong += [f"the input changed: {as_text(path)}" for path in changed]
    wrong += [text for file in case.place.results.rglob("check.md") for text in report_faults(file)]
    if len(ran) < len(case.commands):
        return wrong or ["not run, because the child died earlier"]
    first, checked, second, page = ran[:4]
    if checked.code == 2:
        if page.code == 0:
            wrong.append("check refuses as JSON what it accepts as a table")
        refused = [each.what for each in case.members if "refused" not in each.expect]
        return wrong + [f"{what}: everything is refused: {last_words(checked)}" for what in refused]
    try:
        found = json.loads(checked.out, parse_constant=refuse_constant)
    except ValueError as error:
        return [*wrong, f"check --format json: {error}"]
    wrong += disagreements(found, first, second)
    whole = case.members[0]
    return wrong + (
        account_of_whole(whole, case, found) if isinstance(whole, Whole) else account_of_files(case, found)
    )


def refuse_constant(text: str) -> None:
    """NaN and Infinity are not JSON."""
    raise ValueError(f"{text} is not JSON")


def faults(ran: Ran) -> list[str]:
    """What no command may do, whatever its input."""
    wrong = []
    if ran.code not in (0, 2) or "Traceback" in ran.out + ran.err:
        wrong.append(last_words(ran))
    if ran.code == 2 and "mgc: " not in ran.err:
        wrong.append("exit code 2 without a message")
    if ran.peak > LIMIT_BYTES:
        wrong.append(f"used {ran.peak / 1e9:.1f} GB of memory")
    wrong += [f"touched {text}" for text in ran.touched[:3]]
    for stream, text in (("output", ran.out), ("error", ran.err)):
        # JSON is for programs: it may contain what some terminals interpret, but no escape character.
        shown = re.sub("[^\x00-\x7e]", "", text) if "json" in ran.command else text
        if found := CONTROL.search(shown):
            near = shown[max(0, found.start() - 40) : found.end() + 20]
            wrong.append(f"{found[0]!r} in the standard {stream}: {near!r}")
        if re.search(r"^\W*FORGED", shown, re.MULTILINE):
            wrong.append(f"a name begins a line in the standard {stream}")
    return wrong


def last_words(ran: Ran) -> str:
    """Where in the project a command failed or hung, and its last output."""
    hung = "Timeout (" in ran.err
    frames = re.findall(r'File ".*/src/(mgc/\S+)", line (\d+),? in (\S+)', ran.err)
    places = [f"{file}:{line} {function}" for file, line, function in frames]
    places = places[:3] if hung else places[-3:]  # after a timeout, the innermost frame is first
    last = f"no answer within {LIMIT_SECONDS:.0f} s" if hung else as_text(ran.err.strip()[-300:])
    return f"exit code {ran.code}: {last} ({', '.join(places)})"


def report_faults(file: Path) -> list[str]:
    """What must not be in a page of Markdown."""
    text = file.read_text(encoding="utf-8")
    wrong = [f"check.md contains {mark!r}" for mark in ("<script", "\nFORGED") if mark in text]
    return wrong + [f"check.md contains the control character {c!r}" for c in CONTROL.findall(text)[:1]]


def disagreements(found: dict[str, Any], first: Ran, second: Ran) -> list[str]:
    """Numbers of a check that contradict each other, or those of `info` before and after it."""
    excluded = [finding for finding in found["findings"] if finding["excluded"]]
    tracks, kept = found["tracks"], len(found["kept"])
    wrong = []
    if found["used"] + len(excluded) - kept != tracks:
        wrong.append(f"check: {tracks} tracks, but {found['used']} used and {len(excluded)} excluded")
    rows = found["classes"].values()
    without_genre = tracks - sum(row["tracks"] for row in rows)
    if sum(row["excluded"] for row in rows) + without_genre != len(excluded) - kept:
        wrong.append("check: the numbers of excluded tracks per genre do not add up")
    if any(not finding["detail"] for finding in excluded):
        wrong.append("check: a track is excluded without a reason")
    unusable = sum(finding["kind"] == "unusable" for finding in excluded)
    for when, ran, expected in (("before", first, unusable), ("after", second, len(excluded))):
        if ran.code != 0:
            continue
        used = re.search(r": (\d+) tracks, \d+ genres, ", ran.out)
        count = re.search(r"^excluded: (\d+)$", ran.out, re.MULTILINE)
        if not used or not count:
            wrong.append(f"info {when} the check does not print the numbers of used and excluded tracks")
        elif int(used[1]) + int(count[1]) != tracks:
            wrong.append(f"info {when} the check: {used[1]} and {count[1]} are not {tracks} tracks")
        elif int(count[1]) != expected and "quarantined" not in first.out:
            wrong.append(f"info {when} the check excludes {count[1]} tracks, the check {expected}")
    return wrong


def counted_in(notes: Sequence[str]) -> int:
    """The sum of what notes count ("12 files skipped ...") or name ("not unpacked: ...")."""
    counts = [re.match(r"\d[\d,]*(?= )", note) for note in notes]
    named = sum(note.startswith("not unpacked: ") for note in notes)
    return named + sum(int(count[0].replace(",", "")) for count in counts if count)


def account_of_whole(whole: Whole, case: Case, found: dict[str, Any]) -> list[str]:
    """Whether all tracks are accounted for."""
    rows = whole.rows(case.place) if callable(whole.rows) else whole.rows
    accounted = found["tracks"] + counted_in(found["notes"])
    wrong = [f"{accounted} of {rows} tracks are accounted for"] if rows not in (None, accounted) else []
    return wrong if "used" in whole.expect else [*wrong, "it is used and not refused"]


def account_of_files(case: Case, found: dict[str, Any]) -> list[str]:
    """Files with the wrong outcome, and files that are not accounted for."""
    music = case.place.inputs / "music"
    excluded = {f["track_id"]: f["detail"] for f in found["findings"] if f["excluded"]}
    tracks, others = sorted_files(music)
    wrong = [f"excluded, but no such file: {track_id!r}" for track_id in {*excluded} - {*tracks}]
    if len(tracks) != found["tracks"]:
        wrong.append(f"{len(tracks)} audio files have a genre, but the check counts {found['tracks']}")
    if counted_in(found["notes"]) != len(others):
        wrong.append(f"the notes do not count {len(others)} entries: {found['notes']}, {others[:5]}")
    for each in case.members:
        assert isinstance(each, Input)
        name = as_text(os.path.relpath(music / each.genre / each.path, music))
        own = [track_id for track_id in tracks if f"{track_id}/".startswith(f"{name}/")]
        outcome = "noted" if not own else "excluded" if own[0] in excluded else "used"
        if outcome not in each.expect:
            reason = excluded.get(own[0], "") if own else ""
            wrong.append(f"{each.what}: {outcome} ({reason}), expected {' or '.join(each.expect)}")
    return wrong


def sorted_files(music: Path) -> tuple[list[str], list[str]]:
    """Ids of the files that are tracks, and the entries that a note must count."""
    tracks, others, todo = list[str](), list[str](), [music]
    while todo:
        folder = todo.pop()
        for entry in os.scandir(folder):
            path = Path(entry.path)
            suffix, name = path.suffix.lower(), as_text(path.relative_to(music))
            hidden = entry.name.startswith(".") or entry.name == "__MACOSX"
            if entry.is_dir(follow_symlinks=False) and not hidden:
                todo.append(path)
            elif hidden or (entry.is_symlink() and path.is_dir()):
                others.append(name)
            elif suffix in SUFFIXES and folder != music:
                tracks.append(name)
            elif not is_manifest(path) or folder != music:  # a table beside the genres is named
                others.append(name)
    return tracks, others


# The checks themselves


def test_faults_are_noticed() -> None:
    good = Ran(["data", "info"], 0, 10**8, "music: 3 tracks\n", "", [])
    assert faults(good) == []
    for changed, words in (
        ({"code": 1, "err": "Traceback (most recent call last):\nKeyError: 3"}, "KeyError: 3"),
        ({"code": -11}, "exit code -11"),
        ({"code": 1, "err": "Timeout (0:01:00)!\n"}, "no answer"),
        ({"code": 2}, "without a message"),
        ({"peak": 3 * 10**9}, "3.0 GB"),
        ({"out": "a\x1b[31mred"}, "x1b"),
        ({"out": "excluded: 1\nFORGED: all is well"}, "begins a line"),
        ({"touched": ["open /etc/passwd"]}, "touched"),
    ):
        (wrong,) = faults(Ran(**{**vars(good), **changed}))
        assert words in wrong


def test_writes_outside_and_network_are_noticed(tmp_path: Path) -> None:
    guard = Guard()
    guard.allowed = (f"{tmp_path}{os.sep}",)
    guard("open", (str(tmp_path / "here"), "w", os.O_WRONLY | os.O_CREAT))
    guard("open", ("/etc/passwd", "r", os.O_RDONLY))
    assert guard.touched == []
    (tmp_path / "link").symlink_to("/etc")
    guard("open", (str(tmp_path / "link" / "passwd"), "w", os.O_WRONLY))
    guard("os.rename", (str(tmp_path / "a"), str(tmp_path / ".." / "b"), -1, -1))
    guard("socket.connect", (None, ("127.0.0.1", 80)))
    assert [text.split()[0] for text in guard.touched] == ["open", "os.rename", "socket.connect"]


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
