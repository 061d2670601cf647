"""`bfloat16:NAME`: an encoder that computes in bfloat16, where the machine does so itself.

It is another representation than the one in float32, with vectors of its own in the store: they differ by
about 1e-3, more than the store's float16 does. So the vectors that a name stands for never depend on the
machine that computed them, and a cluster of unlike machines cannot mix two kinds. float32 is the default
everywhere.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mgc.representations.card import Encoder, Representation
from mgc.util.errors import MgcError

if TYPE_CHECKING:
    import torch

BFLOAT16_PREFIX = "bfloat16:"


def in_bfloat16(card: Representation) -> Representation:
    """The same encoder with weights and activations in bfloat16; its front end and pooling stay in float32.

    Raises:
        MgcError: a feature made by hand, which has no weights.
    """
    if not card.weights:
        what = f"{card.name} is computed without weights: there is nothing to gain from bfloat16"
        raise MgcError(what, where=f"{BFLOAT16_PREFIX}{card.address}", fix="leave the prefix out")
    return replace(
        card,
        name=f"{card.name} bfloat16",
        address=f"{BFLOAT16_PREFIX}{card.address}",
        effect=f"{card.effect} bfloat16",
        load=partial(_load, card.load, card.name),
    )


def _load(load: Callable[["torch.device"], Encoder], name: str, device: "torch.device") -> Encoder:
    """Raises:
    MgcError: a device that would only imitate it, many times slower.
    """
    import torch

    from mgc.util.devices import precision_of

    dtype = precision_of("bfloat16", device)
    encoder = load(device)
    model = getattr(encoder, "model", None)
    if not isinstance(model, torch.nn.Module):
        raise MgcError(f"{name} has no network that could compute in bfloat16", fix="leave the prefix out")
    model.to(dtype)

    def narrow(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def before(module: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return tuple(map(narrow, arguments)), {key: narrow(value) for key, value in named.items()}

    for entrance in (model, *model.children()):  # CLAP's towers are called one by one
        entrance.register_forward_pre_hook(before, with_kwargs=True)
    return encoder
