"""Any transformers audio encoder, by short name, hub id or local folder; and its twin with random weights.

Which weights there are, the sample rate and the layers are read from the checkpoint's json files; torch and
transformers are imported when the encoder is loaded, or when the files are silent and the defaults of their
classes must be asked for.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.audio import Windowing
from mgc.representations.card import Encoder, Layer, Representation
from mgc.representations.encoders.checkpoints import (
    LOCAL,
    complete,
    explained,
    hash_of,
    is_address,
    locate,
    saved,
)
from mgc.representations.encoders.families import FAMILIES, Family, Settings, States
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.util.errors import MgcError, did_you_mean
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import torch

__all__ = ["SHORT_NAMES", "from_name", "is_address", "published", "random_twin"]

IGNORED_REST_SECONDS = 0.25
RANDOM = "(random weights)"


def from_name(model: str, workspace: Workspace, trust_remote_code: bool = False) -> Representation:
    """The card of the encoder called `model`: a short name, a local folder, or a hub id (`owner/name`).

    Code that lies beside the weights is run when the encoder is loaded, if its family needs it and it is
    trusted.

    Raises:
        MgcError: not on this machine while no hub answers, incomplete, no encoder at all, or of an unknown
            family.
    """
    known = SHORT_NAMES.get(model)
    folder, source = locate(model)
    family, cut, layers, frame = _read(model, folder)
    return Representation(
        name=model if known else Path(model).resolve().name,
        address=str(folder.absolute()) if source.startswith("folder") else model,
        source=source,
        cut=cut,
        layers=layers,
        pooled=True,
        parameters=None,
        licence=known.licence if known else "see the checkpoint's model card",
        trained_on=known.trained_on if known else "see the checkpoint's model card",
        weights=hash_of(folder, workspace.cache, code=family.remote),
        revision=family.revision,
        load=partial(_load, folder, family, frame, trust_remote_code),
    )


def published(name: str) -> Representation:
    """The card of a short name from its published configuration: opens no file, and cannot be loaded."""
    known = SHORT_NAMES[name]
    family, cut, layers, _ = _shape(name, known.page, known.config, known.front)

    def refuse(device: "torch.device") -> Encoder:
        raise MgcError(f"{name}: a published configuration has no weights", fix="open it by its name")

    return Representation(
        name, name, known.page, cut, layers, True, None, known.licence, known.trained_on, "",
        family.revision, refuse,
    )  # fmt: skip


def random_twin(model: str, seed: int) -> Representation:
    """The encoder called `model` with weights drawn anew, as transformers draws them before a training.

    A short name needs no file: its configuration is known. Of a folder or a hub id the settings are read.

    Raises:
        MgcError: as `from_name`; or the class in transformers is not the same network.
    """
    known = SHORT_NAMES.get(model)
    folder: Path | None = None
    if known:
        source, settings = known.page, (known.config, known.front)
        family, cut, layers, frame = _shape(model, source, *settings)
    else:
        folder, source = locate(model, weights=False)
        settings = saved(folder)
        family, cut, layers, frame = _read(model, folder)
    if not family.same_as_kind(settings[0]):
        raise MgcError(
            f"{model}: transformers' {family.kind} is not the network that this configuration describes",
            where=source,
            fix="random weights are drawn for configurations without cqt, deepnorm and attention_relax",
        )
    drawn = json.dumps([*settings, seed, family.kind], sort_keys=True)
    place = folder.absolute() if folder and source.startswith("folder") else model
    return Representation(
        name=f"{model if known else Path(model).resolve().name} {RANDOM}",
        address=f"random:{seed}:{place}",
        source=f"random weights, seed {seed}; configuration: {source}",
        cut=cut,
        layers=layers,
        pooled=True,
        parameters=None,
        licence="none: no weights of others",
        trained_on=f"nothing: random weights, seed {seed}",
        weights=hashlib.blake2b(drawn.encode(), digest_size=16).hexdigest(),
        revision=family.revision,
        load=partial(_draw, folder, family, frame, settings, seed),
    )


def _read(model: str, folder: Path) -> tuple[Family, Windowing, tuple[Layer, ...], tuple[int, int] | None]:
    """Family and shape of the encoder in a folder."""
    with explained("the checkpoint cannot be used", folder):
        try:
            return _shape(model, folder / "config.json", *saved(folder))
        except KeyError:  # left out: it is as the classes have it
            return _shape(model, folder / "config.json", *complete(folder))


def _shape(
    model: str, where: object, config: Settings, extractor: Settings
) -> tuple[Family, Windowing, tuple[Layer, ...], tuple[int, int] | None]:
    """The family, how clips are cut, which layers come out, and what `Family.frame` says."""
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:
        raise MgcError(
            f"{model}: {model_type!r} is no audio encoder that mgc can read",
            where=where,
            fix=did_you_mean(model_type, FAMILIES),
        )
    if clash := family.clash(config, extractor):
        raise MgcError(f"{model}: {clash}", where=where, fix="use the preprocessor it was published with")
    rate = int(extractor["sampling_rate"])
    cut = Windowing(rate, int(family.window(config, extractor)), ignore=int(IGNORED_REST_SECONDS * rate))
    return family, cut, family.layers(config), family.frame and family.frame(config, extractor)


def _load(
    folder: Path, family: Family, frame: tuple[int, int] | None, trusted: bool, device: "torch.device"
) -> Encoder:
    """Weights in float32, in eval mode, every one of them from the checkpoint.

    Raises:
        MgcError: the checkpoint cannot be read, lacks weights that the model would make up, or needs code of
            its own that is not trusted.
    """
    if family.remote and not trusted:
        raise MgcError(
            "this encoder is computed by Python code that lies beside its weights, and code of others is not "
            "run unasked",
            where=folder,
            fix="read its *.py files, then add --trust-remote-code",
        )
    import torch
    import transformers

    # What it would report of the weights is asked below.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    local = {**LOCAL, "trust_remote_code": family.remote and trusted}
    with explained("the weights cannot be loaded", folder):
        model, report = transformers.AutoModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **local
        )
        front = transformers.AutoFeatureExtractor.from_pretrained(folder, config=model.config, **LOCAL)
    missing = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    # The vector that stands for masked frames is used in training only.
    made_up = sorted(
        key for key in missing if key.startswith(family.part) and not key.endswith("masked_spec_embed")
    )
    if made_up:
        raise MgcError(
            f"{len(made_up)} weights of the model are not in the checkpoint, or of another shape, and would "
            f"be random: {', '.join(made_up[:3])}{' ...' if len(made_up) > 3 else ''}",
            where=folder,
            fix="use the complete checkpoint, or the class of model it was saved from",
        )
    return _encoder(model, front, family, frame, device)


def _draw(
    folder: Path | None,
    family: Family,
    frame: tuple[int, int] | None,
    settings: tuple[Settings, Settings],
    seed: int,
    device: "torch.device",
) -> Encoder:
    """The model of a configuration, every weight drawn from `seed` on the CPU: the same on every device.

    Raises:
        MgcError: the configuration makes no model, or one that leaves weights undrawn.
    """
    import torch
    import transformers

    kind = getattr(transformers, family.kind)
    transformers.utils.logging.set_verbosity_error()
    where = folder or "the published configuration"
    with explained("no model with random weights can be made", where), _undrawn_is_nan():
        torch.default_generator.manual_seed(seed)
        model = kind(kind.config_class.from_dict(settings[0])).float()
        if folder is None:
            front = getattr(transformers, settings[1]["feature_extractor_type"]).from_dict(settings[1])
        else:
            front = transformers.AutoFeatureExtractor.from_pretrained(folder, config=model.config, **LOCAL)
    undrawn = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if undrawn:
        raise MgcError(f"transformers leaves {len(undrawn)} weights undrawn: {undrawn[0]} ...", where=where)
    # Its class is transformers' own, which returns its hidden states.
    states = FAMILIES["hubert"].states if family.remote else family.states
    return _encoder(model, front, replace(family, states=states), frame, device)


@contextmanager
def _undrawn_is_nan() -> Iterator[None]:
    """Memory that nobody has written holds NaN, and the generator is afterwards as before."""
    import torch

    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def _encoder(
    model: Any, front: Any, family: Family, frame: tuple[int, int] | None, device: "torch.device"
) -> "_Encoder":
    encoder = model.get_submodule(family.part).eval().requires_grad_(False).to(device)
    return _Encoder(encoder, front, family.states, frame)


class _Encoder:
    def __init__(self, model: Any, front: Any, states: States, frame: tuple[int, int] | None) -> None:
        from mgc.representations.encoders.frontends import front_end

        self.model, self.front, self.states, self.frame = model, front, states, frame
        self.batched = front_end(front)  # None: of a kind that only its extractor knows
        self.sample_rate_hz = int(front.sampling_rate)  # that of the preprocessor, whatever the card says

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        if self.batched:
            inputs = self.batched(waveforms)
        else:
            arrays = [*waveforms.cpu().numpy()]
            inputs = self.front(arrays, sampling_rate=self.sample_rate_hz, return_tensors="pt")
            inputs = inputs.to(waveforms.device)
        layers = self.states(self.model, inputs)
        if self.frame is None:  # one frame a window: it counts as much as it is new
            return layers, ((real - covered) / waveforms.shape[1]).unsqueeze(1)
        stride, needed = self.frame
        import torch

        starts = torch.arange(layers[-1].shape[1], device=waveforms.device) * stride  # (T,) samples
        new = starts >= covered.unsqueeze(1)  # (B, T)
        return layers, (new & (starts + needed <= real.unsqueeze(1))).float()
