"""Devices and precision, by accelerate; CPU settings; and the processes that a launcher has started."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState

from mgc.util.errors import MgcError, explaining

# How long a process waits for one that is alive: the first may scan a hundred thousand files, and the
# slowest may need hours more than the fastest. The death of a process is noticed at once.
PATIENCE = timedelta(days=1)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def tune_cpu() -> None:
    """Settings of this process that change only its speed. Repeated calls have no further effect."""
    torch.set_flush_denormal(True)  # a small network can run 70 times slower on denormal numbers
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        # Keep freed blocks of up to 1 GiB. Returning activations of 20 MB to the system after every step,
        # which zeroes them again, took a third of the time.
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def share_cores(cores: int) -> None:
    """Divide the cores of this machine among the processes that a launcher has started on it.

    Both launchers set OMP_NUM_THREADS=1, however many cores there are. Any other number was set by the user
    and is kept.
    """
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def make_accelerator(device: str) -> Accelerator:
    """Accelerate's choice for "auto", or the named kind of device.

    Raises:
        MgcError: the device is not available, or a launcher has started several processes, all of which
            would do the same work.
    """
    if several():
        what = "several processes were launched, and each would do all of the work: only mgc embed divides it"
        where = f"$WORLD_SIZE = {os.environ['WORLD_SIZE']}"
        raise MgcError(what, where=where, fix="run mgc embed with the launcher, then this command without it")
    _refuse_missing(device)
    return Accelerator(cpu=device == "cpu")


def _refuse_missing(device: str) -> None:
    missing_cuda = device == "cuda" and not torch.cuda.is_available()
    if missing_cuda or (device == "mps" and not torch.backends.mps.is_available()):
        raise MgcError(f"torch finds no {device} device", fix="use --device auto or --device cpu")


def several() -> bool:
    """Whether this is one of several processes started by torchrun or `accelerate launch`."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: str) -> PartialState:
    """This process's place among those that torchrun or `accelerate launch` started, on one machine or many.

    They exchange messages through gloo even where they compute on GPUs: the messages are small, and gloo
    notices at once when a process has died.

    Raises:
        MgcError: the device is not available, or the processes cannot connect.
    """
    _refuse_missing(device)
    cpu = device in ("cpu", "mps") or not torch.cuda.is_available()
    fix = "check the launcher's addresses; $GLOO_SOCKET_IFNAME names the network interface"
    with explaining("the processes cannot connect", None, fix, (RuntimeError, ValueError)):
        return PartialState(cpu=cpu, backend="gloo", timeout=PATIENCE)


@contextmanager
def peers() -> Iterator[None]:
    """A context for an exchange with the other processes, which may have died."""
    try:
        yield
    except RuntimeError as error:  # raised by gloo when a connection ends
        what = "another process was killed, often for lack of memory"
        fix = "finished work is kept: run the same command again, with any number of processes"
        raise MgcError(what, where=str(error).splitlines()[0], fix=fix) from None


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The type a network computes in. "auto" is bfloat16 where the device supports it, otherwise float32.

    Raises:
        MgcError: the device would only emulate the type, many times slower.
    """
    native = {"float32"} | _half_types(device)
    if name == "auto":
        name = "bfloat16" if "bfloat16" in native else "float32"
    if name not in native:
        fix = "use train.precision=auto or float32; for an encoder omit --precision"
        raise MgcError(f"{device.type} device does not compute in {name}", fix=fix)
    return getattr(torch, name)


def _half_types(device: torch.device) -> set[str]:
    """The 16-bit types that the device supports natively."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return {"float16", "bfloat16"} if major >= 8 else {"float16"}
    if device.type == "mps":
        return {"float16"}
    # Without these instructions bfloat16 is emulated, up to 80 times slower.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return {"bfloat16"} if native else set()
