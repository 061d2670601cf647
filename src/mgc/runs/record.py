"""`RunRecord`: what was asked for and what came out, in a folder of its own; and the learning curves.

The folder of a run is `results/<data>/<run_id>/`. It holds `record.json`, `predictions.parquet`, curves and
weights. The record has checksums of itself and of these files, see docs/security.md.
"""

import json
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from mgc.config import CompareRecipe, is_random
from mgc.data import Dataset, name_of
from mgc.evaluate import Predictions, Scores, evaluate
from mgc.util import files
from mgc.util.errors import MgcError, counted, explaining
from mgc.util.progress import say
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.figure import Figure

RERUN = "run its command again with --overwrite, or copy the file again"
MODELS = (".safetensors", ".npz")  # files for predicting, which need not be kept
KEPT_FILES = ("*.parquet", "curves.csv", *(f"*{suffix}" for suffix in MODELS))  # have a checksum
SEAL = "record_sha256"  # the checksum of the record itself
_DAMAGED = (Exception,)  # readers of Parquet, CSV and JSON raise many unrelated exceptions
# Parts of a recipe that the hashes of tracks, split and representation cover, or that cannot change the
# result.
NAMES_ONLY = {
    *("data", "model", "random_weights", "random_seed", "keep", "precision"),
    *("device", "hypothesis", "name", "reported"),
}
LIBRARIES = ("mgc", "torch", "transformers", "librosa", "soxr", "numpy", "scikit-learn", "accelerate")


@dataclass(frozen=True)
class RunRecord:
    """One run. Two records are comparable where `data_hash` and `split_hash` are equal."""

    run_id: str
    system: str
    kind: str  # "baseline", "probe" or "floor"
    representation: str
    head: str
    hypothesis: str
    seed: int
    recipe: dict[str, Any]
    data: str
    data_hash: str
    licence: str | None
    split: str
    split_authority: str
    split_hash: str
    excluded: list[dict[str, str]]
    scores: dict[str, Any]
    parameters: int  # trained ones
    chosen: list[dict[str, Any]]  # of each fold: its epoch, or its layer and strength
    seconds: dict[str, float]  # of each stage
    representation_card: dict[str, Any]
    revisions: dict[str, int]  # of the code that decided the result, see `mgc.experiments.systems`
    commit: str | None
    versions: dict[str, str]
    device: str
    created: str  # ISO 8601, UTC
    leaky: bool = False  # artists are in two parts of the split on purpose: not comparable with other splits
    training_tracks: float = 0.0  # training tracks, the mean over folds
    notes: list[str] = field(default_factory=list)  # facts about the data that a reader should know
    name: str = ""  # in tables, if the name of the system is not enough
    variant: str | None = None  # the settings that differ from the defaults; None in older records
    reported: str = ""  # the result that others published for this system
    frames: int = 0  # of a crop, as a network takes it
    sha256: dict[str, str] = field(default_factory=dict)  # of each file beside it; none in older records
    # The folder of the run is not written, since folders are moved.
    folder: Path = field(default=Path(), compare=False)

    def __post_init__(self) -> None:
        for name in (self.run_id, self.data, *self.sha256):
            if name in ("", "..") or name != Path(name).name:
                raise MgcError(f"{name!r} cannot be the name of a file or folder")

    @property
    def revisions_text(self) -> str:
        """The revisions, as in "split 1, network 1, training 1"."""
        return ", ".join(f"{what} {number}" for what, number in self.revisions.items())

    @property
    def random(self) -> bool:
        """Whether its training or its encoder's weights are drawn, so that a single run shows no spread."""
        return is_random({**self.recipe, "random_seed": None})

    @property
    def split_seed(self) -> int:
        """The seed of its split; 0 in records of versions that had none."""
        return int(self.recipe["data"].get("split_seed") or 0)

    @property
    def display_name(self) -> str:
        """The name of the system in tables."""
        return self.name or self.system

    @property
    def title(self) -> str:
        """Display name, head and, without a name of its own, the variant: `cnn + label_smoothing 0.1`."""
        parts = self.display_name, self.head, "" if self.name else self.variant
        return " + ".join(word for word in parts if word)

    @cached_property
    def evaluation(self) -> Scores:
        """Its scores; computed again from the predictions if the record was written by a version with others.

        Raises:
            MgcError: they must be computed again, and the predictions are missing or damaged.
        """
        try:
            return Scores.from_dict(self.scores)
        except MgcError:
            return evaluate(self.predictions())

    def predictions(self) -> Predictions:
        """Its predictions of the test tracks; raises MgcError if they are missing or damaged."""
        with self._reading("predictions.parquet") as table:
            return Predictions.from_columns(table.to_pydict())

    def validation(self) -> list[Predictions]:
        """Each fold's predictions of its validation set; raises MgcError if they are missing or damaged."""
        with self._reading("validation.parquet") as table:
            folds = table.to_pandas().groupby("fold", sort=True)
            return [Predictions.from_frame(fold) for _, fold in folds]

    @contextmanager
    def _reading(self, name: str) -> "Iterator[pa.Table]":
        content = self.read(name)
        with explaining(f"{name} cannot be read", self.folder / name, RERUN, _DAMAGED):
            yield files.read_parquet(content)

    def read(self, name: str) -> bytes:
        """The bytes of a file beside the record; raises MgcError unless they are those of its checksum."""
        with explaining(f"{name} cannot be read", self.folder / name, RERUN, _DAMAGED):
            content = files.read(self.folder / name)
            if self.sha256 and self.sha256.get(name) != sha256(content).hexdigest():
                raise ValueError("it is damaged, or was not saved with this record")
        return content

    def to_dict(self) -> dict[str, Any]:
        """The content of `record.json`."""
        return {f.name: getattr(self, f.name) for f in fields(RunRecord) if f.name != "folder"}

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """While the files of the run are written there is no record, and no other process writes them."""
        if self.run_id != self.folder.name or self.folder.is_symlink():
            what = f"not the folder of the run {self.run_id!r}, or a link to another place"
            raise MgcError(what, where=self.folder, fix="remove it")
        with files.lock(self.folder):
            (self.folder / "record.json").unlink(missing_ok=True)
            yield

    def save(self, predictions: Predictions, validation: Sequence[Predictions] = ()) -> "RunRecord":
        """Write predictions, then the record with the checksums of all files; returns the record."""
        import pandas as pd

        with self.replacing():
            files.write(self.folder / "predictions.parquet", predictions.to_frame().to_parquet())
            if validation:
                frame = pd.concat([fold.to_frame() for fold in validation])
                files.write(self.folder / "validation.parquet", frame.to_parquet())
            found = sorted(file for pattern in KEPT_FILES for file in self.folder.glob(pattern))
            sums = {file.name: sha256(file.read_bytes()).hexdigest() for file in found}
            files.write(self.folder / "record.json", sealed({**self.to_dict(), "sha256": sums}))
        return replace(self, sha256=sums)


