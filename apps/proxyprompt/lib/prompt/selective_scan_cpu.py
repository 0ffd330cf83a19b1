"""Compiled CPU kernel of the selective scan, forward and backward, for float32.

Channels are the innermost axis of every array, so that the compiler turns the state update and the exponential (a
polynomial, see ``_exp``) into vector instructions. No (batch, length, channels, state) array is ever held: the forward
pass keeps the state at the start of every chunk of the sequence, the backward pass recomputes one chunk at a time.

Work is cut into (sequence, block of channels) and handed to a pool of Python threads; the kernels release the GIL.
Numba's own threading layers are not used: its default one aborts the process when two threads call it at once.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

CHUNK = 16
BLOCK = 64  # channels to a task: sixteen states of a block fit in the first-level cache

_LOG2E = np.float32(1.4426950408889634)
_LOWEST = np.float32(-125.0)
_HALF = np.float32(0.5)
# Least-squares coefficients of 2**f for f in [-0.5, 0.5]; the greatest relative error is about 1e-7.
_fit = np.polynomial.chebyshev.Chebyshev.interpolate(lambda f: np.exp2(f), 6, domain=[-0.5, 0.5])
_P = tuple(np.float32(c) for c in _fit.convert(kind=np.polynomial.Polynomial).coef)
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = _P
_FLAGS = {"reassoc", "contract", "arcp", "nsz"}


@intrinsic
def _power_of_two(typingctx, exponent):
    """float32 2**exponent for an int32 in [-126, 127], by writing the exponent's bits."""
    if not isinstance(exponent, types.Integer):
        return None

    def codegen(context, builder, signature, args):
        biased = builder.add(args[0], ir.Constant(ir.IntType(32), 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(ir.IntType(32), 23)), ir.FloatType())

    return types.float32(types.int32), codegen


@njit(inline="always", fastmath=_FLAGS)
def _exp(v):
    """exp(v) for v <= 0, as 2**(whole + fraction) with the fraction in [-0.5, 0.5] by a polynomial."""
    z = max(v * _LOG2E, _LOWEST)
    whole = np.int32(z - _HALF)  # truncation towards zero: the nearest integer, as z <= 0
    f = z - np.float32(whole)
    p = _P0 + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * _P6)))))
    return p * _power_of_two(whole)


