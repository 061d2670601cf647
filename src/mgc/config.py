"""The error a person can mend, and the recipes: frozen, checked descriptions of what a command shall do.

A recipe is read from a TOML file, then `--set key=value`, then the command's own options, each overriding
the one before. A key that does not exist or a value of the wrong kind is an error that names the key, the
file and the nearest right word.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo


def printable(text: str) -> str:
    """One line: what would move a terminal's cursor, or is no character at all, becomes an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class MgcError(Exception):
    """Something a person can mend: what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = self.what.split("\n")
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(map(printable, lines))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'musicnn'? ` for the nearest known word, then the list of all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}known: {', '.join(known)}"


Device = Literal["auto", "cpu", "cuda", "mps"]
WINDOWS_AT_ONCE = 8


class Recipe(BaseModel):
    """A frozen, strictly typed description; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataRecipe(Recipe):
    """Which tracks, and on which side of which split they stand."""

    source: str = Field(
        default_factory=lambda: os.environ.get("MGC_DATA") or "demo",
        description="a known name, a folder root/<genre>/<file>, or a manifest",
    )
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    artist_column: str | None = None
    album_column: str | None = None
    title_column: str | None = None
    id_column: str | None = None
    root: str | None = Field(None, description="where known sets lie; default $MGC_DATA_ROOT, else data/")
    split: Literal["auto", "given", "holdout", "cv5", "random"] = "auto"
    # Apart from the run's own seed, so that runs with other seeds still stand on the same split.
    split_seed: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=1, description="at most so many tracks, spread over the classes")
    max_excluded: float = Field(0.05, ge=0, le=1, description="share of unusable tracks that stops a run")


class TrainRecipe(Recipe):
    """How a network is trained; times are seconds of audio, counts are epochs."""

    epochs: int = Field(200, ge=1, description="at most so many; early stopping ends most runs before")
    patience: int = Field(20, ge=1, description="epochs without a better validation loss before stopping")
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    crop_seconds: float = Field(5.0, ge=1, description="random crop a track and epoch; tests cover it all")


class BaselineRecipe(Recipe):
    """`mgc baseline`: a network trained from scratch."""

    hypothesis: str = ""
    data: DataRecipe = Field(default_factory=DataRecipe)
    network: str = "cnn"
    dropout: float = Field(0.25, ge=0, lt=1)
    train: TrainRecipe = TrainRecipe()
    seed: int = Field(0, ge=0)
    device: Device = "auto"


class EmbedRecipe(Recipe):
    """`mgc embed`: a frozen encoder run over every clip, pooled, kept."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    model: str = "musicnn"
    batch_size: int = Field(WINDOWS_AT_ONCE, ge=1, description="windows encoded at once")
    seed: int = Field(0, ge=0)
    device: Device = "auto"


class ProbeRecipe(Recipe):
    """`mgc probe`: a small classifier on pooled embeddings."""

    hypothesis: str = ""
    data: DataRecipe = Field(default_factory=DataRecipe)
    model: str | None = Field(None, description="default: every representation in the store")
    head: str = "logistic"
    layer: str = Field("last", description="'last' or the name of a layer of the representation")
    pool: Literal["mean", "std", "mean+std"] = "mean+std"
    seed: int = Field(0, ge=0)
    device: Device = "auto"


class CompareRecipe(Recipe):
    """`mgc compare`: which records, in which form. `seed`, `device` and `data.limit` choose among them."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    format: Literal["table", "markdown", "latex", "csv", "json"] = "table"
    baseline: str | None = Field(None, description="the run_id to compare with")
    seed: int | None = Field(None, ge=0)
    device: str | None = None


class InfoRecipe(Recipe):
    """`mgc data info`: which tracks. Nothing in it is drawn but the split, by `data.split_seed`."""

    data: DataRecipe = Field(default_factory=DataRecipe)
    seed: int = Field(0, ge=0)
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
        tree = _read_toml(file)
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


def _read_toml(file: Path) -> dict[str, Any]:
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
    for part in path:
        inner = kind.model_fields[part].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        kind = inner
    return dict(kind.model_fields)


def cache_dir() -> Path:
    """Where representations are kept: `$MGC_EMBEDDINGS_CACHE`, else `embeddings_cache/`."""
    return Path(os.environ.get("MGC_EMBEDDINGS_CACHE") or "embeddings_cache")


def results_dir() -> Path:
    """Where runs are kept: `$MGC_RESULTS`, else `results/`."""
    return Path(os.environ.get("MGC_RESULTS") or "results")


def data_root() -> Path:
    """Where known data sets lie: `$MGC_DATA_ROOT`, else `data/`."""
    return Path(os.environ.get("MGC_DATA_ROOT") or "data")


def weights_dir() -> Path:
    """Where converted weights are kept: `$XDG_CACHE_HOME/mgc`, else `~/.cache/mgc`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mgc"
