"""Recipes: frozen, validated settings of every command.

A recipe is read from a TOML file, then `--set key=value`, then the options of the command, each overriding
the one before. An unknown key or a value of the wrong type is an error that names the key, its origin and the
nearest known key.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from mgc.util.errors import MgcError, did_you_mean, explaining

Device = Literal["auto", "cpu", "cuda", "mps"]
Keep = Literal["clip", "windows"]
EncoderPrecision = Literal["float32", "bfloat16"]
WINDOWS_AT_ONCE = 8
# scikit-learn accepts seeds below 2**32, and each fold adds its number.
Seed = Annotated[int, Field(ge=0, lt=2**31)]
MOST_SEEDS = 100


def _seeds(value: Any) -> Any:
    """A count as the seeds 0, 1, ...; a list of distinct seeds as it is."""
    if type(value) is int and 1 <= value <= MOST_SEEDS:
        return [*range(value)]
    if isinstance(value, list | tuple) and 1 <= len({*map(str, value)}) == len(value) <= MOST_SEEDS:
        return value
    expected = f"expected a count from 1 to {MOST_SEEDS} (3 means 0,1,2) or distinct seeds such as 0,2,5"
    raise PydanticCustomError("seeds", expected)


# TOML and JSON have lists, not tuples.
Seeds = Annotated[tuple[Seed, ...], Field(strict=False), BeforeValidator(_seeds)]
Floats = Annotated[tuple[float, ...], Field(strict=False)]
# Points of accuracy within which systems are equivalent.
Margin = Annotated[float, Field(gt=0, le=100)]
Strings = Annotated[tuple[str, ...], Field(strict=False)]


class Recipe(BaseModel):
    """Frozen settings with strict types; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataRecipe(Recipe):
    """The dataset, the tracks used of it, and their split."""

    source: str = Field(
        default_factory=lambda: os.environ.get("MGC_DATA") or "demo",
        min_length=1,
        description="a known name, hf:owner/name, a folder root/<genre>/<file>, or a manifest",
    )
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    artist_column: str | None = None
    album_column: str | None = None
    title_column: str | None = None
    id_column: str | None = None
    split: Literal["auto", "given", "holdout", "cv5", "random"] = "auto"
    # Independent of the seed of the run, so that runs with different seeds use the same split.
    split_seed: Seed = 0
    limit: int | None = Field(None, ge=1, description="maximum number of tracks, balanced over classes")
    per_class: int | None = Field(None, ge=1, description="maximum number of training tracks per class")
    per_class_seed: Seed = Field(0, description="seed for drawing the tracks of per_class")
    max_excluded: float = Field(0.05, ge=0, le=1, description="a run stops if more tracks are unusable")


