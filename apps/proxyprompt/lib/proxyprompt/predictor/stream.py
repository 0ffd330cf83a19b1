"""One frame in, one mask out, while an examination runs: all that supports have to give is made before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxyprompt.foundation.base import Foundation
from proxyprompt.io.study import Study

from .masks import Masks

BEFORE = 1 / 3
"""What the frames before count: of those that :func:`proxyprompt.predictor.propagation.with_neighbours` takes, they are
known already."""


class Stream:
    """The frames of one examination, in their order. Holds nothing of them but one running mean of their logits.

    Args:
        foundation: that segments.
        decode: images (1, 3, h, w) in [0, 1] -> logits (1, N, s, s) and presence (1, N).
        structures: N.
        smooth: whether the frames before count.
    """

    def __init__(
        self,
        foundation: Foundation,
        decode: Callable[[Tensor], tuple[Tensor, Tensor]],
        structures: int,
        *,
        smooth: bool = True,
    ) -> None:
        self._foundation, self._decode, self._structures, self._smooth = foundation, decode, structures, smooth
        self._before: tuple[tuple[int, int], Tensor, Tensor] | None = None

    @torch.inference_mode()
    def segment(self, frame: Study) -> Masks:
        """The next frame.

        Args:
            frame: of one slice; a frame of another size than the one before begins anew.

        Returns:
            What the model says of it, Z = 1.
        """
        logits, presence = self._decode(torch.from_numpy(frame.images([0])))
        if self._smooth and self._before is not None and self._before[0] == frame.slice_shape:
            logits, presence = logits.lerp(self._before[1], BEFORE), presence.lerp(self._before[2], BEFORE)
        self._before = frame.slice_shape, logits, presence
        large = self._foundation.postprocess(logits, self._foundation.geometry(frame.slice_shape))
        there: NDArray[np.float32] = presence.float().cpu().numpy()
        nothing = (None,) * self._structures
        return Masks(large.half().cpu().numpy(), there, np.ones(there.shape, np.float64), nothing)
