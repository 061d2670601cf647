"""The bundle: one zip to hand in, with all that was said, what it was made from, and how to make it again.

Audio never goes in, nor do paths of this machine. The same records give the same bytes: members are sorted
and bear no time.
"""

import csv
import hashlib
import io
import json
import shlex
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from mgc.report.content import Content, recipe_toml
from mgc.report.page import render_page
from mgc.report.paper import FORMS, Figure, Table, blocks_of, plain, write_papers
from mgc.runs.record import RunRecord, load_records, text_without_places, without_places
from mgc.runs.tables import Row, System, render
from mgc.util import files
from mgc.util.progress import say

NAME = "hand-in.zip"
KEPT = (".json", ".parquet", ".csv", ".md", ".png", ".svg", ".toml")
WEIGHTS = ".safetensors"
MOST_WEIGHTS = 256 * 1024  # bytes of a file: heads and the small networks; all of them would be gigabytes
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold

PLACES = "tracks are called by their paths on this machine"
NO_PLACES = "a manifest with paths relative to it, or with a column id, calls them otherwise"

README = """# {data}: what was found, and how to find it again

| file | what it is |
| --- | --- |
| paper.pdf, .tex, .md | the paper in three forms; `figures/` and `tables/` belong to it |
| report.html | the page with all figures; it plays no audio |
| table.md, table.csv | all systems side by side |
| check.*, quarantine.csv | what the check of the audio found, and what it decided about single tracks |
| tracks-*.csv | what the tracks are called |
| configs/ | a recipe a run: `mgc baseline --config` or `mgc probe --config` |
| commands.sh | all of them, in the order of the runs: `DATA=where/the/music/lies sh commands.sh` |
| runs/ | of each run its record, predictions a track, curves, and weights up to {weights} KiB a file |
| MANIFEST | SHA-256 sums: `sha256sum -c MANIFEST` |

Audio is not in here. Of what lay on one machine only the last name is told: an encoder that was opened from a
folder has to lie in a folder of that name where the commands are run, or `--model` says where it lies.

Left out: {left_out}
"""


def write_bundle(content: Content, folder: Path) -> Path:
    """Write the paper in all forms and `hand-in.zip` into `folder`.

    Raises:
        MgcError: a record or recipe that cannot be read.
    """
    places = [track_id for track_id in content.predictions.track_ids if Path(track_id).is_absolute()]
    if places:
        say(f"{len(places)} {PLACES}, as {places[0]}, and so are they in the bundle: {NO_PLACES}")
    content = _handed_on(content)
    records = [without_places(record) for record in load_records(content.data, content.workspace)]
    members: dict[str, bytes] = {
        path.name: path.read_bytes() for path in write_papers(content, [*FORMS], folder)
    }
    for block in blocks_of(content):
        names = [f"tables/{block.name}.csv"] if isinstance(block, Table) else []
        names += [f"figures/{block.name}.{kind}" for kind in ("pdf", "png") if isinstance(block, Figure)]
        members |= {name: (folder / name).read_bytes() for name in names}
    members["table.md"] = (render(content.sections, "markdown") + "\n").encode()
    members["table.csv"] = (render(content.sections, "csv") + "\n").encode()
    silent = content.recipe.model_copy(update={"audio": False})
    page = render_page(replace(content, recipe=silent))
    members["report.html"] = page.encode("utf-8", errors="backslashreplace")
    left_out = [*_beside(content, members), *_runs(content.folder, members)]
    for record in records:
        if record.kind != "floor":
            members[f"configs/{record.run_id}.toml"] = config_of(record).encode()
    members["commands.sh"] = commands_of(records, content.first).encode()
    members["README.md"] = README.format(
        data=plain(content.data),
        weights=MOST_WEIGHTS // 1024,
        left_out="".join(f"\n- {plain(line)}" for line in sorted(left_out)) or "nothing.",
    ).encode()
    sums = [f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in sorted(members)]
    members["MANIFEST"] = "".join(sums).encode()
    return _packed(members, folder / NAME)


