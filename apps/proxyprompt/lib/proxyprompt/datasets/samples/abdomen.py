"""Volumes that look like thick-slice MR: a smooth ``organ`` of middle brightness, a small bright ``nodule``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .drawing import smooth_noise

SHAPE = (96, 96, 14)
STRUCTURES = {"organ": 1, "nodule": 2}
_FINE = 3
"""Sub-slices drawn for each slice and averaged: edges blur across slices, as they do in a thick-slice scan."""


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One scan: volume int16 and label uint8, both (96, 96, 14) in the order of the file, and the 4 x 4 affine in mm.

    Before it is turned, the array runs along the patient's left, posterior and superior axes; :func:`_turn` then
    flips and permutes it, and the affine carries the turn and a tilt of a few degrees.
    """
    shape = (*SHAPE[:2], SHAPE[2] * _FINE)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    warp = smooth_noise(rng, shape, (14, 14, 9))
    girth = 1 + 0.05 * rng.uniform(-1, 1) * z
    middle = (rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05))
    wide, deep = rng.uniform(0.80, 0.90), rng.uniform(0.62, 0.76)
    body = np.hypot((x - middle[0]) / wide, (y - middle[1]) / deep) / girth + 0.025 * warp

    organ, nodule = _structures(rng, (x, y, z), body)
    muscle = rng.uniform(0.26, 0.36)
    tissue = np.where(body < 1, muscle, 0.0) * (1 + 0.10 * smooth_noise(rng, shape, (4, 4, 3)))
    fat_from = rng.uniform(0.84, 0.9)
    tissue = np.where((body >= fat_from) & (body < 1), rng.uniform(0.62, 0.78), tissue)
    tissue = _bowel(rng, tissue, (x, y, z), body)
    tissue = _spine(rng, tissue, (x, y, z), middle, deep)
    brightness = muscle + rng.uniform(0.2, 0.32)
    tissue = np.where(organ, brightness * (1 + 0.07 * smooth_noise(rng, shape, (1.2, 1.2, 2))), tissue)
    tissue = np.where(nodule, rng.uniform(0.92, 1.1) * (1 + 0.03 * smooth_noise(rng, shape, 2)), tissue)
    edge = np.abs(ndimage.gaussian_filter(nodule.astype(float), (0.8, 0.8, 1.5)) - 0.5) < 0.2
    tissue = np.where(edge & ~nodule, 0.10, tissue)

    signal = tissue.reshape(*SHAPE, _FINE).mean(-1)
    signal = ndimage.gaussian_filter(signal, (0.55, 0.55, 0))
    signal *= _bias_field(rng)
    noise = rng.uniform(0.012, 0.028)
    signal = np.hypot(signal + noise * rng.standard_normal(SHAPE), noise * rng.standard_normal(SHAPE))
    volume = (signal * rng.uniform(400, 1500)).round().astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[organ.reshape(*SHAPE, _FINE).mean(-1) > 0.5] = STRUCTURES["organ"]
    label[nodule.reshape(*SHAPE, _FINE).mean(-1) > 0.5] = STRUCTURES["nodule"]
    return _turn(rng, volume, label)


