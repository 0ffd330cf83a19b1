"""The selective scan's loops on a CPU, compiled by numba: no compiler on the user's machine.

Channels are innermost and lie side by side, so that the compiler turns every loop over them into vector instructions;
one call takes one sequence and a block of channels. No (batch, length, channels, state) array is ever held: the forward
pass keeps the state at the start of every chunk of the sequence, the backward pass recomputes chunk by chunk.

Arrays: x, dt, y: (batch, length, channels). A: (state, channels). B, C: (batch, length, state). D: (channels,).
starts: (batch, chunks, state, channels). All float32 and C-contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float32]
P = ParamSpec("P")
R = TypeVar("R")

BLOCK = 128  # channels at once: enough to hide what a loop costs, few enough for a core's caches
CHUNK = 16  # steps between two states that are kept

_LOG2_E = np.float32(1.4426950408889634)
_LOWEST = np.float32(-125)  # 2**-125: smaller decays would leave the normal numbers
_ROUND = np.float32(1.5 * 2**23)  # what is added to it loses its fraction; the sum's low bits are the integer
# 2**f = 1 + f * polynomial(f) for f in [-0.5, 0.5], fitted to the least greatest relative error (1.6e-8; float32 has
# 6e-8). Exactly 1 at 0, so that states that hardly decay do not drift over thousands of steps.
_P1, _P2, _P3 = np.float32(0.6931472028551876), np.float32(0.24022647913598796), np.float32(0.05550332470948815)
_P4, _P5, _P6 = np.float32(0.009618437360144087), np.float32(0.0013398874467172345), np.float32(0.00015353361434546683)
_ONE = np.float32(1)


def compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    """Compile a function at its first call, to run without Python's lock.

    Args:
        function: what numba can compile.
        **options: more of ``numba.njit``'s.

    Returns:
        The compiled function, kept on disk; only in memory where no folder can be written to.
    """
    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # numba finds no place beside the file, in the user's cache folder or in NUMBA_CACHE_DIR
        return njit(nogil=True, **options)(function)


def _exp_of(x: np.float32) -> np.float32:
    """e**x for x <= 0, to a relative error of 1e-7; numba's own exponential would keep loops from being vectorised."""
    z = max(x * _LOG2_E, _LOWEST)
    shifted = np.float32(z + _ROUND)
    f = z - (shifted - _ROUND)
    power = np.float32(((((((_P6 * f + _P5) * f + _P4) * f + _P3) * f + _P2) * f + _P1) * f) + _ONE)
    return np.int32(power.view(np.int32) + (shifted.view(np.int32) << 23)).view(np.float32)


_exp = compiled(_exp_of, fastmath={"contract", "nsz"})  # not reordered: rounding depends on the order


