"""Malformed and hostile input for the data commands: `python scripts/fuzz_data.py [--seed 0] [--count 1500]`.

Audio files, folders, manifests, zips, quarantine files and copies of FMA's tracks.csv that are cut off,
flipped, mislabelled, lying or meant to do harm (`hostile_inputs.py` makes them) are given to `mgc data info`,
`mgc data check` and `mgc embed`, in child processes. Whatever the input, this must hold:

    a command ends with exit code 0, or with 2 and words; no traceback, no crash, within a minute and 2 GB
    nothing is written but below the cache, the results and the data root; nothing is asked of a network
    the input is as it was before
    every file is accounted for: used, left out with a reason, or counted in a note
    the figures of `info` and `check` agree; no name reaches the terminal or the report as a control sequence

A folder holds up to `--batch` inputs at a time; where something fails, each of them is tried alone, so that
the report names the culprit. `--only WORD` takes the inputs whose kind or description holds the word, `--keep
FOLDER` leaves all that was made there. Exit code 1 where anything failed. Linux; elsewhere memory is not told
apart by command.
"""

import contextlib
import faulthandler
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from hostile_inputs import GOOD_CLIPS, Input, Place, Whole, choose, material, small_wav

from mgc.audio import SUFFIXES
from mgc.data.dataset import as_text
from mgc.data.sources.local import MANIFEST_SUFFIXES
from mgc.util.progress import Progress
from mgc.workspace import Workspace

LIMIT_SECONDS = 60.0  # a command
LIMIT_BYTES = 2_000_000_000  # resident, a command
ADDRESS_BYTES = 16 << 30  # a child that wants more gets a MemoryError, and not the machine out of breath

# Kinds whose usable files are encoded as well, if the weights are here.
EMBEDDED = ("lying header", "mp3 tags and frames", "ogg pages", "names", "mixtures")


@dataclass
class Case:
    """What is run at once: the inputs of one folder, or one `Whole`.

    `encode`: with an encoder, too. `options` name the data for a command; `before` is what lay there.
    """

    name: str
    members: Sequence[Input | Whole]
    encode: bool = False
    options: list[str] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> Whole | None:
        """The data set, if it is not a folder of inputs."""
        first = self.members[0]
        return first if isinstance(first, Whole) else None

    def commands(self) -> list[list[str]]:
        """Look, check, look again by what the check has found, encode what can be used."""
        everything = ["--set", "data.max_excluded=1"]
        own = [
            ["data", "info", *self.options, *everything],
            ["data", "check", "--format", "json", *self.options],
            ["data", "info", *self.options],
            ["data", "check", *self.options],
        ]
        if self.encode:
            own.append(["embed", "--model", "musicnn", "--device", "cpu", *self.options, *everything])
        return own


@dataclass(frozen=True)
class Ran:
    """What one command did in a child; `broke` are writes outside and calls to a network."""

    command: list[str]
    code: int
    peak: int  # bytes
    out: str
    err: str
    broke: list[str]


# ---- the child -------------------------------------------------------------------------------------------


def serve(jobs: Path) -> None:
    """Run the commands of the cases in the file `jobs`, one after another, in this process.

    A line of JSON goes to `<jobs>.done` before and after each command, so that whoever waits knows what was
    under way when this process dies. A command that takes too long kills it; its output then ends with the
    stacks of all threads.
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
                print(json.dumps({"case": job["case"], "begins": number}), file=done, flush=True)
                ran = run_here(cli.main, command, Path(job["output"], str(number)))
                ran |= {"case": job["case"], "number": number, "broke": guard.broke}
                print(json.dumps(ran), file=done, flush=True)
                guard.broke = []


def run_here(main: Callable[[], None], command: list[str], output: Path) -> dict[str, Any]:
    """One command line; whatever any code writes to the streams 1 and 2 lands in the files `output`.*."""
    kept = [os.dup(1), os.dup(2)]
    start, code = time.monotonic(), 0
    with output.with_suffix(".out").open("wb") as out, output.with_suffix(".err").open("wb") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        forget_peak()
        faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True, file=err)
        try:
            sys.argv = ["mgc", *command]
            try:
                main()
            finally:
                sys.stdout.flush()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            code = 1
            traceback.print_exc()
        faulthandler.cancel_dump_traceback_later()
        sys.stderr.flush()
    for stream, keep in zip((1, 2), kept, strict=True):
        os.dup2(keep, stream)
        os.close(keep)
    return {"code": code, "seconds": time.monotonic() - start, "peak": peak_bytes()}


def forget_peak() -> None:
    """Let Linux count the peak of the resident memory anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most resident memory of this process."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


