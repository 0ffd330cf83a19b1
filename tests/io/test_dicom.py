"""DICOM series, multi-frame files, images in DICOM."""

import io

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (
    AXIAL,
    CORONAL,
    CR,
    ENHANCED_MR,
    SAGITTAL,
    US,
    US_FRAMES,
    dicom,
    functional_groups,
    place,
    save_series,
)
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixel_data_handlers.util import convert_color_space
from pydicom.uid import JPEGBaseline8Bit

from proxyprompt.io.study import StudyError, read_study

RNG = np.random.default_rng(5)
VOLUME = RNG.integers(0, 3000, (5, 8, 9)).astype(np.uint16)
RGB = RNG.integers(0, 256, (4, 8, 9, 3)).astype(np.uint8)


def shown(study):
    """(Z, h, w, 3) in [0, 255]."""
    return study.images(range(len(study))).transpose(0, 2, 3, 1) * 255


def same_grid(path, reference):
    label = sitk.ReadImage(str(path))
    return (
        label.GetSize() == reference.GetSize()
        and np.allclose(label.GetSpacing(), reference.GetSpacing(), atol=1e-5)
        and np.allclose(label.GetOrigin(), reference.GetOrigin(), atol=1e-4)
        and np.allclose(label.GetDirection(), reference.GetDirection(), atol=1e-6)
    )


@pytest.mark.parametrize(("axes", "plane"), [(AXIAL, "axial"), (SAGITTAL, "sagittal"), (CORONAL, "coronal")])
def test_series(tmp_path, axes, plane):
    folder = save_series(tmp_path / "ct", VOLUME, axes=axes)
    (folder / "README.txt").write_text("not DICOM")
    study = read_study(folder)
    assert (study.kind, study.modality, study.plane, len(study)) == ("volume", "CT", plane, 5)
    assert study.tags["PatientID"] == "P-7" and study.tags["SeriesInstanceUID"] == "1.2.3.4"
    assert np.isclose(study.slice_spacing, 3) and np.allclose(study.pixel_spacing, (0.7, 0.8))
    # rows and columns of these series already stand as viewed; sagittal normals run from left to right here
    order = VOLUME[::-1] if (np.cross(axes[:3], axes[3:]) < 0).any() and plane == "sagittal" else VOLUME
    assert np.allclose(study.images(range(5))[:, 0], np.clip((order - 1024.0 + 160) / 400, 0, 1), atol=1e-5)


def test_series_labels_in_every_format(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME, axes=SAGITTAL)
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    reference = sitk.ReadImage(files)
    study = read_study(folder)
    labels = RNG.integers(0, 256, (5, 8, 9)).astype(np.uint8)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        path = study.write_label(labels, tmp_path / f"label{suffix}")
        assert same_grid(path, reference)
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), study.to_grid(labels))
        assert np.array_equal(study.read_label(path), labels)


