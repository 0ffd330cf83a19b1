"""Ids, labels and the list of a folder of studies: the same whichever way files came, and after the list is lost."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from dicom_files import save_series
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException
from PIL import Image

from proxyprompt.datastores.folder import StudyFolder
from proxyprompt.io.errors import StudyExists
from proxyprompt.requests.defaults import IMAGE_PATTERNS
from proxyprompt.requests.safety import guard, image_path

VOLUME = np.zeros((2, 8, 8), np.int16)
NAMES = {"label_info": [{"name": "disc", "idx": 1}]}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "studies"


def opened(folder):
    return guard(StudyFolder(str(folder), extensions=IMAGE_PATTERNS))


def drawn(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path, format="PNG")
    return str(path)


def listed(store):
    return {image_id: Path(store.get_image_uri(image_id)).name for image_id in store.list_images()}


def labels(folder, tag="final"):
    return sorted(path.name for path in (folder / "labels" / tag).iterdir())


def lose_the_list(folder):
    (folder / "datastore_v2.json").unlink()
    return opened(folder)


# ids


@pytest.mark.parametrize(
    "name",
    [
        *("patient.07.png", "1.2.840.113619.2.55.png", "2024.01.31 left.png", "O'Brien.png", "50%.PNG", "IMG_1.Jpg"),
        *("a.png_b.png", "$x;{y}.png", "v1.2.nii.gz", "näme.tif", "x.y.z.DCM"),
    ],
)
def test_an_uploaded_file_has_the_id_that_it_has_in_the_folder(folder, tmp_path, name):
    uploaded = opened(folder).add_image("", drawn(tmp_path / name), {})
    assert listed(opened(folder)) == {uploaded: name}
    assert listed(lose_the_list(folder)) == {uploaded: name}
    drawn(tmp_path / "other" / name)
    assert opened(tmp_path / "other").list_images() == [uploaded]


def test_two_files_of_one_name_are_two_studies(folder, tmp_path):
    for name in ("case6.png", "case6.tif"):
        drawn(folder / name)
    expected = {"case6": "case6.png", "case6.tif": "case6.tif"}
    store = opened(folder)
    assert listed(store) == expected == listed(lose_the_list(folder))
    store = opened(folder)
    store.save_label("case6.tif", drawn(tmp_path / "l.png", 1), "final", {})
    store.save_label("case6", drawn(tmp_path / "l.png", 2), "final", {})
    assert labels(folder) == ["case6.png", "case6.tif.png"]
    store = lose_the_list(folder)
    assert sorted(store.get_labeled_images()) == ["case6", "case6.tif"]
    assert np.asarray(Image.open(store.get_label_uri("case6.tif", "final"))).max() == 1
    assert store.add_image("", drawn(tmp_path / "case6.bmp", 3), {}) == "case6.bmp"


def test_a_series_deep_in_an_export_is_a_study_like_any_other(folder, tmp_path):
    for path in ("PAT1/STU/SER1", "PAT2/STU/SER1", "PAT2/STU/only"):
        save_series(folder / path, VOLUME)
    store = opened(folder)
    assert sorted(store.list_images()) == ["PAT1_STU_SER1", "PAT2_STU_SER1", "only"]
    assert image_path(store, "PAT1_STU_SER1") == str((folder / "PAT1/STU/SER1").resolve())
    store.save_label("only", drawn(tmp_path / "l.png"), "final", NAMES)
    store = opened(folder)
    assert store.get_label_info("only", "final")["label_info"] == NAMES["label_info"]
    assert sorted(lose_the_list(folder).list_images()) == ["PAT1_STU_SER1", "PAT2_STU_SER1", "only"]
    opened(folder).remove_image("PAT2_STU_SER1")
    assert sorted(opened(folder).list_images()) == ["PAT1_STU_SER1", "only"]
    assert not (folder / "PAT2/STU/SER1").exists() and (folder / "PAT2/STU/only").exists()


def test_a_study_keeps_its_id_whatever_comes_later(folder):
    save_series(folder / "P1" / "SER", VOLUME)
    drawn(folder / "case.tif")
    store = opened(folder)
    assert sorted(store.list_images()) == ["SER", "case"]
    save_series(folder / "P0" / "SER", VOLUME)
    drawn(folder / "case.png")
    store.refresh()
    files = listed(store)
    assert files["case"] == "case.tif" and files["case.png"] == "case.png"
    assert Path(store.get_image_uri("SER")) == (folder / "P1" / "SER").resolve() and "P0_SER" in files


def test_a_folder_with_the_name_of_a_file_is_left_out_with_a_word(folder):
    drawn(folder / "one.png")
    save_series(folder / "one", VOLUME)
    store = opened(folder)
    assert listed(store) == {"one": "one.png"}
    assert "'one'" in store.left_out["one"]


def test_what_is_left_out_is_counted_and_said_once(folder, caplog):
    drawn(folder / "one.png")
    drawn(folder / "._one.png")
    (folder / "scan.zip").write_bytes(b"PK")
    drawn(folder / "labels" / "final" / "nobody.png")
    store = opened(folder)
    not_listed = store.status()["not_listed"]
    assert not_listed["count"] == 3
    assert set(not_listed["files"]) == {"._one.png", "scan.zip", "labels/final/nobody.png"}
    assert sum("scan.zip" in record.getMessage() for record in caplog.records) == 1
    store.refresh()
    assert sum("scan.zip" in record.getMessage() for record in caplog.records) == 1
    for name in ("._one.png", "scan.zip"):
        (folder / name).unlink()
    (folder / "labels" / "final" / "nobody.png").unlink()
    store.refresh()
    assert "not_listed" not in store.status()


def test_names_that_are_not_text_are_left_out_with_a_word(folder, caplog):
    folder.mkdir()
    content = Path(drawn(folder / "one.png")).read_bytes()
    for name in (b"M\xfcller.png", b"a\nb.png", b"x" * 230 + b".png"):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(content)
    store = opened(folder)
    assert store.list_images() == ["one"]
    assert store.status()["not_listed"]["count"] == 3
    json.dumps(store.status()).encode()
    assert caplog.text.encode().count(b"not listed") == 3  # a log file can hold it


def test_a_study_that_is_not_listed_says_why_to_who_asks(folder):
    drawn(folder / "one.png")
    (folder / "scan.zip").write_bytes(b"PK")
    store = opened(folder)
    with pytest.raises(ImageNotFoundException) as caught:
        image_path(store, "scan")
    assert "scan.zip" in caught.value.msg and "kind" in caught.value.msg
    drawn(folder / "two.png")
    assert image_path(store, "two") == str((folder / "two.png").resolve())  # looks again
    (folder / "two.png").unlink()
    with pytest.raises(ImageNotFoundException):
        image_path(store, "two")


# uploads


def test_an_upload_replaces_no_other_pixels_unless_told_to(folder, tmp_path):
    store = opened(folder)
    store.add_image("one", drawn(tmp_path / "a.png", 1), {"PatientID": "P1"})
    store.save_label("one", drawn(tmp_path / "l.png", 3), "final", NAMES)
    for image_id, file in (("one", "b.png"), ("one", "b.tif"), ("", "one.png")):
        with pytest.raises(StudyExists) as caught:
            store.add_image(image_id, drawn(tmp_path / file, 2), {})
        assert "overwrite" in str(caught.value)
    assert np.asarray(Image.open(store.get_image_uri("one"))).max() == 1
    assert listed(opened(folder)) == {"one": "one.png"}
    store.add_image("one", drawn(tmp_path / "b.tif", 2), {"overwrite": True})
    assert listed(store) == {"one": "one.tif"} == listed(lose_the_list(folder))
    assert "PatientID" not in store.get_image_info("one") and "overwrite" not in store.get_image_info("one")
    assert opened(folder).get_labeled_images() == ["one"]


def test_what_is_known_survives_the_upload_of_the_same_image(folder, tmp_path):
    store = opened(folder)
    store.add_image("one", drawn(tmp_path / "a.png", 1), {"PatientID": "P1"})
    store.update_image_info("one", {"Modality": "US"})
    store.save_label("one", drawn(tmp_path / "l.png", 3), "final", NAMES)
    again = tmp_path / "again"
    for file, written in (("a.png", "PNG"), ("a.bmp", "BMP")):  # the same pixels, in other bytes
        again.mkdir(exist_ok=True)
        Image.open(tmp_path / "a.png").save(again / file, format=written, optimize=True)
        assert store.add_image("one", str(again / file), {"note": file}) == "one"
        info = store.get_image_info("one")
        assert (info["PatientID"], info["Modality"], info["note"], info["name"]) == ("P1", "US", file, "one.png")
    store.save_label("one", str(tmp_path / "l.png"), "final", {})
    assert opened(folder).get_label_info("one", "final")["label_info"] == NAMES["label_info"]
    assert listed(opened(folder)) == {"one": "one.png"}


def test_an_upload_takes_no_other_studys_file(folder, tmp_path):
    for name in ("case.png", "case.tif"):
        drawn(folder / name)
    store = opened(folder)
    before = (folder / "case.tif").read_bytes()
    with pytest.raises(StudyExists):
        store.add_image("case", drawn(tmp_path / "x.tif", 5), {"overwrite": True})
    save_series(folder / "series", VOLUME)
    store.refresh()
    with pytest.raises(StudyExists) as caught:
        store.add_image("series", drawn(tmp_path / "x.tif", 5), {"overwrite": "true"})
    assert "folder" in str(caught.value)
    assert (folder / "case.tif").read_bytes() == before and (folder / "series").is_dir()


def test_a_linked_study_is_deleted_without_what_it_leads_to(folder, tmp_path):
    folder.mkdir()
    (folder / "one.png").symlink_to(drawn(tmp_path / "original.png"))
    save_series(tmp_path / "series", VOLUME)
    (folder / "two").symlink_to(tmp_path / "series")
    store = opened(folder)
    for image_id in ("one", "two"):
        store.remove_image(image_id)
    assert store.list_images() == [] and (tmp_path / "original.png").exists() and any((tmp_path / "series").iterdir())


# labels


def saved(store, folder, tmp_path, *suffixes):
    """Labels 1, 2 ... of ``one``, each drawn after the other."""
    for value, suffix in enumerate(suffixes, start=1):
        path = tmp_path / f"l{suffix}"
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
        store.save_label("one", str(path), "final", {"by": value})


@pytest.mark.parametrize("suffixes", [(".png", ".tif"), (".tif", ".png"), (".png", ".png"), (".png", ".tif", ".png")])
def test_one_label_counts_and_none_comes_back(folder, tmp_path, suffixes):
    drawn(folder / "one.png")
    store = opened(folder)
    saved(store, folder, tmp_path, *suffixes)
    assert labels(folder) == [f"one{suffixes[-1]}"]
    history = folder / "labels" / ".history" / "final"
    kept = [int(np.asarray(Image.open(path)).max()) for path in sorted(history.iterdir())]
    assert kept == list(range(1, len(suffixes)))
    for again in (opened(folder), lose_the_list(folder)):
        label = Image.open(again.get_label_uri("one", "final"))
        assert np.asarray(label).max() == len(suffixes)
        assert again.status()["label_tags"] == {"final": 1}
    store = opened(folder)
    store.remove_label("one", "final")
    assert labels(folder) == [] and not any(history.iterdir())
    assert opened(folder).get_labeled_images() == [] == lose_the_list(folder).get_labeled_images()


def test_of_labels_that_were_put_there_by_hand_the_newest_counts(folder):
    drawn(folder / "one.png")
    for age, suffix in ((300, "png"), (100, "tif"), (200, "bmp")):
        file = Path(drawn(folder / "labels" / "final" / f"one.{suffix}"))
        os.utime(file, (10_000 - age, 10_000 - age))
    store = opened(folder)
    assert store.get_label_uri("one", "final").endswith("one.tif")
    assert lose_the_list(folder).get_label_uri("one", "final").endswith("one.tif")
    assert "older" in opened(folder).left_out["labels/final/one.png"]
    os.utime(folder / "labels" / "final" / "one.bmp", (20_000, 20_000))
    store = opened(folder)
    assert store.get_label_uri("one", "final").endswith("one.bmp")
    store.remove_label("one", "final")
    assert labels(folder) == []
    with pytest.raises(LabelNotFoundException):
        store.remove_label("one", "final")


def test_a_label_of_a_study_with_a_longer_name_is_not_deleted_with_it(folder, tmp_path):
    for name in ("one", "one.2"):
        drawn(folder / f"{name}.png")
    store = opened(folder)
    for name in ("one", "one.2"):
        for value in (1, 2):
            store.save_label(name, drawn(tmp_path / "l.png", value), "final", {})
    store.remove_image("one")
    assert labels(folder) == ["one.2.png"]
    assert [path.name[:6] for path in (folder / "labels/.history/final").iterdir()] == ["one.2."]


def test_the_segmentations_of_3d_slicer_are_labels(folder):
    drawn(folder / "one.png")
    drawn(folder / "x.seg.png")
    for name in ("one.seg.nrrd", "x.seg.nrrd"):
        (folder / "labels" / "final").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / "final" / name).write_bytes(b"NRRD0004\n")
    store = opened(folder)
    assert Path(store.get_label_uri("one", "final")).name == "one.seg.nrrd"
    assert Path(store.get_label_uri("x.seg", "final")).name == "x.seg.nrrd"


def test_proposals_leave_no_history(folder, tmp_path):
    drawn(folder / "one.png")
    store = opened(folder)
    for value, suffix in ((1, ".png"), (2, ".tif"), (3, ".tif")):
        store.save_label("one", drawn(tmp_path / f"l{suffix}", value), "original", {})
    assert labels(folder, "original") == ["one.tif"]
    assert not (folder / "labels" / ".history").exists()


def test_a_data_set_holds_series_too(folder, tmp_path):
    import zipfile

    store = opened(folder)
    with pytest.raises(LabelNotFoundException):
        store.get_dataset_archive(None)
    save_series(folder / "series", VOLUME)
    drawn(folder / "labels" / "final" / "series.png")
    path = opened(folder).get_dataset_archive(0)
    names = zipfile.ZipFile(path).namelist()
    os.unlink(path)
    assert "label/series.png" in names and sum(name.startswith("image/series/") for name in names) == 2
