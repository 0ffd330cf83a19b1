"""The app's own way with what a user adds on each slice: a box, or clicks that correct; drawn from the truth.

As *box* and *clicks-5* of :mod:`proxyprompt.evaluation.prompting`, but beside the proxy prompt.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from proxyprompt.extensions import ALL, Extensions
from proxyprompt.foundation.base import Points
from proxyprompt.io.cache import ContentCache
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.supports.selection import Selection

from .episodes import Slices
from .methods import Fitted, Method, weights_of
from .prompting import largest_error

BOX = 0
"""In the place of the number of clicks."""
_CACHE_BYTES = 2**28
_WAYS = {"": ALL, "-unrefined": ALL._replace(refinement=False)}

PROMPTED: Mapping[str, tuple[int, Extensions]] = {
    f"proxyprompt:{name}{way}": (clicks, extensions)
    for name, clicks in {"box": BOX, "click-1": 1, "clicks-5": 5}.items()
    for way, extensions in _WAYS.items()
}
"""Name -> how many clicks, and what is used beyond the paper."""


class ProxyPrompted(Method):
    """One of :data:`PROMPTED`, on the slices that show the structure.

    Args:
        name: of the method.
        segmenter: its foundation should be an ``EncodeOnce``.
    """

    def __init__(self, name: str, segmenter: Segmenter) -> None:
        self.name = name
        self._clicks, extensions = PROMPTED[name]
        self.settings = {**weights_of(segmenter), **extensions._asdict(), "clicks": self._clicks}
        cache = ContentCache(None, memory_bytes=_CACHE_BYTES, disk_bytes=0)
        self._pipeline = Pipeline(segmenter, cache, Latencies(), extensions=extensions)

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        """Nothing is learned.

        Args:
            supports: K slices and their masks of one structure.
            seed: not heeded.

        Returns:
            What segments targets by their truth.
        """

        def predict(slices: Slices, truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
            masks = np.zeros_like(truth)
            for row in np.flatnonzero(truth.any(axis=(1, 2))):
                masks[row] = self._segment(supports, slices, slices.indices[row], truth[row])
            return masks

        return Fitted(predict, sees_truth=True)

    def _segment(self, supports: Selection, slices: Slices, index: int, truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
        def click(points: Points | None, box: torch.Tensor | None = None) -> NDArray[np.bool_]:
            return self._pipeline.click(slices.study, supports, index, 0, points, box) > 0

        if self._clicks == BOX:
            rows, columns = np.nonzero(truth)
            return click(None, torch.tensor([[[columns.min(), rows.min(), columns.max(), rows.max()]]]).float())
        found = self._pipeline.run(slices.study, supports, indices=[index], agreement=False, everywhere=True)
        mask = found.logits[0, 0] > 0
        places: list[tuple[int, int]] = []
        labels: list[int] = []
        while len(places) < self._clicks and (wrong := largest_error(mask, truth)) is not None:
            places.append(wrong[:2])
            labels.append(wrong[2])
            mask = click(Points(torch.tensor([[places]]).float(), torch.tensor([[labels]], dtype=torch.int32)))
        return mask
