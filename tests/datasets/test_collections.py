"""Three layouts of folders, read as the same thing: cases with groups, and what their labels declare."""

import json

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import save_series
from PIL import Image

from proxyprompt.datasets.collections import read_collection, structures_of
from proxyprompt.io.errors import StudyError

RNG = np.random.default_rng(5)


def plain_image(path, values=None, size=(20, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 255, size) if values is None else np.resize(np.repeat(values, 30), size)
    Image.fromarray(array.astype(np.uint8)).save(path)
    return array.astype(np.uint8)


def volume(path, values=None, shape=(6, 7, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 255, shape) if values is None else np.resize(np.repeat(values, 9), shape)
    nib.save(nib.Nifti1Image(array.astype(np.int16), np.diag([1, 1, 3, 1])), path)
    return array


@pytest.fixture
def plain_images(tmp_path):
    """images/ and masks/, four cases of two groups, values 1 and 2."""
    for case in "abcd":
        plain_image(tmp_path / "eyes" / "images" / f"{case}.jpg")
        plain_image(tmp_path / "eyes" / "masks" / f"{case}.png", [0, 1, 2])
    (tmp_path / "eyes" / "groups.csv").write_text("case,group\na,p1\nb,p1\nc,p2\nd,p2\n")
    return tmp_path / "eyes"


def test_images_and_masks(plain_images):
    collection = read_collection(plain_images)
    assert collection.name == "eyes" and [case.id for case in collection.cases] == list("abcd")
    assert collection.structures == {"label_1": (1,), "label_2": (2,)}
    assert {g: [c.id for c in cases] for g, cases in collection.groups().items()} == {
        "p1": ["a", "b"],
        "p2": ["c", "d"],
    }
    study, labels = collection.open(collection.cases[2])
    expected = np.asarray(Image.open(plain_images / "masks" / "c.png"))
    assert len(study) == 1 and np.array_equal(labels[0], expected)


@pytest.mark.parametrize("given", ["rim=1,disc=1+2", {"rim": [1], "disc": (1, 2)}])
def test_structures_given_by_hand_may_overlap_and_leave_values_out(plain_images, given):
    (plain_images / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "other": 2}}))
    collection = read_collection(plain_images, structures=given)
    assert collection.structures == {"rim": (1,), "disc": (1, 2)}
    case = collection.cases[0]
    _, labels = collection.open(case)
    assert np.array_equal(collection.mask(case, labels, "disc"), labels > 0)
    assert not collection.mask(case, labels, "nothing").any()


@pytest.mark.parametrize("labels", [{"background": 0, "rim": 1, "disc": [1, 2]}, {"0": "background", "1": "rim"}])
def test_dataset_json_names_the_values(plain_images, labels):
    (plain_images / "dataset.json").write_text(json.dumps({"labels": labels}))
    collection = read_collection(plain_images)
    assert collection.structures["rim"] == (1,) and collection.structures.get("disc", (1, 2)) == (1, 2)
    assert read_collection(plain_images, structures="whole=rim+rim").structures["whole"] == (1,)


def test_without_groups_every_case_stands_alone(plain_images):
    (plain_images / "groups.csv").unlink()
    assert [case.group for case in read_collection(plain_images).cases] == list("abcd")


def test_nnunet_takes_the_first_channel_and_msd_has_none(tmp_path, caplog):
    for case, channels in (("one", ("_0000", "_0001")), ("two", ("_0000",)), ("three", ("",))):
        for channel in channels:
            volume(tmp_path / "imagesTr" / f"{case}{channel}.nii.gz")
        volume(tmp_path / "labelsTr" / f"{case}.nii.gz", [0, 1, 3])
        (tmp_path / "labelsTr" / f"._{case}.nii.gz").write_bytes(b"left by a Mac")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "part": 1, "whole": [1, 2, 3]}}))
    collection = read_collection(tmp_path)
    assert {case.id: case.image_path.name for case in collection.cases} == {
        "one": "one_0000.nii.gz",
        "two": "two_0000.nii.gz",
        "three": "three.nii.gz",
    }
    assert collection.structures == {"part": (1,), "whole": (1, 2, 3)}
    assert "only the first" in caplog.text
    study, labels = collection.open(collection.cases[0])
    assert labels.shape == (len(study), *study.slice_shape) == (4, *study.slice_shape)


def test_monai_label_names_each_label_on_its_own(tmp_path):
    for case in ("s1", "s2", "unlabelled"):
        plain_image(tmp_path / f"{case}.png")
    plain_image(tmp_path / "labels" / "final" / "s1.png", [0, 1, 2])
    plain_image(tmp_path / "labels" / "final" / "s2.png", [0, 7])
    infos = {"s1": [("head", 1), ("neck", 2)], "s2": [("head", 7), ("neck", 8)]}
    objects = {
        case: {
            "image": {"ext": ".png", "info": {"PatientID": "P"}},
            "labels": {"final": {"info": {"label_info": [{"name": n, "idx": v} for n, v in info]}}},
        }
        for case, info in infos.items()
    }
    (tmp_path / "datastore_v2.json").write_text(json.dumps({"objects": objects}))
    one, two = (collection := read_collection(tmp_path)).cases
    assert one.structures == {"head": (1,), "neck": (2,)} and two.structures == {"head": (7,), "neck": (8,)}
    assert one.group == two.group == "P"
    _, labels = collection.open(two)
    assert np.array_equal(collection.mask(two, labels, "head"), labels == 7)
    assert not collection.mask(two, labels, "neck").any()


