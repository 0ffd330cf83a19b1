"""The selective scan on the CPU: cuts the work up, runs the compiled kernels on threads, and is known to autograd.

Work is cut into (sequence, block of channels) and handed to a pool of Python threads; the kernels release the GIL.
Numba's own threading layers are not used: its default one aborts the process when two threads call it at once.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.prompt.selective_scan_kernel import BLOCK, CHUNK, backward, forward

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _run(kernel, tasks: list[tuple[int, ...]]) -> None:
    """Call ``kernel`` with every task, on as many threads as torch may use."""
    global _pool
    threads = min(torch.get_num_threads(), len(tasks))

    def work(part: list[tuple[int, ...]]) -> None:
        for task in part:
            kernel(*task)

    if threads <= 1:
        work(tasks)
        return
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="selective-scan")
    futures = [_pool.submit(work, tasks[i::threads]) for i in range(1, threads)]
    work(tasks[0::threads])
    for future in futures:
        future.result()


def _tasks(batch: int, channels: int) -> list[tuple[int, int]]:
    """(sequence, first channel of a block)."""
    return [(b, d) for b in range(batch) for d in range(0, channels, BLOCK)]


def _flat(*tensors: Tensor) -> list:
    return [t.detach().view(-1).numpy() for t in tensors]


class SelectiveScanCPU(torch.autograd.Function):
    """Arguments and result as :func:`lib.prompt.selective_scan.selective_scan`; float32, on the CPU."""

    @staticmethod
    def forward(
        ctx, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, reverse: bool = False
    ) -> Tensor:
        channels = x.shape[2]
        spare = -channels % BLOCK  # whole vectors only: channels of zeros, where the number is odd
        if spare:
            x, dt, D, A = (*(F.pad(t, (0, spare)) for t in (x, dt, D)), F.pad(A, (0, 0, 0, spare)))
        x, dt, D = x.contiguous(), dt.contiguous(), D.contiguous()
        scaled = (A.t() * (1 / math.log(2))).contiguous()
        B, C = B.contiguous(), C.contiguous()
        batch, length, padded = x.shape
        state = len(scaled)
        chunks = (length + CHUNK - 1) // CHUNK if any(ctx.needs_input_grad) else 0
        y = torch.empty_like(x)
        starts = x.new_empty(batch, chunks, state, padded)
        arrays = _flat(x, dt, scaled, B, C, D, y, starts)
        _run(lambda b, d: forward(*arrays, length, padded, state, reverse, b, d), _tasks(batch, padded))
        ctx.save_for_backward(x, dt, scaled, B, C, D, starts)
        ctx.channels, ctx.reverse = channels, reverse
        return y[..., :channels] if spare else y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, scaled, B, C, D, starts = ctx.saved_tensors
        batch, length, padded = x.shape
        state, channels = len(scaled), ctx.channels
        gy = (F.pad(gy, (0, padded - channels)) if padded > channels else gy).contiguous()
        gx, gdt = torch.empty_like(x), torch.empty_like(x)
        gA, gD = x.new_empty(batch, state, padded), x.new_empty(batch, padded)
        gB, gC = (x.new_empty(padded // BLOCK, batch, length, state) for _ in range(2))
        arrays = _flat(gy, x, dt, scaled, B, C, D, starts, gx, gdt, gA, gB, gC, gD)
        _run(lambda b, d: backward(*arrays, length, padded, state, batch, ctx.reverse, b, d), _tasks(batch, padded))
        gx, gdt, gA, gD = (t[..., :channels] for t in (gx, gdt, gA.sum(0), gD.sum(0)))
        return gx, gdt, gA.t(), gB.sum(0), gC.sum(0), gD, None
