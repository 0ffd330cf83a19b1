"""Machine code of the selective map on a CPU, without gradients: see :mod:`lib.prompt.cpu_tiles`.

Logits are products of float32 numbers, for they are differences of large squares; the values that they weigh, and the
weights, are words (:mod:`lib.prompt.cpu_sums`). The map is never held: a block of its rows at a time, with running
maximum and sum ("FlashAttention", Dao et al., 2022), and each block for all objects.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.cpu_threads import flat, run_blocks
from lib.prompt.cpu_lanes import LANES, compiled, larger, load, power_of_two, quotient, store, unit
from lib.prompt.cpu_sums import SUMS, add_products, join_rows, joined, loads, numbers_in, scaled, stores, word_type
from lib.prompt.cpu_tiles import LOG2_E, multiply, positions_of, tiled

_BLOCK = 64  # support positions at once: their values stay in a core's caches
_SHARE = 4  # tiles that a thread takes at a time, and that a block is used for


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """softmax(query keys^T + bias) values, for all objects by one map.

    query: (Q, C), C in steps of LANES. keys: (M, C). values: (N, M, C). bias: (M, 1). Returns (N, Q, C).
    """
    objects, (positions, dim), missing = len(values), query.shape, -len(keys) % SUMS
    if missing:  # positions that count for nothing
        keys, values = (F.pad(x, (0, 0, 0, missing)) for x in (keys, values))
        bias = F.pad(bias, (0, 0, 0, missing), value=-torch.inf)
    query, keys, values = tiled((query * LOG2_E).mT[None]), keys.contiguous(), _in_words(values.contiguous())
    tiles = query.shape[1]
    made = query.new_empty(objects, tiles, dim, LANES)
    query, keys, bias, result = flat(query, keys, bias * LOG2_E, made)
    arguments = (query, keys, values, bias, result, dim, objects, len(bias), tiles, _SHARE)
    run_blocks(_attend, arguments, 1, tiles, _SHARE)
    return positions_of(made, positions)


def _in_words(values: Tensor) -> np.ndarray:
    """(N, M, C), flat: as words of neighbouring positions if that is what the processor multiplies."""
    (numbers,) = flat(values)
    if word_type() is np.float32:
        return numbers
    objects, count, dim = values.shape
    words = np.empty(len(numbers) // 2, word_type())
    run_blocks(_join_positions, (numbers, dim, words, _BLOCK), 1, objects * count, _BLOCK)
    return words


@compiled
def _join_positions(values, dim, made, share, _, first):
    """Words of ``share`` rows of ``dim`` numbers from ``first`` on: neighbouring rows share them."""
    several = numbers_in(made)
    for row in range(first, min(first + share, len(values) // dim), several):
        for c in range(0, dim, LANES):
            store(made, row // several * dim + c, joined(made, values, row * dim + c, dim))


@compiled
def _attend(query, keys, values, bias, made, dim, objects, count, tiles, share, _, first):
    """``share`` tiles of the query from ``first`` on. values: words, each of neighbouring positions."""
    some, size, several = min(share, tiles - first), dim * LANES, numbers_in(values)
    scores, weights = np.empty(_BLOCK * LANES, np.float32), np.empty(_BLOCK // several * LANES, values.dtype)
    highest = np.full(some * LANES, -np.inf, np.float32)
    total, found = np.zeros(some * LANES, np.float32), np.zeros(objects * some * size, np.float32)
    for start in range(0, count, _BLOCK):
        block = min(_BLOCK, count - start)
        for tile in range(some):
            at = tile * LANES
            multiply(query, (first + tile) * size, keys, start, bias, dim, block, scores, 0)
            before = load(highest, at)
            now = before
            for j in range(0, block * LANES, LANES):
                now = larger(load(scores, j), now)
            faded = power_of_two(before - now)
            sum_of_weights = load(total, at) * faded
            for j in range(0, block * LANES, LANES):
                weight = power_of_two(load(scores, j) - now)
                store(scores, j, weight)
                sum_of_weights += weight
            store(highest, at, now)
            store(total, at, sum_of_weights)
            join_rows(scores, 0, block, weights, 0)
            for n in range(objects):
                for c in range(0, dim, SUMS):
                    place, row = ((n * some + tile) * dim + c) * LANES, (n * count + start) // several * dim + c
                    sums = scaled(loads(found, place), faded)
                    for j in range(block // several):
                        sums = add_products(sums, values, row + j * dim, 1, load(weights, j * LANES))
                    stores(found, place, sums)
    for n in range(objects):
        for tile in range(some):
            share = quotient(unit(), load(total, tile * LANES))
            source, to = (n * some + tile) * size, (n * tiles + first + tile) * size
            for c in range(0, size, LANES):
                store(made, to + c, load(found, source + c) * share)
