"""Machine code of the selective map on a CPU, float32, without gradients: see :mod:`lib.prompt.cpu_tiles`.

The map is never held: a block of its rows at a time, with running maximum and sum ("FlashAttention", Dao et al., 2022),
and each block for all objects.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.cpu_threads import flat, run_blocks
from lib.prompt.cpu_kernels import (
    LANES,
    compiled,
    larger,
    load,
    power_of_two,
    quotient,
    spread,
    store,
    unit,
)
from lib.prompt.cpu_tiles import LOG2_E, STEP, multiply, positions_of, tiled

_BLOCK = 64  # support positions at once: their values stay in a core's caches
_SHARE = 4  # tiles that a thread takes at a time, and that a block is used for


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """softmax(query keys^T + bias) values, for all objects by one map.

    query: (Q, C), C in steps of STEP. keys: (M, C). values: (N, M, C). bias: (M, 1). Returns (N, Q, C).
    """
    objects, (positions, dim), missing = len(values), query.shape, -len(keys) % STEP
    if missing:  # positions that count for nothing
        keys, values = (F.pad(x, (0, 0, 0, missing)) for x in (keys, values))
        bias = F.pad(bias, (0, 0, 0, missing), value=-torch.inf)
    query, keys, values = tiled((query * LOG2_E).mT[None]), keys.contiguous(), values.contiguous()
    tiles = query.shape[1]
    made = query.new_empty(objects, tiles, dim, LANES)
    arrays = flat(query, keys, values, bias * LOG2_E, made)
    run_blocks(_attend, (*arrays, dim, objects, len(keys), tiles, _SHARE), 1, tiles, _SHARE)
    return positions_of(made, positions)


@compiled
def _attend(query, keys, values, bias, made, dim, objects, count, tiles, share, _, first):
    """``share`` tiles of the query from ``first`` on."""
    some, size = min(share, tiles - first), dim * LANES
    weights, highest = np.empty(_BLOCK * LANES, np.float32), np.full(some * LANES, -np.inf, np.float32)
    total, found = np.zeros(some * LANES, np.float32), np.zeros(objects * some * size, np.float32)
    for start in range(0, count, _BLOCK):
        block = min(_BLOCK, count - start)
        for tile in range(some):
            at = tile * LANES
            multiply(query, (first + tile) * size, keys, start, bias, dim, block, weights, 0)
            before = load(highest, at)
            now = before
            for j in range(0, block * LANES, LANES):
                now = larger(load(weights, j), now)
            faded = power_of_two(before - now)
            sums = load(total, at) * faded
            for j in range(0, block * LANES, LANES):
                weight = power_of_two(load(weights, j) - now)
                store(weights, j, weight)
                sums += weight
            store(highest, at, now)
            store(total, at, sums)
            for n in range(objects):
                for c in range(0, dim, STEP):
                    place, row = ((n * some + tile) * dim + c) * LANES, (n * count + start) * dim + c
                    p, q = load(found, place) * faded, load(found, place + LANES) * faded
                    r, s = load(found, place + 2 * LANES) * faded, load(found, place + 3 * LANES) * faded
                    for j in range(0, block * LANES, LANES):
                        weight = load(weights, j)
                        p += spread(values, row) * weight
                        q += spread(values, row + 1) * weight
                        r += spread(values, row + 2) * weight
                        s += spread(values, row + 3) * weight
                        row += dim
                    store(found, place, p)
                    store(found, place + LANES, q)
                    store(found, place + 2 * LANES, r)
                    store(found, place + 3 * LANES, s)
    for n in range(objects):
        for tile in range(some):
            share = quotient(unit(), load(total, tile * LANES))
            source, to = (n * some + tile) * size, (n * tiles + first + tile) * size
            for c in range(0, size, LANES):
                store(made, to + c, load(found, source + c) * share)
