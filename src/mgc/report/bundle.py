"""The bundle: one zip with the report, what it was made from, and how to reproduce it.

It never contains audio or paths of this machine. The same records give the same bytes: members are sorted and
have no modification times.
"""

import csv
import hashlib
import io
import json
import shlex
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path

import pandas as pd

from mgc.config import recipe_toml
from mgc.report.content import Content
from mgc.report.page import render_page
from mgc.report.paper import FORMS, Figure, Table, blocks_of, write_papers
from mgc.runs.record import RunRecord, load_records, without_places
from mgc.runs.tables import render
from mgc.util import files
from mgc.util.progress import say
from mgc.util.text import one_line

NAME = "hand-in.zip"
KEPT = (".json", ".parquet", ".csv", ".md", ".png", ".svg", ".toml")
WEIGHTS = ".safetensors"
MOST_WEIGHTS = 256 * 1024  # bytes of a file: heads and the small networks; all of them would be gigabytes
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold


def write_bundle(content: Content, folder: Path) -> Path:
    """Write the paper in all forms and `hand-in.zip` into `folder`.

    Raises:
        MgcError: a record or recipe cannot be read.
    """
    paths = [track_id for track_id in content.predictions.track_ids if Path(track_id).is_absolute()]
    if paths:
        say(
            f"the ids of {len(paths)} tracks are absolute paths, such as {paths[0]}, and the bundle contains "
            "them; a manifest with relative paths or with a column id avoids this"
        )
    records = [without_places(record) for record in load_records(content.data, content.workspace)]
    members = {path.name: path.read_bytes() for path in write_papers(content, [*FORMS], folder)}
    for block in blocks_of(content):
        names = [f"tables/{block.name}.csv"] if isinstance(block, Table) else []
        names += [f"figures/{block.name}.{kind}" for kind in ("pdf", "png") if isinstance(block, Figure)]
        members |= {name: (folder / name).read_bytes() for name in names}
    members["table.md"] = (render(content.sections, "markdown") + "\n").encode()
    members["table.csv"] = (render(content.sections, "csv") + "\n").encode()
    silent = content.recipe.model_copy(update={"audio": False})
    page = render_page(replace(content, recipe=silent))
    members["report.html"] = page.encode("utf-8", errors="backslashreplace")
    omitted = [*_add_files_beside_runs(content, members), *_add_runs(content.folder, members)]
    for record in records:
        if record.kind != "floor":
            members[f"configs/{record.run_id}.toml"] = config_of(record).encode()
    members["commands.sh"] = commands_of(records, content.first).encode()
    members["README.md"] = (
        _template("bundle.md")
        .format(
            data=one_line(content.data),
            weights=MOST_WEIGHTS // 1024,
            omitted="".join(f"\n- {one_line(line)}" for line in sorted(omitted)) or "nothing.",
        )
        .encode()
    )
    sums = [f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in sorted(members)]
    members["MANIFEST"] = "".join(sums).encode()
    return files.write(folder / NAME, _zipped(members))


def config_of(record: RunRecord) -> str:
    """The recipe of a run as a file for `mgc baseline --config` or `mgc probe --config`."""
    return f"# mgc {record.kind} --config configs/{record.run_id}.toml\n\n{recipe_toml(record.recipe)}"


def commands_of(records: Sequence[RunRecord], first: RunRecord) -> str:
    """A shell script that repeats every recipe once, in the order of the runs, floors included."""
    last = {recipe_toml(record.recipe): record for record in records if record.kind != "floor"}
    runs = [f'mgc {r.kind} --config configs/{r.run_id}.toml --data "$DATA"' for r in last.values()]
    data = shlex.quote(first.recipe["data"]["source"])
    return _template("commands.sh").format(data=data, runs="\n".join(runs))


def _template(name: str) -> str:
    return (resources.files("mgc.report") / "templates" / name).read_text(encoding="utf-8")


def _add_files_beside_runs(content: Content, members: dict[str, bytes]) -> Iterator[str]:
    """Add the files beside the runs, except those made for the bundle; yields what is not included."""
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
            yield f"{file.name}: a kind of file that is not included"


def _add_runs(folder: Path, members: dict[str, bytes]) -> Iterator[str]:
    """Add the files of all runs; yields what is not included."""
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        if run.name in ("figures", "tables"):
            continue
        if not (run / "record.json").exists():
            yield f"{run.name}/: not a finished run"
            continue
        sizes = {file: file.stat().st_size for file in sorted(run.rglob("*")) if file.is_file()}
        omitted = []
        for file, size in sizes.items():
            if file.suffix in KEPT or (file.suffix == WEIGHTS and size <= MOST_WEIGHTS):
                members[f"runs/{file.relative_to(folder).as_posix()}"] = file.read_bytes()
            else:
                omitted.append(file)
        name = f"runs/{run.name}/record.json"
        members[name] = _record(members[name])
        if omitted:
            names = ", ".join(file.name for file in omitted)
            yield f"runs/{run.name}: {names} ({sum(sizes[file] for file in omitted) / 1024:,.0f} KiB)"


def _record(text: bytes) -> bytes:
    """A record file without paths of this machine, and with the fields that this version does not know."""
    stored = json.loads(text)
    known = {field.name: stored[field.name] for field in fields(RunRecord) if field.name in stored}
    return json.dumps(stored | without_places(RunRecord(**known)).to_dict(), indent=2).encode()


def _zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
            archive.writestr(info, members[name], zipfile.ZIP_DEFLATED)
    return packed.getvalue()
