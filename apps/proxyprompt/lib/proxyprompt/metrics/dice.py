"""Dice of masks, for the parts that are below training and its metrics."""

from __future__ import annotations

from torch import Tensor


def hard_dice(drawn: Tensor, truth: Tensor) -> Tensor:
    """Dice of pairs of masks.

    Args:
        drawn: (..., h, w) bool.
        truth: as drawn.

    Returns:
        (...) float in [0, 1]; 0 where both are empty.
    """
    both = (drawn & truth).sum((-2, -1))
    return 2 * both / (drawn.sum((-2, -1)) + truth.sum((-2, -1))).clamp_min(1)
