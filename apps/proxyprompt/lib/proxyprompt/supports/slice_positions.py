"""Where along a volume a structure lies: what a labelled volume says beyond its support slices.

The model looks at single slices, and a slice above or below an organ looks much like one through it. A label tells on
which slices of its volume the structure is, and volumes of one protocol are laid out alike. Not part of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLUR = 0.05
"""Standard deviation, as a share of the volume's length: by so much volumes of one protocol differ."""
ALIKE = 1.5
"""Volumes whose lengths differ by more than this factor show different parts of the body."""


@dataclass(frozen=True)
class SlicePresence:
    """Where along one labelled volume structures lie.

    Attributes:
        shown: (Z, N) bool, whether a slice shows a structure.
        declared: (N,) bool, whether the label can tell.
        length: of the volume in mm; None where nobody knows.
    """

    shown: NDArray[np.bool_]
    declared: NDArray[np.bool_]
    length: float | None = None


def likely(
    slice_presence: Iterable[SlicePresence],
    structures: int,
    depth: int,
    indices: Sequence[int],
    length: float | None = None,
) -> NDArray[np.float64]:
    """How well slices of a volume are placed to show each structure.

    It is the share of the labelled volumes that show the structure at the same place between first and last slice,
    blurred, and compared with the best place: where labels contradict each other, all that any of them says counts.

    Args:
        slice_presence: of labelled volumes.
        structures: N.
        depth: the volume's number of slices.
        indices: of the slices.
        length: the volume's mm, where known.

    Returns:
        (len(indices), N), from 0 to 1; 1 where no label of a volume of like length tells.
    """
    found = np.ones((len(indices), structures))
    volumes = [e for e in slice_presence if len(e.shown) > 1 and _alike(e.length, length)]
    if depth < 2 or not volumes:
        return found
    whole = np.linspace(0, 1, depth)
    for n in range(structures):
        telling = [e.shown[:, n] for e in volumes if e.declared[n] and e.shown[:, n].any()]
        if telling:
            shares = np.mean([_blurred(shown, whole) for shown in telling], axis=0)
            found[:, n] = (shares / shares.max())[list(indices)]
    return found


def _alike(one: float | None, other: float | None) -> bool:
    return not one or not other or max(one, other) <= ALIKE * min(one, other)


def _blurred(shown: NDArray[np.bool_], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """shown: (Z,) bool. Its Gaussian mean at places between 0, the first slice, and 1, the last."""
    away = places[:, None] - np.linspace(0, 1, len(shown))
    blur = max(BLUR, 0.5 / (len(shown) - 1))  # few slices: at least half of what lies between two of them
    weights = np.exp(-0.5 * (away / blur) ** 2)
    return weights @ shown / weights.sum(axis=1)