def test_converted_series_gives_the_same_slices(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    converted = read_study(tmp_path / "ct.nii.gz", modality="CT")
    assert converted.content_hash == read_study(folder).content_hash
    label = read_study(folder).write_label(np.ones((5, 8, 9), np.uint8), tmp_path / "label.nrrd")
    assert converted.read_label(label).all()


def test_one_file_of_a_series_is_one_slice(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    study = read_study(folder / "0-0.dcm")
    assert (study.kind, study.plane, len(study), study.slice_shape) == ("image", "axial", 1, (8, 9))


@pytest.mark.parametrize("order", [range(5), range(4, -1, -1)])
def test_multi_frame_volume(tmp_path, order):
    ds = functional_groups(dicom(VOLUME, sop=ENHANCED_MR, modality="MR", frames=5), order)
    ds.save_as(tmp_path / "enhanced.dcm")
    study = read_study(tmp_path / "enhanced.dcm")
    assert (study.kind, study.modality, study.plane, len(study)) == ("volume", "MR", "axial", 5)
    low, high = study.bounds
    feet_first = VOLUME[np.argsort(list(order))]
    assert np.allclose(shown(study)[..., 0] / 255, np.clip((feet_first - low) / (high - low), 0, 1), atol=1e-5)
    labels = RNG.integers(0, 256, (5, 8, 9)).astype(np.uint8)
    path = study.write_label(labels, tmp_path / "label.nii.gz")
    assert same_grid(path, sitk.ReadImage(str(tmp_path / "enhanced.dcm")))
    assert np.array_equal(study.read_label(path), labels)


def test_multi_frame_out_of_order_is_refused(tmp_path):
    ds = functional_groups(dicom(VOLUME, sop=ENHANCED_MR, modality="MR", frames=5), [0, 2, 1, 3, 4])
    ds.save_as(tmp_path / "enhanced.dcm")
    with pytest.raises(StudyError, match="not stored in the order of their places"):
        read_study(tmp_path / "enhanced.dcm")


def test_cine_of_ultrasound(tmp_path):
    dicom(RGB, sop=US_FRAMES, modality="US", frames=4).save_as(tmp_path / "cine")  # no suffix
    study = read_study(tmp_path / "cine")
    assert (study.kind, study.modality, study.plane, len(study)) == ("cine", "US", "image", 4)
    assert np.allclose(shown(study), RGB, atol=1e-3)
    path = study.write_label(np.arange(4 * 72).reshape(4, 8, 9) % 256, tmp_path / "label.nrrd")
    assert sitk.ReadImage(str(path)).GetSize() == (9, 8, 4)


def test_moving_slice_keeps_time_order(tmp_path):
    folder = save_series(tmp_path / "cine", VOLUME, places=[2] * 5, modality="MR")
    study = read_study(folder)
    assert (study.kind, len(study)) == ("cine", 5)
    means = shown(study).mean(axis=(1, 2, 3))
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(files))
    assert np.array_equal(by_itk, VOLUME)
    assert np.array_equal(np.argsort(means), np.argsort(VOLUME.clip(*study.bounds).mean(axis=(1, 2))))


def test_volumes_in_time_are_refused(tmp_path):
    folder = save_series(
        tmp_path / "dynamic", np.concatenate([VOLUME, VOLUME[:3] + 1]), places=[0, 0, 1, 1, 2, 2, 3, 3]
    )
    with pytest.raises(StudyError, match=r"8 images at 4 places.*export one time point"):
        read_study(folder)


def test_uneven_slices_are_read_with_a_warning(tmp_path):
    study = read_study(save_series(tmp_path / "ct", VOLUME, places=[0, 1, 2, 4, 5]))
    assert len(study) == 5 and "unevenly spaced (3 to 6 mm)" in study.warnings[0]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_images(tmp_path, photometric):
    dicom(RGB[0], sop=US, modality="US", photometric=photometric).save_as(tmp_path / "us.dcm")
    study = read_study(tmp_path / "us.dcm")
    assert (study.kind, study.plane) == ("image", "image")
    wanted = RGB[0] if photometric == "RGB" else convert_color_space(RGB[0], "YBR_FULL", "RGB")
    assert np.allclose(shown(study)[0], wanted, atol=1.01)


def test_compressed_colour(tmp_path):
    smooth = np.add.outer(np.arange(32) * 4, np.arange(40) * 3).astype(np.uint8)[..., None] + np.array(
        [0, 5, 10], np.uint8
    )
    ds = dicom(smooth, sop=US, modality="US", photometric="YBR_FULL_422")
    packed = io.BytesIO()
    Image.fromarray(smooth).save(packed, "jpeg", quality=95)
    ds.PixelData = encapsulate([packed.getvalue()])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.save_as(tmp_path / "us.dcm")
    assert np.abs(shown(read_study(tmp_path / "us.dcm"))[0] - smooth).mean() < 3


def test_monochrome1_is_shown_bright_side_up(tmp_path):
    film = np.linspace(0, 4000, 72).reshape(8, 9).astype(np.uint16)
    dicom(film, sop=CR, modality="CR", photometric="MONOCHROME1").save_as(tmp_path / "film.dcm")
    plain_image = read_study(tmp_path / "film.dcm").image(0)[0]
    assert plain_image[0, 0] == 1 and plain_image[-1, -1] == 0


def test_modality_from_elsewhere_wins(tmp_path):
    place(dicom(VOLUME[0], sop=CR, modality="OT"), 0).save_as(tmp_path / "a.dcm")
    assert read_study(tmp_path / "a.dcm").modality == "OT"
    assert read_study(tmp_path / "a.dcm", modality="MR").modality == "MR"


def test_folders_that_are_not_one_series(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="empty: no DICOM image in this folder"):
        read_study(tmp_path / "empty")
    save_series(tmp_path / "two", VOLUME)
    dicom(VOLUME[0], sop=CR, modality="CR", series="1.2.9").save_as(tmp_path / "two" / "other.dcm")
    with pytest.raises(StudyError, match=r"two: holds 2 DICOM series .*1\.2\."):
        read_study(tmp_path / "two")


def test_a_series_with_slices_of_two_sizes_is_refused(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    place(dicom(VOLUME[0, :4, :4], sop=CR, modality="CT"), 7).save_as(folder / "small.dcm")
    with pytest.raises(
        StudyError, match=r"small\.dcm differs in size .*other 5 images \(\(4, 4, 1\), the others \(8, 9"
    ):
        read_study(folder)


@pytest.mark.parametrize("keep", [0.3, 0.8, 0.97])
def test_truncated_file(tmp_path, keep):
    path = tmp_path / "a.dcm"
    dicom(RNG.integers(0, 999, (64, 64)).astype(np.uint16), sop=CR, modality="CR").save_as(path)
    read_study(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(StudyError, match=r"a\.dcm: cannot be read"):
        read_study(path)


def test_truncated_slice_of_a_series(tmp_path):
    folder = save_series(tmp_path / "ct", RNG.integers(0, 999, (3, 64, 64)).astype(np.uint16))
    victim = folder / "7-1.dcm"
    victim.write_bytes(victim.read_bytes()[:5000])
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(folder)


def test_not_dicom_at_all(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"hello" * 100)
    with pytest.raises(StudyError, match=r"a\.dcm: cannot be read"):
        read_study(tmp_path / "a.dcm")
