"""The models of a run, one a fold, read from its folder: of arrays of the store they make probabilities."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from mgc.config import BaselineRecipe, Device, ProbeRecipe
from mgc.probing.fitting import Embeddings, embeddings_of, probabilities
from mgc.probing.heads import Fitted
from mgc.probing.heads.saving import load_head
from mgc.representations import RANDOM_PREFIX, WINDOWS_PREFIX, Representation, open_representation
from mgc.representations.cache.store import Store
from mgc.runs.record import RunRecord
from mgc.training.folds import OFFSET, SCALE, WHOLE_SECONDS, normalise_of
from mgc.training.loop import TrackSet, predict
from mgc.training.networks import OPTIONS, find_network, make_network
from mgc.util.devices import make_accelerator, tune_cpu
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.workspace import Workspace


class FoldModel(Protocol):
    """What was learned on one fold. `arrays` are what `Store.read` gives of N clips, of any float type."""

    def probabilities(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """(N, C) float64, rows sum to 1; uncalibrated."""
        ...

    def of_parts(self, array: np.ndarray, parts: Sequence[slice]) -> np.ndarray:
        """(parts, C): the same of parts of one clip, its rows from and to; what is normalised by the clip
        is normalised by the whole of it."""
        ...


@dataclass(frozen=True)
class RunModels:
    """The models of all folds, in their order; the representation that they take; C class names."""

    record: RunRecord
    representation: Representation
    folds: tuple[FoldModel, ...]
    classes: tuple[str, ...]
    workspace: Workspace


def load_models(
    record: RunRecord,
    workspace: Workspace,
    trust_remote_code: bool = False,
    *,
    model: str | None = None,
    device: Device = "auto",
) -> RunModels:
    """What the run has learned, from `record.folder`. `model` is where its encoder lies now, by default
    where it lay then.

    Raises:
        MgcError: a floor without a model, files that are missing, damaged or of older code, an encoder that
            is not there or not the same, or a recipe that today's mgc does not know.
    """
    if record.kind == "floor" and not record.head:
        raise MgcError(
            f"{record.display_name} is a floor without a model: it has learned nothing but shares of classes",
            where=record.folder,
            fix="choose a run of mgc baseline or mgc probe",
        )
    classes = _classes(record)
    representation = _same(record, open_representation(_address(record, model), workspace, trust_remote_code))
    tune_cpu()
    numbers = range(len(record.chosen))
    folds: tuple[FoldModel, ...]
    if record.kind == "baseline":
        folds = tuple(_network(record, number, representation, len(classes), device) for number in numbers)
    else:
        folds = tuple(_head(record, number, representation, len(classes)) for number in numbers)
    return RunModels(record, representation, folds, classes, workspace)


def _classes(record: RunRecord) -> tuple[str, ...]:
    """The genres, of a record that tells all that its models need."""
    with suppress(KeyError, TypeError):  # told below, like what is empty
        classes = tuple(str(row["label"]) for row in record.scores["per_class"])
        told = [len(classes) > 1, record.representation_card["address"], record.chosen]
        told += [record.kind == "baseline" or choice["layer"] is not None for choice in record.chosen]
        if all(told):
            return classes
    what = "the record does not tell the genres, the encoder or what was chosen in each fold: it is damaged"
    raise MgcError(what, where=record.folder, fix="run it again")


# ---- the representation ---------------------------------------------------------------------------------


def split_address(address: str) -> tuple[str, str]:
    """What stands before an encoder's name or folder ("windows:", "random:0:"), and the name or folder."""
    front = ""
    if address.startswith(WINDOWS_PREFIX):
        front, address = WINDOWS_PREFIX, address.removeprefix(WINDOWS_PREFIX)
    if address.startswith(RANDOM_PREFIX):
        _, seed, address = address.split(":", 2)
        front += f"{RANDOM_PREFIX}{seed}:"
    return front, address


def _address(record: RunRecord, model: str | None) -> str:
    front, place = split_address(str(record.representation_card["address"]))
    return front + (model or place)


def _same(record: RunRecord, representation: Representation) -> Representation:
    """The same, if it gives the numbers that the run has learned from.

    Raises:
        MgcError: other weights, layers or windows.
    """
    then, now = record.representation_card, representation.card()
    if then.get("fingerprint") == now["fingerprint"]:
        return representation
    decisive = ("weights", "cut", "layers", "pooled", "keep")  # the first cards did not tell all of these
    other = [key for key in decisive if then.get(key, now[key]) != now[key]]
    if other:
        raise MgcError(
            f"{representation.name} is not what the run has learned from: other {', '.join(other)}",
            where=representation.source,
            fix=f"give the same encoder by --model ({then.get('source')}), or run it again",
        )
    say(
        f"the code that computes {representation.name} has changed since {record.run_id} was run: its "
        "numbers, and what is predicted from them, may differ a little"
    )
    return representation


