"""Which files of a folder make a stack; what is no slice of it is left out, or refused by name."""

import logging
import shutil

import numpy as np
import pydicom
import pytest
from dicom_files import (
    AXIAL,
    CORONAL,
    CR,
    CT,
    ENHANCED_MR,
    SAGITTAL,
    US_FRAMES,
    dicom,
    functional_groups,
    place,
    save_series,
    seg,
)
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from proxyprompt.io.study import StudyError, read_study

RNG = np.random.default_rng(12)
VOLUME = RNG.integers(0, 3000, (6, 8, 9)).astype(np.uint16)
OBJECTS = {
    "SR": "1.2.840.10008.5.1.4.1.1.88.33",
    "PR": "1.2.840.10008.5.1.4.1.1.11.1",
    "KO": "1.2.840.10008.5.1.4.1.1.88.59",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "REG": "1.2.840.10008.5.1.4.1.1.66.1",
    "DOC": "1.2.840.10008.5.1.4.1.1.104.1",
    "OT": "1.2.840.10008.5.1.4.1.1.66",  # raw data
}


def no_image(modality, series="1.2.3.4"):
    ds = dicom(VOLUME[0], sop=OBJECTS[modality], modality=modality, series=series, number=77)
    for name in ("Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "SamplesPerPixel"):
        delattr(ds, name)
    return ds


def slices(study):
    return np.round(study.images(range(len(study)))[:, 0] * 400 - 160 + 1024)


def extra(pixels=VOLUME[0], *, at=0, axes=AXIAL, number=99, **options):
    return place(dicom(pixels, sop=CT, modality="CT", number=number, **options), at, axes=axes)


@pytest.mark.parametrize("series", ["1.2.3.4", "1.2.99"])
@pytest.mark.parametrize("modality", OBJECTS)
def test_objects_without_an_image_are_left_out(tmp_path, caplog, modality, series):
    folder = save_series(tmp_path / "ct", VOLUME)
    alone = read_study(folder).content_hash
    with caplog.at_level(logging.INFO):
        no_image(modality, series).save_as(folder / "00.dcm")
        study = read_study(folder)
    assert (len(study), study.content_hash, study.warnings) == (6, alone, ())
    assert f"00.dcm of modality {modality}" in caplog.text


def test_segmentations_and_doses_beside_the_images_are_left_out(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    alone = read_study(folder).content_hash
    seg(np.ones((1, 8, 9), bool), [1], [1], {1: "liver"}).save_as(folder / "a.dcm")
    dicom(VOLUME[0], sop="1.2.840.10008.5.1.4.1.1.481.2", modality="RTDOSE", series="1.2.8").save_as(folder / "b.dcm")
    (folder / "DICOMDIR").write_bytes((folder / "a.dcm").read_bytes())
    (folder / ".hidden.dcm").write_bytes(b"half a file")
    assert read_study(folder).content_hash == alone


def test_a_folder_or_file_without_an_image(tmp_path):
    (tmp_path / "sr").mkdir()
    no_image("SR").save_as(tmp_path / "sr" / "report.dcm")
    with pytest.raises(StudyError, match=r"sr: only report\.dcm of modality SR in this folder"):
        read_study(tmp_path / "sr")
    with pytest.raises(StudyError, match=r"object of modality SR, not an image; give the image series"):
        read_study(tmp_path / "sr" / "report.dcm")


@pytest.mark.parametrize("axes", [SAGITTAL, CORONAL, (0.9, 0.43, 0, -0.43, 0.9, 0)])
def test_one_image_of_another_orientation_is_refused_by_name(tmp_path, axes):
    folder = save_series(tmp_path / "ct", VOLUME)
    extra(axes=axes).save_as(folder / "scout.dcm")
    with pytest.raises(StudyError, match=r"no plain stack: scout\.dcm differs in orientation .* other 6 images"):
        read_study(folder)


def test_rounded_orientations_are_the_same(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    extra(at=6, axes=(1, 0.0004, 0, -0.0004, 1, 0)).save_as(folder / "more.dcm")
    assert len(read_study(folder)) == 7


def test_a_capture_without_a_place_another_size_and_another_spacing_are_refused_by_name(tmp_path):
    captured = dicom(VOLUME[0], sop="1.2.840.10008.5.1.4.1.1.7", modality="CT", number=99)
    small, wide = extra(VOLUME[0, :4], at=9), extra(at=9)
    wide.PixelSpacing = [1.4, 1.6]
    for name, ds, what in (
        ("capture.dcm", captured, r"orientation .*\(none, the others \(1, 0, 0"),
        ("small.dcm", small, r"size .*\(4, 9, 1\), the others \(8, 9, 1\)"),
        ("wide.dcm", wide, r"pixel spacing .*\(1\.4, 1\.6\), the others \(0\.7, 0\.8\)"),
    ):
        folder = save_series(tmp_path / name.split(".")[0], VOLUME)
        ds.save_as(folder / name)
        with pytest.raises(StudyError, match=f"{name} differs in {what}"):
            read_study(folder)


def test_the_same_instance_under_two_names_counts_once(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    alone = read_study(folder)
    shutil.copy(folder / "7-1.dcm", folder / "copy of 7-1.dcm")
    study = read_study(folder)
    assert study.content_hash == alone.content_hash and len(study.instances) == 6
    assert study.warnings == (
        "copy of 7-1.dcm (as 7-1.dcm) hold an instance that is there already; they were left out",
    )
    changed = pydicom.dcmread(folder / "copy of 7-1.dcm")
    changed.PixelData = VOLUME[5].tobytes()
    changed.save_as(folder / "copy of 7-1.dcm")
    with pytest.raises(
        StudyError, match=r"7-1\.dcm and copy of 7-1\.dcm call themselves the same instance .*different"
    ):
        read_study(folder)


def test_two_slices_at_one_place(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    alone = read_study(folder).content_hash
    again = extra(VOLUME[2], at=2)
    again.RescaleSlope, again.RescaleIntercept = 1, -1024
    again.save_as(folder / "again.dcm")  # the same image under a new UID
    study = read_study(folder)
    assert study.content_hash == alone and "again.dcm (as 4-2.dcm)" in study.warnings[0]
    extra(VOLUME[3], at=2).save_as(folder / "again.dcm")
    with pytest.raises(StudyError, match=r"7 images at 6 places .*4-2\.dcm and again\.dcm lie at one place.*InstanceN"):
        read_study(folder)


@pytest.mark.parametrize(
    ("tag", "values"),
    [("EchoTime", (4.6, 9.2)), ("TemporalPositionIdentifier", (1, 2)), ("DiffusionBValue", (0.0, 800.0))],
)
def test_what_tells_time_points_apart_is_said(tmp_path, tag, values):
    folder = tmp_path / "mr"
    for n, value in enumerate(values):
        for k in range(4):
            ds = extra(VOLUME[k] + n, at=k, number=n * 4 + k)
            setattr(ds, tag, value)
            folder.mkdir(exist_ok=True)
            ds.save_as(folder / f"{n}-{k}.dcm")
    with pytest.raises(
        StudyError, match=rf"8 images at 4 places.*{tag}: {values[0]} and {values[1]}; .*one time point"
    ):
        read_study(folder)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([0, 1, 2, 4, 5, 6], "one may be missing"),
        ([0, 1, 2, 5, 6, 8], "3 may be missing"),
        ([0, 1, 2, 3, 4, 5.2], "none"),
    ],
)
def test_missing_slices_are_said_with_the_files_around_them(tmp_path, places, said):
    study = read_study(save_series(tmp_path / "ct", VOLUME, places=places))
    around = {4: "4-2.dcm and 1-3.dcm", 5: "4-2.dcm and 1-3.dcm", 5.2: "8-4.dcm and 5-5.dcm"}
    (text,) = study.warnings
    assert "unevenly spaced" in text and said in text
    assert any(text.endswith(name) for key, name in around.items() if key in places)


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL])
def test_a_gantry_tilt_is_read_and_said(tmp_path, axes):
    folder = save_series(tmp_path / "ct", VOLUME, axes=axes)
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        shift = (ds.InstanceNumber - 1) * 3 * np.tan(np.radians(15)) * np.array(axes[3:])
        ds.ImagePositionPatient = [float(v) for v in np.array(ds.ImagePositionPatient) + shift]
        ds.save_as(file)
    study = read_study(folder)
    assert len(study) == 6 and "tilted by 15 degrees" in study.warnings[0]
    frames = RNG.random((2, 8, 9)) > 0.5
    ds = seg(frames, [1, 4], [1, 1], {1: "liver"}, axes=axes)
    for groups, n in zip(ds.PerFrameFunctionalGroupsSequence, (1, 4), strict=True):
        at = groups.PlanePositionSequence[0]
        shift = n * 3 * np.tan(np.radians(15)) * np.array(axes[3:])
        at.ImagePositionPatient = [float(v) for v in np.array(at.ImagePositionPatient) + shift]
    ds.save_as(tmp_path / "seg.dcm")
    order = [1, 4] if axes == AXIAL else [4, 1]
    assert np.array_equal(study.read_label(tmp_path / "seg.dcm")[order], frames)


def test_a_segmentation_lies_right_beside_a_gap(tmp_path):
    study = read_study(save_series(tmp_path / "ct", VOLUME, places=[0, 1, 2, 4, 5, 6]))
    frames = RNG.random((3, 8, 9)) > 0.5
    seg(frames, [2, 4, 6], [1, 1, 1], {1: "liver"}).save_as(tmp_path / "seg.dcm")
    assert np.array_equal(study.read_label(tmp_path / "seg.dcm")[[2, 3, 5]], frames)
    seg(frames[:1], [3], [1], {1: "liver"}).save_as(tmp_path / "seg.dcm")
    with pytest.raises(StudyError, match="does not lie on a slice"):
        study.read_label(tmp_path / "seg.dcm")


def test_frames_of_another_orientation_are_refused(tmp_path):
    ds = functional_groups(dicom(VOLUME, sop=ENHANCED_MR, modality="MR", frames=6), range(6))
    turned = Dataset()
    turned.ImageOrientationPatient = [float(v) for v in CORONAL]
    ds.PerFrameFunctionalGroupsSequence[4].PlaneOrientationSequence = [turned]
    ds.save_as(tmp_path / "e.dcm")
    with pytest.raises(StudyError, match=r"no plain stack: frame 5 of e\.dcm lies in another orientation than frame 1"):
        read_study(tmp_path / "e.dcm")


def test_time_points_in_one_file_are_refused(tmp_path):
    ds = functional_groups(dicom(VOLUME, sop=ENHANCED_MR, modality="MR", frames=6), [0, 1, 2, 0, 1, 2])
    ds.save_as(tmp_path / "e.dcm")
    with pytest.raises(
        StudyError, match=r"6 images at 3 places.*frame 1 of e\.dcm and frame 4 of e\.dcm lie at one pl"
    ):
        read_study(tmp_path / "e.dcm")


def test_several_clips_in_a_folder_are_refused_by_name(tmp_path):
    (tmp_path / "us").mkdir()
    for n in range(2):
        clip = dicom(RNG.integers(0, 255, (3, 8, 9, 3)).astype(np.uint8), sop=US_FRAMES, modality="US", frames=3)
        clip.save_as(tmp_path / "us" / f"clip{n}.dcm")
    with pytest.raises(StudyError, match=r"clip0\.dcm, clip1\.dcm have several frames each; .*own folder"):
        read_study(tmp_path / "us")
    (tmp_path / "us" / "clip1.dcm").unlink()
    assert len(read_study(tmp_path / "us")) == 3


def test_files_without_dicoms_prefix(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    wanted = read_study(folder)
    for file in list(folder.iterdir()):
        ds = pydicom.dcmread(file)
        bare = Dataset()
        bare.update({e.tag: e for e in ds})
        bare.is_little_endian, bare.is_implicit_VR = True, True
        pydicom.dcmwrite(folder / file.stem, bare, write_like_original=True)
        assert (folder / file.stem).read_bytes()[128:132] != b"DICM"
        file.unlink()
    study = read_study(folder)
    assert study.content_hash == wanted.content_hash and study.tags == wanted.tags
    assert len(read_study(folder / "7-1")) == 1


def test_a_damaged_file_of_a_series_is_named(tmp_path):
    folder = save_series(tmp_path / "ct", VOLUME)
    whole = (folder / "4-2.dcm").read_bytes()
    for kept in (whole[:-40], whole[:300], whole[:140]):
        (folder / "4-2.dcm").write_bytes(kept)
        with pytest.raises(StudyError, match=r"4-2\.dcm: cannot be read"):
            read_study(folder)


def test_images_without_a_place_follow_their_numbers(tmp_path):
    (tmp_path / "cr").mkdir()
    for n, name in ((3, "a"), (1, "b"), (2, "c")):
        ds = dicom(VOLUME[n], sop=CR, modality="CR", number=n)
        ds.SOPInstanceUID = generate_uid()
        ds.save_as(tmp_path / "cr" / f"{name}.dcm")
    study = read_study(tmp_path / "cr")
    low, high = study.bounds
    assert np.allclose(study.images(range(3))[:, 0], np.clip((VOLUME[1:4] - low) / (high - low), 0, 1), atol=1e-5)
