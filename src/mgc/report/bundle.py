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
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pandas as pd

from mgc.config import recipe_toml
from mgc.report.content import Content, without_folders
from mgc.report.page import render_page
from mgc.report.paper import FORMS, is_edited, write_papers
from mgc.report.paper.text import paper_of
from mgc.runs.record import RunRecord, load_records, sealed, text_without_places, without_places
from mgc.runs.tables import render
from mgc.util import files
from mgc.util.progress import say
from mgc.util.text import one_line

NAME = "hand-in.zip"
TEXTS = (".json", ".csv", ".md", ".svg", ".toml", ".html", ".tex", ".txt", ".bib", ".py", ".ipynb", ".sh")
KEPT = (*TEXTS, ".parquet", ".png")
RUN_FILES = ("*.parquet", "curves.*", "fold*.safetensors", "head*.safetensors", "record.json", "map.csv")
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
    records = [without_places(record) for record in load_records(content.folder.name, content.workspace)]
    trained = [record for record in records if record.kind != "floor"]
    edited = [] if content.recipe.overwrite else [form for form in FORMS if is_edited(folder / FORMS[form])]
    for form in edited:
        say(f"{folder / FORMS[form]} was edited by hand and is included as it is; --overwrite replaces it")
    write_papers(content, [form for form in FORMS if form not in edited], folder)
    members = {name: (folder / name).read_bytes() for name in FORMS.values()}
    paper = paper_of(content)
    names = [f"tables/{name}.csv" for name in paper.tables]
    names += [f"figures/{name}.{kind}" for name in paper.names("figure") for kind in ("pdf", "png")]
    members |= {name: (folder / name).read_bytes() for name in names}
    silent = content.recipe.model_copy(update={"audio": False})
    made = {
        "table.md": render(content.sections, "markdown") + "\n",
        "table.csv": render(content.sections, "csv") + "\n",
        "report.html": render_page(replace(content, recipe=silent)),
        "commands.sh": _commands(trained, content.first),
    }
    for record in trained:
        name = f"configs/{record.run_id}.toml"
        made[name] = f"# mgc {record.kind} --config {name}\n\n{recipe_toml(record.recipe)}"
    members |= {name: text.encode(errors="backslashreplace") for name, text in made.items()}
    omitted = [*_add_files_beside_runs(content, members), *_add_runs(records, content, members)]
    readme = _template("bundle.md").format(
        data=one_line(content.data),
        weights=MOST_WEIGHTS // 1024,
        omitted="".join(f"\n- {one_line(line)}" for line in sorted(omitted)) or "nothing.",
    )
    members["README.md"] = readme.encode()
    for name in members:
        if name.endswith(TEXTS):
            text = without_folders(members[name].decode(errors="surrogateescape"), content.workspace)
            text = text_without_places(text) if name in ("check.md", "check.json") else text
            members[name] = text.encode(errors="surrogateescape")
    sums = [f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in sorted(members)]
    members["MANIFEST"] = "".join(sums).encode()
    return files.write(folder / NAME, _zipped(members))


def _commands(trained: Sequence[RunRecord], first: RunRecord) -> str:
    """A shell script that repeats every recipe once, in the order of the runs, floors included."""
    last = {recipe_toml(record.recipe): record for record in trained}
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
        text = rows.to_csv(index=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
        members["quarantine.csv"] = text.encode()
    for file in sorted(filter(Path.is_file, content.folder.iterdir())):
        made = file.name in {*members, *FORMS.values(), NAME}
        if file.suffix in KEPT and not made and not file.is_symlink():
            members[file.name] = file.read_bytes()
        elif not made:
            yield f"{file.name}: a kind of file that is not included"


def _add_runs(records: Sequence[RunRecord], content: Content, members: dict[str, bytes]) -> Iterator[str]:
    """Add the files of all runs; yields what is not included."""
    folder, finished = content.folder, {record.folder: record for record in records}
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        if run.name in ("figures", "tables") or run.name.startswith("."):
            continue
        if run not in finished:
            yield f"{run.name}/: not a finished run"
            continue
        omitted = []
        for file in sorted(filter(Path.is_file, run.rglob("*"))):
            ours = file.parent == run and any(map(file.match, RUN_FILES)) and not file.is_symlink()
            if ours and (file.suffix != WEIGHTS or file.stat().st_size <= MOST_WEIGHTS):
                members[f"runs/{file.relative_to(folder).as_posix()}"] = file.read_bytes()
            else:
                omitted.append(file)
        # Without paths of this machine, and with the fields that this version does not know.
        name = f"runs/{run.name}/record.json"
        text = json.dumps(json.loads(members[name]) | finished[run].to_dict())
        members[name] = sealed(json.loads(without_folders(text, content.workspace))).encode()
        if omitted:
            size = sum(file.stat().st_size for file in omitted) / 1024
            yield f"runs/{run.name}: {', '.join(file.name for file in omitted)} ({size:,.0f} KiB)"


def _zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
            archive.writestr(info, members[name], zipfile.ZIP_DEFLATED)
    return packed.getvalue()
