"""The store looked at and tidied: what it holds, whether that is whole, and what nobody will read again.

Nothing here removes a vector that today's code would use, and nothing is removed before it was shown.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mgc.representations import open_representation
from mgc.representations.cache.store import ASIDE, CARD, INDEX, Shard, examine, half_written, look, read_card
from mgc.representations.features.variants import REVISION as STRETCHER
from mgc.util.errors import MgcError, did_you_mean, printable
from mgc.util.progress import Progress
from mgc.workspace import Workspace

FORMATS = ("table", "json")
State = Literal["current", "stale", "unknown"]


@dataclass(frozen=True)
class Held:
    """What the store holds of one representation; `seconds` of computing, `written` in local time.

    `state` is stale where the code or the weights at its address would write to another folder today, and
    unknown where the address cannot be opened; `why` says more.
    """

    name: str
    source: str
    folder: str
    clips: int
    shards: int
    megabytes: float
    seconds: float
    state: State
    why: str
    written: str


def held(workspace: Workspace) -> list[Held]:
    """Every representation in the store, by name. `MgcError`: a shard cannot be read."""
    return sorted(
        (_held(folder, workspace) for folder in _folders(workspace.cache)),
        key=lambda one: (one.name, one.written),
    )


def render(rows: Sequence[Held], form: str, cache: Path) -> str:
    """The list in one of FORMATS.

    Raises:
        MgcError: no such format.
    """
    if form not in FORMATS:
        raise MgcError(f"there is no format {form!r}", fix=did_you_mean(form, FORMATS))
    if form == "json":
        return json.dumps([asdict(row) for row in rows], indent=2)
    table = [["name", "clips", "shards", "MB", "seconds", "state", "written", "source"]]
    for row in rows:
        sizes = (row.clips, row.shards, f"{row.megabytes:.1f}", f"{row.seconds:.0f}")
        cells = (row.name, *sizes, row.state, row.written, "; ".join(filter(None, (row.source, row.why))))
        table.append([printable(str(cell)) for cell in cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, f"{len(rows)} representations in {printable(str(cache))}"])


def verify(apply: bool, cache: Path) -> tuple[list[str], int]:
    """What is found when every byte is read, in lines, and how much of it was left as it is.

    With `apply` damaged shards are set aside, and the next `mgc embed` computes their clips again.

    Raises:
        MgcError, OSError: a shard cannot be read, or not be set aside.
    """
    folders = {folder: sorted(folder.glob("shard-*.arrow")) for folder in _folders(cache)}
    total = sum(map(len, folders.values()))
    problems, lines = [], []
    with Progress("verify", total, "shards") as progress:
        for folder, shards in folders.items():
            card, problem = _card(folder)
            problems += [problem] if problem else []
            for shard in shards:
                if damaged := examine(shard, card):
                    lines.append(f"{damaged}{f'; set aside as {damaged.set_aside().name}' if apply else ''}")
                progress.step()
    if not problems + lines:
        return [f"{total} shards are whole"], 0
    fix = "mgc embed computes their clips again" if apply else "mgc cache verify --apply sets them aside"
    last = f"{len(lines)} of {total} shards are damaged: {fix}"
    return [*problems, *lines, last], len(problems) + (0 if apply else len(lines))


def prune(apply: bool, workspace: Workspace) -> list[str]:
    """What can go and how many megabytes that is, in lines; gone only with `apply`. Interrupted, it goes on.

    Raises:
        MgcError, OSError: a shard cannot be read, or a file not be removed.
    """
    removals = [removal for folder in _folders(workspace.cache) for removal in _removals(folder, workspace)]
    if not removals:
        return ["nothing to remove"]
    files = [file for _, some in removals for file in some]
    lines = [f"{_megabytes(some):9.1f} MB  {why}" for why, some in removals]
    total = f"{_megabytes(files):9.1f} MB"
    if not apply:
        return [*lines, f"{total} can go; nothing was removed: repeat with --apply"]
    with Progress("prune", len(files), "files") as progress:
        for file in files:
            file.unlink(missing_ok=True)
            if not file.parent.is_symlink() and not any(file.parent.iterdir()):
                file.parent.rmdir()
            progress.step()
    return [*lines, f"{total} removed"]


def _folders(cache: Path) -> list[Path]:
    """The folders of representations: each has a card, or at least a shard."""
    patterns = (CARD, "shard-*", ".*.part")
    return sorted({file.parent for pattern in patterns for file in cache.glob(f"*/{pattern}")})


def _held(folder: Path, workspace: Workspace) -> Held:
    shards, damaged = look(folder)
    card, problem = _card(folder)
    state, why = _state(card, workspace) if card else ("unknown", problem)
    spoiled = f"{len(damaged)} damaged shards: mgc cache verify" if damaged else ""
    paths = [*shards, *(one.path for one in damaged)]
    last = max(path.stat().st_mtime for path in paths or [folder])
    return Held(
        name=card["name"] if card else folder.name,
        source=card["source"] if card else "",
        folder=folder.name,
        clips=len({clip for shard in shards.values() for clip in shard.clips}),
        shards=len(paths),
        megabytes=round(_megabytes(paths), 3),
        seconds=sum(sum(shard.seconds) for shard in shards.values()),
        state=state,
        why="; ".join(filter(None, (why, spoiled))),
        written=datetime.fromtimestamp(last).isoformat(" ", "minutes"),
    )


def _card(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The card, or what is wrong with it."""
    try:
        return read_card(folder / CARD), ""
    except MgcError as error:
        return None, str(error)


