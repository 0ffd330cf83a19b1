"""Segments that may overlap, as one map of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LARGEST_VALUE = 255  # a label map holds one byte a voxel


@dataclass(frozen=True, eq=False)
class LabelMap:
    """What a label file says of an image's voxels.

    Attributes:
        values: uint8.
        names: structure -> the values that it is the union of, as far as the file itself names them; None where it does
            not.
        notes: texts for the user.
    """

    values: np.ndarray
    names: Mapping[str, frozenset[int]] | None = None
    notes: tuple[str, ...] = ()


def from_segments(
    size: tuple[int, ...], segments: Mapping[int, np.ndarray], names: Mapping[int, str], notes: tuple[str, ...] = ()
) -> LabelMap:
    """Lay segments over each other, the smaller one on top.

    A segment that lies wholly in another one stays a part of it: the other one's name then means both values. Segments
    that overlap otherwise lose what is covered, which is said.

    Args:
        size: (ni, nj, nk) of the map.
        segments: number from 1 to 255 -> flat indices, in Fortran order, of its voxels, each once.
        names: number -> name; one of ``names`` without voxels is known to be absent.
        notes: what else there is to say.

    Returns:
        The map.
    """
    values = np.zeros(int(np.prod(size)), dtype=np.uint8)
    layers = np.zeros(values.size, dtype=np.uint8)  # how many segments hold a voxel, up to 2
    order = sorted(segments, key=lambda number: (-len(segments[number]), number))
    for number in order:
        at = segments[number]
        values[at] = number
        layers[at] = np.minimum(layers[at] + 1, 2)
    members = {number: {number} for number in names}
    said = list(notes)
    shared = [number for number in order if (layers[segments[number]] > 1).any()]
    inside = np.zeros(values.size, dtype=bool)
    for rank, larger in enumerate(shared):
        inside[segments[larger]] = True
        for smaller in shared[rank + 1 :]:
            common, whole = int(inside[segments[smaller]].sum()), len(segments[smaller])
            if common == whole:
                members[larger].add(smaller)
                if whole == len(segments[larger]):
                    members[smaller].add(larger)
            elif common:
                said.append(
                    f"segments {names[larger]!r} and {names[smaller]!r} overlap in {common} voxels; they count for "
                    f"{names[smaller]!r}, the smaller one"
                )
        inside[segments[larger]] = False
    union: dict[str, frozenset[int]] = {}
    for number, name in names.items():
        union[name] = union.get(name, frozenset()) | frozenset(members[number])
    return LabelMap(values.reshape(size, order="F"), union, tuple(said))
