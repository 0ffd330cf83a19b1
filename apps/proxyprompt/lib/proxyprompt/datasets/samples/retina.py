"""Photographs that look like the back of an eye: a bright ``disc`` where the vessels meet, a brown ``lesion``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .drawing import blend, smooth_noise, soft, wobbling_ellipse

SIDE = 384
STRUCTURES = {"lesion": 1, "disc": 2}


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One photograph: image (384, 384, 3) uint8 and label (384, 384) uint8 with the values of ``STRUCTURES``."""
    shape = (SIDE, SIDE)
    middle = (SIDE - 1) / 2
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
    field_radius = rng.uniform(0.46, 0.54) * SIDE
    from_middle = np.hypot(rows - middle, columns - middle) / field_radius

    ground = np.array([0.74, 0.34, 0.15]) * rng.uniform(0.75, 1.15) * rng.uniform(0.88, 1.12, 3)
    image = np.ones((*shape, 3)) * ground
    image *= 1 + 0.07 * smooth_noise(rng, shape, 40)[..., None] + 0.03 * smooth_noise(rng, shape, 4)[..., None]
    image *= (1.08 - 0.4 * from_middle**2)[..., None]

    side = rng.choice([-1, 1])
    disc_centre = (middle + rng.uniform(-85, 85), middle + side * rng.uniform(25, 115))
    disc_axes = np.array([1.0, rng.uniform(0.8, 1.0)]) * rng.uniform(27, 45)
    disc = wobbling_ellipse(
        rng, shape, centre=disc_centre, axes=tuple(disc_axes), angle=rng.uniform(0, np.pi), wobble=0.03
    )
    lesion_centre, lesion_size = _place_lesion(rng, disc_centre, disc_axes.max(), field_radius)
    lesion = wobbling_ellipse(
        rng,
        shape,
        centre=lesion_centre,
        axes=(lesion_size, lesion_size * rng.uniform(0.6, 0.95)),
        angle=rng.uniform(0, np.pi),
        wobble=rng.uniform(0.08, 0.16),
        waves=7,
    )

    image = _fovea(rng, image, disc_centre, side)
    image = _exudates(rng, image, np.minimum(lesion, disc / 1.3))
    brown = np.array([0.30, 0.17, 0.11]) * rng.uniform(0.75, 1.25) + rng.uniform(-0.03, 0.05, 3)
    mottled = brown * (
        1 + 0.22 * smooth_noise(rng, shape, 3)[..., None] + 0.15 * smooth_noise(rng, shape, 9)[..., None]
    )
    image = blend(image, np.clip(mottled, 0, 1), rng.uniform(0.78, 0.95) * soft(lesion, rng.uniform(0.02, 0.05)))

    image = blend(image, ground * 1.25, 0.35 * soft(disc / 1.25, 0.08))
    pale = np.array([0.97, 0.83, 0.52]) * rng.uniform(0.85, 1.05)
    image = blend(image, pale * (1 + 0.03 * smooth_noise(rng, shape, 3)[..., None]), 0.92 * soft(disc, 0.035))
    image = blend(image, [1.0, 0.95, 0.78], 0.8 * soft(disc / rng.uniform(0.4, 0.6), 0.12))

    vessels = _vessels(rng, shape, disc_centre, side)
    image = blend(image, np.array([0.42, 0.08, 0.06]) * rng.uniform(0.85, 1.25), 0.75 * vessels)
    image += 0.018 * rng.standard_normal((*shape, 3))
    image = np.clip(image, 0, 1) * soft(from_middle, 0.006)[..., None] + 0.012
    label = np.zeros(shape, np.uint8)
    label[lesion < 1] = STRUCTURES["lesion"]
    label[disc < 1] = STRUCTURES["disc"]
    label[from_middle > 1] = 0
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8), label


