"""DICOM SEG as we write it, read by us and by others."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import CORONAL, SAGITTAL, US, US_FRAMES, dicom, save_series

from proxyprompt.io.dicom import read_dicom
from proxyprompt.io.dicom_seg import read_seg_on, segment_names
from proxyprompt.io.dicom_seg_writer import property_codes, write_seg
from proxyprompt.io.study import StudyError

RNG = np.random.default_rng(8)
VOLUME = RNG.integers(0, 3000, (5, 8, 9)).astype(np.uint16)


def blobs(size):
    """Two structures that do not touch, asymmetric on every axis, on some slices only."""
    liver, odd = np.zeros(size, bool), np.zeros(size, bool)
    liver[1:4, 2:7, size[2] // 2 :] = True
    odd[5:8, 1:3, : size[2] // 2 + 1] = True
    return {"Liver": liver, "odd thing": odd}


def written(source, masks, tmp_path):
    write_seg(source, masks, tmp_path / "seg.dcm")
    expected = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for number, mask in enumerate(masks.values(), 1):
        expected[mask] = number
    return tmp_path / "seg.dcm", expected


def us(tmp_path, frames=None, colour=True):
    shape = (*((frames,) if frames else ()), 8, 9, *((3,) if colour else ()))
    pixels = RNG.integers(0, 255, shape).astype(np.uint8)
    path = tmp_path / "us.dcm"
    dicom(pixels, sop=US_FRAMES if frames else US, modality="US", frames=frames).save_as(path)
    return path


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), SAGITTAL, CORONAL])
def test_a_series_comes_back(tmp_path, axes):
    source = save_series(tmp_path / "ct", VOLUME, axes=axes)
    path, expected = written(source, blobs((9, 8, 5)), tmp_path)
    assert np.array_equal(read_seg_on(read_dicom(source), path).values, expected)
    assert segment_names(path) == {1: "Liver", 2: "odd thing"}


@pytest.mark.parametrize("frames", [None, 1, 4])
@pytest.mark.parametrize("colour", [True, False])
def test_images_without_a_place_in_the_patient_come_back(tmp_path, frames, colour):
    source = us(tmp_path, frames, colour)
    path, expected = written(source, blobs((9, 8, frames or 1)), tmp_path)
    assert np.array_equal(read_seg_on(read_dicom(source), path).values, expected)


def test_frames_in_time_at_one_place_keep_their_order(tmp_path):
    source = save_series(tmp_path / "cine", VOLUME, places=[0] * 5, modality="MR")
    path, expected = written(source, blobs((9, 8, 5)), tmp_path)
    image = read_dicom(source)
    assert image.frames
    assert np.array_equal(read_seg_on(image, path).values, expected)


def test_what_dcmqi_reads(tmp_path):
    """An independent reader."""
    tool = shutil.which("segimage2itkimage") or str(Path(sys.executable).with_name("segimage2itkimage"))
    if not Path(tool).exists():
        pytest.skip("segimage2itkimage (dcmqi) is not installed")
    source = save_series(tmp_path / "ct", VOLUME)
    path, expected = written(source, blobs((9, 8, 5)), tmp_path)
    command = [tool, "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd", "--prefix", "x"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=120)
    for number in (1, 2):
        label = sitk.ReadImage(str(tmp_path / f"x-{number}.nrrd"))
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(source)))
        onto = sitk.Resample(label, image, sitk.Transform(), sitk.sitkNearestNeighbor)
        assert np.array_equal(sitk.GetArrayFromImage(onto).T > 0, expected == number)


def test_a_structure_that_is_absent_is_declared(tmp_path):
    source = save_series(tmp_path / "ct", VOLUME)
    path, expected = written(source, {"Spleen": np.zeros((9, 8, 5), bool), **blobs((9, 8, 5))}, tmp_path)
    assert segment_names(path) == {1: "Spleen", 2: "Liver", 3: "odd thing"}
    assert np.array_equal(read_seg_on(read_dicom(source), path).values, expected)


def test_tags_of_patient_image_and_codes(tmp_path):
    source = save_series(tmp_path / "ct", VOLUME)
    path, _ = written(source, blobs((9, 8, 5)), tmp_path)
    seg, image = pydicom.dcmread(path), pydicom.dcmread(next(source.iterdir()))
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg.get(name) == image.get(name)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID != seg.SeriesInstanceUID
    assert seg.Modality == "SEG" and seg.SegmentSequence[0].SegmentLabel == "Liver"
    kind = seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("10200004", "SCT")


def test_codes():
    assert property_codes("left ventricle")[1].value == "87878005"
    assert property_codes("mass")[0].meaning == "Morphologically Abnormal Structure"
    _, kind = property_codes("optic cup (new)")
    assert kind.scheme_designator == "99PROXYPROMPT" and kind.meaning == "optic cup (new)" and len(kind.value) <= 16


def test_masks_that_do_not_fit(tmp_path):
    source = save_series(tmp_path / "ct", VOLUME)
    with pytest.raises(StudyError, match=r"\(8, 9, 5\), the image .* has \(9, 8, 5\)"):
        write_seg(source, {"a": np.zeros((8, 9, 5), bool)}, tmp_path / "x.dcm")
    with pytest.raises(StudyError, match="no structure"):
        write_seg(source, {}, tmp_path / "x.dcm")
    assert not list(tmp_path.glob("*.dcm")) and not list(tmp_path.glob(".seg-*"))


def test_what_stands_in_tags_of_a_patient_gets_into_no_warning(tmp_path, recwarn):
    """The server's log has what libraries warn of, and some tell the value that they do not like."""
    ds = dicom(RNG.integers(0, 255, (8, 9)).astype(np.uint8), sop=US, modality="US")
    with warnings.catch_warnings(action="ignore"):
        ds.PatientBirthDate, ds.PatientName, ds.StudyDate = "13.Hornung", "Zweistein=" * 9, "gestern"
        ds.save_as(tmp_path / "us.dcm")
    written(tmp_path / "us.dcm", blobs((9, 8, 1)), tmp_path)
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientBirthDate == "13.Hornung"
    told = [str(each.message) for each in recwarn]
    assert not [text for text in told if any(word in text for word in ("Hornung", "Zweistein", "gestern"))]