@njit(nogil=True, fastmath=_FLAGS, cache=True, boundscheck=False)
def _forward(x, dt, A, B, C, D, y, starts, b, d0, d1):
    """One sequence, channels d0 to d1. A: (state, channels). starts: (batch, chunks, state, channels), or empty."""
    length, state, width = x.shape[1], A.shape[0], d1 - d0
    h = np.zeros((state, width), np.float32)
    Ab = A[:, d0:d1].copy()
    Db = D[d0:d1].copy()
    step, push, out = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for t in range(length):
        if starts.shape[1] > 0 and t % CHUNK == 0:
            for n in range(state):
                for d in range(width):
                    starts[b, t // CHUNK, n, d0 + d] = h[n, d]
        for d in range(width):
            step[d] = dt[b, t, d0 + d]
            push[d] = step[d] * x[b, t, d0 + d]
            out[d] = Db[d] * x[b, t, d0 + d]
        for n in range(state):
            Bn, Cn = B[b, t, n], C[b, t, n]
            for d in range(width):
                new = _exp(step[d] * Ab[n, d]) * h[n, d] + push[d] * Bn
                h[n, d] = new
                out[d] += new * Cn
        for d in range(width):
            y[b, t, d0 + d] = out[d]


@njit(nogil=True, fastmath=_FLAGS, cache=True, boundscheck=False)
def _backward(gy, x, dt, A, B, C, D, starts, gx, gdt, gA, gB, gC, gD, b, block, d0, d1):
    """Gradients of one sequence and block. gA: (batch, state, channels), gD: (batch, channels),
    gB, gC: (blocks, batch, length, state); sums over the first axis are the caller's."""
    length, state, width = x.shape[1], A.shape[0], d1 - d0
    Ab, Db = A[:, d0:d1].copy(), D[d0:d1].copy()
    h = np.empty((CHUNK + 1, state, width), np.float32)
    decay = np.empty((CHUNK, state, width), np.float32)
    g = np.zeros((state, width), np.float32)  # gradient that reaches h_t from later steps
    sum_A = np.zeros((state, width), np.float32)
    sum_D = np.zeros(width, np.float32)
    step, value, out = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    to_x, to_dt = np.empty(width, np.float32), np.empty(width, np.float32)
    for chunk in range((length + CHUNK - 1) // CHUNK - 1, -1, -1):
        first = chunk * CHUNK
        last = min(first + CHUNK, length)
        for n in range(state):
            for d in range(width):
                h[0, n, d] = starts[b, chunk, n, d0 + d]
        for t in range(first, last):
            i = t - first
            for d in range(width):
                step[d] = dt[b, t, d0 + d]
                value[d] = x[b, t, d0 + d]
            for n in range(state):
                Bn = B[b, t, n]
                for d in range(width):
                    a = _exp(step[d] * Ab[n, d])
                    decay[i, n, d] = a
                    h[i + 1, n, d] = a * h[i, n, d] + step[d] * value[d] * Bn
        for t in range(last - 1, first - 1, -1):
            i = t - first
            for d in range(width):
                step[d] = dt[b, t, d0 + d]
                value[d] = x[b, t, d0 + d]
                out[d] = gy[b, t, d0 + d]
                sum_D[d] += out[d] * value[d]
                to_x[d] = out[d] * Db[d]
                to_dt[d] = np.float32(0)
            for n in range(state):
                Bn, Cn = B[b, t, n], C[b, t, n]
                to_B, to_C = np.float32(0), np.float32(0)
                for d in range(width):
                    to_h = g[n, d] + out[d] * Cn
                    to_C += out[d] * h[i + 1, n, d]
                    a = decay[i, n, d]
                    to_exponent = to_h * h[i, n, d] * a
                    pushed = to_h * Bn
                    to_dt[d] += to_exponent * Ab[n, d] + pushed * value[d]
                    to_x[d] += pushed * step[d]
                    sum_A[n, d] += to_exponent * step[d]
                    to_B += to_h * step[d] * value[d]
                    g[n, d] = to_h * a
                gB[block, b, t, n] = to_B
                gC[block, b, t, n] = to_C
            for d in range(width):
                gx[b, t, d0 + d] = to_x[d]
                gdt[b, t, d0 + d] = to_dt[d]
    for d in range(width):
        gD[b, d0 + d] = sum_D[d]
        for n in range(state):
            gA[b, n, d0 + d] = sum_A[n, d]


_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _run(kernel, batch: int, blocks: list[tuple[int, int, int]]) -> None:
    """Call ``kernel(b, block, d0, d1)`` for every sequence and block, on as many threads as torch may use."""
    global _pool
    threads = min(torch.get_num_threads(), batch * len(blocks))
    tasks = [(b, *block) for b in range(batch) for block in blocks]
    if threads <= 1:
        for task in tasks:
            kernel(*task)
        return
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="selective-scan")

    def work(part: list[tuple[int, int, int, int]]) -> None:
        for task in part:
            kernel(*task)

    futures = [_pool.submit(work, tasks[i::threads]) for i in range(1, threads)]
    work(tasks[0::threads])
    for future in futures:
        future.result()


def _blocks(channels: int) -> list[tuple[int, int, int]]:
    return [(i, d, min(d + BLOCK, channels)) for i, d in enumerate(range(0, channels, BLOCK))]


class SelectiveScanCPU(torch.autograd.Function):
    """Arguments and result as :func:`lib.prompt.selective_scan.selective_scan`; float32, on the CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        x, dt, B, C, D = (t.contiguous() for t in (x, dt, B, C, D))
        At = A.t().contiguous()
        batch, length, channels = x.shape
        chunks = (length + CHUNK - 1) // CHUNK if any(ctx.needs_input_grad) else 0
        y = torch.empty_like(x)
        starts = x.new_empty(batch, chunks, At.shape[0], channels)
        arrays = [t.detach().numpy() for t in (x, dt, At, B, C, D, y, starts)]
        _run(lambda b, _, d0, d1: _forward(*arrays, b, d0, d1), batch, _blocks(channels))
        ctx.save_for_backward(x, dt, At, B, C, D, starts)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gy: Tensor) -> tuple[Tensor, ...]:
        x, dt, At, B, C, D, starts = ctx.saved_tensors
        batch, length, channels = x.shape
        state, blocks = At.shape[0], _blocks(channels)
        gx, gdt = torch.empty_like(x), torch.empty_like(x)
        gA, gD = x.new_empty(batch, state, channels), x.new_empty(batch, channels)
        gB, gC = (x.new_empty(len(blocks), batch, length, state) for _ in range(2))
        tensors = (gy.contiguous(), x, dt, At, B, C, D, starts, gx, gdt, gA, gB, gC, gD)
        arrays = [t.detach().numpy() for t in tensors]
        _run(lambda b, block, d0, d1: _backward(*arrays, b, block, d0, d1), batch, blocks)
        return gx, gdt, gA.sum(0).t(), gB.sum(0), gC.sum(0), gD.sum(0)
