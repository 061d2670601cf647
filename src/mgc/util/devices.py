"""Where tensors live, by accelerate; in which precision; settings of this process that make CPUs faster; and
the processes that a launcher has started for one piece of work."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object

from mgc.util.errors import MgcError

Result = TypeVar("Result")

# How long a process waits for another that is still there: the first may look at a hundred thousand files,
# and the slowest part may take hours more than the fastest. Of one that has died the others learn at once.
PATIENCE = timedelta(days=1)
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


def share_cores(cores: int) -> None:
    """The processes of a launcher divide the cores of their machine among them.

    Both launchers give each process a single thread, by OMP_NUM_THREADS=1, however many cores there are; any
    other number is a person's and stays.
    """
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def make_accelerator(device: str) -> Accelerator:
    """Accelerate's choice for "auto", or the named kind of device.

    Raises:
        MgcError: that device is not there; or a launcher has started several processes, which would all do
            the same.
    """
    if several():
        raise MgcError(
            "several processes were launched, and each would do all of the work: only mgc embed divides it",
            where=f"$WORLD_SIZE = {os.environ['WORLD_SIZE']}",
            fix="run mgc embed so, then this command without torchrun or accelerate launch",
        )
    _refuse_missing(device)
    return Accelerator(cpu=device == "cpu")


def _refuse_missing(device: str) -> None:
    missing = (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise MgcError(f"torch finds no {device} device here", fix="use --device auto or --device cpu")


def several() -> bool:
    """Whether this is one of several processes of torchrun or `accelerate launch`."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


class Crew:
    """The processes that torchrun or `accelerate launch` has started for one piece of work, on one machine
    or many; this is process `number` of `size`, and computes on `device`.

    What they tell one another goes through gloo also where they compute on GPUs: it is little, and a process
    that has died is noticed at once.

    Raises:
        MgcError: that device is not there, or the processes do not find one another.
    """

    def __init__(self, device: str) -> None:
        _refuse_missing(device)
        cpu = device in ("cpu", "mps") or not torch.cuda.is_available()
        try:
            state = PartialState(cpu=cpu, backend="gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            fix = "look at the launcher's addresses; $GLOO_SOCKET_IFNAME names the network interface"
            raise MgcError(f"the processes do not find one another: {error}", fix=fix) from None
        self.number: int = state.process_index
        self.size: int = state.num_processes
        self.device: torch.device = state.device
        self._here: int = state.local_process_index
        self._state = state

    @property
    def first(self) -> bool:
        """This is the process that plans and tells."""
        return self.number == 0

    def of_first(self, make: Callable[[], Result]) -> Result | MgcError:
        """What `make` gives in the first process, in every one of them; or the error it ended by."""
        box: list[Any] = [None]
        if self.first:
            try:
                box = [make()]
            except MgcError as error:
                box = [error]
        made: Result | MgcError = self._exchange(broadcast_object_list, box)[0]
        return made

    def in_turn(self, make: Callable[[], Result]) -> Result:
        """What `make` gives here, after a process on this machine has made it: it may download something."""
        if self._here != 0:
            self.gather(None)
            return make()
        made = make()
        self.gather(None)
        return made

    def gather(self, one: Result) -> list[Result]:
        """What each process has given, in their order, as soon as all have."""
        return self._exchange(gather_object, [one])

    def leave(self) -> None:
        """Nothing more will be exchanged."""
        self._state.destroy_process_group()

    def _exchange(self, how: Callable[[list[Result]], list[Result]], box: list[Result]) -> list[Result]:
        try:
            return how(box)
        except RuntimeError as error:  # gloo's words for a connection that has ended
            what = "another process was ended from outside, often for want of memory"
            fix = "what all had computed is kept: run the same command again, with any number of processes"
            raise MgcError(what, where=str(error).splitlines()[0], fix=fix) from None


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
            f"this {device.type} does not compute in {name}",
            fix="use train.precision=auto, or float32; for an encoder leave bfloat16: out",
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
