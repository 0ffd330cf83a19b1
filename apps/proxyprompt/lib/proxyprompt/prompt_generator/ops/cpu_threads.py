"""Threads for a compiled kernel: it releases the GIL, so its independent blocks run side by side.

Numba's own threading layers are not used: its default one aborts the process when two threads call it at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def run_blocks(kernel: Callable[..., None], arguments: Sequence[object], blocks: Sequence[tuple[int, ...]]) -> None:
    """``kernel(*arguments, *block)`` for every block, on as many threads as torch may use.

    Args:
        kernel: compiled, and without Python's lock; what it writes for one block concerns no other.
        arguments: the same for all blocks.
        blocks: what tells them apart, further arguments each.
    """
    left = iter(blocks)  # shared: a thread whose core is busy with something else simply takes fewer

    def work() -> None:
        for block in left:
            kernel(*arguments, *block)

    helpers = [_pool().submit(work) for _ in range(1, min(torch.get_num_threads(), len(blocks)))]
    work()
    for helper in helpers:
        if not helper.cancel():  # one that never started has nothing left to do
            helper.result()


@cache
def _pool() -> ThreadPoolExecutor:
    """One thread fewer than there are cores: who asks works too."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="kernel")
