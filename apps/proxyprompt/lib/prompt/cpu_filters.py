"""Machine code of the fine readout's filters on a CPU, float32, by numba: no fresh tensors, nothing read twice."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from lib.prompt.cpu_kernels import compiled

_BLOCK = 2048  # pixels that are worked on at a time: they stay in the fastest cache
# sums may be reordered, so that loops over pixels become vector instructions
_compiled = partial(compiled, fastmath={"contract", "reassoc", "nsz"})


def usable(*tensors: Tensor) -> bool:
    """Whether these are CPU tensors that nobody wants gradients of."""
    return all(t.device.type == "cpu" and not (t.requires_grad and torch.is_grad_enabled()) for t in tensors)


def convolve(x: Tensor, kernel: np.ndarray) -> Tensor:
    """x: (B, c, h, w), convolved along both sides with a symmetric kernel of odd length; the border is repeated."""
    x = x.contiguous()
    made = torch.empty_like(x)
    lines = np.empty(x.shape[-2:], np.float32)
    for source, result in zip(x.flatten(0, 1).numpy(), made.flatten(0, 1).numpy(), strict=True):
        _convolve(source, kernel, lines, result)
    return made


def add_enlarged(found: Tensor, x: Tensor) -> None:
    """Add x, (B, c, h, w), to ``found``, (B, c, H, W), as ``F.interpolate(..., mode="bilinear")`` enlarges it."""
    places = [_between(own, side) for own, side in zip(x.shape[-2:], found.shape[-2:], strict=True)]
    lines = np.empty((x.shape[-2], found.shape[-1]), np.float32)
    for source, result in zip(x.contiguous().flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
        _add_enlarged(source, *places[0], *places[1], lines, result)


@cache
def _between(own: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of ``side`` places on ``own`` positions: the one before each, the one after it, and how far it is on to that."""
    place = np.clip((np.arange(side) + 0.5) * (own / side) - 0.5, 0, own - 1)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, own - 1), (place - before).astype(np.float32)


def structure(mean: Tensor, scale: float) -> Tensor:
    """Gradient magnitude and both eigenvalues of the Hessian, larger one first, normalised for the scale.

    mean: (B, 1, h, w), smoothed by a Gaussian of ``scale``; its border is repeated. Returns (B, 3, h, w).
    """
    mean = mean.contiguous()
    made = torch.empty(len(mean), 3, *mean.shape[-2:])
    slopes = np.empty((2, *mean.shape[-2:]), np.float32)
    for source, result in zip(mean[:, 0].numpy(), made.numpy(), strict=True):
        _structure(source, np.float32(scale), slopes, result)
    return made


def standardise(x: Tensor, least: float, *, in_place: bool = False) -> Tensor:
    """x: (B, c, h, w), each picture of mean 0, and divided by its deviation and ``least``."""
    x = x.contiguous()
    made = x if in_place else torch.empty_like(x)
    rows = (-1, x.shape[-2] * x.shape[-1])
    _standardise(x.view(rows).numpy(), np.float32(least), made.view(rows).numpy())
    return made


def add_pieces(found: Tensor, x: Tensor, weights: Tensor, knots: tuple[float, ...], farthest: float) -> None:
    """Add sums over channels of piecewise linear functions to ``found``, (B, N, h, w).

    x: (B, c, h, w), looked at as far as ``farthest`` to either side. weights: (B, N, 2 len(knots), c), of
    max(x - knot, 0) and max(-knot - x, 0) for each knot.
    """
    at = np.asarray(knots, np.float32)
    sources, results = x.contiguous().flatten(2).numpy(), found.flatten(2).numpy()
    for source, factors, result in zip(sources, weights.contiguous().numpy(), results, strict=True):
        _add_pieces(source, factors, at, np.float32(farthest), result)


