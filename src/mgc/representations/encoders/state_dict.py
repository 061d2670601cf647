"""Load a file of tensors into a network, with an error that names every tensor that does not fit."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from mgc.util.errors import MgcError


def load_weights(
    network: nn.Module,
    file: Path,
    name: str,
    *,
    fix: str,
    rename: Callable[[str], str] = lambda tensor_name: tensor_name,
) -> None:
    """Load `file` (safetensors, or a PyTorch state dict of tensors only) into `network`.

    `name` is the name of the network in error messages; `rename` maps names in the file to names in the
    network.

    Raises:
        MgcError: the file cannot be read, or a tensor is missing, unexpected, not finite or of another shape.
    """
    try:
        is_safetensors = file.suffix == ".safetensors"
        tensors = load_file(file) if is_safetensors else torch.load(file, "cpu", weights_only=True)
        given = {rename(key): torch.as_tensor(value) for key, value in tensors.items()}
    except Exception as error:  # torch.load raises exceptions of many unrelated types
        message = f"{type(error).__name__}: {str(error)[:200]}"
        raise MgcError(f"the weights of {name} cannot be read: {message}", where=file, fix=fix) from error
    expected = network.state_dict()
    faults = [f"missing: {key}" for key in sorted(expected.keys() - given.keys())]
    faults += [f"unexpected: {key}" for key in sorted(given.keys() - expected.keys())]
    faults += [
        f"{key} is {tuple(given[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & given.keys())
        if given[key].shape != expected[key].shape
    ]
    faults += [f"{key} is not finite" for key, tensor in given.items() if not tensor.isfinite().all()]
    if faults:
        more = [f"and {len(faults) - 3} more"] if len(faults) > 3 else []
        what = f"the file does not hold the weights of {name} ({'; '.join([*faults[:3], *more])})"
        raise MgcError(what, where=file, fix=fix)
    network.load_state_dict(given)
