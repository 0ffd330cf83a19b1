"""Machine code of Vision Mamba's scan and convolution, float32 on the CPU.

Its vectors (:mod:`lib.prompt.cpu_lanes`) are sixteen neighbouring channels each. No (batch, length, channels, state)
array is ever held: the forward pass keeps the state at the start of every chunk of the sequence, the backward pass
recomputes chunk by chunk.
"""

from __future__ import annotations

import numpy as np

from lib.prompt.cpu_lanes import LANES, compiled, ln_2, load, power_of_two, sigmoid, spread, store, total, unit, zero

BLOCK = 2 * LANES  # channels to a task: two vectors share the loads of B and C and hide each other's latency
CHUNK = 16


@compiled
def convolve(x, weight, bias, y, length, channels, reverse, b, d):
    """SiLU of a causal depthwise convolution of four taps; one sequence, channels ``d`` to ``d + LANES``.

    x, y: (batch, length, channels). weight: (4, channels), the newest last. bias: (channels,). With ``reverse`` what is
    causal runs from the end to the start.
    """
    w0, w1 = load(weight, d), load(weight, channels + d)
    w2, w3 = load(weight, 2 * channels + d), load(weight, 3 * channels + d)
    constant = load(bias, d)
    x0, x1, x2 = zero(), zero(), zero()
    for i in range(length):
        t = b * length + (length - 1 - i if reverse else i)
        x3 = load(x, t * channels + d)
        made = constant + x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3
        store(y, t * channels + d, made * sigmoid(made))
        x0, x1, x2 = x1, x2, x3


@compiled
def convolve_backward(gy, x, weight, bias, gx, gw, gb, length, channels, reverse, b, d):
    """Gradients of :func:`convolve`. gw: (batch, 4, channels), gb: (batch, channels)."""
    w0, w1 = load(weight, d), load(weight, channels + d)
    w2, w3 = load(weight, 2 * channels + d), load(weight, 3 * channels + d)
    constant, one = load(bias, d), unit()
    sum0, sum1, sum2, sum3, total_b = zero(), zero(), zero(), zero(), zero()
    g1, g2, g3 = zero(), zero(), zero()  # what reached the next three positions before the activation
    for i in range(length - 1, -1, -1):
        t = b * length + (length - 1 - i if reverse else i)
        back = channels if reverse else -channels
        place = t * channels + d
        x3 = load(x, place)
        x2 = load(x, place + back) if i > 0 else zero()
        x1 = load(x, place + 2 * back) if i > 1 else zero()
        x0 = load(x, place + 3 * back) if i > 2 else zero()
        made = constant + x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3
        s = sigmoid(made)
        g0 = load(gy, place) * s * (one + made * (one - s))
        store(gx, place, g0 * w3 + g1 * w2 + g2 * w1 + g3 * w0)
        sum0 += g0 * x0
        sum1 += g0 * x1
        sum2 += g0 * x2
        sum3 += g0 * x3
        total_b += g0
        g1, g2, g3 = g0, g1, g2
    store(gb, b * channels + d, total_b)
    store(gw, (b * 4) * channels + d, sum0)
    store(gw, (b * 4 + 1) * channels + d, sum1)
    store(gw, (b * 4 + 2) * channels + d, sum2)
    store(gw, (b * 4 + 3) * channels + d, sum3)


