"""What lies in a folder of studies, and what of it is listed."""

import os

import numpy as np
import pydicom
import pytest
from dicom_files import save_series
from PIL import Image

from proxyprompt.datastores.listing import StudyListing, dicom_modality
from proxyprompt.requests.defaults import IMAGE_PATTERNS

SLICES = np.zeros((2, 8, 8), np.int16)
SR = "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "labels" / "final").mkdir(parents=True)
    return tmp_path


def look(folder):
    return StudyListing(folder, IMAGE_PATTERNS, labels=folder / "labels").look()


def ids(folder):
    """Path -> the ids that it may have."""
    return {found.path: found.ids for found in look(folder).images}


def plain_image(path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, format="PNG")


def without_prefix(file):
    """As files were written before DICOM part 10: no preamble, no meta information."""
    pydicom.dcmread(file).save_as(file, write_like_original=False)
    content = file.read_bytes()
    file.write_bytes(content[132 + 12 + pydicom.filereader.read_file_meta_info(file).FileMetaInformationGroupLength :])


def as_kind(file, modality, uid=None):
    dataset = pydicom.dcmread(file)
    dataset.Modality = modality
    if uid:
        dataset.SOPClassUID = uid
    dataset.save_as(file)


@pytest.mark.parametrize("name", ["IMG_1.JPG", "scan.JPEG", "case.PNG", "CASE.Tif", "CASE.NII.GZ", "a.Nrrd", "x.IMA"])
def test_suffixes_count_in_whatever_case(folder, name):
    plain_image(folder / name)
    assert ids(folder)[name][0] == name[: name.index(".")]


def test_files_of_one_name_have_ids_of_their_own(folder):
    for name in ("case6.png", "case6.nii.gz", "other.png"):
        plain_image(folder / name)
    assert ids(folder) == {
        "case6.nii.gz": ("case6", "case6.nii.gz"),
        "case6.png": ("case6", "case6.png"),
        "other.png": ("other", "other.png"),
    }
    assert next(found.path for found in look(folder).images) == "case6.nii.gz"  # chooses first


def test_what_an_archive_exports_is_one_study_for_each_series(folder):
    for path in ("PAT1/STU1/SER1", "PAT1/STU1/SER2", "PAT2/STU1/SER1", "flat"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        save_series(folder / path, SLICES)
    assert ids(folder) == {
        "flat": ("flat", "flat"),
        "PAT1/STU1/SER1": ("PAT1_STU1_SER1",),
        "PAT1/STU1/SER2": ("SER2", "PAT1_STU1_SER2"),
        "PAT2/STU1/SER1": ("PAT2_STU1_SER1",),
    }


def test_dicom_is_known_by_its_content(folder):
    save_series(folder / "series", SLICES)
    for file in (folder / "series").iterdir():
        without_prefix(file)
    save_series(folder / "one", SLICES[:1])
    (folder / "one" / "0-0.dcm").rename(folder / "IM0001")
    (folder / "one").rmdir()
    assert ids(folder) == {"series": ("series", "series"), "IM0001": ("IM0001",)}
    assert not look(folder).left_out


def test_dicom_objects_without_pixels_are_left_out_with_a_word(folder):
    save_series(folder / "report", SLICES[:1])
    as_kind(folder / "report" / "0-0.dcm", "SR", SR)
    save_series(folder / "mixed", SLICES)
    as_kind(folder / "mixed" / "0-0.dcm", "PR")
    save_series(folder / "top", SLICES[:1])
    as_kind(folder / "top" / "0-0.dcm", "KO")
    (folder / "top" / "0-0.dcm").rename(folder / "key")
    found = look(folder)
    assert [image.path for image in found.images] == ["mixed"]
    assert "SR" in found.left_out["report"] and "KO" in found.left_out["key"]


@pytest.mark.parametrize("name", ["seg.dcm", "SEG.IMA"])
def test_a_segmentation_is_no_study_whatever_its_suffix(folder, name):
    save_series(folder / "top", SLICES[:1])
    as_kind(folder / "top" / "0-0.dcm", "SEG")
    (folder / "top" / "0-0.dcm").rename(folder / name)
    save_series(folder / "top", SLICES[:1])
    (folder / "top" / "0-0.dcm").rename(folder / "ct.dcm")
    (folder / "top").rmdir()
    (folder / "damaged.dcm").write_bytes(b"no DICOM")
    found = look(folder)
    assert [image.path for image in found.images] == [
        "ct.dcm",
        "damaged.dcm",
    ]  # what is damaged says so when it is asked for
    assert "SEG" in found.left_out[name]


@pytest.mark.parametrize("first", [b"\x08\0\x08\0", b"\x08\0\x10\0\x10\0\0\0", b"\x02\0\0\0UL\4\0"])
def test_numbers_that_look_like_a_first_tag_are_no_dicom(folder, first):
    (folder / "voxels").write_bytes(first + bytes(range(256)) * 4)
    assert not look(folder).images and "kind" in look(folder).left_out["voxels"]


def test_what_is_no_study_says_why(folder):
    (folder / "notes.txt").write_text("no study" * 50)
    (folder / "scan.zip").write_bytes(b"PK")
    (folder / "._s1.nii.gz").write_bytes(b"\0\5\x16\7")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "sub").mkdir()
    plain_image(folder / "sub" / "a.png")
    found = look(folder)
    assert not found.images
    words = {
        "notes.txt": "kind",
        "scan.zip": "kind",
        "._s1.nii.gz": "macOS",
        ".hidden.png": "hidden",
        "DICOMDIR": "index",
        "gone.png": "link",
        "sub": "directly",
    }
    assert found.left_out.keys() == words.keys()
    assert all(word in found.left_out[path] for path, word in words.items())


