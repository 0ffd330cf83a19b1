"""Machine code of Vision Mamba's scan and convolution, float32 on the CPU, by numba: no compiler on the user's machine.
And the vectors that all such code (``cpu_*.py``) is written in.

The kernels are written in vectors of sixteen numbers (``lanes``: one AVX-512 register, two of AVX2, four of SSE or
NEON), sixteen neighbouring channels each, instead of hoping that a loop is vectorised. Every array is passed flat, so
that an address is one multiplication and one addition. No (batch, length, channels, state) array is ever held: the
forward pass keeps the state at the start of every chunk of the sequence, the backward pass recomputes chunk by chunk.
"""

from __future__ import annotations

import math
import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
BLOCK = 2 * LANES  # channels to a task: two vectors share the loads of B and C and hide each other's latency
CHUNK = 16

_INT, _FLOAT = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.FloatType(), LANES)
_LOWEST = -125.0  # 2**-125: smaller decays would leave the normal numbers
_ROUND = 12582912.0  # 1.5 * 2**23: what is added to it loses its fraction, and the sum's low bits are the integer
# 2**f = 1 + f * polynomial(f) for f in [-0.5, 0.5], fitted to the least greatest relative error (1.6e-8; float32 has
# 6e-8). Exactly 1 at 0, so that states that hardly decay do not drift over thousands of steps.
_POWER = (0.6931472028551876, 0.24022647913598796, 0.05550332470948815, 0.009618437360144087)
_POWER += (0.0013398874467172345, 0.00015353361434546683)
# 1 - erf(x) = sum(a t^i) exp(-x^2) with t = 1 / (1 + _ERF_AT x)
_ERF_AT, _ERF = 0.3275911, (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


class Lanes(types.Type):
    """Sixteen float32 numbers in one vector register."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


lanes = Lanes()


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, _FLOAT)


def _define(symbol, instruction: str) -> None:
    """Makes ``symbol`` work on two vectors; multiplication and addition may fuse, nothing may be reordered."""

    @infer_global(symbol)
    class Signature(ConcreteTemplate):
        cases = (signature(lanes, lanes, lanes),)

    @lower_builtin(symbol, lanes, lanes)
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=("contract",))


for _symbol, _instruction in (
    (operator.mul, "fmul"),
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
):
    _define(_symbol, _instruction)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOAT, [value] * LANES)


def _address(context, builder, array_type, array, offset, *, of=None):
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    place = builder.gep(data, [offset])
    return place if of is None else builder.bitcast(place, of.as_pointer())


def _broadcast(builder, number):
    one = builder.insert_element(ir.Constant(_FLOAT, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(_FLOAT, ir.Undefined), ir.Constant(_INT, [0] * LANES))


@intrinsic
def load(typingctx, array, offset):
    """Sixteen numbers of a flat float32 array from ``offset`` on."""

    def codegen(context, builder, sig, args):
        place = _address(context, builder, sig.args[0], *args, of=_FLOAT)
        return builder.load(place, align=4, typ=_FLOAT)

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx, array, offset, value):
    def codegen(context, builder, sig, args):
        place = _address(context, builder, sig.args[0], args[0], args[1], of=_FLOAT)
        builder.store(args[2], place, align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, lanes), codegen


@intrinsic
def spread(typingctx, array, offset):
    """One number of a flat float32 array in all lanes."""

    def codegen(context, builder, sig, args):
        place = _address(context, builder, sig.args[0], *args)
        return _broadcast(builder, builder.load(place, align=4, typ=ir.FloatType()))

    return lanes(array, types.intp), codegen


@intrinsic
def zero(typingctx):
    return lanes(), lambda context, builder, sig, args: _constant(0.0)


@intrinsic
def unit(typingctx):
    return lanes(), lambda context, builder, sig, args: _constant(1.0)


@intrinsic
def ln_2(typingctx):
    return lanes(), lambda context, builder, sig, args: _constant(math.log(2))


@intrinsic
def total(typingctx, vector):
    """The sum of the lanes."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _FLOAT])
        add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
        return builder.call(add, [ir.Constant(ir.FloatType(), 0.0), args[0]], fastmath=("reassoc",))

    return types.float32(lanes), codegen


def _power_of_two(builder, exponent):
    """2**exponent for exponents <= 0: a polynomial for the fraction, the exponent's bits for the whole."""
    fuse = {"flags": ("contract",)}
    lowest = _constant(_LOWEST)
    z = builder.select(builder.fcmp_ordered(">", exponent, lowest), exponent, lowest)
    shifted = builder.fadd(z, _constant(_ROUND))
    f = builder.fsub(z, builder.fsub(shifted, _constant(_ROUND)))
    p = _constant(_POWER[-1])
    for coefficient in (*reversed(_POWER[:-1]), 1.0):
        p = builder.fadd(builder.fmul(p, f, **fuse), _constant(coefficient), **fuse)
    whole = builder.shl(builder.bitcast(shifted, _INT), ir.Constant(_INT, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(p, _INT), whole), _FLOAT)


@intrinsic
def power_of_two(typingctx, exponent):
    """2**exponent for exponents <= 0, to a relative error of 1e-7."""
    return lanes(lanes), lambda context, builder, sig, args: _power_of_two(builder, args[0])


@intrinsic
def number(typingctx, value):
    """One number in all lanes."""
    return lanes(types.float32), lambda context, builder, sig, args: _broadcast(builder, args[0])


@intrinsic
def larger(typingctx, one, other):
    """The larger of both, lane by lane."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return lanes(lanes, lanes), codegen


@intrinsic
def quotient(typingctx, one, other):
    return lanes(lanes, lanes), lambda context, builder, sig, args: builder.fdiv(*args)


@intrinsic
def root(typingctx, vector):
    """The square root."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(_FLOAT, [_FLOAT])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32"), args)

    return lanes(lanes), codegen


