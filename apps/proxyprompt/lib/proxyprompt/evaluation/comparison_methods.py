"""Fine-tuned peers of the proxy prompt (:mod:`proxyprompt.evaluation.comparison_models`) as methods.

None of them looks at the supports.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from proxyprompt.supports.selection import Selection, SupportError
from proxyprompt.training.episodes import prepare

from .comparison_models import TOLD, Peer
from .episodes import Slices
from .methods import Learned, Method, weights_of


class PeerMethod(Method):
    """seen: whether the peer was trained on a group."""

    def __init__(self, peer: Peer, *, seen: Callable[[str], bool]) -> None:
        self._peer, self._seen = peer, seen
        self.name = peer.generator.config.peer
        self.settings = weights_of(peer)

    def has_seen(self, collection: str, group: str) -> bool:
        return self._seen(group)

    def learn(self, supports: Selection, *, seed: int) -> Learned:
        """SupportError for a structure that the peer was not trained on."""
        (structure,), known = supports.structures, self._peer.generator.config.structures
        if structure not in known:
            raise SupportError(f"{self._peer.version}: was trained on {', '.join(known)}, not on {structure!r}")
        index = known.index(structure)

        def predict(slices: Slices, truth: np.ndarray) -> np.ndarray:
            masks = np.zeros_like(truth)
            for row in np.flatnonzero(truth.any(axis=(1, 2))):
                masks[row] = self._segment(slices, row, truth[row], index, seed)
            return masks

        if self.name in TOLD:
            return Learned(predict, sees_truth=True)
        return Learned(
            lambda slices: np.stack(
                [
                    self._segment(slices, row, np.zeros(slices.slice_shape, bool), index, seed)
                    for row in range(len(slices))
                ]
            )
        )

    @torch.inference_mode()
    def _segment(self, slices: Slices, row: int, truth: np.ndarray, structure: int, seed: int) -> np.ndarray:
        """(h, w) bool, empty where the peer says that the structure is not there."""
        foundation = self._peer.foundation
        image, mask = torch.from_numpy(slices.images([row])[0]), torch.from_numpy(truth)[None].float()
        picture = prepare(image, mask, foundation, key=(slices.slice_hash(row), slices.indices[row], seed))
        decoded = self._peer.answer(self._peer.encode(picture.image[None]), [picture], [structure])
        drawn = foundation.postprocess(decoded.mask_logits, picture.geometry)[0, 0] > 0
        there = self.name in TOLD or decoded.presence_logit[0, 0] > 0
        return (drawn & there).cpu().numpy()