def _structures(
    rng: np.random.Generator, grid: tuple[np.ndarray, ...], body: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Organ and nodule as bool arrays that stay inside the body, apart from each other, and end within the volume."""
    shape = body.shape
    side = rng.choice([-1, 1])
    dents = smooth_noise(rng, shape, (11, 11, 8))
    while True:
        centre = (side * rng.uniform(0.2, 0.42), rng.uniform(-0.26, 0.16), rng.uniform(-0.25, 0.25))
        size = (rng.uniform(0.24, 0.36), rng.uniform(0.2, 0.3), rng.uniform(0.45, 0.65))
        organ = _ellipsoid(grid, centre, size, rng.uniform(-0.8, 0.8)) + 0.12 * dents < 1
        if not np.any(organ & (body > 0.8)):
            break
    near_organ = ndimage.binary_dilation(organ, iterations=4)
    while True:
        centre = (-side * rng.uniform(-0.1, 0.5), rng.uniform(-0.35, 0.28), rng.uniform(-0.45, 0.45))
        size = rng.uniform(0.13, 0.19)
        size = (size, size * rng.uniform(0.75, 1.0), rng.uniform(0.25, 0.42))
        nodule = _ellipsoid(grid, centre, size, rng.uniform(0, np.pi)) + 0.05 * dents < 1
        if nodule.any() and not np.any(nodule & (near_organ | (body > 0.78))):
            return organ, nodule


def _ellipsoid(
    grid: tuple[np.ndarray, ...], centre: Sequence[float], size: Sequence[float], angle: float
) -> np.ndarray:
    """Normalised radius of an ellipsoid turned in the plane; below 1 inside. Units: half the field of view."""
    x, y, z = (axis - c for axis, c in zip(grid, centre, strict=True))
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    return np.sqrt((u / size[0]) ** 2 + (v / size[1]) ** 2 + (z / size[2]) ** 2)


def _bowel(rng: np.random.Generator, tissue: np.ndarray, grid: tuple[np.ndarray, ...], body: np.ndarray) -> np.ndarray:
    """Loops with gray walls and dark contents, fat between them: the clutter every abdomen has."""
    for _ in range(rng.integers(5, 10)):
        centre = (rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.4), rng.uniform(-1, 1))
        size = (rng.uniform(0.08, 0.2), rng.uniform(0.06, 0.12), rng.uniform(0.4, 1.2))
        radius = _ellipsoid(grid, centre, size, rng.uniform(0, np.pi))
        inner = body < 0.8
        tissue = np.where((radius < 1) & inner, rng.uniform(0.38, 0.46), tissue)
        tissue = np.where((radius < 0.7) & inner, rng.uniform(0.08, 0.22), tissue)
    return tissue


def _spine(
    rng: np.random.Generator, tissue: np.ndarray, grid: tuple[np.ndarray, ...], middle: Sequence[float], deep: float
) -> np.ndarray:
    """Vertebra, canal and one great vessel in front of it, through all slices."""
    x, y, z = grid
    row = middle[1] + 0.52 * deep
    bone = _ellipsoid((x, y, 0 * z), (middle[0], row, 0), (0.14, 0.11, 1), 0)
    tissue = np.where(bone < 1.15, 0.07, tissue)
    tissue = np.where(bone < 1, rng.uniform(0.40, 0.5) + 0.05 * np.cos(9 * z), tissue)
    canal = _ellipsoid((x, y, 0 * z), (middle[0], row + 0.16, 0), (0.06, 0.045, 1), 0)
    tissue = np.where(canal < 1, rng.uniform(0.6, 0.75), tissue)
    vessel = _ellipsoid((x + 0.03 * z, y, 0 * z), (middle[0] - 0.07, row - 0.18, 0), (0.05, 0.05, 1), 0)
    return np.where(vessel < 1, 0.04, tissue)


def _bias_field(rng: np.random.Generator) -> np.ndarray:
    """(96, 96, 14), about 1: smooth brightness as of a surface coil, of first and second order."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    slope = rng.uniform(-0.25, 0.25, 3)
    curve = rng.uniform(-0.15, 0.15, 3)
    return np.exp(
        slope[0] * x + slope[1] * y + 0.4 * slope[2] * z + curve[0] * x**2 + curve[1] * y**2 + curve[2] * x * y
    )


def _turn(rng: np.random.Generator, volume: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays in one of several storage orders, with the affine that tells where each voxel lies in mm."""
    in_plane, through = rng.uniform(2.6, 3.4), rng.uniform(7.0, 9.0)
    tilt = rng.uniform(-0.12, 0.12, 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt[0]), -np.sin(tilt[0])], [0, np.sin(tilt[0]), np.cos(tilt[0])]])
    about_z = np.array([[np.cos(tilt[1]), -np.sin(tilt[1]), 0], [np.sin(tilt[1]), np.cos(tilt[1]), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-1, -1, 1]) @ np.diag([in_plane, in_plane, through])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + rng.uniform(-40, 40, 3)

    order = [(0, 1, 2), (0, 1, 2), (1, 0, 2), (2, 0, 1)][rng.integers(4)]
    step = np.eye(4)[:, [*order, 3]]
    volume, label = volume.transpose(order), label.transpose(order)
    for axis in range(3):
        if rng.uniform() < 0.4:
            volume, label = np.flip(volume, axis), np.flip(label, axis)
            flip = np.eye(4)
            flip[axis, axis], flip[axis, 3] = -1, volume.shape[axis] - 1
            step = step @ flip
    return np.ascontiguousarray(volume), np.ascontiguousarray(label), affine @ step