@_compiled
def _convolve(x, taps, lines, made):
    height, width = x.shape
    reach = len(taps) // 2
    for row in range(height):
        line, here, tap = lines[row], x[row], taps[reach]
        for i in range(width):
            line[i] = tap * here[i]
        for away in range(1, reach + 1):
            above, below, tap = x[max(row - away, 0)], x[min(row + away, height - 1)], taps[reach + away]
            for i in range(width):
                line[i] += tap * (above[i] + below[i])
    longer = np.empty(width + 2 * reach, np.float32)
    for row in range(height):
        longer[:reach] = lines[row, 0]
        longer[reach : reach + width] = lines[row]
        longer[reach + width :] = lines[row, width - 1]
        result, tap = made[row], taps[reach]
        for i in range(width):
            result[i] = tap * longer[reach + i]
        for away in range(1, reach + 1):
            left, right, tap = longer[reach - away :], longer[reach + away :], taps[reach + away]
            for i in range(width):
                result[i] += tap * (left[i] + right[i])


@_compiled
def _add_enlarged(x, above, below, down, left, right, across, lines, made):
    height, width = made.shape
    for row in range(len(x)):
        here, line = x[row], lines[row]
        for i in range(width):
            line[i] = here[left[i]] + across[i] * (here[right[i]] - here[left[i]])
    for row in range(height):
        first, second, share, result = lines[above[row]], lines[below[row]], down[row], made[row]
        for i in range(width):
            result[i] += first[i] + share * (second[i] - first[i])


@_compiled
def _structure(x, scale, slopes, made):
    height, width = x.shape
    across, down = slopes[0], slopes[1]
    half, squared = np.float32(0.5), scale * scale
    for row in range(height):
        here, above, below = x[row], x[max(row - 1, 0)], x[min(row + 1, height - 1)]
        _differences(here, across[row])
        for i in range(width):
            down[row, i] = half * (below[i] - above[i])
    rows = np.empty((2, width), np.float32)
    xx, xy = rows[0], rows[1]
    for row in range(height):
        _differences(across[row], xx)
        before, after = max(row - 1, 0), min(row + 1, height - 1)
        for i in range(width):
            xy[i] = half * (across[after, i] - across[before, i])
        for i in range(width):
            yy = half * (down[after, i] - down[before, i])
            steep = across[row, i] * across[row, i] + down[row, i] * down[row, i]
            middle, apart = half * (xx[i] + yy), half * (xx[i] - yy)
            root = np.sqrt(apart * apart + xy[i] * xy[i])
            made[0, row, i] = scale * np.sqrt(steep)
            made[1, row, i] = squared * (middle + root)
            made[2, row, i] = squared * (middle - root)


@_compiled
def _differences(x, made):
    last, half = len(x) - 1, np.float32(0.5)
    made[0] = half * (x[min(1, last)] - x[0])
    for i in range(1, last):
        made[i] = half * (x[i + 1] - x[i - 1])
    made[last] = half * (x[last] - x[max(last - 1, 0)])


@_compiled
def _add_pieces(x, weights, knots, farthest, made):
    channels, pixels = x.shape
    for start in range(0, pixels, _BLOCK):
        end = min(start + _BLOCK, pixels)
        for channel in range(channels):
            values = x[channel, start:end]
            for n in range(len(weights)):
                result = made[n, start:end]
                for k in range(len(knots)):
                    knot, above, below = knots[k], weights[n, 2 * k, channel], weights[n, 2 * k + 1, channel]
                    for i in range(end - start):
                        value = min(max(values[i], -farthest), farthest)
                        result[i] += above * max(value - knot, np.float32(0)) + below * max(
                            -knot - value, np.float32(0)
                        )


@_compiled
def _standardise(x, least, made):
    for channel in range(len(x)):
        values, result = x[channel], made[channel]
        count = np.float32(len(values))
        total, squares = np.float32(0), np.float32(0)
        for i in range(len(values)):
            total += values[i]
        mean = total / count
        for i in range(len(values)):
            squares += (values[i] - mean) * (values[i] - mean)
        factor = np.float32(1) / (np.sqrt(squares / count) + least)
        for i in range(len(values)):
            result[i] = (values[i] - mean) * factor
