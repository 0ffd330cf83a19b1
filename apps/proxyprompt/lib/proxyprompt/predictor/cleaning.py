"""Small parts and small holes of masks, by what the supports show.

A structure that is in one piece on every support is drawn in one piece: of what is drawn in a volume (in an image, on
each frame of a clip) the largest parts stay, as many as a support shows at most. Where no support has a hole, holes in
a slice are filled. Off by default: docs/volumes.md has the figures. Not part of the paper.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from proxyprompt.supports.selection import Selection

SMALL_SUPPORT_PART = 0.02
"""Parts of a support's mask below this share of it are specks of the label, no parts of the structure."""


class Shape(NamedTuple):
    """What the supports show of one structure.

    Attributes:
        parts: in how many pieces it is at most.
        holes: whether it has any.
    """

    parts: int
    holes: bool


def shape_of(selection: Selection, structure: int) -> Shape:
    """What the supports show of a structure.

    Args:
        selection: the supports.
        structure: which of the N.

    Returns:
        Its parts and holes; one part where no support shows it.
    """
    parts, holes = 1, False
    for masks in selection.masks:
        mask = masks[structure]
        labels, count = _parts(mask)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        parts = max(parts, int((sizes >= SMALL_SUPPORT_PART * mask.sum()).sum()))
        holes |= bool((ndimage.binary_fill_holes(mask) & ~mask).any())
    return Shape(parts, holes)


def clean(mask: NDArray[np.bool_], shape: Shape, *, volume: bool) -> NDArray[np.bool_]:
    """Leave the largest parts, and fill holes of slices.

    Args:
        mask: (Z, h, w).
        shape: what the supports show.
        volume: whether parts go through slices; otherwise each slice is one for itself.

    Returns:
        (Z, h, w).
    """
    kept = _largest(mask, shape.parts) if volume else np.stack([_largest(each, shape.parts) for each in mask])
    return kept if shape.holes else np.stack([ndimage.binary_fill_holes(each) for each in kept])


def _largest(mask: NDArray[np.bool_], parts: int) -> NDArray[np.bool_]:
    labels, count = _parts(mask)
    if count <= parts:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.isin(labels, np.argsort(-sizes, kind="stable")[:parts])


def _parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Pieces that touch, also by a corner."""
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return labels, count
