"""Methods behind one small interface: learn from K supports, then segment any number of targets.

Training-free opponents see the same supports, images and image size as the proxy prompt, and nothing else.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from proxyprompt.extensions import ALL, Extensions
from proxyprompt.foundation.base import Features, Foundation
from proxyprompt.io.cache import ContentCache, content_key
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.prompt_generator.generator import GeneratorConfig
from proxyprompt.settings import AUTO
from proxyprompt.supports.selection import Selection

from .baselines import copy_support_mask
from .episodes import Slices


@dataclass(frozen=True)
class Fitted:
    """What a method makes of a support set. predict: slices -> (Z, h, w) bool; with ``sees_truth`` the target's truth,
    (Z, h, w) bool, is its second argument. notes: for the record, JSON.
    """

    predict: Callable[..., np.ndarray]
    notes: Mapping[str, object] = field(default_factory=dict)
    sees_truth: bool = False

    def segment(self, slices: Slices, truth: np.ndarray) -> np.ndarray:
        """(Z, h, w) bool; only a method that says so is shown the truth."""
        return self.predict(slices, truth) if self.sees_truth else self.predict(slices)


class Method(ABC):
    """name: what tables call it. settings: everything that decides its masks besides the episode, JSON."""

    name: str
    settings: Mapping[str, object]

    @abstractmethod
    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        """supports: K slices and their masks of one structure."""

    def has_seen(self, collection: str, group: str) -> bool:
        """Whether the method was trained on this group; such a method is never scored on it."""
        return False

    @property
    def identity(self) -> str:
        """Two runs of equal identity on equal episodes give equal masks."""
        return hashlib.sha256(json.dumps([self.name, dict(self.settings)], sort_keys=True).encode()).hexdigest()[:16]


class ProxyPromptMethod(Method):
    """A segmenter, by the very way that a request takes; its foundation should be an :class:`EncodeOnce`.

    seen: whether the segmenter was trained on a group. extensions: what is used beyond the paper. mode: what is done
    about neighbouring slices.

    Attributes:
        pipeline: the way that requests take.
    """

    name = "proxyprompt"

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        seen: Callable[[str], bool] = lambda group: False,
        cache_bytes: int = 2**28,
        extensions: Extensions = ALL,
        mode: str = AUTO,
        name: str = name,
    ) -> None:
        self.name = name
        self.settings = {**weights_of(segmenter), **_changed(segmenter), **extensions._asdict(), "mode": mode}
        cache, self.mode = ContentCache(None, memory_bytes=cache_bytes, disk_bytes=0), mode
        self.pipeline, self._seen = Pipeline(segmenter, cache, Latencies(), extensions=extensions), seen

    def has_seen(self, collection: str, group: str) -> bool:
        return self._seen(group)

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        def predict(slices: Slices) -> np.ndarray:
            masks = self.pipeline.run(slices.study, supports, indices=slices.indices, agreement=False, mode=self.mode)
            return (masks.logits[:, 0] > 0) & masks.present()[:, 0, None, None]

        return Fitted(predict)

    def in_mode(self, mode: str) -> ProxyPromptMethod:
        """The same, with another way about neighbouring slices, on what was computed already."""
        other = copy.copy(self)
        other.mode, other.settings = mode, {**self.settings, "mode": mode}
        other.name = f"{self.name}:{mode.replace(' ', '-')}"
        return other


def weights_of(segmenter: Segmenter) -> dict[str, object]:
    """For a method's settings: which weights, and at what size."""
    return {
        "foundation": segmenter.foundation.name,
        "version": segmenter.version,
        "weights": segmenter.weights_sha256,
        "image_size": segmenter.foundation.image_size,
    }


def _changed(segmenter: Segmenter) -> dict[str, object]:
    """Options of the generator that are an ablation's."""
    usual, own = GeneratorConfig().to_dict(), segmenter.options()
    return {name: own[name] for name in ("context", "selection", "colorization") if own[name] != usual[name]}


class Copy(Method):
    """The supports' mask, by majority, laid on the target as it is."""

    name, settings = "copy", {}

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        masks = [torch.from_numpy(mask) for mask in supports.masks]

        def predict(slices: Slices) -> np.ndarray:
            laid = copy_support_mask(masks, slices.slice_shape)[0].numpy()
            return np.repeat(laid[None], len(slices), axis=0)

        return Fitted(predict)


class FeatureMethod(Method):
    """A training-free ``label`` of :mod:`proxyprompt.evaluation.baselines` (nearest feature, prototype) on a
    foundation.
    """

    def __init__(self, name: str, label: Callable[..., Tensor], foundation: Foundation) -> None:
        self.name, self._label, self._foundation = name, label, foundation
        self.settings = {
            "foundation": foundation.name,
            "weights": foundation.weights_sha256,
            "image_size": foundation.image_size,
        }

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        device = next(self._foundation.parameters()).device
        images = [torch.from_numpy(image).to(device) for image in supports.images]
        masks = [torch.from_numpy(mask).to(device) for mask in supports.masks]

        def predict(slices: Slices) -> np.ndarray:
            targets = torch.from_numpy(slices.images(range(len(slices)))).to(device)
            return self._label(self._foundation, targets, images, masks)[:, 0].cpu().numpy()

        return Fitted(predict)


class EncodeOnce(nn.Module):
    """A foundation that keeps what it encoded, by content: targets and supports return in many episodes.

    Everything but ``encode`` is the foundation's own. weights: what tells its features from others; by default the hash
    of the published weights, which says nothing of what fine-tuning made of them.
    """

    def __init__(self, foundation: Foundation, cache: ContentCache, *, weights: str = "") -> None:
        super().__init__()
        self.inner, self._cache, self._weights = foundation, cache, weights or foundation.weights_sha256

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def encode(self, images: Tensor) -> Features:
        keys = [content_key("features", self._weights, self.inner.image_size, image) for image in images]
        entries = [self._cache.get(key) for key in keys]
        missing = [row for row, entry in enumerate(entries) if entry is None]
        if missing:
            made = self.inner.encode(images[missing])
            for place, row in enumerate(missing):
                entries[row] = self._cache.put(keys[row], made[place : place + 1].to_tensors())
        return Features.join([Features.from_tensors(entry.tensors) for entry in entries], images.device)
