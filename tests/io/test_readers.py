"""Every kind of file becomes the voxels that it holds, and a damaged one a single StudyError."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from proxyprompt.io.errors import StudyError
from proxyprompt.io.study import read_study

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (10, 12, 3)).astype(np.uint8)
GRAY = RNG.integers(0, 256, (10, 12)).astype(np.uint8)
GRAY[0, :2] = 0, 255


def shown(study, index=0):
    """(h, w, 3) in [0, 255] of one slice."""
    return study.image(index).transpose(1, 2, 0) * 255


def stretched(values):
    """(..., 3): what percentiles make of gray values."""
    low, high = np.percentile(values, (0.5, 99.5))
    return np.clip((values[..., None].astype(float) - low) / (high - low), 0, 1).repeat(3, -1) * 255


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".ppm"])
def test_colour_images_stay_as_they_are(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}")
    study = read_study(tmp_path / f"a{suffix}")
    assert (study.kind, study.modality, study.plane, len(study), study.slice_shape) == (
        "image",
        "RGB",
        "image",
        1,
        (10, 12),
    )
    assert np.allclose(shown(study), RGB, atol=1e-3)
    assert study.to_grid(np.zeros((1, 10, 12), np.uint8)).shape == (10, 12)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm"])
def test_gray_images_are_stretched_between_percentiles(tmp_path, suffix):
    Image.fromarray(GRAY).save(tmp_path / f"a{suffix}")
    study = read_study(tmp_path / f"a{suffix}")
    assert study.modality == "OT"
    assert np.allclose(shown(study), stretched(GRAY), atol=1e-2)


def test_jpeg(tmp_path):
    smooth = np.add.outer(np.arange(40) * 3, np.arange(48) * 2).astype(np.uint8)[..., None] + np.array(
        [0, 20, 40], np.uint8
    )
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(shown(read_study(tmp_path / "a.jpg")) - smooth).mean() < 3


def test_gzipped_ppm(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.ppm")
    (tmp_path / "a.ppm.gz").write_bytes(gzip.compress((tmp_path / "a.ppm").read_bytes()))
    assert np.allclose(shown(read_study(tmp_path / "a.ppm.gz")), RGB, atol=1e-3)


def test_gray_saved_as_colour_and_with_alpha_is_gray(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "gray.png")
    Image.fromarray(np.stack([GRAY] * 3, -1)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([GRAY] * 3 + [GRAY.T.reshape(10, 12)], -1)).save(tmp_path / "rgba.png")
    Image.fromarray(GRAY.astype(np.uint16)).save(tmp_path / "gray16.png")
    hashes = {read_study(tmp_path / f"{n}.png").content_hash for n in ("gray", "rgb", "rgba", "gray16")}
    assert len(hashes) == 1


def test_palette_images_show_their_colours(tmp_path):
    plain_image = Image.fromarray((GRAY > 100).astype(np.uint8))
    plain_image.putpalette([10, 20, 30, 200, 100, 50])
    plain_image.save(tmp_path / "p.png")
    wanted = np.where((GRAY > 100)[..., None], (200, 100, 50), (10, 20, 30))
    assert np.allclose(shown(read_study(tmp_path / "p.png")), wanted, atol=1e-3)


def test_tiff_pages_are_frames(tmp_path):
    pages = [Image.fromarray(np.roll(GRAY, n, 0)) for n in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    study = read_study(tmp_path / "a.tif")
    assert (study.kind, study.plane, len(study)) == ("cine", "image", 4)
    assert np.allclose(np.roll(shown(study, 0), 3, 0), shown(study, 3))
    assert study.to_grid(np.zeros((4, 10, 12), np.uint8)).shape == (4, 10, 12)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".nii.gz", ".nii"])
def test_itk_volumes(tmp_path, suffix):
    voxels = RNG.integers(-50, 2000, (5, 10, 12)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.8, 4))
    image.SetOrigin((3, -4, 5))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    study = read_study(tmp_path / f"a{suffix}", modality="MR")
    assert (study.kind, study.modality, study.plane, len(study)) == ("volume", "MR", "axial", 5)
    assert np.allclose(study.pixel_spacing, (0.8, 0.7)) and np.isclose(study.slice_spacing, 4)
    low, high = np.percentile(voxels, (0.5, 99.5))
    assert np.allclose(study.images(range(5))[:, 1], np.clip((voxels - low) / (high - low), 0, 1), atol=1e-5)
    order = (12, 10, 5) if ".nii" in suffix else (5, 10, 12)
    assert study.to_grid(np.zeros((5, 10, 12), bool)).shape == order


# what MONAI Label's DICOMweb cache makes of 2-D, colour and moving DICOM: SimpleITK writes it as NIfTI
@pytest.mark.parametrize(
    ("array", "vector", "nifti_shape", "kind", "label_shape"),
    [
        (RGB, True, (12, 10, 1, 1, 3), "image", (12, 10)),
        (RGB[None], True, (12, 10, 1, 1, 3), "image", (12, 10)),
        (np.stack([RGB, RGB[::-1], RGB[:, ::-1]]), True, (12, 10, 3, 1, 3), "cine", (12, 10, 3)),
        (GRAY, False, (12, 10), "image", (12, 10)),
        (GRAY[None], False, (12, 10, 1), "image", (12, 10, 1)),
        (np.stack([GRAY, GRAY[::-1]]), False, (12, 10, 2), "cine", (12, 10, 2)),
    ],
)
def test_images_converted_to_nifti(tmp_path, array, vector, nifti_shape, kind, label_shape):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(tmp_path / "a.nii.gz"))
    assert nib.load(tmp_path / "a.nii.gz").shape == nifti_shape
    study = read_study(tmp_path / "a.nii.gz", modality="US")
    assert (study.kind, study.plane, study.modality, study.slice_shape) == (kind, "image", "US", (10, 12))
    wanted = array if vector else stretched(array)
    wanted = wanted.reshape(-1, 10, 12, 3)
    for i, plain_image in enumerate(wanted):
        assert np.allclose(shown(study, i), plain_image, atol=1e-2)
    labels = RNG.integers(0, 9, (len(study), 10, 12)).astype(np.uint8)
    assert study.to_grid(labels).shape == label_shape
    study.write_label(labels, tmp_path / "l.nii.gz")
    assert sitk.ReadImage(str(tmp_path / "l.nii.gz")).GetSize() == sitk.ReadImage(str(tmp_path / "a.nii.gz")).GetSize()
    assert np.array_equal(study.read_label(tmp_path / "l.nii.gz"), labels)


def test_nifti_rgb24(tmp_path):
    packed = np.zeros((12, 10, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for channel, name in enumerate("RGB"):
        packed[name] = np.stack([RGB[..., channel], RGB[::-1, :, channel]], -1).swapaxes(0, 1)
    nib.save(nib.Nifti1Image(packed, np.diag([-1, -1, 1, 1])), tmp_path / "a.nii")
    study = read_study(tmp_path / "a.nii")
    assert np.allclose(shown(study, 0), RGB, atol=1e-3) and np.allclose(shown(study, 1), RGB[::-1], atol=1e-3)


def test_scaled_and_big_endian_nifti(tmp_path):
    raw = np.arange(6 * 5 * 4).reshape(6, 5, 4).astype(">i2")
    image = nib.Nifti1Image(raw, np.diag([-1, -1, 3, 1]), nib.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(2, -7)
    nib.save(image, tmp_path / "a.nii")
    study = read_study(tmp_path / "a.nii")
    wanted = nib.load(tmp_path / "a.nii").get_fdata().transpose(2, 1, 0)
    low, high = study.bounds
    assert np.allclose(study.images(range(4))[:, 0], np.clip((wanted - low) / (high - low), 0, 1), atol=1e-5)


def test_single_time_axis_is_squeezed_and_kept_in_the_label(tmp_path):
    nib.save(nib.Nifti1Image(RNG.random((6, 5, 4, 1)).astype(np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    study = read_study(tmp_path / "a.nii.gz")
    assert len(study) == 4 and study.to_grid(np.zeros((4, 5, 6), np.uint8)).shape == (6, 5, 4, 1)


@pytest.mark.parametrize("shape", [(6, 5, 4, 7), (6, 5, 4, 2, 3), (6, 5, 4, 1, 2), (6, 5, 4, 1, 1, 2)])
def test_more_dimensions_are_refused(tmp_path, shape):
    nib.save(nib.Nifti1Image(RNG.random(shape).astype(np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(StudyError, match=r"a\.nii\.gz: has .*expected"):
        read_study(tmp_path / "a.nii.gz")


def test_four_dimensional_nrrd_is_refused(tmp_path):
    image = sitk.JoinSeries([sitk.GetImageFromArray(RNG.random((3, 4, 5)))] * 2)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    with pytest.raises(StudyError, match=r"\(5, 4, 3, 2\).*save one time point"):
        read_study(tmp_path / "a.nrrd")


def damaged_files(folder):
    """One file of every kind, then the first half of each."""
    voxels = RNG.integers(0, 3000, (20, 30, 40)).astype(np.int16)
    for suffix in (".nii.gz", ".nii", ".nrrd", ".mha"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / f"a{suffix}"))
    noise = Image.fromarray(RNG.integers(0, 256, (200, 200, 3)).astype(np.uint8))
    for suffix in (".png", ".jpg", ".tif", ".bmp", ".ppm"):
        noise.save(folder / f"a{suffix}")
    (folder / "a.ppm.gz").write_bytes(gzip.compress((folder / "a.ppm").read_bytes()))
    return sorted(folder.iterdir())


def test_truncated_and_foreign_content_is_one_error_with_the_path(tmp_path):
    files = damaged_files(tmp_path)
    assert len(files) == 10
    for file in files:
        read_study(file)
        whole = file.read_bytes()
        for content in (whole[: len(whole) // 2], whole[:40], b"", b"no image at all " * 50):
            file.write_bytes(content)
            with pytest.raises(StudyError) as refused:
                read_study(file)
            assert str(file) in str(refused.value), file
            assert "again" in str(refused.value), file


def test_missing_file_and_unknown_kind(tmp_path):
    with pytest.raises(StudyError, match=r"nothing\.png: no such file"):
        read_study(tmp_path / "nothing.png")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(StudyError, match=r"notes\.txt: unknown kind of file; expected NIfTI"):
        read_study(tmp_path / "notes.txt")


def test_axes_that_span_no_space_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(RNG.random((4, 5, 6)), np.diag([1, 1, 1, 1])), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[280 : 280 + 48] = np.zeros(12, "<f4").tobytes()  # sform
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(StudyError, match="geometry cannot be used"):
        read_study(tmp_path / "a.nii")
