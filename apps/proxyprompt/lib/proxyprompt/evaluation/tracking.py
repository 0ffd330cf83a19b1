"""Volumes and clips by the foundation's memory alone, without a proxy prompt: what SAM 2 makes of one prompted frame.

*memory:video* is shown the supports as frame 0, as MedSAM2 is in the paper's Table 3: another patient's frame.
*frame-0* is told by the truth where the structure is on the first frame of the target itself (in a volume on the slice
that shows most), by its mask, a box or a click; that cannot be compared with methods that see only supports.
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from proxyprompt.foundation.base import Foundation, FrameMemory, MemoryBank, Prompts
from proxyprompt.predictor.propagation import RECENT
from proxyprompt.supports.selection import Selection

from .episodes import Slices
from .methods import Fitted
from .prompting import Memory

FRAME_0 = tuple(f"frame-0:{kind}" for kind in ("mask", "box", "point"))


class MemoryVideo(Memory):
    """The supports as the first frames, then frame after frame with what was found on those before."""

    name = "memory:video"

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        with torch.inference_mode():
            given = [self._frame(image, mask) for image, mask in zip(supports.images, supports.masks, strict=True)]

        @torch.inference_mode()
        def predict(slices: Slices) -> NDArray[Any]:
            masks = np.zeros((len(slices), *slices.slice_shape), bool)
            self._track(given, slices, range(len(slices)), masks)
            return masks

        return Fitted(predict)

    def _track(self, given: list[FrameMemory], slices: Slices, rows: range, masks: NDArray[Any]) -> None:
        """Segment rows, one after the other, into masks."""
        recent: deque[FrameMemory] = deque(maxlen=RECENT)
        for row in rows:
            features, geometry = self.encode(slices.images([row])[0])
            distances = (*(min(len(recent) + 1, RECENT) for _ in given), *range(len(recent), 0, -1))
            conditioning = (True,) * len(given) + (False,) * len(recent)
            nothing = self.clicks(np.zeros((1, 1, 2)), geometry, -1)
            bank = MemoryBank((*given, *recent), distances, conditioning)
            decoded = self.foundation.decode(features, Prompts(points=nothing), bank)
            if decoded.presence_logit[0, 0] >= 0:
                masks[row] = (self.foundation.postprocess(decoded.mask_logits, geometry)[0, 0] > 0).cpu().numpy()
            recent.append(self.foundation.remember_frame(features, decoded.mask_logits, decoded))


class FrameZero(MemoryVideo):
    """Told the truth of one slice. kind: mask, box or point."""

    def __init__(self, foundation: Foundation, kind: str) -> None:
        super().__init__(foundation)
        self.name, self._kind = f"frame-0:{kind}", kind

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        @torch.inference_mode()
        def predict(slices: Slices, truth: NDArray[Any]) -> NDArray[Any]:
            masks = np.zeros_like(truth)
            if not truth.any():
                return masks
            clip = slices.study.kind == "cine"
            start = int(truth.any((1, 2)).argmax() if clip else truth.sum((1, 2)).argmax())
            rng = np.random.default_rng([seed, zlib.crc32(slices.slice_hash(start).encode())])
            given, masks[start] = self._given(slices.images([start])[0], truth[start], rng)
            for rows in (range(start + 1, len(slices)), range(start - 1, -1, -1)):
                self._track([given], slices, rows, masks)
            return masks

        return Fitted(predict, sees_truth=True)

    def _given(
        self, image: NDArray[Any], truth: NDArray[Any], rng: np.random.Generator
    ) -> tuple[FrameMemory, NDArray[Any]]:
        """What the prompted slice leaves in the memory, and its mask."""
        if self._kind == "mask":
            return self._frame(image, truth[None]), truth
        features, geometry = self.encode(image)
        rows, columns = np.nonzero(truth)
        if self._kind == "box":
            corners = np.array([[[columns.min(), rows.min()], [columns.max(), rows.max()]]])
            prompts = Prompts(boxes=self.clicks(corners, geometry).coords.flatten(2))
        else:
            chosen = rng.integers(len(rows))
            prompts = Prompts(points=self.clicks(np.array([[[columns[chosen], rows[chosen]]]]), geometry))
        decoded = self.foundation.decode(features, prompts)
        mask = (self.foundation.postprocess(decoded.mask_logits, geometry)[0, 0] > 0).cpu().numpy()
        return self.foundation.remember_frame(features, decoded.mask_logits, decoded), mask
