"""DICOM SEG as labels: frames by position, names of segments."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from dicom_files import CORONAL, SAGITTAL, save_series, seg
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from proxyprompt.io.dicom_seg import segment_names
from proxyprompt.io.study import StudyError, read_study

RNG = np.random.default_rng(6)
VOLUME = RNG.integers(0, 3000, (5, 8, 9)).astype(np.uint16)
NAMES = {1: "liver", 2: "spleen"}


def series(tmp_path, axes=(1, 0, 0, 0, 1, 0)):
    return read_study(save_series(tmp_path / "ct", VOLUME, axes=axes))


@pytest.mark.parametrize("fractional", [False, True])
@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), SAGITTAL, CORONAL])
def test_frames_are_placed_by_position(tmp_path, axes, fractional):
    study = series(tmp_path, axes)
    frames = RNG.random((4, 8, 9)) > 0.6
    frames[2] &= ~frames[1]  # frames 1 and 2 are the two segments of one slice
    places, segments = [3, 0, 0, 4], [1, 2, 1, 2]
    seg(frames, places, segments, NAMES, axes=axes, fractional=fractional).save_as(tmp_path / "seg.dcm")
    wanted = np.zeros((5, 8, 9), np.uint8)
    for frame, slot, number in zip(frames, places, segments, strict=True):
        wanted[slot][frame] = number
    if axes == SAGITTAL:  # its normal points to the patient's right, slices are counted to the left
        wanted = wanted[::-1]
    assert np.array_equal(study.read_label(tmp_path / "seg.dcm"), wanted)


def test_turned_frames_are_turned_back(tmp_path):
    study = series(tmp_path)
    frame = RNG.random((8, 9)) > 0.5
    ds = seg(frame[::-1, ::-1][None], [2], [1], NAMES)
    ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
    position = ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    x, y, z = position.ImagePositionPatient
    position.ImagePositionPatient = [x + 8 * 0.8, y + 7 * 0.7, z]
    ds.save_as(tmp_path / "seg.dcm")
    labels = study.read_label(tmp_path / "seg.dcm")
    assert np.array_equal(labels[2], frame) and not labels[[0, 1, 3, 4]].any()


def test_the_smaller_of_two_overlapping_segments_is_on_top(tmp_path):
    study = series(tmp_path)
    frames = np.zeros((2, 8, 9), bool)
    frames[0, 2:4, 2:4] = True
    frames[1] = True
    seg(frames, [1, 1], [1, 2], NAMES).save_as(tmp_path / "seg.dcm")
    assert (study.read_label(tmp_path / "seg.dcm")[1] == np.where(frames[0], 1, 2)).all()


def test_a_frame_beside_the_slices_is_refused(tmp_path):
    study = series(tmp_path)
    for at in (9, 1.5):
        seg(np.ones((1, 8, 9), bool), [at], [1], NAMES).save_as(tmp_path / "seg.dcm")
        with pytest.raises(StudyError, match=r"does not lie on a slice of the image\. Frame: .* Image .*ct"):
            study.read_label(tmp_path / "seg.dcm")
    seg(np.ones((1, 8, 7), bool), [1], [1], NAMES).save_as(tmp_path / "seg.dcm")
    with pytest.raises(StudyError, match="does not lie on a slice"):
        study.read_label(tmp_path / "seg.dcm")


def test_names_from_a_file_or_its_folder(tmp_path):
    (tmp_path / "final").mkdir()
    seg(np.ones((1, 8, 9), bool), [1], [2], NAMES).save_as(tmp_path / "final" / "x.dcm")
    assert segment_names(tmp_path / "final") == segment_names(tmp_path / "final" / "x.dcm") == NAMES


def test_what_is_no_segmentation(tmp_path):
    study = series(tmp_path)
    with pytest.raises(StudyError, match=r"modality CT, not a segmentation"):
        segment_names(tmp_path / "ct" / "0-0.dcm")
    with pytest.raises(StudyError, match="expected one DICOM SEG file, found 5"):
        study.read_label(tmp_path / "ct")
    with pytest.raises(StudyError, match="found none"):
        segment_names(tmp_path / "nothing.dcm")
    (tmp_path / "text.dcm").write_text("hello")
    with pytest.raises(StudyError, match=r"text\.dcm: cannot be read"):
        segment_names(tmp_path / "text.dcm")
    seg(np.ones((1, 8, 9), bool), [1], [2], NAMES).save_as(tmp_path / "seg.dcm")
    with pytest.raises(StudyError, match="modality SEG, not an image; give the image series"):
        read_study(tmp_path / "seg.dcm")


def test_a_damaged_segmentation_is_one_error(tmp_path):
    study = series(tmp_path)
    ds = seg(np.ones((2, 8, 9), bool), [1, 2], [1, 2], NAMES)
    del ds.SegmentSequence[1].SegmentNumber
    ds.save_as(tmp_path / "untagged.dcm")
    ds = seg(np.ones((2, 8, 9), bool), [1, 2], [1, 2], NAMES)
    ds.PixelData = ds.PixelData[:4]
    ds.save_as(tmp_path / "short.dcm")
    for name in ("untagged.dcm", "short.dcm"):
        with pytest.raises(StudyError, match=f"{name}: cannot be read, it may be damaged"):
            study.read_label(tmp_path / name)


def test_what_dcmqi_writes_comes_back(tmp_path):
    """An independent writer: the tool by which MONAI Label stores labels on a DICOMweb server."""
    tool = shutil.which("itkimage2segimage") or str(Path(sys.executable).with_name("itkimage2segimage"))
    if not Path(tool).exists():
        pytest.skip("itkimage2segimage (dcmqi) is not installed")
    study = series(tmp_path)
    labels = np.zeros((5, 8, 9), np.uint8)
    labels[1, 2:5, 3:8], labels[3, 1:4, 1:3] = 1, 2
    study.write_label(labels, tmp_path / "label.nii.gz")
    code = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    segments = [
        {
            "labelID": number,
            "SegmentLabel": name,
            "SegmentAlgorithmType": "MANUAL",
            "SegmentedPropertyCategoryCodeSequence": code,
            "SegmentedPropertyTypeCodeSequence": code,
            "recommendedDisplayRGBValue": [255, 0, 0],
        }
        for number, name in NAMES.items()
    ]
    meta = {"ContentCreatorName": "a", "SeriesDescription": "b", "SeriesNumber": "1", "InstanceNumber": "1"}
    (tmp_path / "meta.json").write_text(json.dumps({**meta, "segmentAttributes": [segments]}))
    command = {
        "--inputImageList": tmp_path / "label.nii.gz",
        "--inputDICOMDirectory": tmp_path / "ct",
        "--inputMetadata": tmp_path / "meta.json",
        "--outputDICOM": tmp_path / "seg.dcm",
    }
    arguments = [str(part) for pair in command.items() for part in pair]
    subprocess.run([tool, *arguments], check=True, capture_output=True, timeout=120)
    assert segment_names(tmp_path / "seg.dcm") == NAMES
    assert np.array_equal(study.read_label(tmp_path / "seg.dcm"), labels)


def labelmap(frames, places, names, dtype=np.uint8):
    """A SEG of the kind LABELMAP. frames: (n, rows, columns) of segment numbers."""
    ds = seg(frames > 0, places, [1] * len(frames), names)
    for groups in ds.PerFrameFunctionalGroupsSequence:
        del groups.SegmentIdentificationSequence
    ds.SegmentationType = "LABELMAP"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
    ds.BitsAllocated = ds.BitsStored = 8 * dtype().itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelData = frames.astype(dtype).tobytes()
    return ds


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps(tmp_path, dtype, compress):
    study = series(tmp_path)
    frames = RNG.integers(0, 3, (2, 8, 9))
    ds = labelmap(frames, [3, 1], {0: "Background", **NAMES}, dtype)
    if compress:
        ds.compress(RLELossless)
    ds.save_as(tmp_path / "seg.dcm")
    found = study.read_label_map(tmp_path / "seg.dcm")
    assert np.array_equal(found.values[[3, 1]], frames) and not found.values[[0, 2, 4]].any()
    assert found.names == {"liver": {1}, "spleen": {2}}


def test_numbers_beyond_a_byte_are_counted_anew(tmp_path):
    study = series(tmp_path)
    frames = np.zeros((1, 8, 9), int)
    frames[0, 2], frames[0, 4] = 700, 20
    labelmap(frames, [2], {20: "liver", 700: "spleen"}, np.uint16).save_as(tmp_path / "seg.dcm")
    found = study.read_label_map(tmp_path / "seg.dcm")
    for name, row in (("spleen", 2), ("liver", 4)):
        assert np.array_equal(np.isin(found.values[2], list(found.names[name])), frames[0] == frames[0, row, 0])


@pytest.mark.parametrize("syntax", ["rle", "jpeg-ls", "jpeg 2000", "deflated"])
def test_compressed_segmentations(tmp_path, syntax):
    study = series(tmp_path)
    frames = RNG.random((2, 8, 9)) > 0.5
    ds = seg(frames, [3, 1], [1, 1], NAMES, fractional=True)
    if syntax == "rle":
        ds.compress(RLELossless)
    elif syntax == "deflated":
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    else:
        encode, uid = {
            "jpeg-ls": (imagecodecs.jpegls_encode, JPEGLSLossless),
            "jpeg 2000": (lambda frame: imagecodecs.jpeg2k_encode(frame, reversible=True), JPEG2000Lossless),
        }[syntax]
        ds.PixelData = encapsulate([encode(frame) for frame in (frames * 200).astype(np.uint8)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = uid
    ds.save_as(tmp_path / "seg.dcm", write_like_original=False)
    found = study.read_label_map(tmp_path / "seg.dcm")
    assert np.array_equal(found.values[[3, 1]], frames)
    assert found.notes == ("this DICOM SEG holds fractions; from one half on a voxel counts as inside",)


def test_a_segment_within_another_stays_a_part_of_it(tmp_path):
    study = series(tmp_path)
    frames = np.zeros((3, 8, 9), bool)
    frames[0, 1:7, 1:8], frames[1, 2:4, 2:4], frames[2, 3:4, 2:3] = True, True, True
    names = {1: "kidney", 2: "tumour", 3: "necrosis"}
    seg(frames, [1, 1, 1], [1, 2, 3], names).save_as(tmp_path / "seg.dcm")
    found = study.read_label_map(tmp_path / "seg.dcm")
    assert not found.notes and found.names == {"kidney": {1, 2, 3}, "tumour": {2, 3}, "necrosis": {3}}
    for frame, name in zip(frames, names.values(), strict=True):
        assert np.array_equal(np.isin(found.values[1], list(found.names[name])), frame)


def test_segments_that_cross_are_said(tmp_path):
    study = series(tmp_path)
    frames = np.zeros((2, 8, 9), bool)
    frames[0, :5], frames[1, 4:6] = True, True
    seg(frames, [1, 1], [1, 2], NAMES).save_as(tmp_path / "seg.dcm")
    found = study.read_label_map(tmp_path / "seg.dcm")
    assert found.names == {"liver": {1}, "spleen": {2}} and (found.values[1, 4:6] == 2).all()
    assert found.notes == (
        "segments 'liver' and 'spleen' overlap in 9 voxels; they count for 'spleen', the smaller one",
    )


def test_contours_are_refused_with_a_way_out(tmp_path):
    study = series(tmp_path)
    ds = seg(np.ones((1, 8, 9), bool), [1], [1], NAMES)
    ds.Modality = "RTSTRUCT"
    del ds.PixelData
    ds.save_as(tmp_path / "rt.dcm")
    with pytest.raises(StudyError, match=r"rt\.dcm: is an RTSTRUCT, .*convert it to a DICOM SEG or a \.seg\.nrrd"):
        study.read_label(tmp_path / "rt.dcm")
