"""What the sample families share: smooth noise, closed outlines, soft edges. Images are (row, column)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> np.ndarray:
    """Gaussian noise blurred with ``sigma`` voxels, rescaled to mean 0 and deviation 1; float64 of ``shape``."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")
    return (noise - noise.mean()) / noise.std()


def wobbling_ellipse(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    centre: tuple[float, float],
    axes: tuple[float, float],
    angle: float,
    wobble: float = 0.0,
    waves: int = 5,
) -> np.ndarray:
    """Normalised radius (h, w) around a closed outline: below 1 inside, above 1 outside.

    ``centre`` is (row, column), ``axes`` the semi-axes in pixels, ``angle`` the direction of the first in radians.
    ``wobble`` is the amplitude, relative to the radius, of the outline's harmonics 2 to ``waves``; 0 is an ellipse.
    """
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    y, x = rows - centre[0], columns - centre[1]
    u = (np.cos(angle) * x + np.sin(angle) * y) / axes[0]
    v = (-np.sin(angle) * x + np.cos(angle) * y) / axes[1]
    direction = np.arctan2(v, u)
    outline = np.ones(shape)
    for harmonic in range(2, waves + 1):
        phase = rng.uniform(0, 2 * np.pi)
        outline += wobble / (harmonic - 1) * np.cos(harmonic * direction + phase)
    return np.hypot(u, v) / outline


def soft(radius: np.ndarray, width: float) -> np.ndarray:
    """Occupancy in [0, 1] of the inside of a normalised radius, blurred over ``width`` (in units of the radius)."""
    return 1.0 / (1.0 + np.exp(np.clip((radius - 1.0) / max(width, 1e-6), -30, 30)))


def blend(image: np.ndarray, colour: np.ndarray | Sequence[float], weight: np.ndarray) -> np.ndarray:
    """``image`` (h, w, 3) moved towards ``colour`` (3,) or (h, w, 3) by ``weight`` (h, w) in [0, 1]."""
    weight = weight[..., None]
    return image * (1 - weight) + np.asarray(colour, dtype=float) * weight
