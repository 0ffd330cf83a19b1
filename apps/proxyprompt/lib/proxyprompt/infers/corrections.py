"""Clicks always hold: what is done to a mask, and to the label map, so that every one of them is obeyed.

A decoder takes clicks as advice. Where its answer still says otherwise on a clicked pixel, the logits around it are
raised (or lowered) by just enough, fading to nothing within :data:`REACH`, or sooner where an opposite click is near.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyprompt.io.labels import NESTED, merge
from proxyprompt.io.registry import StructureRegistry
from proxyprompt.requests.clicks import Box, Click

REACH = 0.1
"""Of a slice's longer side: how far a click's own correction goes at most. How much of it changes side depends on how
sure the decoder was: a narrow spot where it was very sure, a wide one where it was nearly of the click's mind."""
TAKES = 0.03
"""Of a slice's longer side: how far around a click inside a structure it takes pixels from another one."""
MARGIN = 1.0
"""Logit of a corrected pixel: a probability of 0.73."""


def obey(
    logits: NDArray[np.float16], clicks: Sequence[Click], box: Box | None = None
) -> tuple[NDArray[np.float16], int]:
    """Let every click have its way on its own pixel, and leave nothing outside a box but what clicks want there.

    Args:
        logits: (h, w), positive inside.
        clicks: on this slice.
        box: on this slice.

    Returns:
        Logits that say on every clicked pixel what the click says, and how many of the clicks had to be enforced.
    """
    logits, enforced = logits.astype(np.float32, copy=True), 0
    if box is not None:
        within = np.zeros(logits.shape, bool)
        within[box.top : box.bottom + 1, box.left : box.right + 1] = True
        logits = np.where(within, logits, np.minimum(logits, -MARGIN))
    for click in clicks:
        if (logits[click.row, click.column] > 0) == click.inside:
            continue
        enforced += 1
        radius = pixels(REACH, logits.shape)
        for other in clicks:
            if other.inside != click.inside:
                radius = min(radius, np.hypot(click.row - other.row, click.column - other.column))
        near = np.clip(1 - (distance(logits.shape, click) / radius) ** 2, 0, None) ** 2
        change = abs(logits[click.row, click.column]) + MARGIN
        logits += np.where(click.inside, change, -change) * near
    return logits, enforced


def lay(
    labels: NDArray[np.uint8],
    masks: Mapping[str, NDArray[np.bool_]],
    structure: str,
    clicks: Mapping[str, Sequence[Click]],
    registry: StructureRegistry,
) -> NDArray[Any]:
    """``structure``'s new mask in a label map (h, w) of registry ids; returns another map.

    masks: logits (h, w) of every structure, the new one's too. clicks: on this slice, by structure. Other structures
    keep their pixels, except within :data:`TAKES` of a click inside ``structure``; pixels that it leaves go to the
    structure that it was nested in, if any.
    """
    id, inside = registry.id_of(structure), masks[structure] > 0
    labels, before = labels.copy(), labels == id
    left = before & ~inside
    if left.any():
        under = {n: m for n, m in masks.items() if n != structure and (m[before] > 0).mean() >= NESTED}
        labels[left] = merge(under, registry)[left] if under else 0
    mine = _nearest(labels.shape, clicks.get(structure, ()))
    others = _nearest(labels.shape, [c for name, given in clicks.items() if name != structure for c in given])
    taken = inside & ((labels == 0) | ((mine <= pixels(TAKES, labels.shape)) & (mine <= others)))
    labels[taken] = id
    return labels


def pixels(share: float, shape: tuple[int, ...]) -> float:
    """A share of a slice's longer side in pixels, at least 2."""
    return max(2.0, share * max(shape))


def distance(shape: tuple[int, ...], click: Click) -> NDArray[Any]:
    """(h, w), pixels from the click."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - click.row, columns - click.column)


def _nearest(shape: tuple[int, ...], clicks: Sequence[Click]) -> NDArray[Any]:
    """(h, w), pixels to the nearest click inside a structure; infinity without one."""
    return np.min([np.full(shape, np.inf)] + [distance(shape, c) for c in clicks if c.inside], axis=0)
