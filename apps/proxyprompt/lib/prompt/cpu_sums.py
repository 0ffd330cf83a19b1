"""Sums of products on a CPU, for machine code (``cpu_*.py``): what every product with a matrix is made of.

``SUMS`` vectors (:mod:`lib.prompt.cpu_lanes`) are added to at once, which hides that a sum waits for itself; they are
passed as one value, a tuple.

Factors come from *words* of 32 bits: an array of float32 numbers, or an int32 array of which each word holds two
bfloat16 numbers. A processor with AVX512_BF16 multiplies and adds two of those in the time of one float32 number; sums
are float32 either way. Machine code is the same for both, the type of the array decides.
"""

from __future__ import annotations

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils, codegen, config
from numba.extending import intrinsic, overload
from torch import Tensor

from lib.prompt.cpu_lanes import FLOAT, INT, LANES, address, broadcast, compiled, lanes, load, store

_features = codegen.get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
_has = {feature[1:] for feature in _features.split(",") if feature.startswith("+")}
SUMS = 8 if "avx512f" in _has else 4  # AVX-512 has 32 registers; with AVX2's sixteen, four sums take half
HALVES = "avx512bf16" in _has  # whether the processor multiplies bfloat16 numbers

sums = types.UniTuple(lanes, SUMS)


def _each(builder, offset, step: int | ir.Value = 1):
    """The SUMS offsets from ``offset`` on."""
    for n in range(SUMS):
        yield offset
        if n < SUMS - 1:
            offset = builder.add(offset, ir.Constant(offset.type, step) if isinstance(step, int) else step)


@intrinsic
def zeros(typingctx):
    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, sums, [ir.Constant(FLOAT, [0.0] * LANES)] * SUMS)

    return sums(), codegen


@intrinsic
def spreads(typingctx, array, offset):
    """SUMS neighbouring numbers of a flat float32 array, each in all lanes of a vector."""

    def codegen(context, builder, sig, args):
        places = (address(context, builder, sig.args[0], args[0], at) for at in _each(builder, args[1]))
        numbers = (builder.load(place, align=4, typ=ir.FloatType()) for place in places)
        return context.make_tuple(builder, sums, [broadcast(builder, number) for number in numbers])

    return sums(array, types.intp), codegen


@intrinsic
def loads(typingctx, array, offset):
    """SUMS neighbouring vectors of a flat float32 array."""

    def codegen(context, builder, sig, args):
        offsets = _each(builder, args[1], LANES)
        places = (address(context, builder, sig.args[0], args[0], at, of=FLOAT) for at in offsets)
        return context.make_tuple(builder, sums, [builder.load(place, align=4, typ=FLOAT) for place in places])

    return sums(array, types.intp), codegen


@intrinsic
def stores(typingctx, array, offset, made):
    """The opposite of :func:`loads`."""

    def codegen(context, builder, sig, args):
        vectors = cgutils.unpack_tuple(builder, args[2], SUMS)
        for vector, at in zip(vectors, _each(builder, args[1], LANES), strict=True):
            builder.store(vector, address(context, builder, sig.args[0], args[0], at, of=FLOAT), align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, sums), codegen


@intrinsic
def scaled(typingctx, made, vector):
    """All sums times one vector."""

    def codegen(context, builder, sig, args):
        vectors = cgutils.unpack_tuple(builder, args[0], SUMS)
        return context.make_tuple(builder, sums, [builder.fmul(v, args[1], flags=("contract",)) for v in vectors])

    return sums(sums, lanes), codegen


@intrinsic
def largest(typingctx, made):
    """The largest of all sums, lane by lane."""

    def codegen(context, builder, sig, args):
        first, *others = cgutils.unpack_tuple(builder, args[0], SUMS)
        for vector in others:
            first = builder.select(builder.fcmp_ordered(">", vector, first), vector, first)
        return first

    return lanes(sums), codegen


