"""The trained models of a run, one for each fold: from cached arrays of clips to probabilities."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mgc.config import BaselineRecipe, Device, ProbeRecipe
from mgc.predict.calibrate import Calibration
from mgc.predict.novelty import Novelty
from mgc.probing.fitting import Embeddings, embeddings_of, probabilities
from mgc.probing.heads.saving import load_head
from mgc.representations import ModelSpec, Representation, open_representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.runs import recipe_from_record
from mgc.runs.record import RERUN, RunRecord
from mgc.training.folds import OFFSET, SCALE, normalise_of
from mgc.training.loop import TrackSet, predict
from mgc.training.networks import OPTIONS, make_network
from mgc.util.devices import make_accelerator, tune_cpu
from mgc.util.errors import MgcError, explaining
from mgc.util.progress import say
from mgc.workspace import Workspace


class FoldModel(ABC):
    """The model of one fold. `arrays` are N clips as `EmbeddingCache.read` returns them."""

    @abstractmethod
    def probabilities(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """(N, C) float64, uncalibrated; rows sum to 1."""

    def segment_probabilities(self, array: np.ndarray, segments: Sequence[slice]) -> np.ndarray:
        """(S, C) for segments of one clip, given as ranges of rows; normalised by the whole clip."""
        return self.probabilities([array[segment] for segment in segments])


@dataclass(frozen=True)
class RunModels:
    """The models of all folds in order, their representation, and the C class names."""

    record: RunRecord
    representation: Representation
    folds: tuple[FoldModel, ...]
    classes: tuple[str, ...]
    workspace: Workspace


@dataclass(frozen=True)
class OpenRun:
    """A run that can predict."""

    models: RunModels
    calibration: Calibration
    device: Device
    novelty: Novelty

    @property
    def known(self) -> tuple[str, str]:
        """What "unknown" and "novel" mean for this run, in sentences."""
        return self.calibration.summary(), self.novelty.summary()


def load_models(
    record: RunRecord,
    workspace: Workspace,
    trust_remote_code: bool = False,
    *,
    model: str | None = None,
    device: Device = "auto",
) -> RunModels:
    """Load the models in `record.folder`. `model` is the place of its encoder, if it has moved.

    Raises:
        MgcError: a floor without a model, files that are missing, damaged or of older code, an encoder that
            is missing or not the same, or a recipe that this version of mgc does not know.
    """
    if record.kind == "floor" and not record.head:
        what = f"{record.display_name} is a floor without a model: it predicts the class frequencies"
        raise MgcError(what, where=record.folder, fix="choose a run of mgc baseline or mgc probe")
    classes = _classes(record)
    representation = _representation(record, model, workspace, trust_remote_code)
    tune_cpu()
    recipe, _ = recipe_from_record(record, {})
    folds = tuple(
        _network(record, recipe, number, representation, len(classes), device)
        if isinstance(recipe, BaselineRecipe)
        else _head(record, recipe, number, representation, len(classes))
        for number in range(len(record.chosen))
    )
    return RunModels(record, representation, folds, classes, workspace)


def _classes(record: RunRecord) -> tuple[str, ...]:
    """The genres, of a record with everything that its models need."""
    with suppress(KeyError, TypeError):  # reported below, like values that are empty
        classes = tuple(str(row["label"]) for row in record.scores["per_class"])
        needed = [len(classes) > 1, record.representation_card["spec"], record.chosen]
        needed += [record.kind == "baseline" or choice["layer"] is not None for choice in record.chosen]
        if all(needed):
            return classes
    what = "the record is damaged: it lacks the genres, the encoder or what was chosen in each fold"
    raise MgcError(what, where=record.folder, fix="run its command again")


def _representation(
    record: RunRecord, model: str | None, workspace: Workspace, trust_remote_code: bool
) -> Representation:
    """The representation of the run; `model` replaces the folder or name of its encoder.

    Raises:
        MgcError: it has other weights, layers or windows than during training.
    """
    spec = ModelSpec.from_dict(record.representation_card["spec"])
    spec = replace(spec, name=model) if model else spec
    representation = open_representation(spec, workspace, trust_remote_code)
    then, now = record.representation_card, representation.card()
    if then.get("key") == now["key"]:
        return representation
    if other := [key for key in ("weights", "cut", "layers", "pooled") if then.get(key) != now[key]]:
        raise MgcError(
            f"{representation.name} is not what the run was trained on: different {', '.join(other)}",
            where=representation.source,
            fix=f"give the encoder of the run by --model ({then.get('source')}), or run its command again",
        )
    changed = f"the code of {representation.name} has changed since {record.run_id}"
    say(f"warning: {changed}; predictions may differ slightly")
    return representation


@dataclass(frozen=True)
class _Network(FoldModel):
    """A network and how its input is normalised."""

    network: torch.nn.Module
    frames: int  # of a crop
    normalise: str
    train: TrackSet | None  # for normalisation by the training set: its offset and scale, without tracks
    pooled: bool
    device: Device

    def probabilities(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        if self.pooled:
            arrays = [array[:1] for array in arrays]  # the mean over windows, as in training
        return self._predict(TrackSet.of(arrays, [0] * len(arrays), self.normalise, self.train))

    def segment_probabilities(self, array: np.ndarray, segments: Sequence[slice]) -> np.ndarray:
        whole = TrackSet.of([array], [0], self.normalise, self.train)
        first = torch.zeros(len(segments), dtype=torch.long)
        parts = [array[segment] for segment in segments]
        return self._predict(TrackSet(parts, first.numpy(), whole.offsets[first], whole.scales[first]))

    def _predict(self, tracks: TrackSet) -> np.ndarray:
        return predict(self.network, tracks, self.frames, make_accelerator(self.device))


def _network(
    record: RunRecord,
    recipe: BaselineRecipe,
    number: int,
    representation: Representation,
    classes: int,
    device: Device,
) -> _Network:
    file = record.folder / f"fold{number}.safetensors"
    with explaining("the weights of a fold cannot be read", file, RERUN, (OSError, SafetensorError)):
        weights = load_file(file)
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        what = "the weights of a fold are damaged: they contain NaN or infinity"
        raise MgcError(what, where=file, fix=RERUN)
    normalise, train = normalise_of(recipe), None
    options = {key: getattr(recipe, key) for key in OPTIONS}
    network = make_network(recipe.network, classes, representation.width, record.frames, options)
    try:
        if normalise == "train":
            train = TrackSet([], np.zeros(0, np.int64), weights.pop(OFFSET)[None], weights.pop(SCALE)[None])
        network.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        detail = str(error).splitlines()[-1].strip()
        what = f"the weights do not fit this version of {recipe.network}: {detail}"
        raise MgcError(what, where=file, fix=RERUN) from None
    network = network.to(make_accelerator(device).device).eval()
    return _Network(network, record.frames, normalise, train, representation.pooled, device)


@dataclass(frozen=True)
class _Head(FoldModel):
    """A head, and in its recipe the layers and statistics that it takes."""

    classifier: Any
    recipe: ProbeRecipe
    representation: Representation
    classes: int

    def probabilities(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        cache, clips = _ArrayCache(self.representation, arrays), [*range(len(arrays))]
        layers = [*embeddings_of(cache, [*map(str, clips)], self.recipe).values()]
        every = Embeddings(np.concatenate([layer.rows for layer in layers], axis=1), layers[0].ends)
        return probabilities(self.classifier, *every.of(clips), self.classes)


class _ArrayCache(EmbeddingCache):
    """An embedding cache in memory; clips are called "0", "1", ..."""

    def __init__(self, representation: Representation, arrays: Sequence[np.ndarray]) -> None:
        super().__init__(representation, Path())
        self.arrays = arrays

    def read(self, clip: str) -> np.ndarray:
        return self.arrays[int(clip)]


def _head(
    record: RunRecord, recipe: ProbeRecipe, number: int, representation: Representation, classes: int
) -> _Head:
    layer = recipe.layers if recipe.layers == "weighted" else str(record.chosen[number]["layer"])
    one = recipe.model_copy(update={"layers": layer})
    return _Head(load_head(record.folder / f"head{number}.safetensors"), one, representation, classes)
