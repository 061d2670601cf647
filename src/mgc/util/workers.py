"""Processes that work side by side. None is left behind, however the work ends."""

import contextlib
import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any

from mgc.util.errors import MgcError


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def workers(count: int, one_thread: bool) -> Iterator[Executor]:
    """A pool of `count` processes; for a count of 1 everything runs in this process.

    `one_thread` limits each process to a single torch thread, so that they do not compete for cores.

    Raises:
        MgcError: a process was killed.
    """
    import torch

    if count == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1 if one_thread else threads)
        try:
            yield _SameProcess()
        finally:
            torch.set_num_threads(threads)
        return
    others = set(mp.active_children())
    pool = ProcessPoolExecutor(count, mp.get_context("spawn"), _start_worker, (one_thread,))
    try:
        yield pool
    except BrokenProcessPool:
        fix = "free memory, or train fewer at once; the same command resumes the work"
        raise MgcError("a training process was killed, often because memory ran out", fix=fix) from None
    finally:
        # They are idle at the normal end, and must not train on after an interrupt.
        for child in set(mp.active_children()) - others:
            child.terminate()
        pool.shutdown(cancel_futures=True)


class _SameProcess(Executor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _start_worker(one_thread: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the first process decides
    if one_thread:
        import torch

        torch.set_num_threads(1)
    exit_with_parent()


@cache
def exit_with_parent() -> None:
    """End this process within a second after its parent has ended, for instance by SIGKILL."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
