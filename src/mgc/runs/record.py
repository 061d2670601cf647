"""`RunRecord`: what was asked for and what came out, in a folder of its own; and the learning curves.

The folder of a run is `results/<data>/<run_id>/`. It holds `record.json`, `predictions.parquet`, curves and
weights.
"""

import json
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from mgc.config import CompareRecipe
from mgc.data import Dataset, name_of
from mgc.evaluate import Predictions, Scores, evaluate
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Parts of a recipe that the hashes of tracks, split and representation cover, or that cannot change the
# result.
NAMES_ONLY = {
    *("data", "model", "random_weights", "random_seed", "keep", "precision"),
    *("device", "hypothesis", "name", "reported", "trust_remote_code"),
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
    chosen: list[dict[str, Any]]  # of each fold: what was chosen on the validation set
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
    reported: str = ""  # the result that others published for this system
    frames: int = 0  # of a crop, as a network takes it
    # The folder of the run is not written, since folders are moved.
    folder: Path = field(default=Path(), compare=False)

    @property
    def revisions_text(self) -> str:
        """The revisions, as in "split 1, network 1, training 1"."""
        return ", ".join(f"{what} {number}" for what, number in self.revisions.items())

    @property
    def display_name(self) -> str:
        """The name of the system in tables."""
        return self.name or self.system

    @property
    def title(self) -> str:
        """Display name and head: `musicnn + logistic`."""
        return " + ".join(word for word in (self.display_name, self.head) if word)

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
        """Its stored predictions.

        Raises:
            MgcError: they are not there or damaged.
        """
        from pyarrow.parquet import ParquetFile

        file = self.folder / "predictions.parquet"
        try:
            return Predictions.from_columns(ParquetFile(file).read().to_pydict())
        except (OSError, ValueError, MgcError) as error:
            what = f"the predictions of a run cannot be read: {_told(error)}"
            raise MgcError(what, where=file, fix="run its command again with --overwrite") from None

    def validation(self) -> list[Predictions]:
        """What the model of each fold says of the fold's validation side.

        Raises:
            MgcError: it was not kept, or is damaged.
        """
        import pandas as pd

        file = self.folder / "validation.parquet"
        try:
            sides = pd.read_parquet(file).groupby("fold", sort=True)
            return [Predictions.from_frame(side) for _, side in sides]
        except (OSError, ValueError, KeyError, MgcError) as error:
            raise MgcError(
                f"what the run said of its validation tracks cannot be read: {_told(error)}",
                where=file,
                fix="run its command again with --overwrite",
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """The content of `record.json`."""
        return {f.name: getattr(self, f.name) for f in fields(RunRecord) if f.name != "folder"}

    def save(self, predictions: Predictions, validation: Sequence[Predictions] = ()) -> None:
        """Write predictions first, then the record: a record that exists is complete."""
        files.write(self.folder / "predictions.parquet", predictions.to_frame().to_parquet())
        if validation:
            import pandas as pd

            frames = [side.to_frame() for side in validation]
            files.write(self.folder / "validation.parquet", pd.concat(frames).to_parquet())
        files.write(self.folder / "record.json", json.dumps(self.to_dict(), indent=2))


def _told(error: Exception) -> str:
    """`error` within a sentence."""
    if isinstance(error, MgcError):
        return error.what
    return f"no column {error}" if isinstance(error, KeyError) else str(error)


@cache
def _adapter() -> TypeAdapter[RunRecord]:
    return TypeAdapter(RunRecord)


def load_record(file: Path) -> RunRecord:
    """The record in a `record.json`.

    Raises:
        MgcError: not readable, or of another version of mgc.
    """
    try:
        record = _adapter().validate_json(file.read_bytes(), strict=True)
        record.recipe["data"]["limit"]  # tables need it
        return replace(record, folder=file.parent)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "JSON"
            what = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}"
        raise MgcError(
            f"the record cannot be read: {what}",
            where=file,
            fix="take the run's folder out of results/, and run it again",
        ) from None


def load_records(data: str, workspace: Workspace) -> list[RunRecord]:
    """All records of a dataset, oldest first."""
    records = [load_record(file) for file in workspace.results_of(data).glob("*/record.json")]
    return sorted(records, key=lambda record: record.created)


def select_records(recipe: CompareRecipe, workspace: Workspace) -> list[RunRecord]:
    """The records of a dataset that a comparison selects.

    Raises:
        MgcError: there are none.
    """
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
        raise MgcError(
            f"there are no such runs on {name!r}",
            where=workspace.results_of(name),
            fix="run mgc baseline and mgc probe first",
        )
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
    """Write artists and titles beside the runs, since reports are made from records alone."""
    import pandas as pd

    columns = ["track_id", "label", "artist", "title", "album", "seconds"]
    file = tracks_file(results, dataset.hash)
    if not file.exists():
        rows = [[getattr(track, name) for name in columns] for track in dataset.tracks]
        files.write(file, pd.DataFrame(rows, columns=columns).to_csv(index=False))


def load_tracks(record: RunRecord) -> "pd.DataFrame":
    """The table of `save_tracks`, by track_id; unknown fields are empty strings.

    Raises:
        MgcError: it is not there or damaged.
    """
    import pandas as pd

    file = tracks_file(record.folder.parent, record.data_hash)
    try:
        text = dict.fromkeys(("track_id", "label", "artist", "title", "album"), str)
        return pd.read_csv(file, dtype=text, keep_default_na=False, na_values={"seconds": [""]}).set_index(
            "track_id"
        )
    except (OSError, ValueError) as error:
        fix = "run one of its commands again: each writes it"
        raise MgcError(f"the names of the tracks cannot be read: {error}", where=file, fix=fix) from None


def environment() -> dict[str, Any]:
    """Library versions and commit."""
    versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return {"versions": versions, "commit": _commit()}


def _commit() -> str | None:
    """The commit of the running code, with a + if files were changed; None outside a repository."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        state = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if state.stdout.strip() else "")


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
    units = {"loss": "nats", "accuracy": "share of tracks"}
    for axis, (quantity, unit) in zip(figure.subplots(1, 2), units.items(), strict=True):
        for part, name, colour in (("train", "training", "#999999"), ("val", "validation", "#0072b2")):
            for number, (_, fold) in enumerate(curves.groupby("fold")):
                label = None if number else name  # one entry of the legend for all folds
                axis.plot(fold["epoch"] + 1, fold[f"{part}_{quantity}"], color=colour, lw=0.8, label=label)
        axis.plot(best["epoch"] + 1, best[f"val_{quantity}"], "o", color="#d55e00", ms=4, label="epoch kept")
        axis.set(xlabel="epoch", ylabel=f"{quantity} ({unit})")
        axis.grid(alpha=0.25)
    figure.axes[0].legend(frameon=False)