def config_of(record: RunRecord) -> str:
    """The recipe of a run as a file for `mgc baseline --config` or `mgc probe --config`."""
    return f"# mgc {record.kind} --config configs/{record.run_id}.toml\n\n{recipe_toml(record.recipe)}"


def commands_of(records: Sequence[RunRecord], first: RunRecord) -> str:
    """A shell script that repeats every recipe once, in the order of the runs; floors come with them."""
    last = {recipe_toml(record.recipe): record for record in records if record.kind != "floor"}
    runs = [f'mgc {r.kind} --config configs/{r.run_id}.toml --data "$DATA"' for r in last.values()]
    lines = [
        "#!/bin/sh",
        "# What is there already is not run again.",
        "set -eu",
        f'[ -n "${{DATA:-}}" ] || DATA={shlex.quote(first.recipe["data"]["source"])}',
        'mgc data check --data "$DATA"',
        *runs,
        'mgc compare --data "$DATA"',
        'mgc report --data "$DATA" --bundle',
    ]
    return "\n".join(lines) + "\n"


def _handed_on(content: Content) -> Content:
    """All of it, made of records that name no place on this machine."""
    rows = [row for section in content.sections for row in section.rows]
    # By identity: a row's twin and a section's baseline are the systems of other rows.
    known = {}
    for system in (system for row in rows for system in (row.system, row.twin) if system):
        known[id(system)] = System(tuple(map(without_places, system.records)))
        # What has been read and counted, so that it is not again.
        vars(known[id(system)]).update(predictions=system.predictions, scores=system.scores)

    def handed_on(row: Row) -> Row:
        return replace(row, system=known[id(row.system)], twin=known.get(id(row.twin)))

    return replace(
        content,
        records=tuple(map(without_places, content.records)),
        sections=tuple(
            replace(s, rows=[*map(handed_on, s.rows)], baseline=known.get(id(s.baseline)))
            for s in content.sections
        ),
        missing=tuple(map(text_without_places, content.missing)),
        systems=tuple(replace(entry, row=handed_on(entry.row)) for entry in content.systems),
    )


def _beside(content: Content, members: dict[str, bytes]) -> Iterator[str]:
    """The files beside the runs, but for those that are made for the bundle, or are it."""
    table = content.workspace.quarantine_file(content.data)
    if table.exists():
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
        rows["path"] = [Path(path).name for path in rows["path"]]
        members["quarantine.csv"] = rows.to_csv(
            index=False, quoting=csv.QUOTE_ALL, lineterminator="\n"
        ).encode()
    for file in sorted(filter(Path.is_file, content.folder.iterdir())):
        made = file.name in {*members, *FORMS.values(), NAME}
        if file.suffix in KEPT and not made:
            members[file.name] = file.read_bytes()
        elif not made:
            yield f"{file.name}: of no kind that goes in"


def _runs(folder: Path, members: dict[str, bytes]) -> Iterator[str]:
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        if run.name in ("figures", "tables"):
            continue
        if not (run / "record.json").exists():
            yield f"{run.name}/: no finished run"
            continue
        files = sorted(path for path in run.rglob("*") if path.is_file())
        sizes = {file: file.stat().st_size for file in files}
        for file, size in sizes.items():
            if file.suffix in KEPT or (file.suffix == WEIGHTS and size <= MOST_WEIGHTS):
                members[f"runs/{file.relative_to(folder).as_posix()}"] = file.read_bytes()
                files.remove(file)
        name = f"runs/{run.name}/record.json"
        members[name] = _record(members[name])
        if files:
            names = ", ".join(file.name for file in files)
            yield f"runs/{run.name}: {names} ({sum(sizes[file] for file in files) / 1024:,.0f} KiB)"


def _record(text: bytes) -> bytes:
    """What was written, but for places."""
    written = json.loads(text)
    known = {field.name: written[field.name] for field in fields(RunRecord) if field.name in written}
    record = without_places(RunRecord(**known))
    return json.dumps(written | record.to_dict(), indent=2).encode()


def _packed(members: dict[str, bytes], file: Path) -> Path:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, LONG_AGO)
            info.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
            archive.writestr(info, members[name], zipfile.ZIP_DEFLATED)
    return files.write(file, packed.getvalue())
