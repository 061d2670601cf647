"""The quarantine file: tracks that `mgc data check` excludes, read by every later command.

`quarantine/<dataset>.csv` (`Workspace.quarantine_file`) has one row per track:

    track_id  as in the dataset
    excluded  "yes" or "no", written by the check; write "keep" to use a track whatever a check finds
    kind      "unusable", "short", "label conflict" or "copy"; "by hand" for a row that you add
    reason    in words
    copy_of   for a copy: the track whose group it joins if it is used
    label, path, content

A row applies while the content of the file is the same: a clip that was fixed is used again. So is a track of
the kind "unusable" that can be decoded now, for instance on a machine with another decoder. A row "by hand"
always applies, and no check removes it.
"""

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from mgc.util import files
from mgc.util.errors import MgcError

BY_HAND = "by hand"


@dataclass(frozen=True)
class Quarantined:
    """One row of the file."""

    track_id: str
    excluded: str
    kind: str
    reason: str
    copy_of: str
    label: str
    path: str
    content: str

    @property
    def word(self) -> str:
        """`excluded` without spaces and in lower case: "yes", "no" or "keep"."""
        return self.excluded.strip().lower()

    def applies_to(self, content: str) -> bool:
        """Whether a track that can be decoded, and has this content hash, is excluded."""
        same_and_usable = self.content == content and self.kind != "unusable"
        return self.word == "yes" and (self.kind == BY_HAND or same_and_usable)


COLUMNS = [field.name for field in fields(Quarantined)]


def read_quarantine(file: Path) -> dict[str, Quarantined]:
    """The rows by track id, none if the file does not exist; `MgcError` if it is not such a file."""
    if not file.exists():
        return {}
    fix = "fix it, or delete it and run mgc data check again"
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
        found = [Quarantined(**{column: row[column] or "" for column in COLUMNS}) for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise MgcError(f"the quarantine file cannot be read: {error}", where=file, fix=fix) from None
    except KeyError as error:
        raise MgcError(f"the quarantine file has no column {error}", where=file, fix=fix) from None
    for number, row in enumerate(found, start=1):
        if row.word not in ("yes", "no", "keep"):
            what = f"row {number} of the quarantine file: excluded is {row.excluded!r}, not yes, no or keep"
            raise MgcError(what, where=file, fix=fix)
    return {row.track_id: row for row in found}


def write_quarantine(file: Path, checked: Collection[str], found: Iterable[Quarantined]) -> None:
    """Write the rows that a check of tracks with the ids `checked` found.

    Rows of other tracks, rows "by hand", and "keep" for the same content remain.
    """
    import pandas as pd

    before = read_quarantine(file)
    rows = {i: row for i, row in before.items() if i not in checked or row.kind == BY_HAND}
    for row in found:
        old = before.get(row.track_id)
        keep = old and old.word == "keep" and old.content == row.content
        rows.setdefault(row.track_id, replace(row, excluded="keep") if keep else row)
    table = pd.DataFrame([vars(rows[track_id]) for track_id in sorted(rows)], columns=COLUMNS)
    # Unless everything is quoted, a lone carriage return is not, and cannot be read back.
    files.write(file, table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL))
