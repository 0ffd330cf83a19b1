"""Threads on a CPU: for the compiled kernels, and for operations that are too small to be spread over several.

The kernels' work is cut into (sequence, block of channels) and handed to a pool of Python threads; they release the
GIL. Numba's own threading layers are not used: its default one aborts the process when two threads call it at once.

Of a small operation, waking a second thread costs more than that thread does. Within :func:`one_thread_each` such
operations run on one thread; what does not depend on each other runs side by side, by :func:`beside`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

Result = TypeVar("Result")


class _Here(threading.local):
    """spare: how many threads the calling one gave up."""

    spare = 0


_here = _Here()


def run_blocks(kernel: Callable[..., None], arguments: tuple, batch: int, channels: int, block: int) -> None:
    """``kernel(*arguments, b, d)`` for every sequence b and first channel d, on as many threads as torch may use, and
    on those that :func:`one_thread_each` left without work."""
    tasks = [(b, d) for b in range(batch) for d in range(0, channels, block)]
    threads = min(torch.get_num_threads() + _here.spare, len(tasks))
    left = iter(tasks)  # shared: a thread whose core is busy with something else simply takes fewer

    def work() -> None:
        for b, d in left:
            kernel(*arguments, b, d)

    if threads <= 1:
        work()
        return
    futures = [_pool().submit(work) for _ in range(1, threads)]
    work()
    for future in futures:
        if not future.cancel():  # one that never started has nothing left to do
            future.result()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Every operation of the calling thread runs on it alone; other threads are not concerned."""
    before = _here.spare
    _here.spare = before or torch.get_num_threads() - 1
    try:
        with _limited(1):
            yield
    finally:
        _here.spare = before


@contextmanager
def all_threads_again() -> Iterator[None]:
    """Within :func:`one_thread_each`: for what is large enough after all, while nothing runs :func:`beside` it."""
    if not _here.spare:
        yield
        return
    with _limited(1 + _here.spare):
        yield


def beside(work: Callable[[], Result]) -> Callable[[], Result]:
    """Starts ``work`` on another thread, each operation on it alone, where :func:`one_thread_each` left one without
    work. What is returned gives its result, to whichever thread and however often it is asked, and does the work itself
    if no thread has begun with it.

    ``work`` sees gradients and inference mode as the caller does.
    """
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def there() -> Result:
        with _limited(1), torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work()

    future = _pool().submit(there) if _here.spare else None
    asked, found = threading.Lock(), []

    def wait() -> Result:
        with asked:
            if not found:
                found.append(work() if future is None or future.cancel() else future.result())
        return found[0]

    return wait


def in_shares(work: Callable[[slice], Result], count: int) -> list[Result]:
    """``work`` on slices of range(count), side by side as :func:`beside` does it: as many as there are threads, and as
    equal as can be; the calling thread, which begins first, has the larger one. What it gives, in order."""
    spare = _here.spare
    threads = min(count, 1 + spare)
    edges = [-(-count * n // threads) for n in range(threads + 1)]
    first, *others = (slice(*pair) for pair in pairwise(edges))
    waiting = [beside(partial(work, share)) for share in others]
    if others:
        _here.spare = 0  # they have a share
    try:
        return [work(first), *(wait() for wait in waiting)]
    finally:
        _here.spare = spare


@cache
def _pool() -> ThreadPoolExecutor:
    """One thread fewer than there are cores: who asks works too."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="beside")


def _limited(threads: int) -> AbstractContextManager:
    """OpenMP's threads for the calling thread."""
    torch.get_num_threads()  # a new thread is given torch's number at its first question; later, that would undo this
    return _openmp().limit(limits=threads, user_api="openmp")


@cache
def _openmp() -> ThreadpoolController:
    """Of the libraries that are loaded by now, torch's among them."""
    return ThreadpoolController()


def flat(*tensors: Tensor) -> list[np.ndarray]:
    """Contiguous tensors as flat arrays over the same memory."""
    return [t.detach().view(-1).numpy() for t in tensors]
