"""Structures as signed functions of the plane: positive inside, about the distance to the border in half image sides.

Every function takes the coordinates of the pixels in the structure's own frame and per-structure numbers, and is
evaluated for P structures x M members at once. ``x, y``: (P, M, h, w), unit-sized structure at the origin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .randomness import spread

HARMONICS = 4  # of a star-convex outline: 2 to 5 bumps
SIDES = 5  # half-planes of a polygon


def star(x: Tensor, y: Tensor, harmonics: Tensor) -> Tensor:
    """Star-convex outline of mean radius 1. harmonics: (P, M, 2, HARMONICS), amplitudes of cosine and sine."""
    radius = (x * x).addcmul_(y, y).sqrt_().add_(1e-6)
    cosine, sine = x / radius, y / radius
    outline = 1 - radius
    c, s = cosine, sine
    for k in range(HARMONICS):
        c, s = c * cosine - s * sine, s * cosine + c * sine  # the next multiple of the angle
        outline.addcmul_(c, spread(harmonics[:, :, 0, k])).addcmul_(s, spread(harmonics[:, :, 1, k]))
    return outline


def polygon(x: Tensor, y: Tensor, angles: Tensor, distances: Tensor) -> Tensor:
    """Convex polygon. angles, distances: (P, M, SIDES) of the outward normals."""
    inside = None
    for k in range(SIDES):
        normal_x, normal_y = spread(angles[..., k].cos()), spread(angles[..., k].sin())
        side = spread(distances[..., k]) - (x * normal_x).addcmul_(y, normal_y)
        inside = side if inside is None else torch.minimum(inside, side)
    return inside


def band(x: Tensor, y: Tensor, bend: Tensor, half_width: Tensor) -> Tensor:
    """A layer along x that bends. bend, half_width: (P, M)."""
    return spread(half_width) - (y - spread(bend) * x * x).abs_()


def arc(x: Tensor, y: Tensor, harmonics: Tensor, half_width: Tensor, cut: Tensor) -> Tensor:
    """A ring of the star-convex outline, cut open by the half-plane y < cut (a cut above 2 leaves it closed)."""
    ring = spread(half_width) - star(x, y, harmonics).abs_()
    return torch.minimum(ring, spread(cut) - y)


def level_set(noise: Tensor, threshold: Tensor) -> Tensor:
    """Where noise exceeds a threshold. noise: (P, M, h, w), threshold: (P, M)."""
    return noise - spread(threshold)


def ridges(noise: Tensor, half_width: Tensor) -> Tensor:
    """Thin curves along the zero level of noise: networks, folds, membranes. half_width: (P, M)."""
    return spread(half_width) - noise.abs()
