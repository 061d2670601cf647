"""Store the outputs of entries after their revision was raised: python tests/golden/rewrite.py [ENTRY ...]

Without names, every entry whose revision was raised or that has no stored outputs is written. An entry whose
outputs changed while its revision did not is refused. `keys` and `defaults` rewrite keys.json and
defaults.json.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden.entries import (
    FOLDER,
    NotHereError,
    defaults,
    differences,
    entries,
    keys,
    store,
    stored_revisions,
)


def lowered(now: tuple[int, ...], before: tuple[int, ...]) -> int | None:
    """The first revision that is lower than the stored one."""
    return next((new for new, old in zip(now, before, strict=False) if new < old), None)


def rewrite(names: list[str]) -> int:
    """EmbeddingCache the outputs of the named entries; the number of entries that are refused."""
    known, refused = entries(), 0
    if unknown := {*names} - {*known, "keys", "defaults"}:
        sys.exit(f"unknown entries: {', '.join(sorted(unknown))}; known: {', '.join(known)}, keys, defaults")
    for name, make in (("keys", keys), ("defaults", defaults)):
        if name in names or not (FOLDER / f"{name}.json").exists():
            (FOLDER / f"{name}.json").write_text(json.dumps(make(), indent=1) + "\n")
            print(f"{name}: written")
    for name, entry in known.items():
        before = stored_revisions(name)
        raised = before is None or (before != entry.revisions and lowered(entry.revisions, before) is None)
        if (names and name not in names) or (not names and not raised):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                outputs = entry.compute(Path(folder))
            except NotHereError as reason:
                print(f"{name}: skipped, {reason}")
                continue
        if raised:
            store(name, entry, outputs)
            print(f"{name}: written")
        elif changed := differences(name, entry, outputs):
            refused += 1
            print(f"{name}: REFUSED: its outputs changed ({changed[0]}), but its revision is still {before}")
        else:
            print(f"{name}: unchanged")
    return refused


if __name__ == "__main__":
    sys.exit(min(1, rewrite(sys.argv[1:])))
