"""The error a person can mend, and the recipes: frozen, checked descriptions of what a command shall do.

A recipe is read from a TOML file, then `--set key=value`, then the command's own options, each overriding
the one before. A key that does not exist or a value of the wrong kind is an error that names the key, the
file and the nearest right word.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from mgc.util.errors import MgcError, did_you_mean

Device = Literal["auto", "cpu", "cuda", "mps"]
Keep = Literal["clip", "windows"]
EncoderPrecision = Literal["float32", "bfloat16"]
WINDOWS_AT_ONCE = 8
# scikit-learn takes none from 2**32 on, and a fold adds its number.
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Recipe(BaseModel):
    """A frozen, strictly typed description; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataRecipe(Recipe):
    """Which tracks, and on which side of which split they stand."""

    source: str = Field(
        default_factory=lambda: os.environ.get("MGC_DATA") or "demo",
        min_length=1,
        description="a known name, a folder root/<genre>/<file>, or a manifest",
    )
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    artist_column: str | None = None
    album_column: str | None = None
    title_column: str | None = None
    id_column: str | None = None
    split: Literal["auto", "given", "holdout", "cv5", "random"] = "auto"
    # Apart from the run's own seed, so that runs with other seeds still stand on the same split.
    split_seed: Seed = 0
    limit: int | None = Field(None, ge=1, description="at most so many tracks, spread over the classes")
    per_class: int | None = Field(None, ge=1, description="at most so many training tracks a class")
    per_class_seed: Seed = Field(0, description="draws those of per_class")
    max_excluded: float = Field(0.05, ge=0, le=1, description="share of unusable tracks that stops a run")


class TrainRecipe(Recipe):
    """How a network is trained; times are seconds of audio, counts are epochs."""

    epochs: int = Field(200, ge=1, description="at most so many; early stopping ends most runs before")
    patience: int = Field(20, ge=1, description="epochs without a better validation before stopping")
    stop_on: Literal["loss", "accuracy"] = Field("loss", description="what validation stops and chooses on")
    batch_size: int = Field(16, ge=1, description="crops")
    crop_seconds: float = Field(5.0, ge=0, description="random crops; 0 takes 30 s; tests cover whole tracks")
    crops: int = Field(1, ge=1, description="crops of a track and epoch, each from a part of its own")
    normalise: Literal["track", "train", "range", "l2", "none"] | None = Field(
        None,
        description="by track, training tracks, to 0..1, to length 1; default: the network's",
    )
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(2e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    scheduler: Literal["none", "plateau", "onecycle", "cosine"] = "none"
    scheduler_patience: int = Field(5, ge=0, description="plateau: epochs without a better validation")
    warmup: float = Field(0.1, ge=0, le=1, description="onecycle, cosine: share of all steps that rise")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0, description="longest gradient; default: as it comes")
    init: Literal["default", "xavier"] = "default"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32", description="auto: bfloat16 where the device computes in it, else float32"
    )


class AugmentRecipe(Recipe):
    """What is done to training crops, and never to others. Nothing by default.

    Strengths are in units of the normalised input, whose deviation is 1, or shares of the crop.
    """

    noise: float = Field(0.0, ge=0, description="deviation of Gaussian noise")
    shift: float = Field(0.0, ge=0, le=1, description="roll in time by at most this share of the crop")
    mask: float = Field(0.0, ge=0, lt=1, description="blank at most this share of frames and of bands")
    mixup: float = Field(0.0, ge=0, description="alpha of the Beta distribution of the mixing weight")
    pitch: tuple[float, ...] = Field((), strict=False, description="semitones: a variant of the track each")
    stretch: tuple[float, ...] = Field((), strict=False, description="speeds: a variant of the track each")
    choose: Literal["all", "one"] = Field(
        "all", description="all: every effect; one: the crop as it is or a single effect, equal shares"
    )
    strong_class: str = Field("", description="a class that is seen more often, by stronger effects")
    strong_factor: float = Field(1.0, ge=1, le=2, description="how much more often")


class BaselineRecipe(Recipe):
    """`mgc baseline`: a network trained from scratch."""

    name: str = Field("", description="how tables call it; default: the network")
    hypothesis: str = ""
    reported: str = Field("", description="what others published of this system: shown, never compared")
    data: DataRecipe = Field(default_factory=DataRecipe)
    network: str = "cnn"
    representation: str | None = Field(None, description="default: what the network was published on")
    dropout: float | None = Field(None, ge=0, lt=1, description="convolutions; default: the network's own")
    classifier_dropout: float | None = Field(None, ge=0, lt=1, description="default: the network's own")
    scan: Literal["time", "mel"] | None = Field(None, description="the axis that a recurrent layer walks")
    train: TrainRecipe = TrainRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    seed: Seed = 0
    device: Device = "auto"


class PhaseRecipe(Recipe):
    """One phase of a search: a few settings tried, the others as the phases before left them."""

    name: str = Field(min_length=1)
    sampler: Literal["grid", "random", "tpe"] = "tpe"
    trials: int | None = Field(None, ge=1, description="how many; not for a grid, which tries every one")
    epochs: int = Field(30, ge=1, description="of a trial, at most; equal ones make phases comparable")
    prune: Literal["none", "median", "halving"] = Field("none", description="give up hopeless trials early")
    space: dict[str, Any] = Field(
        description="a key of mgc baseline = [choices], or {low = 1e-4, high = 1e-2, log = true}"
    )