def _scan(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    y: Array,
    starts: Array,
    reverse: bool,
    b: int,
    first: int,
    last: int,
) -> None:
    """Scan one sequence, some of its channels.

    Args:
        x: arrays as the module says, all of them.
        dt: step sizes.
        A: decay rates.
        B: input weights.
        C: output weights.
        D: weights past the state.
        y: is written.
        starts: is written, unless it is empty.
        reverse: from the end to the start; chunks are counted in that order.
        b: which sequence.
        first: the first channel.
        last: the one after the last.
    """
    length, state, width = x.shape[1], len(A), last - first
    h, push, out = np.zeros((state, width), np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(length):
        t = length - 1 - i if reverse else i
        if starts.size > 0 and i % CHUNK == 0:
            for n in range(state):
                starts[b, i // CHUNK, n, first:last] = h[n]
        step, value, skip = dt[b, t, first:last], x[b, t, first:last], D[first:last]
        for d in range(width):
            push[d] = step[d] * value[d]
            out[d] = skip[d] * value[d]
        for n in range(state):
            a, own, Bn, Cn = A[n, first:last], h[n], B[b, t, n], C[b, t, n]
            for d in range(width):
                own[d] = _exp(step[d] * a[d]) * own[d] + push[d] * Bn
            for d in range(width):
                out[d] += own[d] * Cn
        y[b, t, first:last] = out


def _scan_backward(
    gy: Array,
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    starts: Array,
    gx: Array,
    gdt: Array,
    gA: Array,
    gB: Array,
    gC: Array,
    gD: Array,
    reverse: bool,
    b: int,
    first: int,
    last: int,
) -> None:
    """Gradients of what :func:`scan` made of the same sequence and channels.

    The sums over the first axes of gA, gB, gC and gD are the caller's. What reaches the state from later steps is
    ``g``; ``to_...`` is the gradient of what is named.

    Args:
        gy: gradient of y, as y.
        x: as for :func:`scan`, as are dt to D.
        dt: step sizes.
        A: decay rates.
        B: input weights.
        C: output weights.
        D: weights past the state.
        starts: what :func:`scan` wrote.
        gx: is written, as x.
        gdt: is written, as x.
        gA: (batch, state, channels), zeros at first.
        gB: (blocks, batch, length, state), is written.
        gC: as gB.
        gD: (batch, channels), zeros at first.
        reverse: as for :func:`scan`.
        b: as for :func:`scan`.
        first: as for :func:`scan`.
        last: as for :func:`scan`.
    """
    length, state, width, block = x.shape[1], len(A), last - first, first // BLOCK
    h, decay = np.empty((CHUNK + 1, state, width), np.float32), np.empty((CHUNK, state, width), np.float32)
    g, push = np.zeros((state, width), np.float32), np.empty(width, np.float32)
    to_h, to_push = np.empty(width, np.float32), np.empty(width, np.float32)
    to_exponent, to_exponents = np.empty(width, np.float32), np.empty(width, np.float32)
    for chunk in range(starts.shape[1] - 1, -1, -1):
        begin = chunk * CHUNK
        steps = min(CHUNK, length - begin)
        for n in range(state):
            h[0, n] = starts[b, chunk, n, first:last]
        for i in range(steps):
            t = length - 1 - begin - i if reverse else begin + i
            step, value = dt[b, t, first:last], x[b, t, first:last]
            for n in range(state):
                a, kept, before, after, Bn = A[n, first:last], decay[i, n], h[i, n], h[i + 1, n], B[b, t, n]
                for d in range(width):
                    kept[d] = _exp(step[d] * a[d])
                for d in range(width):
                    after[d] = kept[d] * before[d] + step[d] * value[d] * Bn
        for i in range(steps - 1, -1, -1):
            t = length - 1 - begin - i if reverse else begin + i
            step, value, out, skip = dt[b, t, first:last], x[b, t, first:last], gy[b, t, first:last], D[first:last]
            push[:] = step * value
            to_push[:] = 0
            to_exponents[:] = 0
            for n in range(state):
                a, kept, before, after, own = A[n, first:last], decay[i, n], h[i, n], h[i + 1, n], g[n]
                Bn, Cn, sum_A = B[b, t, n], C[b, t, n], gA[b, n, first:last]
                sum_B, sum_C = np.float32(0), np.float32(0)
                # many short loops: of one that writes several arrays the compiler cannot tell that they are distinct
                for d in range(width):
                    to_h[d] = own[d] + out[d] * Cn
                    sum_B += to_h[d] * push[d]
                for d in range(width):
                    sum_C += out[d] * after[d]
                for d in range(width):
                    to_push[d] += to_h[d] * Bn
                for d in range(width):
                    own[d] = to_h[d] * kept[d]
                for d in range(width):
                    to_exponent[d] = own[d] * before[d]
                for d in range(width):
                    to_exponents[d] += to_exponent[d] * a[d]
                for d in range(width):
                    sum_A[d] += to_exponent[d] * step[d]
                gB[block, b, t, n] = sum_B
                gC[block, b, t, n] = sum_C
            of_x, of_dt, sum_D = gx[b, t, first:last], gdt[b, t, first:last], gD[b, first:last]
            for d in range(width):
                of_x[d] = to_push[d] * step[d] + out[d] * skip[d]
            for d in range(width):
                of_dt[d] = to_push[d] * value[d] + to_exponents[d]
            for d in range(width):
                sum_D[d] += out[d] * value[d]


_REORDERED = {"contract", "nsz", "reassoc"}  # sums may be, so that loops over channels become vector instructions
scan = compiled(_scan, fastmath=_REORDERED)
scan_backward = compiled(_scan_backward, fastmath=_REORDERED)