@intrinsic
def add_products(typingctx, made, words, offset, step, vector):
    """To each sum, a word of a flat array times ``vector``, whose lanes are such words too: the first sum's word is at
    ``offset``, the next one's ``step`` words on."""

    def codegen(context, builder, sig, args):
        made, words, offset, step, vector = args
        halves = sig.args[1].dtype == types.int32
        kind = ir.IntType(32) if halves else ir.FloatType()
        added = []
        for one, at in zip(cgutils.unpack_tuple(builder, made, SUMS), _each(builder, offset, step), strict=True):
            word = builder.load(address(context, builder, sig.args[1], words, at), align=4, typ=kind)
            if halves:
                word = broadcast(builder, builder.bitcast(word, ir.FloatType()))
                parts = [one, *(builder.bitcast(x, INT) for x in (vector, word))]
                function = ir.FunctionType(FLOAT, [FLOAT, INT, INT])
                name = "llvm.x86.avx512bf16.dpbf16ps.512"
                added.append(builder.call(cgutils.get_or_insert_function(builder.module, function, name), parts))
            else:
                product = builder.fmul(broadcast(builder, word), vector, flags=("contract",))
                added.append(builder.fadd(product, one, flags=("contract",)))
        return context.make_tuple(builder, sums, added)

    return sums(sums, words, types.intp, types.intp, lanes), codegen


def numbers_in(words: np.ndarray) -> int:
    """How many numbers a word of this array holds."""
    return 2 if words.dtype == np.int32 else 1


@overload(numbers_in)
def _numbers_in(words):
    count = 2 if words.dtype == types.int32 else 1
    return lambda words: count


def _high_half(builder, vector):
    """The upper 16 bits of float32 numbers, as bfloat16 numbers: rounded to the nearest."""
    return builder.add(builder.bitcast(vector, INT), ir.Constant(INT, [0x8000] * LANES))


@intrinsic
def joined(typingctx, words, array, offset, step):
    """A vector of such words as ``words`` are: the numbers of a flat float32 array from ``offset`` on, in the lower
    half, and those ``step`` further, if a word holds two."""

    def codegen(context, builder, sig, args):
        _, array, offset, step = args

        def vector(at):
            place = address(context, builder, sig.args[1], array, at, of=FLOAT)
            return builder.load(place, align=4, typ=FLOAT)

        first = vector(offset)
        if sig.args[0].dtype != types.int32:
            return first
        low = builder.lshr(_high_half(builder, first), ir.Constant(INT, [16] * LANES))
        high = _high_half(builder, vector(builder.add(offset, step)))
        high = builder.and_(high, ir.Constant(INT, [-65536] * LANES))
        return builder.bitcast(builder.or_(low, high), FLOAT)

    return lanes(words, array, types.intp, types.intp), codegen


@intrinsic
def store_numbers(typingctx, words, offset, vector):
    """The lanes one after the other, as many to a word as it holds; ``offset`` in words."""

    def codegen(context, builder, sig, args):
        words, offset, vector = args
        if sig.args[0].dtype == types.int32:
            short = ir.VectorType(ir.IntType(16), LANES)
            high = builder.lshr(_high_half(builder, vector), ir.Constant(INT, [16] * LANES))
            vector = builder.trunc(high, short)
        place = address(context, builder, sig.args[0], words, offset, of=vector.type)
        builder.store(vector, place, align=4)
        return context.get_dummy_value()

    return types.none(words, types.intp, lanes), codegen


@compiled
def join_rows(x, at, rows, made, to):
    """``rows`` vectors of x, one after the other, as vectors of words: neighbouring rows share them."""
    several = numbers_in(made)
    for row in range(0, rows, several):
        store(made, to + row // several * LANES, joined(made, x, at + row * LANES, LANES))


@compiled
def join_lanes(x, at, rows, made, to):
    """``rows`` vectors of x, one after the other, as words: neighbouring lanes share them."""
    wide = LANES // numbers_in(made)
    for row in range(rows):
        store_numbers(made, to + row * wide, load(x, at + row * LANES))


def word_type() -> type[np.number]:
    """What an array of words is made of: int32 where the processor multiplies two bfloat16 numbers at once."""
    return np.int32 if HALVES else np.float32


def empty_words(count: int) -> np.ndarray:
    """An array of :func:`word_type` for so many numbers."""
    return np.empty(count // 2 if HALVES else count, word_type())


def rounded(x: Tensor) -> Tensor:
    """The numbers of x as words hold them."""
    return x.bfloat16().float() if HALVES else x


def as_words(x: Tensor) -> np.ndarray:
    """The numbers of x, float32 and of an even count, as a flat array of :func:`word_type`."""
    x = x.detach().contiguous().view(-1)
    return (x.to(torch.bfloat16).view(torch.int32) if HALVES else x).numpy()
