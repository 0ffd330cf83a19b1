"""The pixel classifier of a support set, and how much of it is mixed into the masks: the supports themselves decide."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from proxyprompt.extensions.pixel_classifier import (
    PixelClassifier,
    best_mixture,
    can_classify,
    dice_of_mixtures,
    fit,
    moments,
)
from proxyprompt.foundation.base import Features
from proxyprompt.io.cache import ContentCache, content_key
from proxyprompt.supports.selection import Selection

from .encoding import Encoding
from .latency import Latencies
from .segmenter import Segmenter

TRIED = 8
"""So many supports are segmented from the others, to find how much of the pixel classifier is mixed in."""


class ClassifierFit:
    """Fits what the cache does not hold yet.

    Args:
        segmenter: foundation and generator.
        encoding: of the supports.
        cache: what was computed before.
        latencies: where the time goes.
    """

    def __init__(self, segmenter: Segmenter, encoding: Encoding, cache: ContentCache, latencies: Latencies) -> None:
        self._segmenter, self._encoding, self._cache, self._latencies = segmenter, encoding, cache, latencies

    def fit(self, selection: Selection, key: str) -> PixelClassifier | None:
        """The classifier of a support set.

        Args:
            selection: the supports.
            key: :meth:`Encoding.memory_key`.

        Returns:
            None where the foundation has no maps for it.
        """

        def compute() -> dict[str, Tensor]:
            features, contexts = self._encoding.supports(selection)
            if not can_classify(features):
                return {"none": torch.zeros(1)}
            with self._latencies.of("classifier"):
                described = self._describe(selection, features)
                classifier = fit(described.sum(0))
                mixture = self._mixture(selection, features, contexts, described)
            share, offset = (torch.tensor(each, device=self._encoding.device) for each in zip(*mixture, strict=True))
            return {**vars(classifier), "share": share, "offset": offset}

        tensors = self._cache.get_or_compute(content_key("pixel classifier", key), selection.tags, compute).tensors
        if "none" in tensors:
            return None
        return PixelClassifier(**{name: tensor.to(self._encoding.device) for name, tensor in tensors.items()})

    def _describe(self, selection: Selection, features: Features) -> Tensor:
        """(K, N, F + 2, F + 2), zeros where a study does not declare the structure."""
        each = []
        for k, chosen in enumerate(selection.slices):
            masks, valid = selection.masks[k], selection.valid[k]
            keys = [content_key("moments", key) for key in self._encoding.context_keys(chosen.image_key, masks)]
            describe = partial(moments, features[k : k + 1])
            each.append(self._encoding.of_masks("moments", keys, masks, valid, chosen, describe))
        return torch.stack(each).to(self._encoding.device)

    def _mixture(
        self, selection: Selection, features: Features, contexts: Tensor, described: Tensor
    ) -> list[tuple[float, float]]:
        """Share and offset of each structure: up to :data:`TRIED` supports are segmented from all the others."""
        held, valid = selection.held(), torch.from_numpy(selection.valid).to(self._encoding.device)
        tried: list[list[Tensor]] = [[] for _ in selection.structures]
        for k in range(min(len(selection), TRIED)):
            others = [j for j in range(len(selection)) if j != k]
            shown = [n for n in np.flatnonzero(held[k]).tolist() if selection.valid[others, n].any()]
            if not shown:
                continue
            encoding = self._segmenter.encode_support(
                features[others], contexts[others][:, shown], valid[others][:, shown]
            )
            decoded = self._segmenter.segment(features[k : k + 1], encoding)
            score = fit(described[others][:, shown].sum(0)).score(features[k : k + 1])
            dice = dice_of_mixtures(decoded.mask_logits, score, self._encoding.lay(selection.masks[k][shown]))
            for row, n in enumerate(shown):
                tried[n].append(dice[..., row])
        return [best_mixture(each) for each in tried]
