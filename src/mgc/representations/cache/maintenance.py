"""`mgc cache`: list the embedding cache, verify it, and remove what is not needed.

Nothing here removes an embedding that today's code would use, and nothing is removed without --apply.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mgc.data import Track
from mgc.representations import ModelSpec, open_representation
from mgc.representations.cache.embeddings import (
    ASIDE,
    CARD,
    INDEX,
    EmbeddingCache,
    Shard,
    damage,
    generation_of,
    read_card,
    scan,
)
from mgc.util.errors import MgcError, counted, did_you_mean, printable
from mgc.util.progress import Progress
from mgc.util.text import text_table
from mgc.workspace import Workspace

FORMATS = ("table", "json")
ABANDONED_SECONDS = 3600.0  # an incomplete file of this age has lost its writer
State = Literal["current", "stale", "unknown"]


@dataclass(frozen=True)
class Held:
    """What one folder of the cache holds; `seconds` of computing, `written` in local time.

    `state` is stale if today's code, weights or library versions would use another folder, and unknown if the
    representation cannot be opened; `why` explains it.
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
    """Every folder of the cache, by name. `MgcError`: a shard cannot be read."""
    rows = [_held(folder, workspace) for folder in _folders(workspace.cache)]
    return sorted(rows, key=lambda row: (row.name, row.written))


def render(rows: Sequence[Held], form: str, cache: Path) -> str:
    """The list in one of FORMATS.

    Raises:
        MgcError: unknown format.
    """
    if form not in FORMATS:
        raise MgcError(f"unknown format {form!r}", fix=did_you_mean(form, FORMATS))
    if form == "json":
        return json.dumps([asdict(row) for row in rows], indent=2)
    cells = [
        (
            row.name, row.clips, row.shards, f"{row.megabytes:.1f}", f"{row.seconds:.0f}", row.state,
            row.written, "; ".join(filter(None, (row.source, row.why))),
        )
        for row in rows
    ]  # fmt: skip
    head = ["name", "clips", "shards", "MB", "seconds", "state", "written", "source"]
    return f"{text_table(head, cells)}\n{counted(len(rows), 'representation')} in {printable(str(cache))}"


def verify(apply: bool, cache: Path) -> tuple[list[str], int]:
    """Read every byte: the findings as lines, and how many problems remain.

    With `apply` damaged shards are set aside, and the next `mgc embed` computes their clips again.

    Raises:
        MgcError, OSError: a shard cannot be read or set aside.
    """
    folders = {folder: sorted(folder.glob("shard-*.arrow")) for folder in _folders(cache)}
    total = sum(map(len, folders.values()))
    problems, lines = [], []
    with Progress("verify", total, "shards") as progress:
        for folder, shards in folders.items():
            card, problem = _card(folder)
            problems += [problem] if problem else []
            for shard in shards:
                if damaged := damage(shard, card):
                    lines.append(f"{damaged}{f'; set aside as {damaged.set_aside()}' if apply else ''}")
                progress.step()
    if not problems + lines:
        return [f"{counted(total, 'shard')} checked, none is damaged"], 0
    fix = "mgc embed computes their clips again" if apply else "mgc cache verify --apply sets them aside"
    last = f"{len(lines)} of {counted(total, 'shard')} damaged: {fix}"
    return [*problems, *lines, last], len(problems) + (0 if apply else len(lines))