class InfoRecipe(Recipe):
    """`mgc data info`. `seed` has no effect there: only the split is drawn, with `data.split_seed`."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    seed: Seed = 0
    device: Device = "auto"


class TrainRecipe(Recipe):
    """How a network is trained."""

    epochs: int = Field(200, ge=1, description="maximum; early stopping usually ends sooner")
    patience: int = Field(20, ge=1, description="epochs without improvement before early stopping")
    stop_on: Literal["loss", "accuracy"] = Field("loss", description="validation metric of early stopping")
    batch_size: int = Field(16, ge=1, description="number of crops")
    crop_seconds: float = Field(5.0, ge=0, description="random crops; 0: 30 s. Tests use whole tracks")
    crops: int = Field(1, ge=1, description="per track and epoch, from different parts of the track")
    normalise: Literal["track", "train", "range", "l2", "none"] | None = Field(
        None,
        description="by the track (track; range: to 0..1; l2: to length 1), by the training set (train), or "
        "none; default: the network's own",
    )
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(2e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    scheduler: Literal["none", "plateau", "onecycle", "cosine"] = "none"
    scheduler_patience: int = Field(5, ge=0, description="plateau: epochs without improvement")
    warmup: float = Field(0.1, ge=0, le=1, description="onecycle, cosine: share of steps with a rising rate")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0, description="maximum norm of gradients; default: unlimited")
    init: Literal["default", "xavier"] = "default"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32", description="auto: bfloat16 if the device supports it, else float32"
    )


class AugmentRecipe(Recipe):
    """Augmentation of training crops; off by default.

    Strengths are in units of the normalised input, whose standard deviation is 1, or shares of the crop.
    """

    noise: float = Field(0.0, ge=0, description="standard deviation of Gaussian noise")
    shift: float = Field(0.0, ge=0, le=1, description="largest circular shift in time, share of the crop")
    mask: float = Field(0.0, ge=0, lt=1, description="largest share of frames and of bands that is masked")
    mixup: float = Field(0.0, ge=0, description="alpha of the Beta distribution of the mixing weight; 0: off")
    pitch: Floats = Field((), description="semitones; each adds a variant of the track")
    stretch: Floats = Field((), description="speed factors; each adds a variant of the track")
    choose: Literal["all", "one"] = Field("all", description="all effects, or one or none at random")
    strong_class: str = Field("", description="class that is oversampled, with stronger effects")
    strong_factor: float = Field(1.0, ge=1, le=2, description="factor by which strong_class is oversampled")


class SystemRecipe(Recipe):
    """What all runs have in common."""

    name: str = Field("", description="name in tables; default: the network or representation")
    hypothesis: str = ""
    reported: str = Field("", description="result published by others, shown in tables for information")
    data: DataRecipe = Field(default_factory=DataRecipe)
    seed: Seed = 0
    device: Device = "auto"


class BaselineRecipe(SystemRecipe):
    """`mgc baseline`: a network trained from scratch."""

    network: str = "cnn"
    representation: str | None = Field(None, description="input; default: as the network was published")
    dropout: float | None = Field(None, ge=0, lt=1, description="of convolutions; default: the network's own")
    classifier_dropout: float | None = Field(None, ge=0, lt=1, description="default: the network's own")
    scan: Literal["time", "mel"] | None = Field(None, description="axis of a recurrent layer")
    train: TrainRecipe = TrainRecipe()
    augment: AugmentRecipe = AugmentRecipe()


class PhaseRecipe(Recipe):
    """One phase of a search: some settings are searched, the others are kept from the phases before."""

    name: str = Field(min_length=1)
    sampler: Literal["grid", "random", "tpe"] = "tpe"
    trials: int | None = Field(None, ge=1, description="not for a grid, which tries every combination")
    epochs: int = Field(30, ge=1, description="maximum per trial; equal in phases that are compared")
    prune: Literal["none", "median", "halving"] = Field("none", description="end unpromising trials early")
    space: dict[str, Any] = Field(
        description="key of mgc baseline = [choices], or = {low = 1e-4, high = 1e-2, log = true}"
    )


class TuneRecipe(Recipe):
    """`mgc tune`: a search for settings of `mgc baseline` on the validation set."""

    name: str = Field("", description="name of its folder; default: the network")
    hypothesis: str = ""
    data: DataRecipe = Field(default_factory=DataRecipe)
    base: BaselineRecipe = Field(default_factory=BaselineRecipe, description="settings that trials share")
    metric: Literal["accuracy", "loss"] = Field("accuracy", description="validation metric at the best epoch")
    folds: int = Field(1, ge=1, description="number of folds over which the metric is averaged")
    workers: int = Field(1, ge=1, description="trials at the same time; reproducible only with 1")
    phases: tuple[PhaseRecipe, ...] = Field((), strict=False, description="[[phases]]; see configs/tune/")
    seed: Seed = 0
    device: Device = "auto"


class EncoderRecipe(Recipe):
    """Settings of encoders in common."""

    random_weights: bool = Field(False, description="use randomly initialised weights")
    random_seed: Seed | None = Field(None, description="seed of random weights; default: the run's seed")
    precision: EncoderPrecision = Field("float32", description="bfloat16: faster on devices that support it")
    keep: Keep = Field("clip", description="pool over the whole clip, or over each of its windows")


class EmbedRecipe(InfoRecipe, EncoderRecipe):
    """`mgc embed`: pooled embeddings of every clip by a frozen encoder."""

    model: str = "musicnn"
    batch_size: int = Field(WINDOWS_AT_ONCE, ge=1, description="windows per batch")


class DoctorRecipe(EmbedRecipe):
    """`mgc doctor`: checks of an encoder."""

    clips: int = Field(6, ge=2, description="for the checks of weights and outputs; the probe uses all")


class ProbeRecipe(SystemRecipe, EncoderRecipe):
    """`mgc probe`: a small head on pooled embeddings; with `keep` "windows" it is trained on windows."""

    model: str | None = Field(None, min_length=1, description="default: every one with cached embeddings")
    head: str = "logistic"
    layers: str = Field("last", description="name of a layer, last, sweep (the best) or weighted")
    select: Literal["cv", "validation"] = Field(
        "cv", description="choose settings by inner folds and fit on training and validation set, or not"
    )
    pool: Literal["mean", "std", "max", "mean+std", "mean+max", "mean+std+max"] | None = Field(
        None, description="pooling over time; default: the representation's own"
    )


# These give the same classifier for every seed; other heads draw weights, samples or the order of features.
_DETERMINISTIC_HEADS = ("logistic", "knn", "svm", "naive_bayes")


def is_random(recipe: Mapping[str, Any]) -> bool:
    """Whether another seed gives another result, for a dumped recipe of `mgc baseline` or `mgc probe`."""
    drawn = recipe.get("random_weights") and recipe.get("random_seed") is None
    return bool("network" in recipe or drawn or recipe.get("head") not in _DETERMINISTIC_HEADS)


class Repeats(Recipe):
    """The seeds of a system: one run for each pair of a split seed and a seed."""

    seeds: Seeds = Field((), description="a count, or a list; default: that of the study, or the single seed")
    split_seeds: Seeds = Field((), description="for cross-validation; as seeds, in place of data.split_seed")


class StudyRun(Repeats):
    """One system of a study: its config, and settings that override it."""

    config: str = Field(description="config of mgc baseline or probe, relative to the file of the study")
    settings: Strings = Field((), description='as for --set: ["train.epochs=30"]')


class StudyRecipe(Repeats):
    """`mgc study`: many systems on one dataset."""

    hypothesis: str = ""
    data: DataRecipe = Field(default_factory=DataRecipe)
    device: Device = "auto"
    runs: tuple[StudyRun, ...] = Field((), strict=False, description="[[runs]]; see configs/study/")


class CurveRecipe(StudyRecipe):
    """`mgc curve`: accuracy by the number of training tracks, of `runs` if given, else of `systems`."""

    seeds: Seeds = Field((0, 1, 2), description="for the training tracks and the weights")
    systems: Strings = Field(("cnn", "musicnn"), description="networks and encoders")
    sizes: tuple[int | Literal["all"], ...] = Field(
        (), strict=False, description='training tracks per genre: [5, 10, "all"]; default: 5, doubled'
    )
    margin: Margin = 3.0


class RobustRecipe(Recipe):
    """`mgc robust`: the runs, and the alterations of their test tracks. `data` locates the audio."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    runs: Strings = Field((), description="default: the best baseline and the best probe")
    alterations: Strings = Field(
        (
            *("noise=20", "noise=10", "noise=0", "gain=-20", "gain=6", "mp3=32", "mp3=16"),
            *("lowpass=4000", "lowpass=2000", "highpass=300", "crop=first", "crop=middle", "crop=last"),
        ),
        min_length=1,
    )
    only: Strings = Field((), description="effects or single alterations; default: all")
    limit: int | None = Field(None, ge=1, description="maximum number of test tracks, balanced over genres")
    margin: Margin = 3.0
    format: Literal["table", "markdown", "csv"] = "table"
    device: Device = "auto"