def _place_lesion(
    rng: np.random.Generator, disc_centre: Sequence[float], disc_radius: float, field_radius: float
) -> tuple[tuple[float, float], float]:
    """Centre (row, column) and size in pixels, inside the field and clear of the disc."""
    size = rng.uniform(28, 58)
    while True:
        distance, direction = field_radius * 0.75 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        centre = ((SIDE - 1) / 2 + distance * np.sin(direction), (SIDE - 1) / 2 + distance * np.cos(direction))
        inside = distance + size < 0.97 * field_radius
        if inside and np.hypot(centre[0] - disc_centre[0], centre[1] - disc_centre[1]) > 1.4 * size + disc_radius + 8:
            return centre, size
        size = max(20.0, size * 0.99)


def _fovea(rng: np.random.Generator, image: np.ndarray, disc_centre: Sequence[float], side: float) -> np.ndarray:
    """A faint dark spot on the other side of the field: not a structure, looks a little like one."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
    row, column = disc_centre[0] + rng.uniform(-10, 25), disc_centre[1] - side * rng.uniform(125, 150)
    spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * rng.uniform(18, 26) ** 2))
    return image * (1 - 0.28 * spot[..., None])


def _exudates(rng: np.random.Generator, image: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Pale dots and clusters of pale spots, in colour much like the disc; none where the outline ``clear`` is near."""
    dots = np.zeros(clear.shape)
    for _ in range(rng.integers(0, 30)):
        dots[tuple(rng.integers(0, SIDE, 2))] = rng.uniform(0.4, 1.0)
    image = blend(image, [0.9, 0.75, 0.35], np.clip(ndimage.gaussian_filter(dots, 2.0) * 25, 0, 0.7))
    pale = np.array([0.96, 0.84, 0.5]) * rng.uniform(0.85, 1.0)
    for _ in range(rng.integers(1, 4)):
        middle = rng.uniform(0.2, 0.8, 2) * SIDE
        for _ in range(rng.integers(2, 6)):
            centre, size = tuple(middle + rng.normal(0, 20, 2)), rng.uniform(3.5, 9)
            axes = (size, size * rng.uniform(0.6, 1.0))
            spot = wobbling_ellipse(
                rng, clear.shape, centre=centre, axes=axes, angle=rng.uniform(0, np.pi), wobble=0.15
            )
            if not np.any((spot < 1.3) & (clear < 1.15)):
                image = blend(image, pale, rng.uniform(0.6, 0.9) * soft(spot, 0.12))
    return image


def _vessels(rng: np.random.Generator, shape: tuple[int, int], disc_centre: Sequence[float], side: float) -> np.ndarray:
    """(h, w) in [0, 1]: arcades that leave the disc above and below, bend to the other side and branch."""
    widths = (3.2, 2.2, 1.3)
    points: list[list[tuple[float, float]]] = [[] for _ in widths]

    def grow(row: float, column: float, heading: float, bend: float, order: int, length: float) -> None:
        for _ in range(int(length)):
            row, column = row + np.sin(heading), column + np.cos(heading)
            if not (0 <= row < shape[0] and 0 <= column < shape[1]):
                return
            points[order].append((row, column))
            heading += bend + rng.normal(0, 0.035)
            if order + 1 < len(widths) and rng.uniform() < 0.013:
                turn = rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
                grow(row, column, heading + turn, -bend * 0.5, order + 1, length * rng.uniform(0.3, 0.6))

    towards = 0.0 if side < 0 else np.pi
    for up in (-1, 1):
        turn = -1 if (np.cos(towards) > 0) == (up > 0) else 1
        for lean, bend, length in ((0.75, 0.0065, 260), (-0.55, 0.0015, 170)):
            heading = np.pi / 2 * up
            heading += lean * turn * rng.uniform(0.5, 1.0)
            grow(*disc_centre, heading, turn * bend * rng.uniform(0.6, 1.3), 0, length)
        grow(*disc_centre, towards + up * rng.uniform(0.2, 0.6), turn * 0.003, 1, 130)
    coverage = np.zeros(shape)
    for width, path in zip(widths, points, strict=True):
        if not path:
            continue
        far = np.ones(shape, bool)
        indices = np.asarray(path).astype(int)
        far[indices[:, 0], indices[:, 1]] = False
        coverage = np.maximum(coverage, np.clip(width - ndimage.distance_transform_edt(far) + 0.5, 0, 1))
    return ndimage.gaussian_filter(coverage, 0.6)
