"""Tiles of positions for machine code on a CPU, without gradients, by numba.

A tile is sixteen neighbouring positions, one in each lane, and all their channels, (C, LANES). Its product with a
matrix is a sum of the matrix's numbers times vectors, both in the order in which they lie in memory, and attention,
norms and activations never look across lanes: a tile goes through a whole layer within a core's fastest cache. For
as small a matrix as those of a prompt generator this is faster than the BLAS that PyTorch calls.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.prompt.cpu_lanes import LANES, compiled, load
from lib.prompt.cpu_sums import SUMS, add_products, join_rows, numbers_in, spreads, stores

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
    """A tile's products with rows ``first`` to ``first + outer`` of ``weight`` and their bias added.

    x and weight: words, ``inner`` to a row of the weight; see :mod:`lib.prompt.cpu_sums`.
    """
    for n in range(first, first + outer, SUMS):
        row, sums = n * inner, spreads(bias, n)
        for k in range(inner):
            sums = add_products(sums, weight, row + k, inner, load(x, at + k * LANES))
        stores(made, to + (n - first) * LANES, sums)


@compiled
def project(x, at, weight, first, bias, inner, outer, made, to):
    """:func:`multiply` of a tile of numbers, ``inner`` of them to a row of the weight."""
    words = inner // numbers_in(weight)
    joined = np.empty(words * LANES, weight.dtype)
    join_rows(x, at, inner, joined, 0)
    multiply(joined, 0, weight, first, bias, words, outer, made, to)
