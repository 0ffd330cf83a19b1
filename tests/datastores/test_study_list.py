"""A list of studies that is damaged, or was edited by hand, and what becomes of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastoreModel
from PIL import Image

from proxyprompt.datastores.folder import StudyFolder
from proxyprompt.datastores.shared import SharedDatastore
from proxyprompt.datastores.study_list import parse_list
from proxyprompt.io.errors import StudyError
from proxyprompt.requests.safety import guard

BEFORE = LocalDatastoreModel(name="before", description="kept", images_dir=".", base_path="/studies")
STUDY = {"image": {"ext": ".png", "info": {"PatientID": "P1"}}, "labels": {"final": {"ext": ".png", "info": {}}}}
WHOLE = {"name": "mine", "description": "", "images_dir": ".", "labels_dir": "labels", "objects": {"one": STUDY}}
CUT = json.dumps(WHOLE)[:90]


@pytest.fixture
def folder(tmp_path):
    for path in ("one.png", "labels/final/one.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / path)
    return tmp_path


def opened(folder, **options):
    return guard(StudyFolder(str(folder), extensions=["*.png"], **options))


def kept(folder):
    return sorted(folder.glob("datastore_v2.json.damaged-*"))


def test_a_whole_list_is_read_as_it_is():
    found, damaged = parse_list(json.dumps(WHOLE).encode(), BEFORE)
    assert not damaged and found.name == "mine" and found.base_path == "/studies"
    assert found.objects["one"].image.info == {"PatientID": "P1"}


@pytest.mark.parametrize(
    "text", ["", CUT, "[]", "null", "3", '{"objects": [1]}', '{"objects": 3}', "\0" * 50, "[" * 9999]
)
def test_of_what_is_no_list_nothing_counts(text):
    found, damaged = parse_list(text.encode(), BEFORE)
    assert found is BEFORE and len(damaged) == 1 and damaged[0]


@pytest.mark.parametrize(
    "entry",
    [
        *(None, [], "x", {"image": None}, {"image": {"ext": 3}}, {"image": {"ext": ".png", "info": []}}),
        {**STUDY, "labels": {"final": "one.png"}},
        {**STUDY, "image": {"ext": "/../../etc/passwd", "info": {}}},
        {**STUDY, "labels": {"../../up": {"ext": ".png"}}},
    ],
)
def test_of_a_list_that_is_damaged_in_parts_the_others_count(entry):
    found, damaged = parse_list(json.dumps({**WHOLE, "objects": {"one": STUDY, "bad": entry}}).encode(), BEFORE)
    assert set(found.objects) == {"one"} and damaged[0].startswith("bad")


def test_what_is_missing_is_as_before_and_names_follow_the_rule():
    found, damaged = parse_list(json.dumps({"objects": {"one": STUDY, "._one": STUDY, "a/b": STUDY}}).encode(), BEFORE)
    assert not damaged and found.name == "before" and set(found.objects) == {"one"}


def test_numbers_that_json_does_not_have_are_none():
    text = json.dumps({**WHOLE, "objects": {"one": {"image": {"info": {"score": float("nan")}}}}})
    assert parse_list(text.encode(), BEFORE)[0].objects["one"].image.info == {"score": None}


@pytest.mark.parametrize("content", [b"", CUT.encode(), b"{}garbage", b"\xff\xfe\0", b"null"])
def test_a_damaged_list_is_kept_aside_and_made_anew(folder, caplog, content):
    (folder / "datastore_v2.json").write_bytes(content)
    store = opened(folder)
    assert store.list_images() == ["one"] == store.get_labeled_images()
    assert [path.read_bytes() for path in kept(folder)] == [content]
    (said,) = [record.getMessage() for record in caplog.records if "datastore_v2.json" in record.getMessage()]
    assert str(folder / "datastore_v2.json") in said and kept(folder)[0].name in said
    assert json.loads((folder / "datastore_v2.json").read_text())["objects"].keys() == {"one"}
    opened(folder)
    assert len(kept(folder)) == 1  # not once more


def test_a_list_that_is_damaged_while_the_server_runs_is_kept_aside_too(folder):
    store = opened(folder)
    store.update_image_info("one", {"PatientID": "P1"})
    (folder / "datastore_v2.json").write_text(CUT)
    store.update_image_info("one", {"Modality": "US"})
    assert [path.read_text() for path in kept(folder)] == [CUT]
    again = opened(folder).get_image_info("one")
    assert (again["PatientID"], again["Modality"]) == ("P1", "US")


def test_a_process_that_only_reads_leaves_a_damaged_list_alone(folder):
    (folder / "datastore_v2.json").write_text(CUT)
    store = opened(folder, read_only=True)
    assert store.list_images() == [] and not kept(folder)
    assert (folder / "datastore_v2.json").read_text() == CUT


def test_a_list_that_cannot_be_read_is_named(folder):
    (folder / "datastore_v2.json").mkdir()
    with pytest.raises(StudyError) as caught:
        SharedDatastore(str(folder), extensions=["*.png"])
    assert "datastore_v2.json" in str(caught.value)


@pytest.mark.parametrize(
    "noted", [{"strategy": 5}, {"strategy": {"random": 3}}, {"strategy": []}, {"support_quality": 1}]
)
def test_what_nobody_could_use_of_an_edited_list_is_not_shown(folder, noted):
    opened(folder).update_image_info("one", {"PatientID": "P1"})
    path = Path(folder / "datastore_v2.json")
    content = json.loads(path.read_text())
    content["objects"]["one"]["image"]["info"] |= noted
    path.write_text(json.dumps(content))
    info = opened(folder).get_image_info("one")
    assert info["PatientID"] == "P1" and not noted.keys() & info.keys()
