"""Processes that train side by side, one thread each on a CPU; none is left behind, however the work ends."""

import contextlib
import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mgc.util.errors import MgcError


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def workers(count: int, one_thread: bool) -> Iterator[Executor]:
    """A pool of `count` processes, or for one this very process.

    `one_thread`: each keeps to a single thread, so that they do not wait for one another's cores.

    Raises:
        MgcError: a process was ended from outside.
    """
    import torch

    if count == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1 if one_thread else threads)
        try:
            yield _Here()
        finally:
            torch.set_num_threads(threads)
        return
    others = set(mp.active_children())
    pool = ProcessPoolExecutor(count, mp.get_context("spawn"), _begin, (one_thread,))
    try:
        yield pool
    except BrokenProcessPool:
        fix = "make room, or train fewer at once; the same command goes on from there"
        raise MgcError(
            "a training process was ended from outside, often for want of memory", fix=fix
        ) from None
    finally:
        # At the end they are idle; after an interrupt they shall not train on.
        for child in set(mp.active_children()) - others:
            child.terminate()
        pool.shutdown(cancel_futures=True)


class _Here(Executor):
    """Runs at once what it is given, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _begin(one_thread: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the first process decides
    if one_thread:
        import torch

        torch.set_num_threads(1)

    def end_with_parent() -> None:
        if (parent := mp.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
