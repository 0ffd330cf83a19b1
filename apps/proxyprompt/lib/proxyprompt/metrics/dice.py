"""Dice of masks, for the parts that are below training and its metrics."""

from __future__ import annotations

from torch import Tensor


def hard_dice(drawn: Tensor, truth: Tensor) -> Tensor:
    """(..., h, w) bool twice -> (...) float; 0 where both are empty."""
    both = (drawn & truth).sum((-2, -1))
    return 2 * both / (drawn.sum((-2, -1)) + truth.sum((-2, -1))).clamp_min(1)