class SelectionRecipe(Recipe):
    """A selection of runs on a dataset: `seed`, `device` and `data.limit` select some of them."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    baseline: str | None = Field(None, description="id of the run to compare with")
    margin: Margin = 3.0
    seed: Seed | None = None
    device: str | None = None


class CompareRecipe(SelectionRecipe):
    """`mgc compare`."""

    format: Literal["table", "markdown", "latex", "csv", "json"] = "table"
    best: int | None = Field(None, ge=1, description="number of runs shown of each kind; default: all")


class ReportRecipe(SelectionRecipe):
    """`mgc report`."""

    format: Literal["html", "markdown", "latex", "pdf"] = "html"
    audio: bool = Field(True, description="include audio excerpts in the page")
    bundle: bool = Field(False, description="also write a zip file with everything")
    out: str | None = Field(None, description="output folder; default: results/<dataset>")
    overwrite: bool = Field(False, description="replace papers that were edited by hand")


class PredictRecipe(Recipe):
    """`mgc predict`: how the models of a run are loaded, and the form of the output."""

    model: str | None = Field(None, description="place of the encoder, if it has moved")
    over_time: bool = Field(False, description="predict every segment of 10 s or more")
    format: Literal["table", "csv", "json"] = "table"
    device: Device = "auto"


class CheckRecipe(InfoRecipe):
    """`mgc data check`."""

    format: Literal["table", "markdown", "json"] = "table"


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def read_recipe(
    kind: type[AnyRecipe],
    file: Path | None = None,
    settings: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> AnyRecipe:
    """Defaults, then `file` (TOML), then `settings` ("train.epochs=3"), then `options` that are not None.

    The keys of `options` are dotted paths like those of `settings`.

    Raises:
        MgcError: an unreadable file, an unknown key, or a value of the wrong type.
    """
    tree: dict[str, Any] = read_toml(file) if file else {}
    origin: dict[str, str] = {}
    for setting in settings:
        key, equals, text = map(str.strip, setting.partition("="))
        if not equals or not key:
            raise MgcError(f"--set {setting!r} is not key=value", fix="for example --set train.epochs=30")
        put(tree, key, _toml_value(text), "--set")
        origin[key] = f"--set {setting}"
    if tree.pop("trust_remote_code", False):  # configs of earlier versions have it
        what = "trust_remote_code runs the Python code of an encoder: a config or setting cannot allow it"
        raise MgcError(what, where=origin.get("trust_remote_code", file), fix="add --trust-remote-code")
    for key, value in (options or {}).items():
        if value is not None:
            put(tree, key, value, "option")
            name = "data" if key == "data.source" else key.rpartition(".")[2].replace("_", "-")
            origin[key] = f"--{name}"
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _explained(kind, error, file, origin) from None


def read_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file, not validated.

    Raises:
        MgcError: the file does not exist or is not TOML.
    """
    if not file.exists():
        raise MgcError("no such config file", where=file, fix="see configs/ for examples")
    with explaining("the config cannot be read as TOML", file, errors=(OSError, ValueError)):
        tree: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    return tree


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string: --set network=cnn


