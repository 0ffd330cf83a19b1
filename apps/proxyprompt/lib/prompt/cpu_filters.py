"""Machine code of the fine readout's filters on a CPU, float32, by numba.

A few calls for a whole picture, each without Python's lock: what a request does on another thread goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.prompt.cpu_lanes import LANES, compiled, load, spread, store

Between = tuple[np.ndarray, np.ndarray, np.ndarray]

_AT_ONCE = 4 * LANES  # pixels that a convolution makes: enough to hide that its sums wait for each other
_BLOCK = 2048  # pixels that are worked on at a time: they stay in the fastest cache
# sums may be reordered, so that loops over pixels become vector instructions
_compiled = partial(compiled, fastmath={"contract", "reassoc", "nsz"})


class Grid(NamedTuple):
    """``factor`` pixels along each side become one; on that grid, ``scale`` is the standard deviation of ``kernel``,
    and that of ``wide`` is twice as large."""

    scale: float
    factor: int
    kernel: np.ndarray
    wide: np.ndarray


def usable(*tensors: Tensor) -> bool:
    """Whether these are CPU tensors that nobody wants gradients of."""
    return all(t.device.type == "cpu" and not (t.requires_grad and torch.is_grad_enabled()) for t in tensors)


def convolve(x: Tensor, kernel: np.ndarray) -> Tensor:
    """x: (B, c, h, w), convolved along both sides with a symmetric kernel of odd length; the border is repeated."""
    made = x.new_empty(x.shape)
    for source, result in zip(_planes(x), _planes(made), strict=True):
        _convolve(source, kernel, result)
    return made


def responses(x: Tensor, contrast: Grid, scales: Sequence[Grid], noise: float, least: float) -> Tensor:
    """x: (B, 1, h, w). Returns (B, 2 + 5 len(scales), h, w), each standardised.

    x itself; how many deviations (and ``noise``) it lies from its surroundings on the grid ``contrast``. Of each scale:
    mean, the gradient's magnitude and the Hessian's eigenvalues there, normalised for the scale; deviation in a window
    twice as wide.
    """
    made = x.new_empty(len(x), 2 + 5 * len(scales), *x.shape[-2:])
    grids = tuple((np.float32(g.scale), g.factor, g.kernel, g.wide, *_places(x, g.factor)) for g in (contrast, *scales))
    for source, result in zip(_planes(x), made.numpy(), strict=True):
        _responses(source, grids, np.float32(noise), np.float32(least), result)
    return made


def add_enlarged(found: Tensor, x: Tensor) -> None:
    """Add x, (B, c, h, w), to ``found``, (B, c, H, W), as ``F.interpolate(..., mode="bilinear")`` enlarges it."""
    places = [_between(own, side) for own, side in zip(x.shape[-2:], found.shape[-2:], strict=True)]
    for source, result in zip(_planes(x), _planes(found), strict=True):
        _add_enlarged(source, *places, result)


def farthest_apart(x: Tensor) -> float:
    """x: (B, c, h, w). The largest difference of any channel from the first."""
    return max(_farthest_apart(image) for image in x.contiguous().numpy())


def standardise(x: Tensor, least: float) -> Tensor:
    """x: (B, c, h, w), each picture of mean 0, and divided by its deviation and ``least``."""
    made = x.clone(memory_format=torch.contiguous_format)
    for plane in _planes(made):
        _standardise(plane, np.float32(least))
    return made


def add_pieces(found: Tensor, x: Tensor, weights: Tensor, knots: tuple[float, ...], farthest: float) -> None:
    """Add sums over channels of piecewise linear functions to ``found``, (B, N, h, w).

    x: (B, c, h, w), looked at as far as ``farthest`` to either side. weights: (B, N, 2 len(knots), c), of
    max(x - knot, 0) and max(-knot - x, 0) for each knot.
    """
    at = np.asarray(knots, np.float32)
    sources, results = x.contiguous().flatten(2).numpy(), found.view(*found.shape[:2], -1).numpy()
    for source, factors, result in zip(sources, weights.contiguous().numpy(), results, strict=True):
        _add_pieces(source, factors, at, np.float32(farthest), result)


def read_level(x: Tensor, weights: Tensor, faint: float) -> Tensor:
    """x: (B, c, h, w), divided by its root mean square over channels. The sum of it and of its positive part, weighted.

    weights: (B, N, 2 c). faint: added to the mean square. Returns (B, N, h, w).
    """
    rows = x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)  # as convolutions leave it: nothing is copied
    made = x.new_empty(len(x), weights.shape[1], *x.shape[-2:])
    for source, factors, result in zip(
        rows.numpy(), weights.contiguous().numpy(), made.flatten(2).numpy(), strict=True
    ):
        _read_level(source, factors, np.float32(faint), result)
    return made


def _planes(x: Tensor) -> np.ndarray:
    """(B, c, h, w) as (B * c, h, w)."""
    return x.contiguous().flatten(0, 1).numpy()


def _places(x: Tensor, factor: int) -> tuple[Between, Between]:
    """Of the pixels of x on a grid of ``factor`` of them, down and across."""
    return tuple(_between(side // factor, side) for side in x.shape[-2:])


@cache
def _between(own: int, side: int) -> Between:
    """Of ``side`` places on ``own`` positions: the one before each, the one after it, and how far it is on to that."""
    place = np.clip((np.arange(side) + 0.5) * (own / side) - 0.5, 0, own - 1)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, own - 1), (place - before).astype(np.float32)


@_compiled
def _convolve(x, taps, made):
    """Row by row: first down, into a line with its border, then across; four vectors of pixels at a time."""
    height, width = x.shape
    reach = len(taps) // 2
    stride = -(-width // _AT_ONCE) * _AT_ONCE
    line = np.zeros(stride + 2 * reach, np.float32)
    padded, result = x, made
    if stride > width:
        padded, result = np.zeros((height, stride), np.float32), np.empty((height, stride), np.float32)
        _copy(x, padded)
    for row in range(height):
        here = row * stride
        for i in range(0, stride, _AT_ONCE):
            _around(padded, here + i, taps, reach, here, (height - 1 - row) * stride, stride, line, reach + i)
        first, last = line[reach], line[reach + width - 1]
        for i in range(reach):
            line[i], line[reach + width + i] = first, last
        for i in range(0, stride, _AT_ONCE):
            _around(line, reach + i, taps, reach, reach, reach, 1, result, here + i)
    if stride > width:
        _copy(result, made)


@partial(_compiled, inline="always")
def _around(x, at, taps, reach, before, after, step, made, to):
    """Sums over neighbours ``step`` apart; the first lies ``before`` numbers in front of ``at``, the last ``after``
    behind it."""
    tap = spread(taps, reach)
    a, b = tap * load(x, at), tap * load(x, at + LANES)
    c, d = tap * load(x, at + 2 * LANES), tap * load(x, at + 3 * LANES)
    for away in range(1, reach + 1):
        tap, first, last = spread(taps, reach + away), at - min(away * step, before), at + min(away * step, after)
        a += tap * (load(x, first) + load(x, last))
        b += tap * (load(x, first + LANES) + load(x, last + LANES))
        c += tap * (load(x, first + 2 * LANES) + load(x, last + 2 * LANES))
        d += tap * (load(x, first + 3 * LANES) + load(x, last + 3 * LANES))
    store(made, to, a)
    store(made, to + LANES, b)
    store(made, to + 2 * LANES, c)
    store(made, to + 3 * LANES, d)


# as loops, since numba takes seconds to compile what assigns or multiplies whole arrays
@_compiled
def _copy(x, made):
    """As much of x as ``made`` has place for, or the other way round."""
    for row in range(len(made)):
        source, result = x[row], made[row]
        for i in range(min(len(source), len(result))):
            result[i] = source[i]


@_compiled
def _squared(x):
    made = np.empty_like(x)
    for row in range(len(x)):
        source, result = x[row], made[row]
        for i in range(len(source)):
            result[i] = source[i] * source[i]
    return made


@_compiled
def _shrink(x, factor):
    """Means of ``factor`` x ``factor`` pixels; what is left over at the end counts for nothing."""
    height, width = x.shape[0] // factor, x.shape[1] // factor
    made, line = np.empty((height, width), np.float32), np.empty(x.shape[1], np.float32)
    share = np.float32(1 / factor**2)
    for row in range(height):
        line.fill(0)
        for away in range(factor):
            below = x[row * factor + away]
            for i in range(len(line)):
                line[i] += below[i]
        for i in range(width):
            total = np.float32(0)
            for j in range(i * factor, (i + 1) * factor):
                total += line[j]
            made[row, i] = share * total
    return made


@_compiled
def _add_enlarged(x, down, across, made):
    above, below, lower = down
    left, right, farther = across
    height, width = made.shape
    lines = np.empty((len(x), width), np.float32)
    for row in range(len(x)):
        here, line = x[row], lines[row]
        for i in range(width):
            line[i] = here[left[i]] + farther[i] * (here[right[i]] - here[left[i]])
    for row in range(height):
        first, second, share, result = lines[above[row]], lines[below[row]], lower[row], made[row]
        for i in range(width):
            result[i] += first[i] + share * (second[i] - first[i])


@_compiled
def _responses(x, grids, noise, least, made):
    _compared(x, grids[0], noise, made[:2])
    for k in range(1, len(grids)):
        _at_scale(x, grids[k], made[5 * k - 3 : 5 * k + 2])
    for k in range(len(made)):
        _standardise(made[k], least)


@_compiled
def _compared(x, grid, noise, made):
    _, factor, taps, _, down, across = grid
    small, squares = x, _squared(x)
    if factor > 1:
        small, squares = _shrink(x, factor), _shrink(squares, factor)
    mean, square = np.empty_like(small), np.empty_like(small)
    _convolve(small, taps, mean)
    _convolve(squares, taps, square)
    made.fill(0)
    _add_enlarged(mean, down, across, made[0])
    _add_enlarged(square, down, across, made[1])
    for row in range(len(x)):
        here, near, found = x[row], made[0, row], made[1, row]
        for i in range(len(here)):
            deviation = np.sqrt(max(found[i] - near[i] * near[i], np.float32(0)))
            found[i] = (here[i] - near[i]) / (deviation + noise)
    _copy(x, made[0])


@_compiled
def _at_scale(x, grid, made):
    scale, factor, taps, wide, down, across = grid
    small = x if factor == 1 else _shrink(x, factor)
    planes = made if factor == 1 else np.empty((5, small.shape[0], small.shape[1]), np.float32)
    mean, deviation, squares = planes[0], planes[4], np.empty_like(small)
    _convolve(small, taps, mean)
    _structure(mean, scale, planes[1:4])
    _convolve(_squared(small), wide, squares)
    _convolve(small, wide, deviation)
    for row in range(len(squares)):
        square, found = squares[row], deviation[row]
        for i in range(len(square)):
            found[i] = np.sqrt(max(square[i] - found[i] * found[i], np.float32(0)))
    if factor > 1:
        made.fill(0)
        for k in range(5):
            _add_enlarged(planes[k], down, across, made[k])


@_compiled
def _structure(x, scale, made):
    """Gradient magnitude and both eigenvalues of the Hessian, larger one first; the border is repeated."""
    height, width = x.shape
    slopes = np.empty((2, height, width), np.float32)
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
def _farthest_apart(x):
    farthest = np.float32(0)
    for channel in range(1, len(x)):
        for row in range(x.shape[1]):
            first, other = x[0, row], x[channel, row]
            for i in range(len(first)):
                farthest = max(farthest, abs(other[i] - first[i]))
    return farthest


@_compiled
def _standardise(x, least):
    values = x.reshape(-1)
    count = np.float32(len(values))
    total, squares = np.float32(0), np.float32(0)
    for i in range(len(values)):
        total += values[i]
    mean = total / count
    for i in range(len(values)):
        squares += (values[i] - mean) * (values[i] - mean)
    factor = np.float32(1) / (np.sqrt(squares / count) + least)
    for i in range(len(values)):
        values[i] = (values[i] - mean) * factor


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
def _read_level(x, weights, faint, made):
    channels = x.shape[1]
    for position in range(len(x)):
        values, squares = x[position], np.float32(0)
        for c in range(channels):
            squares += values[c] * values[c]
        unit = np.float32(1) / np.sqrt(squares / np.float32(channels) + faint)
        for n in range(len(weights)):
            of_all, of_positive, found = weights[n, :channels], weights[n, channels:], np.float32(0)
            for c in range(channels):
                found += values[c] * of_all[c] + max(values[c], np.float32(0)) * of_positive[c]
            made[n, position] = found * unit
