"""The vectors that machine code on a CPU (``cpu_*.py``) is written in, by numba: no compiler on the user's machine.

Sixteen float32 numbers (``lanes``: one AVX-512 register, two of AVX2, four of SSE or NEON), instead of hoping that a
loop is vectorised. Every array is passed flat, so that an address is one multiplication and one addition.
"""

from __future__ import annotations

import math
import operator

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16

INT, FLOAT = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.FloatType(), LANES)
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
        super().__init__(manager, kind, FLOAT)


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
    return ir.Constant(FLOAT, [value] * LANES)


def address(context, builder, array_type, array, offset, *, of=None):
    """For intrinsics: of an element of a flat array, as that of something else if asked for."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    place = builder.gep(data, [offset])
    return place if of is None else builder.bitcast(place, of.as_pointer())


def broadcast(builder, number):
    """For intrinsics: one number in all lanes."""
    one = builder.insert_element(ir.Constant(FLOAT, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(FLOAT, ir.Undefined), ir.Constant(INT, [0] * LANES))


@intrinsic
def load(typingctx, array, offset):
    """Sixteen numbers of a flat float32 array from ``offset`` on."""

    def codegen(context, builder, sig, args):
        place = address(context, builder, sig.args[0], *args, of=FLOAT)
        return builder.load(place, align=4, typ=FLOAT)

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx, array, offset, value):
    def codegen(context, builder, sig, args):
        place = address(context, builder, sig.args[0], args[0], args[1], of=FLOAT)
        builder.store(args[2], place, align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, lanes), codegen


@intrinsic
def spread(typingctx, array, offset):
    """One number of a flat float32 array in all lanes."""

    def codegen(context, builder, sig, args):
        place = address(context, builder, sig.args[0], *args)
        return broadcast(builder, builder.load(place, align=4, typ=ir.FloatType()))

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
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), FLOAT])
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
    whole = builder.shl(builder.bitcast(shifted, INT), ir.Constant(INT, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(p, INT), whole), FLOAT)


@intrinsic
def power_of_two(typingctx, exponent):
    """2**exponent for exponents <= 0, to a relative error of 1e-7."""
    return lanes(lanes), lambda context, builder, sig, args: _power_of_two(builder, args[0])


@intrinsic
def number(typingctx, value):
    """One number in all lanes."""
    return lanes(types.float32), lambda context, builder, sig, args: broadcast(builder, args[0])


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
        kind = ir.FunctionType(FLOAT, [FLOAT])
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