def sealed(content: dict[str, Any]) -> str:
    """The content of a record as JSON that ends with a checksum of itself."""
    bare = {key: value for key, value in content.items() if key != SEAL}
    seal = sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()
    return json.dumps({**bare, SEAL: seal}, indent=2)


_adapter = cache(lambda: TypeAdapter(RunRecord))
_say_once = cache(say)  # a command may load the records several times


def load_record(file: Path, weights: bool = False) -> RunRecord:
    """The record in a `record.json`, after the files beside it were verified, also `weights` if asked.

    `file` may be the `config.json` of an export, whose files are verified when they are read.

    Raises:
        MgcError: it or a file is damaged, of another version of mgc, or not the record of its folder.
    """
    with explaining("the record cannot be read", file, RERUN, _DAMAGED):
        content = json.loads(text := files.read(file))
        # Records of earlier versions have neither.
        if {SEAL, "sha256"} & {*content} and sealed(content) != json.dumps(content, indent=2):
            raise ValueError("it was damaged or changed after it was written")
        record = replace(_adapter().validate_json(text, strict=True), folder=file.parent)
        record.recipe["data"]["limit"]  # tables need it
        # Records of earlier versions have it; only the command line and the API give trust.
        record.recipe.pop("trust_remote_code", None)
        if file.name != "record.json":
            return record
        if record.run_id != file.parent.resolve().name:
            raise ValueError(f"it is of the run {record.run_id!r}, not of this folder")
    found = [file.name for file in record.folder.iterdir() if weights and file.suffix in MODELS]
    for name in [*found, *(name for name in record.sha256 if not name.endswith(MODELS))]:
        record.read(name)
    if not record.sha256:
        record.predictions()
    return record


def load_records(data: str, workspace: Workspace) -> list[RunRecord]:
    """All records of a dataset, oldest first. Damaged runs are named and excluded."""
    records = []
    for file in sorted(workspace.results_of(data).glob("*/record.json")):
        try:
            records.append(load_record(file))
        except MgcError as error:
            if file.exists():  # otherwise another process is replacing the run
                _say_once(f"warning: run excluded: {file.parent}: {error.what}; to do: {error.fix}")
    return sorted(records, key=lambda record: record.created)


def select_records(recipe: CompareRecipe, workspace: Workspace) -> list[RunRecord]:
    """The records of a dataset that a comparison selects; raises MgcError if there are none."""
    source = recipe.data.source
    name = source if workspace.results_of(source).is_dir() and "/" not in source else name_of(recipe.data)
    records = [
        record
        for record in load_records(name, workspace)
        if recipe.data.limit in (None, record.recipe["data"]["limit"])
        and record.recipe["data"].get("per_class") == recipe.data.per_class
        and recipe.seed in (None, record.seed)
        and (recipe.device is None or record.device.startswith(recipe.device))
    ]
    if not records:
        what, fix = f"there are no such runs on {name!r}", "run mgc baseline and mgc probe first"
        raise MgcError(what, where=workspace.results_of(name), fix=fix)
    if old := sum(not record.sha256 for record in records):
        what = f"{counted(old, 'run')} of an earlier version of mgc without checksums"
        _say_once(f"warning: {what}: damage cannot be detected (mgc runs ls names them)")
    return records


