"""Fine structures, piece by piece: what is thinner than a token of the proxy prompt can tell is looked at enlarged.

A token of P stands for a region of the input (32 x 32 pixels with two halvings); a vessel three pixels wide is no shape
to it. Supports and target are cut into equal tiles, each of which fills the network's input; P is made and its mask is
drawn tile by tile, by the same weights. This is done only for structures that the supports show thin *and* all over
the image: a small lesion is better looked for in the whole view. What it brings: docs/atto.md. Not part of the paper;
``--conf paper true`` leaves it out.

Axes: ``K`` supports, ``N`` structures, ``T = side * side`` tiles of (th, tw) in an image of (h, w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

WIDTH = 1 / 24
"""As wide as this share of the image's side a structure should look: half of what a token stands for."""
MOST = 4
"""Tiles along a side, at most."""
SPREAD = 0.8
"""Share of the image's cells that must show the structure, see :func:`spread`."""
SUPPORTS = 16
"""Tiles that serve as supports, at most."""
OVERLAP = 0.2
"""Of neighbouring tiles, as a share of what each would have without."""


@dataclass(frozen=True)
class Tiles:
    """How images of one size are cut.

    Attributes:
        rows, columns: where tiles begin.
        size: (th, tw).
        shape: (h, w).
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    size: tuple[int, int]
    shape: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, int], side: int) -> Tiles:
        """Equal tiles that overlap and cover all.

        Args:
            shape: (h, w) of the images.
            side: tiles along each side.

        Returns:
            How images are cut.
        """
        size = tuple(min(n, int(np.ceil(n / side * (1 + OVERLAP)))) for n in shape)
        starts = [
            tuple(np.linspace(0, n - m, side).round().astype(int).tolist()) for n, m in zip(shape, size, strict=True)
        ]
        return cls(starts[0], starts[1], (size[0], size[1]), shape)

    def boxes(self) -> list[tuple[slice, slice]]:
        """The T of them, row by row."""
        height, width = self.size
        return [(slice(y, y + height), slice(x, x + width)) for y in self.rows for x in self.columns]

    def cut(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Cut images.

        Args:
            values: (..., h, w).

        Returns:
            (T, ..., th, tw).
        """
        return np.stack([values[(..., *box)] for box in self.boxes()])

    def join(self, values: NDArray[np.float16]) -> NDArray[np.float16]:
        """Put tiles together; where they overlap, their mean.

        Args:
            values: (T, ..., th, tw).

        Returns:
            (..., h, w).
        """
        total = np.zeros((*values.shape[1:-2], *self.shape), np.float32)
        count = np.zeros(self.shape, np.float32)
        for box, tile in zip(self.boxes(), values, strict=True):
            total[(..., *box)] += tile
            count[box] += 1
        return (total / count).astype(np.float16)


def tiles_along_a_side(masks: Sequence[NDArray[np.bool_]]) -> int:
    """How far a structure must be enlarged.

    Args:
        masks: (h, w) each, of the supports that show it.

    Returns:
        Tiles along each side; 1 for a structure that is looked at in the whole view.
    """
    if not masks or np.mean([spread(mask) for mask in masks]) < SPREAD:
        return 1
    return min(MOST, int(np.ceil(WIDTH / np.mean([mean_width(mask) for mask in masks]))))


def mean_width(mask: NDArray[np.bool_]) -> float:
    """Twice the area over the length of the outline, as a share of the image's side.

    Args:
        mask: (h, w), not empty.

    Returns:
        From almost 0 to about 0.5.
    """
    outline = mask.sum() - binary_erosion(mask, np.ones((3, 3)), border_value=1).sum()
    return float(2 * mask.sum() / max(outline, 1) / np.sqrt(mask.size))


def spread(mask: NDArray[np.bool_]) -> float:
    """How much of an image shows a structure.

    Args:
        mask: (h, w).

    Returns:
        Share of :data:`MOST` x :data:`MOST` cells of the image with a pixel of it, from 0 to 1.
    """
    rows = np.array_split(mask, MOST)
    return float(np.mean([cell.any() for row in rows for cell in np.array_split(row, MOST, axis=1)]))


def most_telling(shares: NDArray[np.float64]) -> list[int]:
    """Which tiles serve as supports.

    Args:
        shares: (tiles, N), how much of each structure is on each.

    Returns:
        At most :data:`SUPPORTS` tiles that show something: for each structure in turn the one that shows most of it.
    """
    orders = [[int(t) for t in np.argsort(-column, kind="stable") if column[t]] for column in shares.T]
    chosen: dict[int, None] = {}
    for rank in range(len(shares)):
        chosen.update((order[rank], None) for order in orders if rank < len(order))
    return sorted(list(chosen)[:SUPPORTS])
