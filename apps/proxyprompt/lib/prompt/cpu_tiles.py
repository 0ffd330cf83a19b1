"""Tiles of positions for machine code on a CPU, float32, without gradients, by numba.

A tile is sixteen neighbouring positions, one in each lane, and all their channels, (C, LANES). Its product with a
matrix is a sum of the matrix's numbers times vectors, both in the order in which they lie in memory, and attention,
norms and activations never look across lanes: a tile goes through a whole layer within a core's fastest cache. For
as small a matrix as those of a prompt generator this is faster than the BLAS that PyTorch calls.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.prompt.cpu_kernels import LANES, compiled, load, spread, store

STEP = 4  # outputs at once: enough to hide that a sum waits for itself, few enough for AVX2's sixteen registers
LOG2_E = 1.4426950408889634


def usable(*tensors: Tensor) -> bool:
    """Whether all are float32, on the CPU, and nobody asks for gradients or for another precision."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def tiled(x: Tensor) -> Tensor:
    """x: (B, C, P). Returns (B, tiles, C, LANES), zeros after the last position."""
    x = F.pad(x, (0, -x.shape[2] % LANES)) if x.shape[2] % LANES else x
    return x.unflatten(2, (-1, LANES)).transpose(1, 2).contiguous()


def positions_of(tiles: Tensor, count: int) -> Tensor:
    """What :func:`tiled` made of ``count`` positions, (B, tiles, C, LANES), as (B, count, C)."""
    return tiles.mT.flatten(1, 2)[:, :count]


@compiled
def tiles_of(positions):
    return -(-positions // LANES)


@compiled
def multiply(x, at, weight, first, bias, inner, outer, made, to):
    """A tile's products with rows ``first`` to ``first + outer`` of ``weight``, (rows, inner), and their bias added."""
    for n in range(first, first + outer, STEP):
        row = n * inner
        a, b, c, d = spread(bias, n), spread(bias, n + 1), spread(bias, n + 2), spread(bias, n + 3)
        for k in range(inner):
            here = load(x, at + k * LANES)
            a += spread(weight, row + k) * here
            b += spread(weight, row + inner + k) * here
            c += spread(weight, row + 2 * inner + k) * here
            d += spread(weight, row + 3 * inner + k) * here
        place = to + (n - first) * LANES
        store(made, place, a)
        store(made, place + LANES, b)
        store(made, place + 2 * LANES, c)
        store(made, place + 3 * LANES, d)