# How many of an event's first arguments are paths that are changed.
CHANGES = {"os.mkdir": 1, "os.rmdir": 1, "os.remove": 1, "os.rename": 2, "os.link": 2, "os.truncate": 1,
           "os.chmod": 1, "os.chown": 1, "os.utime": 1, "shutil.rmtree": 1, "sqlite3.connect": 1}  # fmt: skip
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """An audit hook that notes in `broke` every write outside of the folders `allowed`, and every call to a
    network. It hears of what Python does; libraries in C write nothing here by themselves."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.broke: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """One event, as `sys.addaudithook` tells it."""
        if event in NETWORK:
            self.broke.append(f"{event} {arguments}")
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
                    self.broke.append(f"{event} {as_text(where)}")


# ---- the sandbox -----------------------------------------------------------------------------------------


class Sandbox:
    """The folders of a whole run. Only `work` may change: caches, results and data roots of the cases."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.inputs, self.work, self.clips = self.home / "inputs", self.home / "work", self.home / "clips"
        for folder in (self.inputs, self.work / "tmp", self.clips, self.home / "canary", self.home / "here"):
            folder.mkdir(parents=True)
        for genre, first in (("calm", 300), ("pulse", 400)):
            for number in range(GOOD_CLIPS):
                (self.clips / f"{genre}-{number}.wav").write_bytes(small_wav(first + number))

    def place(self, case: Case) -> Place:
        """The folders of a case."""
        own = self.work / case.name
        return Place(self.inputs / case.name, own / "results", own / "data", self.clips)

    def output(self, case: Case) -> Path:
        """Where the commands of a case have their output."""
        return self.work / case.name / "output"

    def job(self, case: Case, first: int) -> dict[str, Any]:
        """What a child is told of a case: its commands from the number `first` on."""
        place = self.place(case)
        shared = (self.work / "cache", self.work / "tmp", Workspace.from_environment().weights.absolute())
        return {
            "case": case.name,
            "commands": case.commands()[first:],
            "environment": {
                "MGC_RESULTS": str(place.results),
                "MGC_DATA_ROOT": str(place.root),
                "MGC_QUARANTINE": str(place.results / "quarantine"),
            },
            "output": str(self.output(case)),
            "writable": [str(folder) for folder in (place.results, place.root, self.output(case), *shared)],
        }

    def environment(self) -> dict[str, str]:
        """The variables of a child: nothing that a library keeps for itself lands elsewhere."""
        kept = str(self.work / "tmp")
        return os.environ | {
            "MGC_EMBEDDINGS_CACHE": str(self.work / "cache"),
            "XDG_CACHE_HOME": str(Workspace.from_environment().weights.parent.absolute()),
            **dict.fromkeys(("TMPDIR", "HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"), kept),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def untouchable(self) -> dict[str, str]:
        """Every entry outside of `work`, by its path."""
        return {path: state for path, state in listing(self.home).items() if not _below(path, self.work)}


def _below(path: str, folder: Path) -> bool:
    return f"{path}{os.sep}".startswith(f"{folder}{os.sep}")


def listing(folder: Path) -> dict[str, str]:
    """Every entry below a folder, links not followed: kind, size and time of the last change."""
    found, todo = {}, [folder]
    while todo:  # not os.walk, which in Python 3.11 calls itself for every level
        for entry in os.scandir(todo.pop()):
            stat = entry.stat(follow_symlinks=False)
            found[entry.path] = f"{stat.st_mode:o} {stat.st_size} {stat.st_mtime_ns}"
            if entry.is_dir(follow_symlinks=False):
                todo.append(Path(entry.path))
    return found


def remove(folder: Path) -> None:
    """A folder and all below it; shutil.rmtree calls itself for every level, too, and keeps each open."""
    for entry in sorted(map(Path, listing(folder)), key=lambda path: len(path.parts), reverse=True):
        if entry.is_dir() and not entry.is_symlink():
            entry.rmdir()
        else:
            entry.unlink()
    folder.rmdir()


def build(case: Case, sandbox: Sandbox) -> None:
    """Put the inputs of a case in their place; in a folder, with enough good clips in every genre."""
    place = sandbox.place(case)
    place.inputs.mkdir()
    sandbox.output(case).mkdir(parents=True)
    if case.whole:
        case.options = case.whole.make(place)
    else:
        music = place.inputs / "music"
        inputs = [each for each in case.members if isinstance(each, Input)]
        for first, genre in enumerate(dict.fromkeys(("calm", "pulse", *(each.genre for each in inputs)))):
            (music / genre).mkdir(parents=True)
            for number in range(GOOD_CLIPS):
                (music / genre / f"good-{number}.wav").write_bytes(small_wav(500 + 10 * first + number))
        for each in inputs:
            path = music / each.genre / each.path
            if callable(each.make):
                each.make(path)
            else:
                path.write_bytes(each.make)
        case.options = ["--data", str(music)]
    case.before = listing(place.inputs)


# ---- the parent ------------------------------------------------------------------------------------------


def run_cases(cases: Sequence[Case], sandbox: Sandbox, progress: Progress) -> dict[str, list[Ran]]:
    """Run the commands of all cases in a child; one that dies is followed by another for the rest."""
    ran: dict[str, list[Ran]] = {case.name: [] for case in cases}
    todo = [*cases]
    while todo:
        jobs = sandbox.work / f"jobs-{time.monotonic_ns()}.json"
        jobs.write_text(json.dumps([sandbox.job(case, 0) for case in todo]))
        child = subprocess.Popen(
            [sys.executable, "-B", "-X", "utf8", __file__, "--serve", str(jobs)],
            env=sandbox.environment(),
            cwd=sandbox.home / "here",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        last_words = wait_for(child, jobs.with_suffix(".done"), progress)
        lines = [json.loads(line) for line in jobs.with_suffix(".done").read_text().splitlines()]
        by_name = {case.name: case for case in todo}
        for line in lines:
            if "code" in line:
                ran[line["case"]].append(as_ran(line, by_name[line["case"]], sandbox))
        if child.returncode == 0:
            break
        if not lines or "begins" not in lines[-1]:
            raise RuntimeError(f"the child could not work (exit code {child.returncode}):\n{last_words}")
        case = by_name[lines[-1]["case"]]
        died = {"number": lines[-1]["begins"], "code": child.returncode}
        ran[case.name].append(as_ran(died, case, sandbox))
        todo = todo[todo.index(case) + 1 :]
    return ran


BEGINS_A_CASE = b'"begins": 0}'


def wait_for(child: "subprocess.Popen[bytes]", done: Path, progress: Progress) -> str:
    """Wait until a child ends, or kill it if it has not finished a command for too long; its last words."""
    seen, moved = b"", time.monotonic()
    assert child.stderr
    try:
        while child.poll() is None:
            time.sleep(0.05)
            now = done.read_bytes() if done.exists() else b""
            if now != seen:
                progress.step(now.count(BEGINS_A_CASE) - seen.count(BEGINS_A_CASE))
                seen, moved = now, time.monotonic()
            if time.monotonic() - moved > LIMIT_SECONDS + 30:
                os.killpg(child.pid, signal.SIGKILL)
        return child.stderr.read().decode("utf-8", "replace")
    finally:
        if child.poll() is None:  # interrupted
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stderr.close()
        done.touch()


def as_ran(line: dict[str, Any], case: Case, sandbox: Sandbox) -> Ran:
    """One command's record, with what it wrote."""
    output = sandbox.output(case) / str(line["number"])
    out, err = (output.with_suffix(s).read_bytes().decode("utf-8", "replace") for s in (".out", ".err"))
    command = case.commands()[line["number"]]
    return Ran(command, line["code"], line.get("peak", 0), out, err, line.get("broke", []))


# ---- the judge -------------------------------------------------------------------------------------------

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def judge(case: Case, ran: Sequence[Ran], sandbox: Sandbox) -> tuple[dict[str, str], list[str]]:
    """What became of every input (by its description), and what is wrong with it all."""
    place = sandbox.place(case)
    wrong = [f"mgc {' '.join(each.command[:2])}: {text}" for each in ran for text in faults(each)]
    now = listing(place.inputs)
    changed = [path for path in {*case.before, *now} if case.before.get(path) != now.get(path)]
    wrong += [f"the input changed: {as_text(path)}" for path in changed]
    if len(ran) < len(case.commands()):
        return {}, wrong or ["not all commands ran"]
    first, check, second, page = ran[:4]
    wrong += [text for file in place.results.rglob("check.md") for text in odd_report(file)]
    if check.code == 2:
        if page.code == 0:
            wrong.append("check refuses as JSON what it takes as a table")
        refused = [each.what for each in case.members if "refused" not in each.expect]
        wrong += [f"{what}: everything is refused: {last_words(check)}" for what in refused]
        return {each.what: "refused" for each in case.members}, wrong
    try:
        found = json.loads(check.out, parse_constant=refuse_constant)
    except ValueError as error:
        return {}, [*wrong, f"check --format json: {error}"]
    wrong += disagreements(found, first, second)
    outcomes, more = (account_of_whole if case.whole else account_of_folder)(case, place, found)
    return outcomes, [*wrong, *more]


def refuse_constant(text: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(f"{text} is no JSON")


def faults(ran: Ran) -> list[str]:
    """What no command may do, whatever it is given."""
    wrong = []
    if ran.code not in (0, 2) or "Traceback" in ran.out + ran.err:
        wrong.append(last_words(ran))
    if ran.code == 2 and "mgc: " not in ran.err:
        wrong.append("exit code 2 without words")
    if ran.peak > LIMIT_BYTES:
        wrong.append(f"took {ran.peak / 1e9:.1f} GB of memory")
    wrong += [f"touched what it must not: {text}" for text in ran.broke[:3]]
    for stream, text in (("output", ran.out), ("error", ran.err)):
        # JSON is for programs, which may read what some terminals take for a command; but not an escape.
        told = re.sub("[^\x00-\x7e]", "", text) if "json" in ran.command else text
        if found := CONTROL.search(told):
            near = told[max(0, found.start() - 40) : found.end() + 20]
            wrong.append(f"{found[0]!r} stands in the standard {stream}: {near!r}")
        if re.search(r"^\W*FORGED", told, re.MULTILINE):
            wrong.append(f"a name begins a line of its own in the standard {stream}")
    return wrong


def last_words(ran: Ran) -> str:
    """Where in the project a command broke, hung or died, and what was said."""
    hung = "Timeout (" in ran.err
    frames = re.findall(r'File ".*/src/(mgc/\S+)", line (\d+),? in (\S+)', ran.err)
    places = [f"{file}:{line} {function}" for file, line, function in frames]
    places = places[:3] if hung else places[-3:]  # of a hang the innermost stands first
    said = f"no answer within {LIMIT_SECONDS:.0f} s" if hung else as_text(ran.err.strip()[-300:])
    return f"exit code {ran.code}: {said} ({', '.join(places)})"


def odd_report(file: Path) -> list[str]:
    """What must not stand in a page of Markdown."""
    text = file.read_text(encoding="utf-8")
    wrong = [f"check.md holds {mark!r}" for mark in ("<script", "\nFORGED") if mark in text]
    return wrong + [f"check.md holds the control character {found!r}" for found in CONTROL.findall(text)[:1]]


def disagreements(found: dict[str, Any], first: Ran, second: Ran) -> list[str]:
    """Figures of a check that contradict themselves, or `info` before and after it."""
    out = [finding for finding in found["findings"] if finding["excluded"]]
    wrong = []
    if found["used"] + len(out) - len(found["taken_back"]) != found["tracks"]:
        wrong.append(f"check: {found['tracks']} tracks are not {found['used']} used and {len(out)} left out")
    rows = found["classes"].values()
    without_genre = found["tracks"] - sum(row["tracks"] for row in rows)
    if sum(row["left out"] for row in rows) + without_genre != len(out) - len(found["taken_back"]):
        wrong.append("check: what is left out by genre does not add up")
    if any(not finding["detail"] for finding in out):
        wrong.append("check: something is left out without a reason")
    unusable = sum(finding["kind"] == "unusable" for finding in out)
    for called, ran, left_out in (("before", first, unusable), ("after", second, len(out))):
        if ran.code != 0:
            continue
        used = re.search(r": (\d+) tracks, \d+ genres, ", ran.out)
        told = re.search(r"^excluded: (\d+)$", ran.out, re.MULTILINE)
        if not used or not told:
            wrong.append(f"info {called} the check does not say what is used and left out")
        elif int(used[1]) + int(told[1]) != found["tracks"]:
            wrong.append(f"info {called} the check: {used[1]} and {told[1]} are not {found['tracks']} tracks")
        elif int(told[1]) != left_out and "quarantined" not in first.out:
            wrong.append(f"info {called} the check leaves out {told[1]}, the check {left_out}")
    return wrong


def told_in(notes: Sequence[str]) -> int:
    """The sum of what notes count ("12 files whose names ...") or name ("not unpacked: ...")."""
    counts = [re.match(r"\d[\d,]*(?= )", note) for note in notes]
    named = sum(note.startswith("not unpacked: ") for note in notes)
    return named + sum(int(count[0].replace(",", "")) for count in counts if count)


def account_of_whole(case: Case, place: Place, found: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Whether as many tracks are spoken of as there are."""
    whole = case.whole
    assert whole
    rows = whole.rows(place) if callable(whole.rows) else whole.rows
    told = found["tracks"] + told_in(found["notes"])
    wrong = [f"{told} of {rows} tracks are accounted for"] if rows not in (None, told) else []
    if "used" not in whole.expect:
        wrong.append("it is used and not refused")
    return {whole.what: "used"}, wrong


def account_of_folder(case: Case, place: Place, found: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """What became of every input of a folder, and files that nobody speaks of."""
    music = place.inputs / "music"
    out = {finding["track_id"]: finding["detail"] for finding in found["findings"] if finding["excluded"]}
    tracks, others = sorted_out(music)
    wrong = [f"left out, but no such file: {track_id!r}" for track_id in {*out} - {*tracks}]
    if len(tracks) != found["tracks"]:
        wrong.append(f"{len(tracks)} audio files have a genre, the check speaks of {found['tracks']}")
    if told_in(found["notes"]) != len(others):
        wrong.append(f"the notes do not count {len(others)} entries: {found['notes']}, {others[:5]}")
    outcomes = {}
    for each in case.members:
        assert isinstance(each, Input)
        name = as_text(os.path.relpath(music / each.genre / each.path, music))
        own = [i for i in tracks if f"{i}/".startswith(f"{name}/")]
        outcomes[each.what] = outcome = "noted" if not own else "left out" if own[0] in out else "used"
        if outcome not in each.expect:
            reason = out.get(own[0], "") if own else ""
            wrong.append(f"{each.what}: {outcome} ({reason}) instead of {' or '.join(each.expect)}")
    return outcomes, wrong


def sorted_out(music: Path) -> tuple[list[str], list[str]]:
    """Ids of the files that are tracks, and the entries that a note must count."""
    tracks, others, todo = list[str](), list[str](), [music]
    while todo:
        folder = todo.pop()
        for entry in os.scandir(folder):
            path = Path(entry.path)
            suffix = path.suffix.lower()
            hidden = entry.name.startswith(".") or entry.name == "__MACOSX"
            if entry.is_dir(follow_symlinks=False) and not hidden:
                todo.append(path)
            elif hidden or (entry.is_symlink() and path.is_dir()):
                others.append(as_text(path.relative_to(music)))
            elif suffix in SUFFIXES and folder != music:
                tracks.append(as_text(path.relative_to(music)))
            elif suffix not in MANIFEST_SUFFIXES or folder != music:  # a table beside the genres is named
                others.append(as_text(path.relative_to(music)))
    return tracks, others


# ---- all of it -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """What must not be, and how to see it once more."""

    input: str  # "kind: description"
    wrong: list[str]
    again: str


@dataclass
class Report:
    """Outcomes by kind, and failures."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        """How many inputs there were."""
        return sum(sum(counts.values()) for counts in self.outcomes.values())

    def text(self) -> str:
        """A table, and a paragraph a failure."""
        columns = ("used", "left out", "noted", "refused", "failed")
        total = sum(self.outcomes.values(), Counter[str]())
        lines = [f"{'kind':<22}{'inputs':>8}" + "".join(f"{column:>10}" for column in columns)]
        for kind, counts in [*self.outcomes.items(), ("all", total)]:
            cells = "".join(f"{counts[column] or '-':>10}" for column in columns)
            lines.append(f"{kind:<22}{sum(counts.values()):>8}{cells}")
        lines.append(f"{len(self.failures)} failures, {self.seconds:.0f} s")
        for failure in self.failures:
            lines += ["", f"FAILED {failure.input}", *(f"  {text}" for text in failure.wrong), failure.again]
        return "\n".join(lines)


def fuzz(
    home: Path,
    seed: int,
    count: int | None = None,
    clips: Path | None = None,
    only: str = "",
    batch: int = 40,
    encode: bool = True,
) -> Report:
    """Make the inputs below `home`, run the commands on them, and judge what they did.

    `count` inputs in all: fewer than there are by rule are taken evenly from every kind, of more the rest is
    random; None takes all by rule. `encode`: run `mgc embed`, too, if its weights are here.
    """
    start = time.monotonic()
    sandbox, report = Sandbox(home), Report()
    encode &= any(Workspace.from_environment().weights.glob("musicnn*.safetensors"))
    cases = as_cases(choose(material(seed, clips), count, only), batch, encode)
    again = f"  python scripts/fuzz_data.py --seed {seed} --keep FOLDER --only"
    with Progress("fuzz", len(cases), "folders and tables") as progress:
        doubtful = run_and_judge(cases, sandbox, report, progress, again)
        for case, wrong in doubtful:
            alone = [Case(f"{case.name}-{n}", [each], case.encode) for n, each in enumerate(case.members)]
            progress.expect_less(-len(alone))
            before = len(report.failures)
            run_and_judge(alone, sandbox, report, progress, again)
            if len(report.failures) == before:
                name = f"{len(alone)} together, none of them alone, from {case.members[0].what!r} on"
                report.failures.append(Failure(name, wrong, f"{again} {case.members[0].kind!r}"))
    report.seconds = time.monotonic() - start
    return report


def as_cases(inputs: Sequence[Input | Whole], batch: int, encode: bool) -> list[Case]:
    """Folders of up to `batch` inputs, and the data sets."""
    single = [each for each in inputs if isinstance(each, Input)]
    members: list[Sequence[Input | Whole]] = [single[at : at + batch] for at in range(0, len(single), batch)]
    members += [[each] for each in inputs if isinstance(each, Whole)]
    return [
        Case(f"{number:04d}", own, encode and any(each.kind in EMBEDDED for each in own))
        for number, own in enumerate(members)
    ]


def run_and_judge(
    cases: Sequence[Case], sandbox: Sandbox, report: Report, progress: Progress, again: str
) -> list[tuple[Case, list[str]]]:
    """Build, run and judge; returns the folders of several inputs in which something is wrong."""
    for case in cases:
        build(case, sandbox)
    before = sandbox.untouchable()
    ran = run_cases(cases, sandbox, progress)
    doubtful = []
    for case in cases:
        outcomes, wrong = judge(case, ran[case.name], sandbox)
        if wrong and len(case.members) > 1:
            doubtful.append((case, wrong))
            continue
        for each in case.members:
            name = f"{each.kind}: {each.what}"
            report.outcomes[each.kind]["failed" if wrong else outcomes[each.what]] += 1
            if wrong:
                words = [*dict.fromkeys(wrong), f"mgc data check {shlex.join(map(as_text, case.options))}"]
                report.failures.append(Failure(name, words, f"{again} {shlex.quote(as_text(name))}"))
    now = sandbox.untouchable()
    changed = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    if changed:
        report.failures.append(Failure("all: outside of the work folder", [*map(as_text, changed[:5])], ""))
    return doubtful


def main(
    seed: Annotated[int, typer.Option(help="draws what is random")] = 0,
    count: Annotated[int, typer.Option(min=1, help="inputs in all")] = 1_500,
    clips: Annotated[Path | None, typer.Option(help="a folder of real music to damage")] = None,
    only: Annotated[str, typer.Option(help="inputs whose kind or description holds this")] = "",
    batch: Annotated[int, typer.Option(min=1, help="inputs in one folder")] = 40,
    keep: Annotated[Path | None, typer.Option(help="leave what was made in this new folder")] = None,
    serve_: Annotated[Path | None, typer.Option("--serve", hidden=True)] = None,
) -> None:
    """Run the data commands on malformed and hostile input."""
    if serve_:
        serve(serve_)
        return
    if keep and keep.exists():
        raise typer.BadParameter(f"{keep} exists: name a new folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no child is left behind
    home = keep or Path(tempfile.mkdtemp(prefix="fuzz_data_"))
    try:
        report = fuzz(home, seed, count, clips, only, batch)
    finally:
        if not keep:
            remove(home)
    print(report.text())
    raise typer.Exit(1 if report.failures else 0)


if __name__ == "__main__":
    typer.run(main)
