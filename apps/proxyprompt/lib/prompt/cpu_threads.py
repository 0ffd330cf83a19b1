"""Runs the compiled CPU kernels on threads.

Work is cut into (sequence, block of channels) and handed to a pool of Python threads; the kernels release the GIL.
Numba's own threading layers are not used: its default one aborts the process when two threads call it at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def run_blocks(kernel: Callable[..., None], arguments: tuple, batch: int, channels: int, block: int) -> None:
    """``kernel(*arguments, b, d)`` for every sequence b and first channel d, on as many threads as torch may use."""
    global _pool
    tasks = [(b, d) for b in range(batch) for d in range(0, channels, block)]
    threads = min(torch.get_num_threads(), len(tasks))
    left = iter(tasks)  # shared: a thread whose core is busy with something else simply takes fewer

    def work() -> None:
        for b, d in left:
            kernel(*arguments, b, d)

    if threads <= 1:
        work()
        return
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="vision-mamba")
    futures = [_pool.submit(work) for _ in range(1, threads)]
    work()
    for future in futures:
        if not future.cancel():  # one that never started has nothing left to do
            future.result()


def flat(*tensors: Tensor) -> list[np.ndarray]:
    """Contiguous tensors as flat arrays over the same memory."""
    return [t.detach().view(-1).numpy() for t in tensors]
