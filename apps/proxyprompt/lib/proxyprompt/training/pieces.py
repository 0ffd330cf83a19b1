"""Fine structures are learnt piece by piece, as they are segmented (:mod:`proxyprompt.extensions.pieces`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from proxyprompt.extensions.pieces import Tiles, tiles_along_a_side

from .cases import LabelledSlice

_APART = 1000
"""Tile t of slice z has the index (z + 1) * 1000 + t, which no slice has."""


def in_pieces(slices: Sequence[LabelledSlice]) -> list[LabelledSlice]:
    """Slices as those structures want them that they declare.

    Args:
        slices: of all cases.

    Returns:
        The slices, which declare the other structures only, and the tiles of those that show fine ones, which declare
        these; a slice that is left with nothing to declare is left out.
    """
    count = len(slices[0].shown) if slices else 0
    sides = [tiles_along_a_side([(s.masks[n] > 127).numpy() for s in slices if s.shown[n]]) for n in range(count)]
    made: list[LabelledSlice] = []
    for side in sorted(set(sides)):
        wanted = torch.tensor([one == side for one in sides])
        for one in slices:
            if not bool((one.declared & wanted).any()):
                continue
            own = replace(one, declared=one.declared & wanted, shown=one.shown & wanted)
            made += [own] if side == 1 else _tiles(own, side)
    return made


def _tiles(one: LabelledSlice, side: int) -> list[LabelledSlice]:
    height, width = one.image.shape[-2:]
    found = []
    for tile, (rows, columns) in enumerate(Tiles.of((height, width), side).boxes()):
        masks = one.masks[:, rows, columns]
        shown = one.shown & (masks > 127).flatten(1).any(1)
        image = one.image[:, rows, columns]
        found.append(replace(one, index=(one.index + 1) * _APART + tile, image=image, masks=masks, shown=shown))
    return found
