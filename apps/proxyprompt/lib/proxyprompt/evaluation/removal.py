"""The shipped model with parts taken away at inference: what the part that a figure is claimed for brings to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from proxyprompt.foundation.base import Features, Prompts, no_clicks
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding, mean_context
from proxyprompt.supports.selection import Selection

from .episodes import Slices
from .methods import Fitted, Method, weights_of


def proxy_alone(segmenter: Segmenter, features: Features, support: SupportEncoding) -> Prompts:
    """P of the whole view and nothing else: no pieces, no choice among slices."""
    return Prompts(proxy=segmenter.generator(features.embedding, support).tokens)


def without_selection(segmenter: Segmenter, features: Features, support: SupportEncoding) -> Prompts:
    """P of the mean context: the selective map says nothing of where."""
    context = mean_context(features.embedding, support)
    return Prompts(proxy=segmenter.generator.colorize(features.embedding, context))


def unprompted(segmenter: Segmenter, features: Features, support: SupportEncoding) -> Prompts:
    """No P, and nothing else: what the foundation draws unasked."""
    objects, device = support.valid.shape[1], features.embedding.device
    return Prompts(points=no_clicks(len(features.embedding), objects, device))


REMOVALS: dict[str, Callable[[Segmenter, Features, SupportEncoding], Prompts]] = {
    "proxyprompt:p-only": proxy_alone,
    "proxyprompt:without-selection": without_selection,
    "proxyprompt:unprompted": unprompted,
}
"""Name of a method -> what the foundation is prompted with; nothing is mixed into its masks."""


class Removal(Method):
    """One of :data:`REMOVALS`, slice by slice, gated by the object score as served masks are.

    Args:
        name: of the removal.
        segmenter: the whole model.
    """

    def __init__(self, name: str, segmenter: Segmenter) -> None:
        self.name, self._segmenter, self._prompts = name, segmenter, REMOVALS[name]
        self.settings = {**weights_of(segmenter), "removal": name}

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        """Encode the supports once.

        Args:
            supports: K slices and their masks of one structure.
            seed: not heeded.

        Returns:
            What segments targets.
        """
        support = self._encode(supports)

        @torch.inference_mode()
        def predict(slices: Slices) -> np.ndarray:
            foundation = self._segmenter.foundation
            masks = np.zeros((len(slices), *slices.slice_shape), bool)
            for row in range(len(slices)):
                images, geometry = foundation.preprocess(self._tensor(slices.images([row])))
                features = self._segmenter.encode(images)
                decoded = foundation.decode(features, self._prompts(self._segmenter, features, support))
                drawn = foundation.postprocess(decoded.mask_logits, geometry)[0, 0] > 0
                masks[row] = (drawn & (decoded.presence_logit[0, 0] > 0)).cpu().numpy()
            return masks

        return Fitted(predict)

    @torch.inference_mode()
    def _encode(self, supports: Selection) -> SupportEncoding:
        foundation, features, contexts = self._segmenter.foundation, [], []
        for image, mask in zip(supports.images, supports.masks, strict=True):
            prepared, geometry = foundation.preprocess(self._tensor(image[None]))
            laid = foundation.preprocess_masks(self._tensor(mask[None]), geometry)
            features.append(self._segmenter.encode(prepared))
            contexts.append(self._segmenter.encode_pair(prepared, laid))
        valid = self._tensor(supports.valid)
        return self._segmenter.encode_support(Features.join(features), torch.cat(contexts), valid)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(next(self._segmenter.parameters()).device)