@pytest.mark.parametrize("layout", [("images", "masks"), (".", "labels/final")])
def test_segmentations_of_slicer_are_joined_by_name(tmp_path, layout):
    images, labels = (tmp_path / "set" / name for name in layout)
    labels.mkdir(parents=True)
    kidney = np.zeros((6, 7, 4), np.uint8)
    kidney[1:5, 1:6] = 1
    tumour = np.zeros_like(kidney)
    tumour[2:4, 2:4] = 1
    for case, order in (("a", ("kidney", "tumour")), ("b", ("tumour", "kidney"))):
        volume(images / f"{case}.nii.gz")
        layers = [kidney if name == "kidney" else tumour for name in order]
        directions = np.array([[np.nan] * 3, [-1, 0, 0], [0, -1, 0], [0, 0, 3]])
        header = {"space": "left-posterior-superior", "space directions": directions, "space origin": [0, 0, 0]}
        header |= {"kinds": ["list"] + ["domain"] * 3}
        for n, name in enumerate(order):
            header |= {f"Segment{n}_Name": name, f"Segment{n}_Layer": str(n), f"Segment{n}_LabelValue": "1"}
        nrrd.write(str(labels / f"{case}.seg.nrrd"), np.stack(layers), header)
    collection = read_collection(tmp_path / "set")
    assert [case.id for case in collection.cases] == ["a", "b"]
    for case in collection.cases:
        study, found = collection.open(case)
        for name, wanted in (("kidney", kidney), ("tumour", tumour)):
            mask = collection.mask(case, found, name)
            assert np.array_equal(study.to_grid(mask).astype(bool), wanted > 0), (case.id, name)


def test_the_samples_are_such_a_folder(drawn_samples):
    collection = read_collection(drawn_samples)
    assert len(collection.cases) == 16
    case = next(case for case in collection.cases if case.id == "us_01")
    study, labels = collection.open(case)
    assert labels.shape == (1, *study.slice_shape) and all(
        collection.mask(case, labels, n).any() for n in case.structures
    )


def test_what_is_wrong_is_named(plain_images, tmp_path):
    with pytest.raises(StudyError, match=r"nowhere: no such folder.*imagesTr"):
        read_collection(tmp_path / "nowhere")
    with pytest.raises(StudyError, match="in none of the known layouts"):
        read_collection(plain_images / "images")
    with pytest.raises(StudyError, match="expected name=value"):
        read_collection(plain_images, structures="disc")
    plain_image(plain_images / "masks" / "z.png", [1])
    with pytest.raises(StudyError, match=r"z\.png: no image of this name"):
        read_collection(plain_images)
    plain_image(plain_images / "images" / "z.png")
    with pytest.raises(StudyError, match=r"groups\.csv: names no group for 1 cases, the first is 'z'"):
        read_collection(plain_images)
    plain_image(plain_images / "images" / "z.bmp")
    with pytest.raises(StudyError, match=r"z\.png: z\.bmp has the same name"):
        read_collection(plain_images)


def test_labels_that_hold_nothing(tmp_path):
    plain_image(tmp_path / "images" / "a.png")
    plain_image(tmp_path / "masks" / "a.png", [0])
    with pytest.raises(StudyError, match="no label holds a value above 0"):
        read_collection(tmp_path)
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(StudyError, match="no labelled image"):
        read_collection(tmp_path)


def test_dicom_series_of_one_patient_are_one_group_without_its_id(tmp_path):
    for case in ("s1", "s2", "s3"):
        save_series(tmp_path / "images" / case, RNG.integers(0, 900, (3, 8, 9)).astype(np.int16), modality="MR")
        for file in (tmp_path / "images" / case).iterdir():
            tags = pydicom.dcmread(file)
            tags.PatientID = "Secret-7" if case != "s3" else "Secret-8"
            tags.save_as(file)
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "images" / case)))
        (tmp_path / "masks").mkdir(exist_ok=True)
        sitk.WriteImage(sitk.Cast(image > 400, sitk.sitkUInt8), str(tmp_path / "masks" / f"{case}.nrrd"))
    collection = read_collection(tmp_path, structures="bone=1")
    one, other, third = (case.group for case in collection.cases)
    assert one == other != third and "Secret" not in one
    study, labels = collection.open(collection.cases[0])
    assert len(study) == 3 and labels.any()


def test_structures_of_several_folders(tmp_path):
    by_collection, flat = tmp_path / "each.json", tmp_path / "all.json"
    by_collection.write_text(json.dumps({"eyes": {"disc": [1, 2]}, "elsewhere": {"x": [1]}}))
    flat.write_text(json.dumps({"disc": [1, 2]}))
    assert structures_of([str(by_collection)], ["eyes", "legs"]) == {"eyes": {"disc": [1, 2]}}
    assert structures_of([str(flat)], ["eyes", "legs"]) == dict.fromkeys(["eyes", "legs"], str(flat))
    assert structures_of(["a=1", "legs:b=2"], ["eyes", "legs"]) == {"eyes": "a=1", "legs": "b=2"}
    with pytest.raises(ValueError, match="no folder is called 'arms'; eyes, legs are"):
        structures_of(["arms:a=1"], ["eyes", "legs"])
    flat.write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object of names"):
        structures_of([str(flat)], ["eyes"])