def recomputed(tracks: Sequence[Track], clips: int, workspace: Workspace) -> tuple[list[str], int]:
    """Compute up to `clips` of the tracks again with every cached representation, and compare.

    Returns the findings as lines, and how many representations differ by more than the tolerance.
    """
    from mgc.representations.cache.embed import TOLERANCE, recompute
    from mgc.util.devices import make_accelerator

    where = make_accelerator("auto").device
    lines, differing = [], 0
    for folder in _folders(workspace.cache):
        try:
            card = read_card(folder / CARD)
            representation = open_representation(ModelSpec.from_dict(card["spec"]), workspace)
            if representation.key != card["key"]:
                lines.append(f"{card['name']}: not compared: stale")
                continue
            cache = EmbeddingCache(representation, workspace.cache, generation_of(folder))
            found = recompute(cache, tracks, partial(representation.encoder, where), where, clips)
        except MgcError as error:
            lines.append(f"{folder.name}: not compared: {error.what}")
            continue
        worst = max(found.values(), default=0.0)
        differing += worst > TOLERANCE
        verdict = "differs" if worst > TOLERANCE else "agrees"
        measured = f"{verdict}, largest deviation {100 * worst:.2g} % ({100 * TOLERANCE:g} % is accepted)"
        clips_of = f"{counted(len(found), 'clip')} recomputed" if found else "none of these tracks is cached"
        lines.append(f"{folder.name}: {clips_of}{f': {measured}' if found else ''}")
    return lines or ["the embedding cache is empty"], differing


def prune(apply: bool, workspace: Workspace) -> list[str]:
    """What can be removed and how many megabytes that is, as lines; removed only with `apply`.

    Raises:
        MgcError, OSError: a shard cannot be read, or a file cannot be removed.
    """
    removals = [removal for folder in _folders(workspace.cache) for removal in _removals(folder, workspace)]
    if not removals:
        return ["nothing to remove"]
    files = [file for _, some in removals for file in some]
    lines = [f"{_megabytes(some):9.1f} MB  {why}" for why, some in removals]
    total = f"{_megabytes(files):9.1f} MB"
    if not apply:
        return [*lines, f"{total} can be removed; run again with --apply"]
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
    shards, damaged = scan(folder)
    card, problem = _card(folder)
    state, why = _state(folder, card, workspace) if card else ("unknown", problem)
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


def _state(folder: Path, card: Mapping[str, Any], workspace: Workspace) -> tuple[State, str]:
    """Whether embeddings in this folder would be read today, and what else there is to say."""
    try:
        today = open_representation(ModelSpec.from_dict(card["spec"]), workspace)
    except MgcError as error:
        return "unknown", error.what
    if card["key"] != today.key:
        return (
            "stale",
            f"other {'weights' if card['weights'] != today.weights else 'revision or settings'} today",
        )
    if EmbeddingCache(today, workspace.cache).generation != generation_of(folder):
        return "stale", "computed with other library versions than another generation"
    return "current", ""


def _removals(folder: Path, workspace: Workspace) -> Iterator[tuple[str, list[Path]]]:
    """What can be removed from one folder: why, and which files."""
    name = printable(folder.name)
    card, problem = _card(folder)
    state, why = _state(folder, card, workspace) if card else ("unknown", problem)  # unknown ones are kept
    if aside := sorted(folder.glob(f"shard-*{ASIDE}")):
        yield f"{name}: {len(aside)} damaged shards that were set aside", aside
    if parts := sorted(_abandoned(folder)):
        yield f"{name}: {len(parts)} incomplete files of writers that have ended", parts
    shards, damaged = scan(folder)
    if state == "stale":
        # The card goes last: if interrupted, the next prune still knows what the rest is.
        files = [*shards, *(one.path for one in damaged), folder / INDEX, folder / CARD]
        yield f"{name}: stale, {why}", [file for file in files if file.exists()]
    elif (copies := _duplicates(shards)) and not any(damage(p, card) for p in shards if p not in copies):
        yield f"{name}: {len(copies)} shards whose clips are all in others too", copies


def _abandoned(folder: Path) -> Iterator[Path]:
    for part in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                yield part


def _duplicates(shards: Mapping[Path, Shard]) -> list[Path]:
    """Shards that two processes computed: each clip is in a shard that stays. Small ones go first."""
    copies = Counter(clip for shard in shards.values() for clip in shard.clips)
    duplicates = []
    for path in sorted(shards, key=lambda path: len(shards[path].clips)):
        own = Counter(shards[path].clips)
        if all(copies[clip] > count for clip, count in own.items()):
            duplicates.append(path)
            copies.subtract(own)
    return duplicates


def _megabytes(files: Sequence[Path]) -> float:
    return sum(file.stat().st_size for file in files if file.exists()) / 1e6
