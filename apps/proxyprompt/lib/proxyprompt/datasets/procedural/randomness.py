"""Random numbers and smooth random fields, all from one generator, on any device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


class Random:
    """Draws from one ``torch.Generator`` on ``device``.

    A generator that lives on another device (a CPU generator, tensors on CUDA) is used once, to seed one that lives
    on ``device``: pixels are then drawn where they are needed instead of being copied there.
    """

    def __init__(self, generator: torch.Generator, device: torch.device | str) -> None:
        self.device = torch.device(device)
        if generator.device.type != self.device.type:
            seed = torch.randint(0, 2**62, (1,), generator=generator, device=generator.device).item()
            generator = torch.Generator(self.device).manual_seed(int(seed))
        self.generator = generator

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers from ``low`` to ``high``, of this shape."""
        return torch.rand(shape, generator=self.generator, device=self.device).mul_(high - low).add_(low)

    def between(self, low: Tensor, high: Tensor) -> Tensor:
        """Uniform between two tensors of the same shape."""
        return low + (high - low) * torch.rand(low.shape, generator=self.generator, device=self.device)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Uniform in the logarithm: as many draws from 0.01 to 0.1 as from 0.1 to 1."""
        span = torch.tensor([low, high]).log()
        return self.uniform(*shape, low=float(span[0]), high=float(span[1])).exp_()

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        """Normal numbers around 0, of this shape."""
        return torch.randn(shape, generator=self.generator, device=self.device).mul_(std)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers from 0 to ``high - 1``."""
        return torch.randint(0, high, shape, generator=self.generator, device=self.device)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Float 1 with the given probability, else 0."""
        return (torch.rand(shape, generator=self.generator, device=self.device) < probability).float()

    def noise(self, *lead: int, size: int, cells: int | tuple[int, int], out: Tensor | None = None) -> Tensor:
        """Smooth noise (*lead, size, size), mean 0, standard deviation about 1, ``cells`` bumps (rows, columns)."""
        rows, columns = (cells, cells) if isinstance(cells, int) else cells
        up_rows, up_columns = spline(size, rows, self.device), spline(size, columns, self.device)
        return torch.matmul(up_rows @ self.normal(*lead, rows + 3, columns + 3), up_columns.T, out=out)


@lru_cache(maxsize=128)
def spline(size: int, cells: int, device: torch.device) -> Tensor:
    """(size, cells + 3): cubic B-spline from ``cells`` intervals to ``size`` samples, of unit variance."""
    position = (torch.arange(size, dtype=torch.float64) + 0.5) / size * cells
    index = position.floor().clamp(max=cells - 1)
    t = (position - index)[:, None]
    weights = torch.cat([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    matrix = torch.zeros(size, cells + 3, dtype=torch.float64)
    matrix.scatter_(1, index.long()[:, None] + torch.arange(4), weights)
    return (matrix / weights.square().sum(1, keepdim=True).sqrt()).float().to(device)


@lru_cache(maxsize=32)
def axis(size: int, device: torch.device) -> Tensor:
    """(size,): pixel centres of an image that spans -1 to 1."""
    return ((torch.arange(size, device=device) + 0.5) * (2 / size)) - 1


def spread(value: Tensor, *, dims: int = 2) -> Tensor:
    """Appends ``dims`` axes of length 1, so that per-image numbers broadcast over pixels."""
    return value.reshape(*value.shape, *([1] * dims))