class TuneRecipe(Recipe):
    """`mgc tune`: a search for settings of `mgc baseline`, by validation alone."""

    name: str = Field("", description="how its folder is called; default: the network")
    hypothesis: str = ""
    data: DataRecipe = Field(default_factory=DataRecipe)
    base: BaselineRecipe = Field(
        default_factory=BaselineRecipe, description="what every trial starts from: a recipe of mgc baseline"
    )
    metric: Literal["accuracy", "loss"] = Field("accuracy", description="of validation, at the epoch kept")
    folds: int = Field(1, ge=1, description="of the split, that a trial trains; their mean counts")
    workers: int = Field(1, ge=1, description="trials at once; only one gives the same trials every time")
    phases: tuple[PhaseRecipe, ...] = Field((), strict=False, description="[[phases]], see configs/tune/")
    seed: Seed = 0
    device: Device = "auto"


class EmbedRecipe(Recipe):
    """`mgc embed`: a frozen encoder run over every clip, pooled, kept."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    model: str = "musicnn"
    random_weights: bool = Field(False, description="the same encoder with weights drawn from a seed")
    random_seed: Seed | None = Field(None, description="seed of random weights; default: the run's seed")
    precision: EncoderPrecision = Field(
        "float32", description="bfloat16: faster where the device supports it"
    )
    trust_remote_code: bool = Field(False, description="run code that lies beside an encoder's weights")
    keep: Keep = Field("clip", description="statistics of the whole clip, or of each of its windows")
    batch_size: int = Field(WINDOWS_AT_ONCE, ge=1, description="windows encoded at once")
    seed: Seed = 0
    device: Device = "auto"


class DoctorRecipe(EmbedRecipe):
    """`mgc doctor`: whether an encoder is fed right, whole, and better than nothing learned."""

    clips: int = Field(6, ge=2, description="how many are looked at closely; all are judged")


class ProbeRecipe(Recipe):
    """`mgc probe`: a small classifier on pooled embeddings."""

    name: str = Field("", description="how tables call it; default: the representation")
    hypothesis: str = ""
    reported: str = Field("", description="what others published of this system: shown, never compared")
    data: DataRecipe = Field(default_factory=DataRecipe)
    model: str | None = Field(None, min_length=1, description="default: every representation in the store")
    random_weights: bool = Field(False, description="the same encoder with weights drawn from a seed")
    random_seed: Seed | None = Field(None, description="seed of random weights; default: the run's seed")
    precision: EncoderPrecision = Field(
        "float32", description="bfloat16: faster where the device supports it"
    )
    trust_remote_code: bool = Field(False, description="run code that lies beside an encoder's weights")
    head: str = "logistic"
    layers: str = Field("last", description="a layer's name, last, sweep (chosen on validation) or weighted")
    pool: Literal["mean", "std", "max", "mean+std", "mean+max", "mean+std+max"] | None = Field(
        None, description="over the clip; default: the representation's own"
    )
    keep: Keep = Field("clip", description="windows: the head learns windows, a track is their mean")
    seed: Seed = 0
    device: Device = "auto"


class StudyRun(Recipe):
    """One system of a study: its config, and what is other than there."""

    config: str = Field(description="a config of mgc baseline or mgc probe, relative to the study's file")
    settings: tuple[str, ...] = Field((), strict=False, description='as after --set: ["train.epochs=30"]')
    seeds: tuple[Seed, ...] = Field((), strict=False, description="default: those of the study")


class StudyRecipe(Recipe):
    """`mgc study`: systems on one data set, into one table."""

    hypothesis: str = ""
    data: DataRecipe = Field(default_factory=DataRecipe)
    seeds: tuple[Seed, ...] = Field((0,), strict=False, min_length=1)
    seed: Seed | None = Field(None, description="in place of seeds, also of those of single runs")
    device: Device = "auto"
    runs: tuple[StudyRun, ...] = Field((), strict=False, description="[[runs]], see configs/study/")


class CurveRecipe(StudyRecipe):
    """`mgc curve`: systems by the number of training tracks; those of `runs`, else those of `systems`."""

    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2), strict=False, min_length=1, description="each draws tracks and weights"
    )
    systems: tuple[str, ...] = Field(
        ("cnn", "musicnn"), strict=False, description="networks from scratch, and encoders to probe"
    )
    sizes: tuple[int | Literal["all"], ...] = Field(
        (), strict=False, description='training tracks a genre: [5, 10, "all"]; default: doubled from 5'
    )


class RobustRecipe(Recipe):
    """`mgc robust`: which runs, and what is done to their test tracks. `data` finds the audio."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    runs: tuple[str, ...] = Field((), strict=False, description="default: the best baseline and probe")
    alterations: tuple[str, ...] = Field(
        (
            *("noise=20", "noise=10", "noise=0", "gain=-20", "gain=6", "mp3=32", "mp3=16"),
            *("lowpass=4000", "lowpass=2000", "highpass=300", "crop=first", "crop=middle", "crop=last"),
        ),
        strict=False,
        min_length=1,
    )
    only: tuple[str, ...] = Field((), strict=False, description="effects, or single alterations, of these")
    limit: int | None = Field(None, ge=1, description="at most so many test tracks, spread over the genres")
    format: Literal["table", "markdown", "csv"] = "table"
    trust_remote_code: bool = Field(False, description="run code that lies beside an encoder's weights")
    device: Device = "auto"


