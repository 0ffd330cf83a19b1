"""What is encoded of studies and supports, and kept.

That is the features of a slice (a target today is a support tomorrow), the context of each support image with each
mask, and the encoding of a whole support set.

Axes: ``K`` support slices, ``N`` structures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxyprompt.foundation.base import Features, size_of
from proxyprompt.io.cache import ContentCache, content_key
from proxyprompt.io.study import Study
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding
from proxyprompt.supports.selection import Selection, SupportSlice

from .latency import Latencies
from .pieces import StudyInPieces
from .segmenter import Segmenter


class Encoding:
    """Encodes what the cache does not hold yet.

    Args:
        segmenter: foundation and generator.
        cache: what was computed before.
        latencies: where the time goes.

    Attributes:
        device: of the segmenter.
    """

    def __init__(self, segmenter: Segmenter, cache: ContentCache, latencies: Latencies) -> None:
        self._segmenter, self._cache, self._latencies = segmenter, cache, latencies
        self._foundation = segmenter.foundation
        self.device = next(segmenter.parameters()).device

    def key(self, kind: str, *parts: object) -> str:
        """Under which the cache keeps what these weights make of something.

        Args:
            kind: what is kept.
            parts: what decides it, as :func:`proxyprompt.io.cache.content_key` takes it.

        Returns:
            A content key.
        """
        return content_key(kind, self._segmenter.weights_sha256, *parts)

    def target(self, study: Study | StudyInPieces, indices: Sequence[int]) -> Features:
        """Features of some slices; those that the cache does not hold are encoded together.

        Args:
            study: the target.
            indices: of the slices.

        Returns:
            Those of the slices, in this order.
        """
        keys = [self.key("features", study.slice_hash(i)) for i in indices]
        with self._latencies.of("encode"):
            found = {n: entry for n, key in enumerate(keys) if (entry := self._cache.get(key)) is not None}
            missing = [n for n in range(len(keys)) if n not in found]
            if missing:
                made = self.encode(torch.from_numpy(study.images([indices[n] for n in missing])))
                for row, n in enumerate(missing):
                    found[n] = self._cache.put(keys[n], made[row : row + 1].to_tensors(), tags={study.content_hash})
            return Features.join([Features.from_tensors(found[n].tensors) for n in range(len(keys))], self.device)

    def encode(self, images: Tensor) -> Features:
        """Encode images, whatever the cache holds.

        Args:
            images: (B, 3, h, w) in [0, 1].

        Returns:
            Features with their padding.
        """
        prepared, geometry = self._foundation.preprocess(images.to(self.device))
        features = self._segmenter.encode(prepared)
        return replace(features, padding=self._foundation.padding(geometry, len(images), self.device))

    def _encoded(self, image: Tensor) -> dict[str, Tensor]:
        return self.encode(image).to_tensors()

    def supports(self, selection: Selection) -> tuple[Features, Tensor]:
        """What is made of each support by itself.

        Args:
            selection: the supports.

        Returns:
            F_sup of the K support images, and V (K, N, D, H, W), zeros where a study does not declare the structure.
        """
        features: list[Features] = []
        contexts: list[Tensor] = []
        for k, chosen in enumerate(selection.slices):
            image = torch.from_numpy(selection.images[k])[None]
            with self._latencies.of("encode"):
                entry = self._cache.get_or_compute(
                    self.key("features", chosen.image_key),
                    chosen.tags,
                    partial(self._encoded, image),
                )
                features.append(Features.from_tensors(entry.tensors))
            with self._latencies.of("encode_support"):
                contexts.append(self._context(image, selection.masks[k], selection.valid[k], chosen))
        return Features.join(features, self.device), torch.stack(contexts).to(self.device)

    def _context(
        self, image: Tensor, masks: NDArray[np.bool_], valid: NDArray[np.bool_], chosen: SupportSlice
    ) -> Tensor:
        """V of one support image with each of its N masks: (N, D, H, W)."""

        def encode(laid: Tensor) -> Tensor:
            prepared, _ = self._foundation.preprocess(image.to(self.device))
            return self._segmenter.encode_pair(prepared, laid)[0]

        return self.of_masks("context", self.context_keys(chosen.image_key, masks), masks, valid, chosen, encode)

    def of_masks(
        self,
        name: str,
        keys: Sequence[str],
        masks: NDArray[np.bool_],
        valid: NDArray[np.bool_],
        chosen: SupportSlice,
        compute: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """What is made of one support image with each of its masks; what the cache does not hold is computed together.

        Args:
            name: of what is made.
            keys: of the N masks, for the cache.
            masks: (N, h, w).
            valid: (N,), whether the study declares the structure.
            chosen: the support.
            compute: (1, n, S, S) masks -> (n, ...).

        Returns:
            (N, ...), zeros for those that are not declared.
        """
        declared = np.flatnonzero(valid).tolist()
        found = {n: entry for n in declared if (entry := self._cache.get(keys[n])) is not None}
        missing = [n for n in declared if n not in found]
        if missing:
            made = compute(self.lay(masks[missing]))
            for row, n in enumerate(missing):
                found[n] = self._cache.put(keys[n], {name: made[row]}, tags=chosen.tags)
        known = {n: found[n].tensors[name] for n in declared}
        empty = torch.zeros_like(next(iter(known.values())))
        return torch.stack([known.get(n, empty) for n in range(len(masks))])

    def lay(self, masks: NDArray[np.bool_]) -> Tensor:
        """Masks as the foundation takes them.

        Args:
            masks: (N, h, w).

        Returns:
            (1, N, S, S).
        """
        laid = torch.from_numpy(masks)[None].to(self.device)
        return self._foundation.preprocess_masks(laid, self._foundation.geometry(size_of(laid)))

    def context_keys(self, image_key: str, masks: NDArray[np.bool_]) -> list[str]:
        """Under which the cache keeps the contexts of one support image.

        Args:
            image_key: of the image.
            masks: (N, h, w).

        Returns:
            N content keys.
        """
        return [self.key("context", image_key, np.packbits(mask), list(mask.shape)) for mask in masks]

    def memory_key(self, selection: Selection) -> str:
        """Under which the cache keeps a support encoding.

        Args:
            selection: the supports.

        Returns:
            A content key.
        """
        keys = [self.context_keys(s.image_key, selection.masks[k]) for k, s in enumerate(selection.slices)]
        return self.key("support encoding", keys, selection.valid)

    def encode_support(
        self, selection: Selection, key: str, supports: Callable[[], tuple[Features, Tensor]]
    ) -> SupportEncoding:
        """The encoding of a whole support set.

        Args:
            selection: the supports.
            key: :meth:`memory_key`.
            supports: gives F_sup and V, as :meth:`supports`; not asked where the encoding is known.

        Returns:
            What the proxy prompt is made of.
        """

        def compute() -> dict[str, Tensor]:
            features, contexts = supports()
            with self._latencies.of("encode_support"):
                valid = torch.from_numpy(selection.valid).to(self.device)
                encoding = self._segmenter.encode_support(features, contexts, valid)
            return dict(vars(encoding))

        entry = self._cache.get_or_compute(key, selection.tags, compute)
        return SupportEncoding(**{name: tensor.to(self.device) for name, tensor in entry.tensors.items()})
