"""Machine code of the selective map on a CPU, without gradients: see :mod:`lib.prompt.cpu_tiles`.

All factors are words (:mod:`lib.prompt.cpu_sums`). Where these hold bfloat16 numbers, the map is that of features which
were rounded before anything else: a logit is -|q - k|^2 but for what all logits of a position share, so it changes as
little as the features do, and the squares that it is the difference of are those of the same rounded numbers. The map
is never held: a block of its rows at a time, with running maximum and sum ("FlashAttention", Dao et al., 2022), and
each block for all objects.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.cpu_threads import flat, run_blocks
from lib.prompt.cpu_lanes import LANES, compiled, larger, load, number, power_of_two, quotient, store, unit
from lib.prompt.cpu_sums import (
    SUMS,
    add_products,
    as_words,
    empty_words,
    join_rows,
    joined,
    loads,
    numbers_in,
    rounded,
    scaled,
    stores,
)
from lib.prompt.cpu_tiles import LOG2_E, multiply, positions_of, tiled

_BLOCK = 128  # support positions at once: their values stay in a core's caches
_SHARE = (4, 8)  # tiles that a thread takes at a time, and that a block is used for, at least and at most
_SHARES = 16  # of a map, or so: the threads end together


def attend(target: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax((2 target keys^T - |keys|^2) / sqrt(C)) values, for all objects by one map.

    target: (Q, C), C in steps of LANES. keys: (M, C). values: (N, M, C). Returns (N, Q, C).
    """
    objects, (positions, dim), missing = len(values), target.shape, -len(keys) % SUMS
    bias = rounded(keys).square().sum(1) * -0.5
    if missing:  # positions that count for nothing
        keys, values = (F.pad(x, (0, 0, 0, missing)) for x in (keys, values))
        bias = F.pad(bias, (0, missing), value=-torch.inf)
    query = tiled(target.mT[None])
    tiles = query.shape[1]
    made = query.new_empty(objects, tiles, dim, LANES)
    query, bias, result = flat(query, bias, made)
    keys, values, scale = as_words(keys), _in_words(values.contiguous()), np.float32(2 * LOG2_E / math.sqrt(dim))
    share = min(max(tiles // _SHARES, _SHARE[0]), _SHARE[1])
    run_blocks(
        _attend, (query, keys, values, bias, scale, result, dim, objects, len(bias), tiles, share), 1, tiles, share
    )
    return positions_of(made, positions)


def _in_words(values: Tensor) -> np.ndarray:
    """(N, M, C), flat, as words of neighbouring positions: (N, C / SUMS, M / several, SUMS), in the order in which they
    are multiplied. Rows of all channels would lie on top of each other in a core's fastest cache."""
    (numbers,), (objects, count, dim) = flat(values), values.shape
    words = empty_words(len(numbers))
    run_blocks(_join_positions, (numbers, count, dim, words, _BLOCK), objects, count, _BLOCK)
    return words


@compiled
def _join_positions(values, count, dim, made, share, n, first):
    """Words of ``share`` rows of object ``n`` from ``first`` on: neighbouring rows share them."""
    several, row = numbers_in(made), np.empty(dim, made.dtype)
    for position in range(first, min(first + share, count), several):
        for c in range(0, dim, LANES):
            store(row, c, joined(made, values, (n * count + position) * dim + c, dim))
        for c in range(0, dim, SUMS):
            to = ((n * dim + c) * count // several) + position // several * SUMS
            for k in range(SUMS):
                made[to + k] = row[c + k]


@compiled
def _attend(query, keys, values, bias, scale, made, dim, objects, count, tiles, share, _, first):
    """``share`` tiles of the query, of numbers, from ``first`` on. keys, values: words, these of neighbouring
    positions."""
    some, size, several, factor = min(share, tiles - first), dim * LANES, numbers_in(values), number(scale)
    words, rows = dim // several, count // several
    asked = np.empty(some * words * LANES, keys.dtype)
    join_rows(query[first * size :], 0, some * dim, asked, 0)
    scores, weights = np.empty(_BLOCK * LANES, np.float32), np.empty(_BLOCK // several * LANES, values.dtype)
    highest = np.full(some * LANES, -np.inf, np.float32)
    total, found = np.zeros(some * LANES, np.float32), np.zeros(objects * some * size, np.float32)
    for start in range(0, count, _BLOCK):
        block = min(_BLOCK, count - start)
        for tile in range(some):
            at = tile * LANES
            multiply(asked, tile * words * LANES, keys, start, bias, words, block, scores, 0)
            before = load(highest, at)
            now = before
            for j in range(0, block * LANES, LANES):
                now = larger(load(scores, j), now)
            faded = power_of_two((before - now) * factor)
            sum_of_weights = load(total, at) * faded
            for j in range(0, block * LANES, LANES):
                weight = power_of_two((load(scores, j) - now) * factor)
                store(scores, j, weight)
                sum_of_weights += weight
            store(highest, at, now)
            store(total, at, sum_of_weights)
            join_rows(scores, 0, block, weights, 0)
            for n in range(objects):
                for c in range(0, dim, SUMS):
                    place = ((n * some + tile) * dim + c) * LANES
                    row = (n * dim + c) * rows + start // several * SUMS
                    sums = scaled(loads(found, place), faded)
                    for j in range(block // several):
                        sums = add_products(sums, values, row + j * SUMS, 1, load(weights, j * LANES))
                    stores(found, place, sums)
    for n in range(objects):
        for tile in range(some):
            share = quotient(unit(), load(total, tile * LANES))
            source, to = (n * some + tile) * size, (n * tiles + first + tile) * size
            for c in range(0, size, LANES):
                store(made, to + c, load(found, source + c) * share)
