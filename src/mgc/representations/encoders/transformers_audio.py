"""Any transformers audio encoder, by short name, hub id or local folder; and its randomly initialised twin.

The sample rate, the layers and the names of the weights are read from the checkpoint's JSON files. torch and
transformers are imported when the encoder is loaded, or when those files omit a setting, so that the default
of its transformers class is needed.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.audio import Windowing
from mgc.representations.card import Encoder, Layer, Representation
from mgc.representations.encoders.checkpoints import (
    LOCAL,
    check_hash,
    checkpoint_errors,
    hash_of,
    locate,
    read_settings,
)
from mgc.representations.encoders.families import FAMILIES, Family, Settings
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.representations.spec import ModelSpec
from mgc.util.errors import MgcError, did_you_mean
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mgc.representations.card import Encoded

IGNORED_REST_SECONDS = 0.25
RANDOM = "(random weights)"
SEE_MODEL_CARD = "see the checkpoint's model card"


@dataclass(frozen=True)
class _Shape:
    """How a checkpoint is fed and read."""

    family: Family
    cut: Windowing
    layers: tuple[Layer, ...]
    frame: tuple[int, int] | None  # as `Family.frame` returns it

    def card(self, name: str, load: Any, **more: Any) -> Representation:
        return Representation(
            name=name, cut=self.cut, layers=self.layers, pooled=True, parameters=None,
            revision=self.family.revision, load=load, **more,
        )  # fmt: skip


def from_name(model: str, workspace: Workspace) -> Representation:
    """The card of the encoder `model`: a short name, a local folder, or a hub id (`owner/name`).

    Python code in the checkpoint is executed when the encoder is loaded, but only if its family needs it and
    the workspace allows it.

    Raises:
        MgcError: the checkpoint is not on this machine and no hub answers, it is incomplete, or it is not an
            audio encoder of a known family.
    """
    known = SHORT_NAMES.get(model)
    folder, source = locate(model)
    shape = _read_shape(model, folder)
    weights = hash_of(folder, workspace.cache, code=shape.family.remote)
    return shape.card(
        model if known else Path(model).resolve().name,
        partial(_load, folder, shape, weights, workspace.trust_remote_code),
        spec=ModelSpec(str(folder.absolute()) if source.startswith("folder") else model),
        source=source,
        licence=known.licence if known else SEE_MODEL_CARD,
        trained_on=known.trained_on if known else SEE_MODEL_CARD,
        weights=weights,
    )


def published(name: str) -> Representation:
    """The card of a short name from its published configuration. It opens no file and cannot be loaded."""
    known = SHORT_NAMES[name]

    def refuse(device: "torch.device") -> Encoder:
        raise MgcError(f"{name}: this card has no weights and cannot be loaded", fix=f"use --model {name}")

    return _shape(name, known.page, known.config, known.front).card(
        name, refuse, spec=ModelSpec(name), source=known.page, licence=known.licence,
        trained_on=known.trained_on, weights="",
    )  # fmt: skip


def random_twin(model: str, seed: int) -> Representation:
    """The encoder `model` with random weights, initialised as transformers does before training.

    A short name needs no file, since its configuration is known; of a folder or hub id only the settings are
    read.

    Raises:
        MgcError: as `from_name`; or the class in transformers is not the same network.
    """
    if known := SHORT_NAMES.get(model):
        folder, source, settings = None, known.page, (known.config, known.front)
        shape = _shape(model, source, *settings)
    else:
        folder, source = locate(model, weights=False)
        settings, shape = read_settings(folder), _read_shape(model, folder)
    if not shape.family.same_as_kind(settings[0]):
        raise MgcError(
            f"{model}: transformers' {shape.family.kind} is not the network of this configuration",
            where=source,
            fix="random weights need a configuration without cqt, deepnorm and attention_relax",
        )
    place = str(folder.absolute()) if folder and source.startswith("folder") else model
    content = json.dumps([*settings, seed, shape.family.kind], sort_keys=True)
    return shape.card(
        f"{model if known else Path(model).resolve().name} {RANDOM}",
        partial(_initialise, folder, shape, settings, seed),
        spec=ModelSpec(place, random_seed=seed),
        source=f"random weights, seed {seed}; configuration: {source}",
        licence="none: no pretrained weights",
        trained_on=f"nothing: random weights, seed {seed}",
        weights=hashlib.blake2b(content.encode(), digest_size=16).hexdigest(),
    )


def _read_shape(model: str, folder: Path) -> _Shape:
    file = folder / "config.json"
    with checkpoint_errors("the checkpoint cannot be used", folder):
        try:
            return _shape(model, file, *read_settings(folder))
        except KeyError:  # a setting that was not saved, since it has the default of its class
            import transformers

            config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
            extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, config=config, **LOCAL)
            return _shape(model, file, config.to_dict(), extractor.to_dict())


def _shape(model: str, where: object, config: Settings, extractor: Settings) -> _Shape:
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:
        raise MgcError(
            f"{model}: model_type {model_type!r} is not a supported audio encoder",
            where=where,
            fix=did_you_mean(model_type, FAMILIES),
        )
    if clash := family.clash(config, extractor):
        raise MgcError(f"{model}: {clash}", where=where, fix="use the preprocessor it was published with")
    rate = int(extractor["sampling_rate"])
    cut = Windowing(rate, int(family.window(config, extractor)), ignore=int(IGNORED_REST_SECONDS * rate))
    return _Shape(family, cut, family.layers(config), family.frame and family.frame(config, extractor))


def _load(folder: Path, shape: _Shape, weights: str, trusted: bool, device: "torch.device") -> "_Encoder":
    """The pretrained encoder in float32."""
    family = shape.family
    if family.remote and not trusted:
        raise MgcError(
            "this encoder needs the Python code in its folder, which is not executed by default",
            where=folder,
            fix="read its *.py files, then add --trust-remote-code",
        )
    check_hash(folder, weights, hash_of(folder, None, code=family.remote))
    import torch
    import transformers

    # The report on weights is checked below, so transformers need not print it.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    local = {**LOCAL, "trust_remote_code": family.remote and trusted}
    with checkpoint_errors("the weights cannot be loaded", folder):
        model, report = transformers.AutoModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **local
        )
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, config=model.config, **LOCAL)
    missing = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    # The embedding of masked frames is used in training only.
    random = [key for key in missing if key.startswith(family.part) and not key.endswith("masked_spec_embed")]
    if random:
        raise MgcError(
            f"{len(random)} weights of the model are missing in the checkpoint or have another shape, and "
            f"would be random: {', '.join(random[:3])}{' ...' if len(random) > 3 else ''}",
            where=folder,
            fix="use the complete checkpoint, or the model class it was saved from",
        )
    return _Encoder(model, extractor, shape, device)


def _initialise(
    folder: Path | None, shape: _Shape, settings: tuple[Settings, Settings], seed: int, device: "torch.device"
) -> "_Encoder":
    """The model with random weights, initialised on the CPU so that a seed gives the same on every device."""
    import torch
    import transformers

    kind = getattr(transformers, shape.family.kind)
    transformers.utils.logging.set_verbosity_error()
    where = folder or "the published configuration"
    with checkpoint_errors("no model with random weights can be made", where), _uninitialised_is_nan():
        torch.default_generator.manual_seed(seed)
        model = kind(kind.config_class.from_dict(settings[0])).float()
        if folder:
            extractor = transformers.AutoFeatureExtractor.from_pretrained(
                folder, config=model.config, **LOCAL
            )
        else:
            extractor = getattr(transformers, settings[1]["feature_extractor_type"]).from_dict(settings[1])
    if bad := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        raise MgcError(f"transformers does not initialise {len(bad)} weights: {bad[0]} ...", where=where)
    if shape.family.remote:  # the class is transformers' own, which returns its hidden states
        shape = replace(shape, family=replace(shape.family, states=FAMILIES["hubert"].states))
    return _Encoder(model, extractor, shape, device)


@contextmanager
def _uninitialised_is_nan() -> Iterator[None]:
    """New tensors hold NaN until they are initialised; the state of the random generator is restored."""
    import torch

    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


class _Encoder:
    """The used part of a transformers model, frozen and in eval mode, with its front end."""

    def __init__(self, model: Any, extractor: Any, shape: _Shape, device: "torch.device") -> None:
        from mgc.representations.encoders.frontends import front_end

        self.model = model.get_submodule(shape.family.part).eval().requires_grad_(False).to(device)
        self.extractor, self.states, self.frame = extractor, shape.family.states, shape.frame
        self.front_end = front_end(extractor)  # None: only the extractor itself can compute its features
        self.sample_rate_hz = int(extractor.sampling_rate)

    def __call__(self, waveforms: "Tensor", covered: "Tensor", real: "Tensor") -> "Encoded":
        import torch

        if self.front_end:
            inputs = self.front_end(waveforms)
        else:
            arrays = [*waveforms.cpu().numpy()]
            inputs = self.extractor(arrays, sampling_rate=self.sample_rate_hz, return_tensors="pt")
            inputs = inputs.to(waveforms.device)
        layers = self.states(self.model, inputs)  # (B, T, D) each
        if self.frame is None:  # a window is one frame, weighted by the share that no earlier one covered
            return layers, ((real - covered) / waveforms.shape[1]).unsqueeze(1)
        stride, needed = self.frame
        starts = torch.arange(layers[-1].shape[1], device=waveforms.device) * stride  # (T,) samples
        new = starts >= covered.unsqueeze(1)  # (B, T)
        return layers, (new & (starts + needed <= real.unsqueeze(1))).float()
