"""Gray images that look like a sector scan: a large round ``head`` with a bright rim, a small oval ``symphysis``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .drawing import smooth_noise, soft, wobbling_ellipse

SHAPE = (256, 320)
STRUCTURES = {"head": 1, "symphysis": 2}
_RAYS, _DEPTHS = 300, 400


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One frame: image (256, 320) uint8 and label (256, 320) uint8 with the values of ``STRUCTURES``."""
    depth, ray, sector = _sector(rng)
    side = rng.choice([-1, 1])
    head_centre, head_axes, head_angle = _inside_sector(
        rng, sector, side=side, rows=(100, 195), columns=(20, 90), axes=(42, 68), flat=(0.68, 0.9), keep=0.94
    )
    head = wobbling_ellipse(rng, SHAPE, centre=head_centre, axes=head_axes, angle=head_angle, wobble=0.025, waves=4)
    while True:
        oval_centre, oval_axes, oval_angle = _inside_sector(
            rng, sector, side=-side, rows=(45, 135), columns=(5, 85), axes=(20, 32), flat=(0.42, 0.6), keep=1.0
        )
        oval = wobbling_ellipse(rng, SHAPE, centre=oval_centre, axes=oval_axes, angle=oval_angle, wobble=0.05, waves=3)
        if not np.any((oval < 1.35) & (head < 1.12)):
            break

    tissue = 0.22 * np.exp(0.30 * smooth_noise(rng, SHAPE, (6, 30)) + 0.30 * smooth_noise(rng, SHAPE, (18, 18)))
    echo = _lines_of_tissue(rng, tissue, head)
    inside = soft(head, 0.03)
    echo = echo * (1 - inside) + inside * 0.035 * np.exp(0.5 * smooth_noise(rng, SHAPE, 9)) * rng.uniform(0.7, 1.5)
    facing = _facing(head, depth)
    rim = np.exp(-0.5 * ((head - 0.965) * np.mean(head_axes) / rng.uniform(1.8, 2.8)) ** 2)
    echo = echo + rng.uniform(1.6, 2.6) * rim * (0.12 + 0.88 * facing**2)
    inside = soft(oval, 0.08)
    echo = echo * (1 - inside) + inside * rng.uniform(0.8, 1.2) * np.exp(0.15 * smooth_noise(rng, SHAPE, 4))
    capsule = np.exp(-0.5 * ((oval - 0.98) * np.mean(oval_axes) / 1.5) ** 2)
    echo = echo + rng.uniform(1.4, 2.2) * capsule

    echo = echo * _shadows(rng, depth, ray, head, oval)
    echo = echo * np.exp(-rng.uniform(0.2, 0.8) * depth)
    amplitude = np.sqrt(echo) * _speckle(rng, depth, ray)
    amplitude = ndimage.gaussian_filter(amplitude, 0.6)
    gain = rng.uniform(2.5, 5.5)
    gray = np.log1p(gain * amplitude) / np.log1p(gain * 1.9)
    gray = np.clip(gray * rng.uniform(0.9, 1.15), 0, 1) * sector
    label = np.zeros(SHAPE, np.uint8)
    label[head < 1] = STRUCTURES["head"]
    label[oval < 1] = STRUCTURES["symphysis"]
    label[~sector] = 0
    return (gray * 255).round().astype(np.uint8), label


def _sector(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth (0 at the probe, 1 at the far arc), ray (-1 to 1 across) and the field of view (bool), each (h, w)."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    apex_row, apex_column = -rng.uniform(28, 55), SHAPE[1] / 2 + rng.uniform(-8, 8)
    radius = np.hypot(rows - apex_row, columns - apex_column)
    angle = np.arctan2(columns - apex_column, rows - apex_row)
    near, far = -apex_row + rng.uniform(6, 14), SHAPE[0] - apex_row - rng.uniform(3, 14)
    opening = rng.uniform(0.58, 0.74)
    depth, ray = (radius - near) / (far - near), angle / opening
    return depth, ray, (depth > 0) & (depth < 1) & (np.abs(ray) < 1)


def _inside_sector(
    rng: np.random.Generator,
    sector: np.ndarray,
    *,
    side: float,
    rows: Sequence[float],
    columns: Sequence[float],
    axes: Sequence[float],
    flat: Sequence[float],
    keep: float,
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Centre, semi-axes and angle of an ellipse of which at least the share ``keep`` lies in the field of view."""
    while True:
        centre = (rng.uniform(*rows), SHAPE[1] / 2 + side * rng.uniform(*columns))
        longest = rng.uniform(*axes)
        size = (longest, longest * rng.uniform(*flat))
        angle = side * rng.uniform(0.1, 1.1)
        ellipse = wobbling_ellipse(rng, SHAPE, centre=centre, axes=size, angle=angle) < 1.05
        if sector[ellipse].mean() >= keep and np.pi * size[0] * size[1] * keep < ellipse.sum():
            return centre, size, angle


def _lines_of_tissue(rng: np.random.Generator, tissue: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Bright fascia: curved bands across the near field, outside the head."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    bent = rows + 14 * smooth_noise(rng, SHAPE, 45) + rng.uniform(-0.15, 0.15) * (columns - SHAPE[1] / 2)
    for row in rng.uniform(10, 120, rng.integers(2, 5)):
        band = np.exp(-0.5 * ((bent - row) / rng.uniform(1.5, 3.5)) ** 2)
        tissue = tissue + rng.uniform(0.15, 0.5) * band * (head > 1.05)
    return tissue


def _facing(head: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1]: how squarely the beam hits surfaces of the head's outline; echoes are strong where it does."""
    outward, beam = np.stack(np.gradient(head)), np.stack(np.gradient(depth))
    across = np.abs((outward * beam).sum(0))
    return across / (np.linalg.norm(outward, axis=0) * np.linalg.norm(beam, axis=0) + 1e-9)


def _shadows(
    rng: np.random.Generator, depth: np.ndarray, ray: np.ndarray, head: np.ndarray, oval: np.ndarray
) -> np.ndarray:
    """(h, w) in (0, 1]: dark rays from poor contact, behind the symphysis, and fading behind the skull."""
    light = np.ones(SHAPE)
    for _ in range(rng.integers(1, 4)):
        width, strength = rng.uniform(0.03, 0.09), rng.uniform(0.4, 0.8)
        light *= 1 - strength * np.exp(-0.5 * ((ray - rng.uniform(-1, 1)) / width) ** 2)
    for outline, strength in ((oval, rng.uniform(0.3, 0.6)), (head, rng.uniform(0.2, 0.6))):
        inside = outline < 1
        left, right, start = ray[inside].min(), ray[inside].max(), depth[inside].mean()
        across = soft(np.abs(2 * ray - left - right) / (right - left), 0.08)
        light *= 1 - strength * across * np.clip((depth - start) / 0.25, 0, 1) * (outline > 1)
    return np.maximum(light, 0.06)


def _speckle(rng: np.random.Generator, depth: np.ndarray, ray: np.ndarray) -> np.ndarray:
    """(h, w), mean about 1: Rayleigh speckle drawn along the beams, so that grains widen with depth."""
    grains = [ndimage.gaussian_filter(rng.standard_normal((_DEPTHS, _RAYS)), (1.2, 1.5)) for _ in range(2)]
    envelope = np.hypot(*grains)
    envelope /= envelope.mean()
    where = np.stack([np.clip(depth, 0, 1) * (_DEPTHS - 1), (np.clip(ray, -1, 1) + 1) / 2 * (_RAYS - 1)])
    return ndimage.map_coordinates(envelope, where, order=1)