@intrinsic
def gelu(typingctx, vector):
    """x times the normal distribution's integral up to x, of which the error is 1e-7 at most (Abramowitz and Stegun,
    7.1.26)."""

    def codegen(context, builder, sig, args):
        fuse = {"flags": ("contract",)}
        x, one = args[0], _constant(1.0)
        negative = builder.fcmp_ordered("<", x, _constant(0.0))
        size = builder.select(negative, builder.fneg(x), x)
        scaled = builder.fmul(size, _constant(_ERF_AT * math.sqrt(0.5)))
        t = builder.fdiv(one, builder.fadd(one, scaled))
        p = _constant(_ERF[-1])
        for coefficient in (*reversed(_ERF[:-1]), 0.0):
            p = builder.fadd(builder.fmul(p, t, **fuse), _constant(coefficient), **fuse)
        exponent = builder.fmul(builder.fmul(x, x), _constant(-0.5 / math.log(2)))
        half = builder.fmul(builder.fmul(p, _constant(0.5)), _power_of_two(builder, exponent))
        return builder.fmul(x, builder.select(negative, half, builder.fsub(one, half)))

    return lanes(lanes), codegen


@intrinsic
def sigmoid(typingctx, vector):
    def codegen(context, builder, sig, args):
        positive = builder.fcmp_ordered(">", args[0], _constant(0.0))
        scaled = builder.fmul(args[0], _constant(1 / math.log(2)))
        small = _power_of_two(builder, builder.select(positive, builder.fneg(scaled), scaled))
        one = _constant(1.0)
        return builder.fdiv(builder.select(positive, one, small), builder.fadd(one, small))

    return lanes(lanes), codegen


def compiled(function, **options):
    """``function`` compiled at its first call and kept on disk; only in memory where no folder can be written to.

    options: more of ``numba.njit``'s.
    """
    options = {"nogil": True, "boundscheck": False, **options}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba finds no place beside the file, in the user's cache folder or in NUMBA_CACHE_DIR
        return njit(**options)(function)


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
