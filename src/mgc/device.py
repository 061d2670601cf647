"""Where tensors live, by accelerate; in which precision; settings of this process that make CPUs faster."""

import ctypes
import platform
import sys

import torch
from accelerate import Accelerator

from mgc.config import Device, MgcError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def tune_cpu() -> None:
    """Settings of this process that change speed only; repeated calls do nothing more."""
    torch.set_flush_denormal(True)  # a small network can run 70 times slower on numbers next to zero
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        # Keep freed blocks of up to 1 GiB: giving 20-MB activations back to the system after every step, and
        # having it zero them again, took a third of the time.
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def make_accelerator(device: Device) -> Accelerator:
    """Accelerate's choice for "auto", or the named kind of device.

    Raises:
        MgcError: that device is not there.
    """
    missing = (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise MgcError(f"torch finds no {device} device here", fix="use --device auto or --device cpu")
    return Accelerator(cpu=device == "cpu")


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The type that a network computes in: for "auto" bfloat16 where the device has it, else float32.

    Raises:
        MgcError: a type that this device would only imitate, many times slower.
    """
    native = {"float32"} | _half_types(device)
    if name == "auto":
        name = "bfloat16" if "bfloat16" in native else "float32"
    if name not in native:
        raise MgcError(
            f"this {device.type} does not compute in {name}", fix="use train.precision=auto, or float32"
        )
    return getattr(torch, name)


def _half_types(device: torch.device) -> set[str]:
    """Types of 16 bits that the device computes in itself."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return {"float16", "bfloat16"} if major >= 8 else {"float16"}
    if device.type == "mps":
        return {"float16"}
    # Without these instructions bfloat16 is imitated, up to 80 times slower.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return {"bfloat16"} if native else set()
