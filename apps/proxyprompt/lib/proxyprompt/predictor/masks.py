"""What the model says of every slice of a study, and what is drawn of it.

Axes: ``Z`` slices of (h, w), ``N`` structures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxyprompt.io.study import Study
from proxyprompt.metrics.segmentation import overlap
from proxyprompt.settings import SLICE_BY_SLICE
from proxyprompt.supports.corrections import Corrections
from proxyprompt.supports.selection import Selection
from proxyprompt.supports.slice_positions import likely

from .cleaning import clean, shape_of

PRESENT = 0.5
"""A structure is drawn on a slice when the probability that it is there reaches this."""
PLACED = 0.5
"""And when the place of the slice in its volume is at least so good, compared with the best one."""
SURE = 10.0
"""Logit of a pixel that a person painted."""


@dataclass(frozen=True)
class Masks:
    """What the model says of every slice.

    Attributes:
        logits: (Z, N, h, w) float16 (a volume's are many), not gated.
        presence: (Z, N), probabilities.
        placed: (Z, N), from 0 to 1, what labelled volumes say of the place of the slice.
        agreement: N, None where fewer than two supports hold the structure.
        sides: N, in how many tiles along each side of a slice the structure was looked at, 1 for the whole view.
        mode: what was done about neighbouring slices.
    """

    logits: NDArray[np.float16]
    presence: NDArray[np.float32]
    placed: NDArray[np.float64]
    agreement: tuple[float | None, ...]
    sides: tuple[int, ...] = ()
    mode: str = SLICE_BY_SLICE

    def searched(self) -> NDArray[np.bool_]:
        """(Z, N) bool, whether the slice lies where the structure can be."""
        return self.placed >= PLACED

    def present(self) -> NDArray[np.bool_]:
        """(Z, N) bool, whether the structure is drawn on the slice."""
        return (self.presence >= PRESENT) & self.searched()

    def gated(self, structure: int) -> NDArray[np.float16]:
        """The logits of one structure, minus infinity on every slice where it is absent.

        Args:
            structure: which of the N.

        Returns:
            (Z, h, w).
        """
        return np.where(self.present()[:, structure, None, None], self.logits[:, structure], np.float16(-np.inf))

    def keep(self, corrections: Corrections, structures: Sequence[str], indices: Sequence[int]) -> Masks:
        """Corrected slices as a person left them, whatever the model says of them.

        Args:
            corrections: of slices of the study.
            structures: names of the N.
            indices: of the Z slices in the study.

        Returns:
            Masks that say on these slices what the corrections say; ``logits`` are changed in place.
        """
        presence, where = self.presence.copy(), self.placed.copy()
        for row, index in enumerate(indices):
            for name, mask in corrections.get(index, {}).items():
                if name in structures:
                    n = structures.index(name)
                    self.logits[row, n] = np.where(mask, SURE, -SURE)
                    presence[row, n], where[row, n] = float(mask.any()), 1.0
        return replace(self, presence=presence, placed=where)

    def cleaned(self, selection: Selection, *, volume: bool) -> Masks:
        """Small parts taken away and holes filled, as :mod:`proxyprompt.predictor.cleaning` says.

        Args:
            selection: the supports.
            volume: whether parts go through slices.

        Returns:
            Masks whose logits have changed their sign there; ``logits`` are changed in place.
        """
        for n in range(self.logits.shape[1]):
            drawn = self.gated(n) > 0
            changed = clean(drawn, shape_of(selection, n), volume=volume) != drawn
            self.logits[:, n][changed] = np.where(drawn[changed], -SURE, SURE)
        return self


class Alone(NamedTuple):
    """What one support by itself says of one structure, on n slices.

    Attributes:
        structure: which of the N.
        masks: (n, s, s) bool, gated.
        presence: (n,), the model's probability.
    """

    structure: int
    masks: NDArray[np.bool_]
    presence: NDArray[np.float32]


def placed(study: Study, selection: Selection, indices: Sequence[int]) -> NDArray[np.float64]:
    """What the supports' volumes say of the places of slices, by :func:`proxyprompt.supports.slice_positions.likely`.

    Args:
        study: the target.
        selection: the supports.
        indices: of the slices.

    Returns:
        (len(indices), N), from 0 to 1; 1 for anything but a volume.
    """
    slice_presence = selection.slice_presence.values() if study.kind == "volume" else ()
    return likely(slice_presence, len(selection.structures), len(study), indices, study.length)


def searched(study: Study, selection: Selection, indices: Sequence[int]) -> NDArray[np.bool_]:
    """Whether structures can be on slices at all, by :func:`placed`.

    Args:
        study: the target.
        selection: the supports.
        indices: of the slices.

    Returns:
        (len(indices), N).
    """
    return placed(study, selection, indices) >= PLACED


def most_shown(masks: Masks) -> int:
    """The slice with the most pixels of all structures; where none is drawn, the one where most is likely present.

    Args:
        masks: of some slices.

    Returns:
        Its index among them.
    """
    area = [(masks.logits[z, masks.present()[z]] > 0).sum() for z in range(len(masks.logits))]
    return int(np.argmax(area)) if any(area) else int(masks.presence.max(axis=1).argmax())


def mean_dice(masks: Sequence[NDArray[np.bool_]]) -> float | None:
    """How alike masks are.

    Args:
        masks: of one shape.

    Returns:
        Mean Dice over all pairs, 1 for two empty masks; None for fewer than two masks.
    """
    pairs = [overlap(one, other).dice for one, other in combinations(masks, 2)]
    return float(np.mean(pairs)) if pairs else None
