"""Tiny labelled collections: bright discs whose place differs, in images and in volumes."""

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from proxyprompt.datasets.samples import sonogram

SONOGRAM_NAMES = ",".join(f"{name}={value}" for name, value in sonogram.STRUCTURES.items())
"""The structures of :func:`write_sonograms`, as ``read_collection`` takes them."""


def _disc(rng, shape):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    centre = [rng.uniform(0.3, 0.7) * n for n in shape]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    labels = np.zeros(shape, np.uint8)
    labels[distance < 0.25 * min(shape)] = 1
    labels[distance < 0.12 * min(shape)] = 2
    return labels


def _draw(rng, labels):
    return np.clip(60 + 70 * labels + rng.normal(0, 5, labels.shape), 0, 255)


def write_plain_images(folder: Path, *, groups: int = 6, each: int = 1, size=(48, 56), seed: int = 0) -> Path:
    """images/, masks/ and groups.csv: label 1 a ring, 2 its core; cases g0_0, g0_1 ... of groups p0, p1 ..."""
    rng, lines = np.random.default_rng(seed), ["case,group"]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for group in range(groups):
        for n in range(each):
            labels = _disc(rng, size)
            Image.fromarray(_draw(rng, labels).astype(np.uint8)).save(folder / "images" / f"g{group}_{n}.png")
            Image.fromarray(labels).save(folder / "masks" / f"g{group}_{n}.png")
            lines.append(f"g{group}_{n},p{group}")
    (folder / "groups.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_volumes(
    folder: Path, *, count: int = 4, slices: int = 6, size=(40, 44), spacing=(2.0, 1.5, 4.0), seed: int = 0
):
    """imagesTr/, labelsTr/ and dataset.json (ring, core): the structure is absent from the first and last slice."""
    rng = np.random.default_rng(seed)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    affine = np.diag([*spacing, 1.0])
    for n in range(count):
        labels = np.repeat(_disc(rng, size)[:, :, None], slices, axis=2)
        labels[..., [0, -1]] = 0
        nib.save(
            nib.Nifti1Image(_draw(rng, labels).astype(np.int16), affine), folder / "imagesTr" / f"v{n}_0000.nii.gz"
        )
        nib.save(nib.Nifti1Image(labels, affine), folder / "labelsTr" / f"v{n}.nii.gz")
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "ring": [1, 2], "core": 2}}')
    return folder


def write_sonograms(folder: Path, *, count: int) -> Path:
    """images/ and masks/ with drawn sonograms 00, 01 ..."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for n in range(count):
        image, mask = sonogram.draw(np.random.default_rng(n))
        Image.fromarray(image).save(folder / "images" / f"{n:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{n:02d}.png")
    return folder
