"""Single random numbers from torch's global generator, which each worker seeds for itself."""

from __future__ import annotations

import torch


def uniform(low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * torch.rand(()).item()


def chance(share: float) -> bool:
    """True in ``share`` of the calls."""
    return torch.rand(()).item() < share
