"""Fine-tuned comparison models of the proxy prompt (:mod:`proxyprompt.evaluation.comparison_models`) as methods.

None of them looks at the supports.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from proxyprompt.supports.selection import Selection, SupportError
from proxyprompt.training.episodes import prepare

from .comparison_models import PROMPTED_BY_TRUTH, ComparisonModel
from .episodes import Slices
from .methods import Fitted, Method, weights_of


class ComparisonMethod(Method):
    """seen: whether the comparison model was trained on a group."""

    def __init__(self, model: ComparisonModel, *, seen: Callable[[str], bool]) -> None:
        self._model, self._seen = model, seen
        self.name = model.generator.config.comparison_model
        self.settings = weights_of(model)

    def has_seen(self, collection: str, group: str) -> bool:
        return self._seen(group)

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        """SupportError for a structure that the comparison model was not trained on."""
        (structure,), known = supports.structures, self._model.generator.config.structures
        if structure not in known:
            raise SupportError(f"{self._model.version}: was trained on {', '.join(known)}, not on {structure!r}")
        index = known.index(structure)

        def predict(slices: Slices, truth: np.ndarray) -> np.ndarray:
            masks = np.zeros_like(truth)
            for row in np.flatnonzero(truth.any(axis=(1, 2))):
                masks[row] = self._segment(slices, row, truth[row], index, seed)
            return masks

        if self.name in PROMPTED_BY_TRUTH:
            return Fitted(predict, sees_truth=True)
        return Fitted(
            lambda slices: np.stack(
                [
                    self._segment(slices, row, np.zeros(slices.slice_shape, bool), index, seed)
                    for row in range(len(slices))
                ]
            )
        )

    @torch.inference_mode()
    def _segment(self, slices: Slices, row: int, truth: np.ndarray, structure: int, seed: int) -> np.ndarray:
        """(h, w) bool, empty where the comparison model says that the structure is not there."""
        foundation = self._model.foundation
        image, mask = torch.from_numpy(slices.images([row])[0]), torch.from_numpy(truth)[None].float()
        sample = prepare(image, mask, foundation, key=(slices.slice_hash(row), slices.indices[row], seed))
        decoded = self._model.answer(self._model.encode(sample.image[None]), [sample], [structure])
        drawn = foundation.postprocess(decoded.mask_logits, sample.geometry)[0, 0] > 0
        there = self.name in PROMPTED_BY_TRUTH or decoded.presence_logit[0, 0] > 0
        return (drawn & there).cpu().numpy()