class CompareRecipe(Recipe):
    """`mgc compare`: which records, in which form. `seed`, `device` and `data.limit` choose among them."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    format: Literal["table", "markdown", "latex", "csv", "json"] = "table"
    baseline: str | None = Field(None, description="the run_id to compare with")
    best: int | None = Field(None, ge=1, description="of each kind, how many are shown; default: all")
    seed: Seed | None = None
    device: str | None = None


class ReportRecipe(Recipe):
    """`mgc report`: which runs, and how they are told; `seed`, `device`, `data.limit` choose among them."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    format: Literal["html", "markdown", "latex", "pdf"] = "html"
    baseline: str | None = Field(None, description="the run_id to compare with")
    audio: bool = Field(True, description="let the page play excerpts of the tracks that it talks of")
    bundle: bool = Field(False, description="also a zip of all of it, to hand in")
    out: str | None = Field(None, description="the folder it is written to; default: results/<data>")
    seed: Seed | None = None
    device: str | None = None


class PredictRecipe(Recipe):
    """`mgc predict`: how the models of a run are opened, and how their answers are told."""

    model: str | None = Field(None, description="where the run's encoder lies now")
    trust_remote_code: bool = Field(False, description="run code that lies beside an encoder's weights")
    over_time: bool = Field(False, description="the genre of each stretch")
    format: Literal["table", "csv", "json"] = "table"
    device: Device = "auto"


class InfoRecipe(Recipe):
    """`mgc data info`: which tracks. Nothing in it is drawn but the split, by `data.split_seed`."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    seed: Seed = 0
    device: Device = "auto"


class CheckRecipe(InfoRecipe):
    """`mgc data check`: which tracks, and how to tell what was found."""

    format: Literal["table", "markdown", "json"] = "table"


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def read_recipe(
    kind: type[AnyRecipe],
    file: Path | None = None,
    settings: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> AnyRecipe:
    """Defaults, then `file` (TOML), then `settings` ("train.epochs=3"), then `options` that are not None.

    Keys of `options` are dotted paths like those of `settings`.

    Raises:
        MgcError: an unreadable file, an unknown key, or a value of the wrong kind.
    """
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        tree = read_toml(file)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise MgcError(f"--set {setting!r} is not key=value", fix="write, say, --set train.epochs=30")
        _put(tree, key.strip(), _toml_value(text.strip()), "--set")
        origin[key.strip()] = f"--set {setting}"
    for key, value in (options or {}).items():
        if value is not None:
            _put(tree, key, value, "option")
            named = {"data.source": "data", "data.root": "data-root"}.get(key, key.rpartition(".")[2])
            origin[key] = f"--{named.replace('_', '-')}"
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _explain(kind, error, file, origin) from None


def read_toml(file: Path) -> dict[str, Any]:
    """What stands in `file`, unchecked.

    Raises:
        MgcError: it is not there, or no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MgcError("there is no such config file", where=file, fix="see configs/ for examples") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MgcError(f"the config cannot be read as TOML: {error}", where=file) from None


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string: --set network=cnn


def _put(tree: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise MgcError(f"{parent!r} in {dotted!r} is a value, not a table", where=where)
    tree[leaf] = value


def _explain(
    kind: type[Recipe], error: ValidationError, file: Path | None, origin: dict[str, str]
) -> MgcError:
    """The first of pydantic's complaints, told as key, file and the nearest right word."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    # The last setting or option of this key, of a table above it or of a key within it.
    said = [
        text for own, text in origin.items() if f"{own}.".startswith(f"{key}.") or key.startswith(f"{own}.")
    ]
    where = said[-1] if said else file or "the recipe"
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, path[:-1])
        return MgcError(f"unknown key {key!r}", where=where, fix=did_you_mean(path[-1], known))
    if first["type"] == "model_type":
        keys = ", ".join(f"{key}.{name}" for name in _fields_at(kind, path))
        return MgcError(f"{key} = {first['input']!r}: {key} is a table", where=where, fix=f"its keys: {keys}")
    message = f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
    description = (_fields_at(kind, path[:-1]).get(path[-1]) or FieldInfo()).description
    return MgcError(message, where=where, fix=description)


def _fields_at(kind: type[BaseModel], path: list[str]) -> dict[str, FieldInfo]:
    """The fields of the table at `path`, also within a list of tables; none where a value stands."""
    at: Any = kind
    for part in path:
        fields: dict[str, FieldInfo] = getattr(at, "model_fields", {})
        at = fields[part].annotation if part in fields else next(iter(get_args(at)), None)
    return dict(getattr(at, "model_fields", {}))