# ---- networks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Network:
    """A network with what its input is normalised by."""

    network: torch.nn.Module
    frames: int  # of a crop
    normalise: str
    train_set: TrackSet | None  # for "train": offsets and scales of the training set, without tracks
    pooled: bool
    device: Device

    def probabilities(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        if self.pooled:
            arrays = [array[:1] for array in arrays]  # the mean over windows, as in training
        return self._predict(TrackSet.of(arrays, [0] * len(arrays), self.normalise, self.train_set))

    def of_parts(self, array: np.ndarray, parts: Sequence[slice]) -> np.ndarray:
        whole = TrackSet.of([array], [0], self.normalise, self.train_set)
        first = torch.zeros(len(parts), dtype=torch.long)
        pieces = [array[part] for part in parts]
        cut = TrackSet(pieces, first.numpy(), whole.offsets[first], whole.scales[first])
        return self._predict(cut)

    def _predict(self, tracks: TrackSet) -> np.ndarray:
        return predict(self.network, tracks, self.frames, make_accelerator(self.device))


def _network(
    record: RunRecord, number: int, representation: Representation, classes: int, device: Device
) -> _Network:
    recipe = _recipe(BaselineRecipe, record)
    file = record.folder / f"fold{number}.safetensors"
    again = "run the same mgc baseline again with --again"
    try:
        weights = load_file(file)
    except FileNotFoundError:
        raise MgcError("the weights of a fold are not there", where=file, fix=again) from None
    except (OSError, SafetensorError) as error:
        raise MgcError(f"the weights of a fold cannot be read: {error}", where=file, fix=again) from None
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise MgcError("the weights of a fold hold NaN or infinity: damaged", where=file, fix=again)
    normalise, learned = normalise_of(recipe), None
    if normalise == "train":
        if OFFSET not in weights:
            what = "an older mgc did not keep what the training side is normalised by"
            raise MgcError(what, where=file, fix=again)
        learned = TrackSet([], np.zeros(0, np.int64), weights.pop(OFFSET)[None], weights.pop(SCALE)[None])
    frames = record.frames or _frames(record, recipe, representation, number)
    options = {key: getattr(recipe, key) for key in OPTIONS}
    network = make_network(recipe.network, classes, representation.width, frames, options)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        what = f"the weights are not those of today's {recipe.network}: {str(error).splitlines()[-1].strip()}"
        raise MgcError(what, where=file, fix=again) from None
    network = network.to(make_accelerator(device).device).eval()
    return _Network(network, frames, normalise, learned, representation.pooled, device)


def _frames(record: RunRecord, recipe: BaselineRecipe, representation: Representation, number: int) -> int:
    """The frames of a crop where an older record does not tell them: what the recipe asks for."""
    if representation.frames_a_second is None:
        return 1
    asked = round((recipe.train.crop_seconds or WHOLE_SECONDS) * representation.frames_a_second)
    frames = max(asked, find_network(recipe.network).min_frames)
    if number == 0:
        say(f"{record.run_id}: an older mgc did not keep the frames of a crop; the recipe asks for {frames}")
    return frames


# ---- heads ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    """A head with the layers and statistics that it takes, as a recipe."""

    fitted: Fitted
    recipe: ProbeRecipe
    representation: Representation
    classes: int

    def probabilities(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        held = {str(number): array for number, array in enumerate(arrays)}
        layers = [*embeddings_of(_Arrays(self.representation, held), [*held], self.recipe).values()]
        every = Embeddings(np.concatenate([layer.rows for layer in layers], axis=1), layers[0].ends)
        return probabilities(self.fitted, *every.of([*range(len(arrays))]), self.classes)

    def of_parts(self, array: np.ndarray, parts: Sequence[slice]) -> np.ndarray:
        return self.probabilities([array[part] for part in parts])


class _Arrays(Store):
    """A store that holds nothing but what it is given, and no files."""

    def __init__(self, representation: Representation, arrays: dict[str, np.ndarray]) -> None:
        super().__init__(representation, Path())
        self.arrays = arrays

    def missing(self, clips: Iterable[str]) -> set[str]:
        return {*clips} - {*self.arrays}

    def read(self, clip: str) -> np.ndarray:
        return self.arrays[clip]


def _head(record: RunRecord, number: int, representation: Representation, classes: int) -> _Head:
    recipe = _recipe(ProbeRecipe, record)
    file = record.folder / f"head{number}.safetensors"
    if not file.exists():
        raise MgcError(
            "the head of a fold is not there: an older mgc did not keep heads, or the file was moved",
            where=file,
            fix="run the same command again (--again where it has it): heads take seconds",
        )
    layer = recipe.layers if recipe.layers == "weighted" else str(record.chosen[number]["layer"])
    one = recipe.model_copy(update={"layers": layer})
    return _Head(Fitted(load_head(file), 0.0, {}, 0), one, representation, classes)


def _recipe(kind: type[Any], record: RunRecord) -> Any:
    try:
        return kind.model_validate(record.recipe)
    except ValidationError as error:
        keys = sorted({".".join(map(str, one["loc"])) for one in error.errors()})
        raise MgcError(
            f"today's mgc does not understand the recipe of this run: {', '.join(keys)}",
            where=record.folder / "record.json",
            fix="run it again",
        ) from None
