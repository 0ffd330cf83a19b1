"""A reader who corrects a few slices of a volume or frames of a clip, simulated with the truth.

After a first pass the slice with the most wrong pixels is painted right, then the worst of those that do not lie beside
it, and so on. *corrected-n* lets n such slices support the others; *replaced-n* only puts them into the result: the
difference is what corrections bring where nobody painted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.supports.corrections import Corrections
from proxyprompt.supports.selection import Selection

from .episodes import Slices
from .methods import Fitted, Method, ProxyPromptMethod

APART = 8
"""Corrected slices lie at least a so-many-th of the volume apart."""


class Correcting(Method):
    """The proxy prompt on volumes of which some slices are painted.

    Args:
        ours: the method as it is without.
        count: slices that are painted.
        support: whether they support the others.
    """

    def __init__(self, ours: ProxyPromptMethod, count: int, *, support: bool) -> None:
        self.name = f"{ours.name}:{'corrected' if support else 'replaced'}-{count}"
        self.settings = {**ours.settings, "corrected": count, "support": support}
        self._ours, self._count, self._support = ours, count, support

    def has_seen(self, collection: str, group: str) -> bool:
        """As the method without."""
        return self._ours.has_seen(collection, group)

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        """As the method without.

        Args:
            supports: K slices and their masks of one structure.
            seed: not heeded.

        Returns:
            What segments targets; it sees the truth of the slices that are painted.
        """

        def predict(slices: Slices, truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
            masks = self._run(self._ours.pipeline, slices, supports, {}, self._ours.mode)
            rows = worst(masks, truth, self._count)
            if self._support:
                painted = {slices.indices[row]: {supports.structures[0]: truth[row]} for row in rows}
                return self._run(self._ours.pipeline, slices, supports, painted, self._ours.mode)
            masks[rows] = truth[rows]
            return masks

        return Fitted(predict, sees_truth=True)

    @staticmethod
    def _run(
        pipeline: Pipeline, slices: Slices, supports: Selection, corrections: Corrections, mode: str
    ) -> NDArray[np.bool_]:
        masks = pipeline.run(
            slices.study, supports, indices=slices.indices, agreement=False, corrections=corrections, mode=mode
        )
        return (masks.logits[:, 0] > 0) & masks.present()[:, 0, None, None]


def worst(masks: NDArray[np.bool_], truth: NDArray[np.bool_], count: int) -> list[int]:
    """Slices to paint.

    Args:
        masks: (Z, h, w) bool.
        truth: (Z, h, w) bool.
        count: how many at most.

    Returns:
        Those with the most wrong pixels, the worst first, none within an :data:`APART`-th of the volume of another.
    """
    apart = max(1, len(masks) // APART)
    chosen: list[int] = []
    for row in np.argsort(-(masks != truth).sum((1, 2)), kind="stable").tolist():
        if len(chosen) < count and all(abs(row - other) >= apart for other in chosen):
            chosen.append(row)
    return chosen
