"""A study and its supports as the tiles that they are cut into: to the pipeline these are slices like any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxyprompt.extensions.pieces import Tiles, most_telling
from proxyprompt.foundation.base import Points
from proxyprompt.io.cache import content_key
from proxyprompt.io.study import Study
from proxyprompt.supports.selection import Selection


class StudyInPieces:
    """The part of :class:`~proxyprompt.io.study.Study` that is asked for when masks are decoded.

    Tile t of slice z is slice z * T + t.

    Args:
        study: the whole.
        side: tiles along each side of a slice, T = side * side.

    Attributes:
        tiles: how a slice is cut.
        slice_shape: (th, tw).
        content_hash: of the whole, under which what is computed of its tiles is kept.
    """

    def __init__(self, study: Study, side: int) -> None:
        self._study, self.tiles = study, Tiles.of(study.slice_shape, side)
        self._side, self._count = side, side * side
        self.slice_shape = self.tiles.size
        self.content_hash = study.content_hash

    def of_slices(self, indices: Sequence[int]) -> list[int]:
        """All tiles of some slices of the whole.

        Args:
            indices: of these slices.

        Returns:
            Indices here, slice by slice.
        """
        return [index * self._count + tile for index in indices for tile in range(self._count)]

    def images(self, indices: Iterable[int]) -> NDArray[np.float32]:
        """Some tiles.

        Args:
            indices: which.

        Returns:
            (n, 3, th, tw) float32 in [0, 1].
        """
        boxes = self.tiles.boxes()
        places = [divmod(index, self._count) for index in indices]
        wholes = {z: self._study.image(z) for z in {z for z, _ in places}}
        return np.stack([wholes[z][(..., *boxes[tile])] for z, tile in places])

    def slice_hash(self, index: int) -> str:
        """Hash what the model sees of a tile.

        Args:
            index: of the tile.

        Returns:
            The hash.
        """
        slice_index, tile = divmod(index, self._count)
        return piece_key(self._study.slice_hash(slice_index), self._side, tile)

    def points(self, points: Points | None, tile: int) -> Points | None:
        """The clicks that lie on a tile.

        Args:
            points: coords (1, 1, P, 2) as (x, y) in pixels of the whole slice.
            tile: which of the T.

        Returns:
            Their coordinates in pixels of the tile; None where there is none.
        """
        if points is None:
            return None
        start, size = self._place(tile)
        coords = points.coords - start
        on_it = ((coords >= 0) & (coords < size)).all(-1)[0, 0]
        return Points(coords[:, :, on_it], points.labels[:, :, on_it]) if bool(on_it.any()) else None

    def box(self, box: Tensor | None, tile: int) -> Tensor | None:
        """What of a box lies on a tile.

        Args:
            box: (1, 1, 4) as x0, y0, x1, y1 in pixels of the whole slice.
            tile: which of the T.

        Returns:
            The same in pixels of the tile; None where nothing lies on it.
        """
        if box is None:
            return None
        start, size = self._place(tile)
        corners = (box.unflatten(2, (2, 2)) - start).clamp(min=torch.zeros(2), max=size - 1)
        return corners.flatten(2) if bool((corners[:, :, 1] > corners[:, :, 0]).all()) else None

    def _place(self, tile: int) -> tuple[Tensor, Tensor]:
        """Where a tile begins, and its size, as (x, y)."""
        rows, columns = self.tiles.boxes()[tile]
        return torch.tensor([columns.start, rows.start]).float(), torch.tensor(self.slice_shape[::-1]).float()


def piece_key(whole: str, *parts: int) -> str:
    """Under which a tile is known, wherever it serves.

    Args:
        whole: hash of what was cut.
        parts: tiles along a side, and which of them.

    Returns:
        A content key.
    """
    return content_key("piece", whole, list(parts))


def supports_in_pieces(selection: Selection, side: int) -> Selection:
    """The most telling tiles of the supports.

    Args:
        selection: K supports of N structures.
        side: tiles along each side.

    Returns:
        A selection of the same structures.
    """
    slices, images, masks, valid = [], [], [], []
    for k, chosen in enumerate(selection.slices):
        height, width = selection.images[k].shape[-2:]
        boxes = Tiles.of((height, width), side).boxes()
        for tile, box in enumerate(boxes):
            slices.append(replace(chosen, image_key=piece_key(chosen.image_key, side, tile)))
            images.append(selection.images[k][(..., *box)])
            masks.append(selection.masks[k][(..., *box)])
            valid.append(selection.valid[k])
    shown = np.array([mask.mean((1, 2)) for mask in masks]) * np.array(valid)
    kept = most_telling(shown)
    return replace(
        selection,
        slices=tuple(slices[t] for t in kept),
        images=[np.ascontiguousarray(images[t]) for t in kept],
        masks=[np.ascontiguousarray(masks[t]) for t in kept],
        valid=np.array([valid[t] for t in kept]),
    )