def without_places(record: RunRecord) -> RunRecord:
    """The record for other people: paths from the root or home folder are reduced to their last part."""
    card, recipe, data = dict(record.representation_card), dict(record.recipe), dict(record.recipe["data"])
    data |= {"source": _last(data["source"])}
    recipe |= {"data": data} | ({"model": _last(recipe["model"])} if recipe.get("model") else {})
    if spec := card.get("spec"):
        card |= {"spec": {**spec, "name": _last(spec["name"])}}
    # The path of an encoder ends with a comma or the text, and may hold spaces.
    source = re.sub(r"(?<![^ ])(?:~|\.\.?)?/(?:[^/,]+/)*([^/,]+)", r"\1", str(card.get("source") or ""))
    card |= {"source": source} if source else {}
    told = {"path": _last, "reason": text_without_places}
    excluded = [{key: told.get(key, str)(text) for key, text in bad.items()} for bad in record.excluded]
    notes = [text_without_places(note) for note in record.notes]
    return replace(record, representation_card=card, recipe=recipe, excluded=excluded, notes=notes)


def text_without_places(text: str) -> str:
    """The same for paths within a text, up to a space, a comma or a quotation mark."""
    return re.sub(r"(?<![^\s'\"(])(?:~|\.\.?)?/(?:[^/\s,'\"]+/)*([^/\s,'\"]+)", r"\1", text)


def _last(place: str) -> str:
    """The name of a folder or file, with a prefix such as "hf:"."""
    return re.sub(r"(?<![^:])(?:[/~]|\.\.?/).*", lambda path: Path(path[0]).name, place)


def tracks_file(results: Path, data_hash: str) -> Path:
    """The file with the names of a run's tracks."""
    return results / f"tracks-{data_hash}.csv"


def save_tracks(dataset: Dataset, results: Path) -> None:
    """Write artists and titles beside the runs, since reports are made from records alone; "" if unknown."""
    import pandas as pd

    file = tracks_file(results, dataset.hash)
    if not file.exists():
        columns = ["track_id", "label", "artist", "title", "album", "seconds"]
        files.write(file, pd.DataFrame(map(vars, dataset.tracks))[columns].to_csv(index=False))


def load_tracks(record: RunRecord) -> "pd.DataFrame":
    """The table of `save_tracks`, by track_id; raises MgcError if it is missing or damaged."""
    import pandas as pd

    file, fix = tracks_file(record.folder.parent, record.data_hash), "run one of its commands again"
    with explaining("the names of the tracks cannot be read", file, f"{fix}: each writes it", _DAMAGED):
        tracks = pd.read_csv(file, dtype=str, keep_default_na=False).set_index("track_id")
        return tracks.assign(seconds=pd.to_numeric(tracks["seconds"]))


def environment() -> dict[str, Any]:
    """Library versions, and the commit of the running code."""
    versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return {"versions": versions, "commit": _commit()}


def _commit() -> str | None:
    """With a + if files were changed; None outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head, changes = (
            subprocess.run([*git, *words.split()], capture_output=True, text=True, check=True).stdout.strip()
            for words in ("rev-parse --short=12 HEAD", "status --porcelain -- .")
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+" if changes else head


def save_curves(folder: Path, curves: "pd.DataFrame") -> None:
    """Write `curves.csv`, and `curves.png` and `.svg` as `draw_curves` draws them.

    Columns: fold, epoch, train_loss, train_accuracy, val_loss, val_accuracy, learning_rate, seconds, best.
    """
    from matplotlib.figure import Figure

    files.write(folder / "curves.csv", curves.to_csv(index=False))
    figure = Figure(figsize=(10, 4), layout="constrained")
    draw_curves(figure, curves)
    files.write_figure(figure, folder / "curves.png", dpi=120)
    files.write_figure(figure, folder / "curves.svg")


def draw_curves(figure: "Figure", curves: "pd.DataFrame") -> None:
    """Draw loss and accuracy by epoch: a thin line for each fold, and the epochs that were kept."""
    best = curves[curves["best"]]
    units = {"loss": "nats", "accuracy": "share"}
    for axis, (quantity, unit) in zip(figure.subplots(1, 2), units.items(), strict=True):
        for part, name, colour in (("train", "training", "#999999"), ("val", "validation", "#0072b2")):
            by_fold = curves.pivot(index="epoch", columns="fold", values=f"{part}_{quantity}")
            lines = axis.plot(by_fold.index + 1, by_fold, color=colour, lw=0.8)
            lines[0].set_label(name)  # one entry of the legend for all folds
        axis.plot(best["epoch"] + 1, best[f"val_{quantity}"], "o", color="#d55e00", ms=4, label="epoch kept")
        axis.set(xlabel="epoch", ylabel=f"{quantity} ({unit})")
        axis.grid(alpha=0.25)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