def recipe_toml(recipe: Mapping[str, Any]) -> str:
    """A dumped recipe as a config file that `read_recipe` reads back; values that are None are omitted."""
    tables = {key: table for key, table in recipe.items() if isinstance(table, Mapping)}
    lines = []
    for name, table in {"": {key: recipe[key] for key in recipe if key not in tables}, **tables}.items():
        lines += ["", f"[{name}]"] if name else []
        lines += [f"{key} = {toml_value(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value of JSON, without null and without objects, as TOML writes it."""
    # JSON is TOML, except for this control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def put(tree: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """Set a value in nested tables by its dotted key; tables that are missing are created."""
    *parents, leaf = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise MgcError(f"{parent!r} in {dotted!r} is a value, not a table", where=where)
    tree[leaf] = value


def _explained(
    kind: type[Recipe], error: ValidationError, file: Path | None, origin: dict[str, str]
) -> MgcError:
    """The first error of pydantic, with the key, the origin of the value, and the nearest known key."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key, known = ".".join(path), _fields_at(kind, path[:-1])
    where: object = file or "the recipe"
    for own, text in origin.items():  # the last one of this key, of a table above it, or of a key in it
        if f"{own}.".startswith(f"{key}.") or key.startswith(f"{own}."):
            where = text
    what = f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
    fix = known[path[-1]].description if path[-1] in known else None
    if first["type"] == "extra_forbidden":
        what, fix = f"unknown key {key!r}", did_you_mean(path[-1], known)
    if first["type"] == "model_type":
        what = f"{key} = {first['input']!r}: {key} is a table"
        fix = f"its keys: {', '.join(f'{key}.{name}' for name in _fields_at(kind, path))}"
    return MgcError(what, where=where, fix=fix)


def _fields_at(kind: type[BaseModel], path: list[str]) -> dict[str, FieldInfo]:
    """The fields of the table at `path`, also inside a list of tables; empty for a plain value."""
    at: Any = kind
    for part in path:
        fields: dict[str, FieldInfo] = getattr(at, "model_fields", {})
        at = fields[part].annotation if part in fields else next(iter(get_args(at)), None)
    return dict(getattr(at, "model_fields", {}))
