"""What a Study promises apart from the kinds of files: values, hashes, refusals, masks on the slices."""

import logging

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from proxyprompt.io.intensity import IntensitySettings
from proxyprompt.io.study import StudyError, read_study

RNG = np.random.default_rng(2)


def save(path, voxels, spacing=(1, 1, 1)):
    nib.save(nib.Nifti1Image(voxels, np.diag([-spacing[0], -spacing[1], spacing[2], 1])), path)
    return path


@pytest.fixture
def volume(tmp_path):
    return save(tmp_path / "v.nii.gz", RNG.integers(0, 900, (6, 5, 4)).astype(np.int16))


def test_images_are_float32_between_0_and_1_with_three_equal_channels(volume):
    study = read_study(volume)
    images = study.images([2, 0])
    assert images.shape == (2, 3, 5, 6) and images.dtype == np.float32
    assert (study.images(range(4)).min(), study.images(range(4)).max()) == (0, 1)
    assert np.array_equal(images[:, 0], images[:, 2])
    assert np.array_equal(images[1], study.image(0))


def test_one_range_for_all_slices(tmp_path):
    voxels = np.stack([np.full((5, 5), 10), np.full((5, 5), 20), np.full((5, 5), 30)], -1).astype(np.int16)
    study = read_study(save(tmp_path / "v.nii", voxels))
    assert np.allclose(study.images(range(3))[:, 0, 0, 0], (0, 0.5, 1))


@pytest.mark.parametrize("index", [-1, 4])
def test_slice_that_does_not_exist(volume, index):
    with pytest.raises(StudyError, match=f"no slice {index}; expected 0 to 3"):
        read_study(volume).image(index)


def test_hashes_follow_pixels_and_intensity_not_names(tmp_path):
    voxels = RNG.integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
    a = read_study(save(tmp_path / "a.nii.gz", voxels))
    b = read_study(save(tmp_path / "b.nii", voxels.astype(np.float32)))
    lung = read_study(tmp_path / "a.nii.gz", intensity=IntensitySettings("lung"))
    voxels[0, 0, 3] = 0
    edited = read_study(save(tmp_path / "c.nii", voxels))
    assert a.content_hash == b.content_hash and a.slice_hash(1) == b.slice_hash(1)
    assert len({a.content_hash, lung.content_hash, edited.content_hash}) == 3
    assert a.slice_hash(0) == edited.slice_hash(0) and a.slice_hash(3) != edited.slice_hash(3)


def test_some_nan_is_replaced_with_a_warning(tmp_path, caplog):
    voxels = RNG.random((6, 5, 4)).astype(np.float32) + 1
    voxels[0, 0, 0], voxels[1, 1, 1] = np.nan, np.inf
    with caplog.at_level(logging.WARNING):
        study = read_study(save(tmp_path / "v.nii", voxels))
    assert "2 of 120 voxels are NaN or infinite" in study.warnings[0]
    assert "v.nii" in caplog.text
    assert study.image(0)[0, 0, 0] == 0 and np.isfinite(study.images(range(4))).all()


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (np.full((6, 5, 4), np.nan, np.float32), "no voxel has a finite value"),
        (np.full((6, 5, 4), 7, np.int16), "constant .every value is 7"),
        (np.ones((1, 1, 1), np.int16), "1 x 1 pixels .*expected at least 2 x 2"),
        (RNG.random((1, 1, 9)).astype(np.float32), "expected at least 2 x 2"),
        (RNG.random((9, 1, 1)).astype(np.float32), "expected at least 2 x 2"),
        (RNG.random((4, 4)).astype(np.complex64), "complex64; expected whole or real numbers"),
    ],
)
def test_images_in_which_nothing_can_be_segmented(tmp_path, voxels, message):
    with pytest.raises(StudyError, match=f"v.nii.*{message}"):
        read_study(save(tmp_path / "v.nii", voxels))


def test_constant_colour_and_one_pixel_images(tmp_path):
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "flat.png")
    Image.new("RGB", (1, 1), (9, 80, 9)).save(tmp_path / "dot.png")
    with pytest.raises(StudyError, match=r"flat\.png: the image is constant"):
        read_study(tmp_path / "flat.png")
    with pytest.raises(StudyError, match=r"dot\.png: its slices have 1 x 1 pixels"):
        read_study(tmp_path / "dot.png")


@pytest.mark.parametrize(
    ("given", "modality"), [(None, "OT"), ("UNK", "OT"), ("", "OT"), ("mr", "MR"), ("US", "US"), ("CT", "CT")]
)
def test_modality_from_elsewhere(volume, given, modality):
    assert read_study(volume, modality=given).modality == modality


def test_named_modality_decides_the_window(volume):
    assert read_study(volume, modality="CT").bounds == (-160, 240)
    assert read_study(volume, modality="MR").bounds != (-160, 240)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 6, 5), np.uint8), r"shape \(4, 6, 5\).*\(4, 5, 6\)"),
        (np.zeros((4, 5, 6), np.float32), "float32 must be whole numbers"),
        (np.full((4, 5, 6), 256), "0 to 255"),
        (np.full((4, 5, 6), -1), "0 to 255"),
    ],
)
def test_labels_that_do_not_fit(volume, labels, message):
    with pytest.raises(StudyError, match=message):
        read_study(volume).to_grid(labels)


@pytest.mark.parametrize(
    ("affine", "known"),
    [(np.diag([0.5, 0.5, 3, 1]), True), (np.eye(4), False), (np.eye(4) + np.eye(4, k=3), True)],
)
def test_spacing_is_believed_only_where_the_file_places_its_voxels(tmp_path, affine, known):
    voxels = np.random.default_rng(0).integers(0, 99, (6, 7, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "v.nii.gz")
    study = read_study(tmp_path / "v.nii.gz")
    assert study.spacing_known is known and study.length == (study.slice_spacing * (len(study) - 1) if known else None)
    Image.fromarray(voxels[..., 0].astype(np.uint8)).save(tmp_path / "p.png")
    assert not read_study(tmp_path / "p.png").spacing_known
