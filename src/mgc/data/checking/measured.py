"""A thorough look at every file, remembered by content."""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mgc.audio import Clip
from mgc.data import clips
from mgc.data.checking.fingerprint import examine_and_print
from mgc.data.checking.measure import Examination
from mgc.util.progress import Progress

REVISION = 1  # of what is measured of a file: raised by hand when the same file gives another result

Look = tuple[Examination, np.ndarray]  # and the fingerprint, (n,) uint32


def examine_all(paths: Sequence[Path], cache: Path) -> list[Look]:
    """What a thorough look finds for every path; remembered where the file and the rules are unchanged.

    Interrupted, it keeps what it has looked at.
    """
    with clips.open_index(cache) as index:
        table = _table(index)
        found = _remembered(index, table, paths)
        todo = [path for path in dict.fromkeys(paths) if path not in found]
        fresh: list[tuple[str, Path, Look]] = []
        written = time.monotonic()
        try:
            with Progress("examine audio files", len(todo), "files") as progress:
                for path, state, look in clips.unordered(_examine, todo):
                    found[path] = look
                    if look[0].problem is None:
                        fresh.append((state, path, look))
                    if time.monotonic() - written >= clips.WRITE_EVERY_SECONDS:
                        _remember(index, table, fresh)
                        fresh, written = [], time.monotonic()
                    progress.step()
        finally:
            _remember(index, table, fresh)
    return [found[path] for path in paths]


def _examine(path: Path) -> tuple[Path, str, Look]:
    """The state goes with what is read after it: a file that changes meanwhile is looked at again."""
    return path, clips.state_of(path), examine_and_print(path)


def _table(index: sqlite3.Connection) -> str:
    name = f"examined_{REVISION}"
    old = index.execute("SELECT name FROM sqlite_master WHERE name LIKE 'examined_%' AND name != ?", (name,))
    with index:
        for (other,) in old.fetchall():
            index.execute(f'DROP TABLE "{other}"')
        index.execute(f"CREATE TABLE IF NOT EXISTS {name} (clip TEXT PRIMARY KEY, facts TEXT, print BLOB)")
    return name


def _remembered(index: sqlite3.Connection, table: str, paths: Sequence[Path]) -> dict[Path, Look]:
    found = {}
    for path, clip in clips.remembered(index, paths).items():
        row = index.execute(
            f"SELECT facts, print FROM {table} WHERE clip = ?", (_key(path, clip.content),)
        ).fetchone()
        if row:
            facts = json.loads(row[0])
            facts["remarks"] = tuple(facts["remarks"])
            found[path] = (Examination(**facts), np.frombuffer(row[1], np.uint32))
    return found


def _remember(index: sqlite3.Connection, table: str, fresh: Sequence[tuple[str, Path, Look]]) -> None:
    looks = [
        (path, state, Clip(e.content, e.seconds, e.sample_rate_hz, e.channels, e.problem))
        for state, path, (e, _) in fresh
    ]
    clips.remember(index, looks)
    rows = [
        (_key(path, look.content), json.dumps(asdict(look)), words.astype(np.uint32).tobytes())
        for _, path, (look, words) in fresh
    ]
    with index:
        index.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", rows)


def _key(path: Path, content: str) -> str:
    """What is said of the name's ending belongs to the name: the same bytes may be called otherwise."""
    return f"{content}{path.suffix.lower()}"