def _state(card: Mapping[str, Any], workspace: Workspace) -> tuple[State, str]:
    """Whether vectors with this card would be read today, and what else is to be said."""
    try:
        today = open_representation(str(card["address"]), workspace)
    except MgcError as error:
        return "unknown", error.what
    # A variant (another pitch or speed) has the address of the plain one.
    same = (card["weights"], card["revision"]) == (today.weights, today.revision)
    of_variant = same and str(card.get("effect")).startswith(f"stretcher revision {STRETCHER} ")
    if card["fingerprint"] == today.fingerprint or of_variant:
        return "current", ""
    what = "weights" if card["weights"] != today.weights else "code or settings"
    return "stale", f"other {what} today"


def _removals(folder: Path, workspace: Workspace) -> Iterable[tuple[str, list[Path]]]:
    """What can go of one folder: why, and which files."""
    name = printable(folder.name)
    card, problem = _card(folder)
    state, why = _state(card, workspace) if card else ("unknown", problem)  # what nobody can tell stays
    aside, parts = sorted(folder.glob(f"shard-*{ASIDE}")), sorted(half_written(folder))
    if aside:
        yield f"{name}: {len(aside)} damaged shards that were set aside", aside
    if parts:
        yield f"{name}: {len(parts)} half-written files of writers that are gone", parts
    shards, damaged = look(folder)
    if state == "stale":
        # The card goes last: an interrupted prune still knows what the rest is.
        files = [*shards, *(one.path for one in damaged), folder / INDEX, folder / CARD]
        yield f"{name}: stale, {why}", [file for file in files if file.exists()]
    elif (doubled := _doubled(shards)) and not any(examine(p, card) for p in shards if p not in doubled):
        yield f"{name}: {len(doubled)} shards whose clips all stand in others too", doubled


def _doubled(shards: Mapping[Path, Shard]) -> list[Path]:
    """Shards that two processes computed: each clip is in a shard that stays. Small ones go first."""
    copies = Counter(clip for shard in shards.values() for clip in shard.clips)
    doubled = []
    for path in sorted(shards, key=lambda path: len(shards[path].clips)):
        own = Counter(shards[path].clips)
        if all(copies[clip] > count for clip, count in own.items()):
            doubled.append(path)
            copies.subtract(own)
    return doubled


def _megabytes(files: Iterable[Path]) -> float:
    return sum(file.stat().st_size for file in files if file.exists()) / 1e6