def test_of_what_belongs_to_a_folder_of_studies_nothing_is_said(folder):
    for name in (
        "datastore_v2.json",
        "datastore_v2.json.damaged-1",
        "dataset.json",
        "groups.csv",
        ".lock",
        ".DS_Store",
    ):
        (folder / name).write_text("{}")
    for hidden in (".proxyprompt", ".git"):
        (folder / hidden).mkdir()
        plain_image(folder / hidden / "x.png")
    plain_image(folder / "labels" / "final" / "y.png")
    (folder / "v.mhd").write_text("ElementDataFile = v.raw")
    (folder / "v.raw").write_bytes(b"\0" * 8)
    (folder / "empty").mkdir()
    assert ids(folder) == {"v.mhd": ("v", "v.mhd")}
    assert not look(folder).left_out


def test_links_in_circles_and_deep_folders_end(folder):
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "up").symlink_to(folder / "a")
    save_series(folder / "elsewhere", SLICES)
    (folder / "linked").symlink_to(folder / "elsewhere")
    assert set(ids(folder)) == {"elsewhere", "linked"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_may_not_be_looked_into(folder):
    (folder / "closed").mkdir(mode=0)
    assert "looked into" in look(folder).left_out["closed"]


def test_a_folder_that_changed_is_looked_at_again(folder):
    save_series(folder / "series", SLICES)
    as_kind(folder / "series" / "0-0.dcm", "SR", SR)
    as_kind(folder / "series" / "7-1.dcm", "SR", SR)
    for file in (folder / "series").iterdir():
        os.utime(file, (1, 1))
    listing = StudyListing(folder, IMAGE_PATTERNS, labels=folder / "labels")
    assert not listing.look().images
    as_kind(folder / "series" / "7-1.dcm", "CT")
    assert [found.path for found in listing.look().images] == ["series"]


def test_half_a_header_is_no_error(folder):
    save_series(folder / "series", SLICES[:1])
    file = folder / "series" / "0-0.dcm"
    whole = file.read_bytes()
    for length in (0, 100, 132, 140, 200, 400):
        file.write_bytes(whole[:length])
        assert dicom_modality(file) in (None, "", "CT")
