"""What the shipped weights do with drawn studies that nobody gets wrong: a bright blob and a dark hole in a body.

Whatever is changed about files, gray values, sizes or supports, these must stay nearly perfect.
"""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from proxyprompt import ProxyPromptPredictor
from proxyprompt.metrics.segmentation import overlap

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NAMES = ["blob", "hole"]
LEAST = {"blob": 0.96, "hole": 0.945}  # .973 to .984, and .957 to .963, when this was written
DRAWN = ((800.0, (0.0, -0.25, -0.42), (0.6, 0.19, 0.26)), (150.0, (0.1, 0.3, 0.35), (0.55, 0.24, 0.2)))
"""Gray value, centre and half axes (z, y, x) of each, in halves of the volume."""


def draw(seed, slices):
    """(slices, 80, 96) int16, and its label map."""
    rng, shape = np.random.default_rng(seed), (slices, 80, 96)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape), indexing="ij")
    body = (x / 0.9) ** 2 + (y / 0.85) ** 2 < 1
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), (0 if slices == 1 else 1, 6, 6))
    values, labels = np.where(body, 400.0, 20.0) + 720 * texture, np.zeros(shape, np.uint8)
    for number, (gray, centre, size) in enumerate(DRAWN, 1):
        c, s = np.array(centre) + rng.uniform(-0.08, 0.08, 3), np.array(size) * rng.uniform(0.85, 1.15, 3)
        c[0] = 0.0 if slices == 1 else c[0]
        inside = sum(((axis - c[k]) / s[k]) ** 2 for k, axis in enumerate((z, y, x))) < 1
        values[inside], labels[inside] = gray, number
    values = ndimage.gaussian_filter(values, (0, 0.7, 0.7)) + 18 * rng.standard_normal(shape)
    return np.clip(values, 0, 3000).round().astype(np.int16), labels


def as_file(values, path):
    """A NIfTI file whose axes run the other way round, as most do."""
    nib.save(nib.Nifti1Image(values.transpose(2, 1, 0), np.diag([-1.2, -1.2, 4.0, 1.0])), path)
    return path


def padded(values):
    """A corner of every slice was never scanned."""
    values = values.astype(np.float32)
    values[:, :12, :12] = -9999
    return values


def as_ct(values):
    """In Hounsfield units, air around."""
    return (values * 0.4 - 160).astype(np.int16)


@pytest.fixture(scope="module")
def predictor():
    return ProxyPromptPredictor.from_pretrained("atto")


@pytest.mark.parametrize("change", [None, padded, as_ct], ids=["as drawn", "padded", "ct"])
def test_volumes(predictor, tmp_path, change):
    drawn = [draw(seed, 12) for seed in (1, 2, 3, 50)]
    images = [as_file(change(v) if change else v, tmp_path / f"{n}.nii.gz") for n, (v, _) in enumerate(drawn)]
    masks = [as_file(labels, tmp_path / f"{n}_label.nii.gz") for n, (_, labels) in enumerate(drawn)]
    predictor.set_support(images[:3], masks[:3], names=NAMES)
    found = predictor.predict_volume(images[3]).label_map.transpose(2, 1, 0)
    assert_good(found, drawn[3][1])


def test_images(predictor):
    images, masks = zip(*(draw(seed, 1) for seed in (101, 102, 150)), strict=True)
    images = [(values[0] / 4).clip(0, 255).astype(np.uint8) for values in images]
    predictor.set_support(images[:2], [labels[0] for labels in masks[:2]], names=NAMES)
    assert_good(predictor.predict(images[2]).label_map, masks[2][0])


def assert_good(found, truth):
    dice = {name: round(overlap(found == n, truth == n).dice, 3) for n, name in enumerate(NAMES, 1)}
    assert all(dice[name] >= least for name, least in LEAST.items()), dice
    print(dice)
