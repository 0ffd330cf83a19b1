"""Which images and labels of a folder are sent to a server, and which belong together."""

import numpy as np
import pydicom
import pytest
from dicom_files import SEG, dicom, save_series
from labelled_folders import write_plain_images, write_volumes
from pydicom.dataset import Dataset

from proxyprompt.evaluation.file_groups import SERIES, find_groups


def of(folder):
    """Group -> image -> tag -> label, by their names."""
    return {
        group.name: {
            item.image.name: {tag: f"{path.parent.name}/{path.name}" for tag, path in item.labels.items()}
            for item in group.items
        }
        for group in find_groups(folder)
    }


def test_images_with_their_masks_and_a_second_readers(tmp_path):
    write_plain_images(tmp_path / "one", groups=3)
    (tmp_path / "one/masks/g1_0.png").rename(tmp_path / "one/masks/g1_0.bmp")
    (tmp_path / "one/second").mkdir()
    (tmp_path / "one/second/g2_0.tif").write_bytes(b"")
    (tmp_path / "one/masks/nobody.png").write_bytes(b"")
    (tmp_path / "one/masks/g0_0.png").unlink()
    assert of(tmp_path) == {
        "one": {
            "g0_0.png": {},
            "g1_0.png": {"final": "masks/g1_0.bmp"},
            "g2_0.png": {"final": "masks/g2_0.png", "second": "second/g2_0.tif"},
        }
    }
    assert "nobody" in find_groups(tmp_path)[0].left_out["nobody.png"]
    assert of(tmp_path / "one") == of(tmp_path)


def test_nnu_net_and_a_folder_of_monai_label(tmp_path):
    write_volumes(tmp_path / "nnunet", count=2)
    drawn = write_plain_images(tmp_path / "drawn", groups=2)
    (drawn / "images").rename(tmp_path / "served")
    (tmp_path / "served/labels").mkdir()
    (drawn / "masks").rename(tmp_path / "served/labels/final")
    (tmp_path / "served/labels/original").mkdir()
    (tmp_path / "served/labels/original/g0_0.png").write_bytes(b"")
    (drawn / "groups.csv").unlink()
    assert of(tmp_path) == {
        "nnunet": {f"v{n}_0000.nii.gz": {"final": f"labelsTr/v{n}.nii.gz"} for n in range(2)},
        "served": {
            "g0_0.png": {"final": "final/g0_0.png", "original": "original/g0_0.png"},
            "g1_0.png": {"final": "final/g1_0.png"},
        },
    }


def test_series_are_one_group_with_the_segmentations_that_name_them(tmp_path):
    save_series(tmp_path / "p1/ct", np.zeros((2, 8, 8), np.int16), series="1.2.1")
    save_series(tmp_path / "p2/mr", np.zeros((2, 8, 8), np.int16), series="1.2.2")
    seg = dicom(np.zeros((8, 8), np.uint8), sop=SEG, modality="SEG", series="1.2.3")
    referenced = Dataset()
    referenced.SeriesInstanceUID = "1.2.2"
    seg.ReferencedSeriesSequence = [referenced]
    (tmp_path / "p2/seg").mkdir()
    seg.save_as(tmp_path / "p2/seg/drawn.dcm")
    assert of(tmp_path) == {SERIES: {"ct": {}, "mr": {"final": "seg/drawn.dcm"}}}


def test_loose_images_and_what_is_none(tmp_path):
    write_plain_images(tmp_path / "drawn", groups=2)
    (tmp_path / "drawn/images").rename(tmp_path / "clinic")
    (tmp_path / "clinic/notes.txt").write_text("no image")
    (tmp_path / "clinic/.hidden.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    groups = {group.name: group for group in find_groups(tmp_path)}
    assert [item.image.name for item in groups["clinic"].items] == ["g0_0.png", "g1_0.png"]
    assert groups["clinic"].left_out.keys() == {"notes.txt", ".hidden.png"}
    assert groups.keys() == {"clinic", "drawn/masks"}
    assert find_groups(tmp_path / "empty") == []


@pytest.mark.parametrize("prefix", [True, False])
def test_a_segmentation_is_no_image(tmp_path, prefix):
    seg = dicom(np.zeros((8, 8), np.uint8), sop=SEG, modality="SEG")
    seg.save_as(tmp_path / "seg.dcm", write_like_original=False)
    if not prefix:
        content = (tmp_path / "seg.dcm").read_bytes()
        length = pydicom.filereader.read_file_meta_info(tmp_path / "seg.dcm").FileMetaInformationGroupLength
        (tmp_path / "seg.dcm").write_bytes(content[132 + 12 + length :])
    assert find_groups(tmp_path) == []
