"""The quarantine file: what `mgc data check` decided about single tracks, read by every later run.

`results/<data>/quarantine.csv`, a row a track:

    track_id  as in the data set
    left_out  "yes" or "no" by the check; a person may write "keep": used, whatever a check says
    kind      "unusable", "short", "label conflict", "copy"; or "by hand", a row that a person has added
    reason    in words
    copy_of   of a copy: the track that it must stand on one side with, if it is used
    label, path, content

A row counts only while the content of the file is what it was: a clip that was mended is used again. So is
one of the kind "unusable" that can be decoded by now, on a machine with another decoder, say. A row "by hand"
counts always, and no check takes it out.
"""

import csv
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from mgc.util import files
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

BY_HAND = "by hand"


@dataclass(frozen=True)
class Quarantined:
    """One row of the file."""

    track_id: str
    left_out: str
    kind: str
    reason: str
    copy_of: str
    label: str
    path: str
    content: str

    @property
    def word(self) -> str:
        """`left_out` however it is typed: "yes", "no" or "keep"."""
        return self.left_out.strip().lower()


def quarantine_file(name: str, workspace: Workspace) -> Path:
    """Where the quarantine of the data set `name` lies."""
    return workspace.results_of(name) / "quarantine.csv"


def read_quarantine(name: str, workspace: Workspace) -> dict[str, Quarantined]:
    """The rows by track id; none where nothing was checked.

    Raises:
        MgcError: the file cannot be read, lacks a column, or says something else than yes or no.
    """
    file = quarantine_file(name, workspace)
    if not file.exists():
        return {}
    fix = "mend it, or delete it and run mgc data check again"
    columns = [field.name for field in fields(Quarantined)]
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
        found = [Quarantined(**{column: row[column] or "" for column in columns}) for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise MgcError(f"the quarantine file cannot be read: {error}", where=file, fix=fix) from None
    except KeyError as error:
        raise MgcError(f"the quarantine file has no column {error}", where=file, fix=fix) from None
    for number, row in enumerate(found, start=1):
        if row.word not in ("yes", "no", "keep"):
            what = f"row {number} of the quarantine file: left_out is {row.left_out!r}, not yes, no or keep"
            raise MgcError(what, where=file, fix=fix)
    return {row.track_id: row for row in found}


def write_quarantine(
    name: str, workspace: Workspace, looked_at: Collection[str], found: Iterable[Quarantined]
) -> Path:
    """Put down what a check `found`, and take out rows of tracks `looked_at` (ids) that it found good.

    Rows of other tracks, rows "by hand", and a person's "keep" for the same content stay.
    """
    before = read_quarantine(name, workspace)
    rows = {i: row for i, row in before.items() if i not in looked_at or row.kind == BY_HAND}
    for row in found:
        old = before.get(row.track_id)
        if old is None or (old.kind != BY_HAND and not _keeps(old, row.content)):
            rows[row.track_id] = row
        elif old.kind != BY_HAND:
            rows[row.track_id] = replace(row, left_out=old.left_out)
    text = io.StringIO()
    # By itself csv does not quote a lone carriage return, and then cannot read it.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow([field.name for field in fields(Quarantined)])
    writer.writerows([[*vars(rows[track_id]).values()] for track_id in sorted(rows)])
    return files.write(quarantine_file(name, workspace), text.getvalue())


def is_left_out(row: Quarantined | None, content: str) -> bool:
    """Whether a track that can be decoded, and has this content, stays out all the same."""
    if row is None or row.word != "yes":
        return False
    return row.kind == BY_HAND or (row.content == content and row.kind != "unusable")


def _keeps(row: Quarantined, content: str) -> bool:
    return row.content == content and row.word == "keep"