@compiled
def scan(x, dt, A, B, C, D, y, starts, length, channels, state, reverse, b, d):
    """One sequence ``b``, channels ``d`` to ``d + BLOCK``.

    x, dt, y: (batch, length, channels). A: (state, channels), times log2(e). B, C: (batch, length, state).
    starts: (batch, chunks, state, channels), or empty; chunks are counted in the order of the scan.
    """
    chunks = (length + CHUNK - 1) // CHUNK
    h = np.zeros(state * BLOCK, np.float32)
    for i in range(length):
        t = length - 1 - i if reverse else i
        row, column = (b * length + t) * channels + d, (b * length + t) * state
        if starts.size > 0 and i % CHUNK == 0:
            for n in range(state):
                kept = ((b * chunks + i // CHUNK) * state + n) * channels + d
                store(starts, kept, load(h, n * BLOCK))
                store(starts, kept + LANES, load(h, n * BLOCK + LANES))
        step0, step1 = load(dt, row), load(dt, row + LANES)
        value0, value1 = load(x, row), load(x, row + LANES)
        push0, push1 = step0 * value0, step1 * value1
        out0, out1 = load(D, d) * value0, load(D, d + LANES) * value1
        for n in range(state):
            Bn, Cn, a, own = spread(B, column + n), spread(C, column + n), n * channels + d, n * BLOCK
            h0 = power_of_two(step0 * load(A, a)) * load(h, own) + push0 * Bn
            h1 = power_of_two(step1 * load(A, a + LANES)) * load(h, own + LANES) + push1 * Bn
            store(h, own, h0)
            store(h, own + LANES, h1)
            out0 += h0 * Cn
            out1 += h1 * Cn
        store(y, row, out0)
        store(y, row + LANES, out1)


@compiled
def scan_backward(
    gy, x, dt, A, B, C, D, starts, gx, gdt, gA, gB, gC, gD, length, channels, state, batch, reverse, b, d
):
    """Gradients of what :func:`scan` made of the same channels.

    gA: (batch, state, channels), as if A were not scaled. gD: (batch, channels). gB, gC: (blocks, batch, length,
    state). The sums over their first axes are the caller's.
    """
    chunks, size = (length + CHUNK - 1) // CHUNK, state * BLOCK
    h, decay = np.empty((CHUNK + 1) * size, np.float32), np.empty(CHUNK * size, np.float32)
    g, sum_A = np.zeros(size, np.float32), np.zeros(size, np.float32)  # g: what reaches h from later steps
    D0, D1, sum_D0, sum_D1 = load(D, d), load(D, d + LANES), zero(), zero()
    for chunk in range(chunks - 1, -1, -1):
        first, last = chunk * CHUNK, min(chunk * CHUNK + CHUNK, length)
        for n in range(state):
            kept = ((b * chunks + chunk) * state + n) * channels + d
            store(h, n * BLOCK, load(starts, kept))
            store(h, n * BLOCK + LANES, load(starts, kept + LANES))
        for i in range(first, last):
            t = length - 1 - i if reverse else i
            row, column, before = (b * length + t) * channels + d, (b * length + t) * state, (i - first) * size
            step0, step1 = load(dt, row), load(dt, row + LANES)
            push0, push1 = step0 * load(x, row), step1 * load(x, row + LANES)
            for n in range(state):
                Bn, a, own = spread(B, column + n), n * channels + d, before + n * BLOCK
                decay0, decay1 = power_of_two(step0 * load(A, a)), power_of_two(step1 * load(A, a + LANES))
                store(decay, own, decay0)
                store(decay, own + LANES, decay1)
                store(h, own + size, decay0 * load(h, own) + push0 * Bn)
                store(h, own + size + LANES, decay1 * load(h, own + LANES) + push1 * Bn)
        for i in range(last - 1, first - 1, -1):
            t = length - 1 - i if reverse else i
            row, column, before = (b * length + t) * channels + d, (b * length + t) * state, (i - first) * size
            sums = ((d // BLOCK * batch + b) * length + t) * state
            step0, step1 = load(dt, row), load(dt, row + LANES)
            value0, value1 = load(x, row), load(x, row + LANES)
            out0, out1 = load(gy, row), load(gy, row + LANES)
            push0, push1 = step0 * value0, step1 * value1
            to_push0, to_push1, to_exponent0, to_exponent1 = zero(), zero(), zero(), zero()
            for n in range(state):
                Bn, Cn, a, own = spread(B, column + n), spread(C, column + n), n * channels + d, n * BLOCK
                h0, h1 = load(h, before + size + own), load(h, before + size + own + LANES)
                to_h0, to_h1 = load(g, own) + out0 * Cn, load(g, own + LANES) + out1 * Cn
                passed0 = to_h0 * load(decay, before + own)
                passed1 = to_h1 * load(decay, before + own + LANES)
                store(g, own, passed0)
                store(g, own + LANES, passed1)
                exponent0, exponent1 = passed0 * load(h, before + own), passed1 * load(h, before + own + LANES)
                to_exponent0 += exponent0 * load(A, a)
                to_exponent1 += exponent1 * load(A, a + LANES)
                to_push0 += to_h0 * Bn
                to_push1 += to_h1 * Bn
                store(sum_A, own, load(sum_A, own) + exponent0 * step0)
                store(sum_A, own + LANES, load(sum_A, own + LANES) + exponent1 * step1)
                gB[sums + n] = total(to_h0 * push0 + to_h1 * push1)
                gC[sums + n] = total(out0 * h0 + out1 * h1)
            store(gx, row, to_push0 * step0 + out0 * D0)
            store(gx, row + LANES, to_push1 * step1 + out1 * D1)
            store(gdt, row, to_push0 * value0 + to_exponent0 * ln_2())
            store(gdt, row + LANES, to_push1 * value1 + to_exponent1 * ln_2())
            sum_D0 += out0 * value0
            sum_D1 += out1 * value1
    store(gD, b * channels + d, sum_D0)
    store(gD, b * channels + d + LANES, sum_D1)
    for n in range(state):
        store(gA, (b * state + n) * channels + d, load(sum_A, n * BLOCK))
        store(gA, (b * state + n) * channels + d + LANES, load(sum_A, n * BLOCK + LANES))
