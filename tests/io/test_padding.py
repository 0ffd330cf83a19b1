"""What was not measured is found by its distance, left out of the gray scale, and said."""

import nibabel as nib
import numpy as np
import pytest

from proxyprompt.io.padding import usual_limits
from proxyprompt.io.study import read_study

RNG = np.random.default_rng(11)
MR = RNG.gamma(2, 200, (6, 40, 40)).round()
CT = np.where(RNG.random((6, 40, 40)) < 0.4, -1000, RNG.normal(40, 60, (6, 40, 40))).round()
OUTSIDE = np.add.outer(np.linspace(-1, 1, 40) ** 2, np.linspace(-1, 1, 40) ** 2) > 1.2


def study_of(path, voxels, modality=None):
    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), np.diag([-1.0, -1, 4, 1])), path)
    return read_study(path, modality=modality)


def padded(voxels, value, where=OUTSIDE, dtype=np.float32):
    values = voxels.astype(dtype)
    values[:, where] = value
    return values


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (-9999, np.float32),
        (-9999, np.int16),
        (-32768, np.int16),
        (-1e30, np.float32),
        (np.finfo(np.float32).min, np.float32),
        (65535, np.uint16),
        (1e20, np.float32),
        (2147483647, np.int32),
    ],
)
def test_padding_is_left_out_of_the_gray_scale_and_black(tmp_path, value, dtype):
    study = study_of(tmp_path / "a.nii", padded(MR, value, dtype=dtype))
    assert np.allclose(study.bounds, np.percentile(MR[:, ~OUTSIDE], (0.5, 99.5)), rtol=1e-6)
    (said,) = study.warnings
    assert f"{6 * OUTSIDE.sum()} of 9600 voxels" in said and "padding" in said
    assert not study.images(range(6))[:, 0, OUTSIDE].any()
    assert np.allclose(study.images(range(6))[:, 0, ~OUTSIDE].max(), 1)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.3, 0.7])
def test_much_and_little_of_it(tmp_path, share):
    where = RNG.random((40, 40)) < share
    study = study_of(tmp_path / "a.nii", padded(MR, -9999, where))
    assert np.allclose(study.bounds, np.percentile(MR[:, ~where], (0.5, 99.5)), rtol=0.02) and study.warnings


def test_two_padding_values_and_nan_at_once(tmp_path):
    left, right = OUTSIDE & (np.arange(40) < 20), OUTSIDE & (np.arange(40) >= 20)
    study = study_of(tmp_path / "a.nii", padded(padded(MR, -9999, left), -32768, right))
    assert np.allclose(study.bounds, np.percentile(MR[:, ~OUTSIDE], (0.5, 99.5)), rtol=1e-6)
    assert "-32768, -9999" in study.warnings[0]
    study = study_of(tmp_path / "b.nii", padded(padded(MR, np.nan, left), -9999, right))
    assert np.allclose(study.bounds, np.percentile(MR[:, ~OUTSIDE], (0.5, 99.5)), rtol=1e-6)
    assert len(study.warnings) == 2


def test_padding_that_was_interpolated_is_padding_too(tmp_path):
    values = padded(MR, -9999)
    edge = np.zeros((40, 40), bool)
    edge[20, :2] = True
    values[:, edge] = -4000
    study = study_of(tmp_path / "a.nii", values)
    assert np.allclose(study.bounds, np.percentile(MR[:, ~OUTSIDE], (0.5, 99.5)), rtol=0.02)
    assert not study.images(range(6))[:, 0, edge].any()


@pytest.mark.parametrize("value", [-1024, -2000, -3024, -8192, -32768])
@pytest.mark.parametrize("modality", [None, "CT", "OT"])
def test_ct_with_padding_is_still_ct(tmp_path, value, modality):
    study = study_of(tmp_path / "a.nii", padded(CT, value, dtype=np.int16), modality)
    assert study.bounds == (-160, 240) and not study.images(range(6))[:, 0, OUTSIDE].any()
    assert not study.warnings  # a window does not mind what is below it


@pytest.mark.parametrize("value", [-2000, -3024, -8192, -32768])
def test_padding_may_stand_for_the_air_of_a_ct(tmp_path, value):
    body = RNG.choice([-100, 0, 40, 60, 300], (6, 40, 40))
    assert study_of(tmp_path / "ct.nii", padded(body, value, dtype=np.int16)).bounds == (-160, 240)
    assert study_of(tmp_path / "mr.nii", padded(MR, value, dtype=np.int16)).bounds != (-160, 240)


def test_a_single_voxel_below_the_hounsfield_scale_does_not_hide_a_ct(tmp_path):
    values = CT.astype(np.int16)
    values[0, 0, 0] = -32768
    study = study_of(tmp_path / "a.nii", values)
    assert study.bounds == (-160, 240) and not study.warnings


def bright_cells():
    cells = MR.clip(0, 300).astype(np.uint16)
    cells[:, 15:22, 15:22] = 65535
    return cells


@pytest.mark.parametrize(
    "values",
    [
        MR.astype(np.int16),
        padded(MR, 0, dtype=np.int16),
        padded(MR + 5000, 0, dtype=np.int16),  # masked, and nothing near black
        padded(MR / MR.max() * 2 - 1, -1),
        padded((MR - MR.mean()) / MR.std(), -1.4),
        np.where(MR > 400, 1, -1).astype(np.int16),
        padded(CT, -1024, dtype=np.int16),
        padded(CT.clip(0, 80), -1000, dtype=np.int16) * 1.0,
        padded(MR.clip(200, 255), 0, dtype=np.uint8),
        bright_cells(),
    ],
)
def test_what_belongs_to_the_scale_is_no_padding(values):
    assert usual_limits(values) == (-np.inf, np.inf)


def test_air_around_a_brain_is_still_ct(tmp_path):
    assert study_of(tmp_path / "a.nii", padded(np.abs(CT).clip(0, 180), -1000, dtype=np.int16)).bounds == (-160, 240)


def test_colour_has_no_padding(tmp_path):
    from PIL import Image

    colour = RNG.integers(200, 255, (20, 20, 3)).astype(np.uint8)
    colour[:4] = 0
    Image.fromarray(colour).save(tmp_path / "a.png")
    assert not read_study(tmp_path / "a.png").warnings
