"""Uploads of images and labels over HTTP, under the names that they are sent with."""

import hashlib
import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from dicom_files import save_series
from fastapi import FastAPI
from loopback import serving
from PIL import Image

from proxyprompt.datastores.folder import StudyFolder
from proxyprompt.requests.defaults import IMAGE_PATTERNS
from proxyprompt.requests.safety import guard
from proxyprompt.server.answers import install_answers
from proxyprompt.server.install import include_first
from proxyprompt.server.studies import study_router


def drawn(value, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(content, format=kind)
    return content.getvalue()


@pytest.fixture
def store(tmp_path):
    return guard(StudyFolder(str(tmp_path / "studies"), extensions=IMAGE_PATTERNS))


@pytest.fixture
def url(store):
    server = FastAPI()
    saved = []
    app = SimpleNamespace(datastore=lambda: store, on_save_label=lambda *ids: saved.append(ids))
    install_answers(server)
    include_first(server, study_router(app))
    with serving(server) as url:
        yield url


def put(url, path, name, content, *, params="{}", **query):
    field = "label" if path.endswith("label") else "file"
    files = {field: (name, content)}
    return requests.put(f"{url}/datastore/{path}", params=query, files=files, data={"params": params}, timeout=60)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("patient.07.png", "patient.08.png"),
        ("1.2.840.113619.2.55.png", "1.2.840.113619.2.77.png"),
        ("2024.01.31.TIF", "2024.01.30.TIF"),
        ("O'Brien, 50%.png", "O'Brien; {x}.png"),
        ("患者.一.png", "患者.二.png"),
        ("same.png", "same.tif"),
    ],
)
def test_two_files_are_two_studies(url, store, first, second):
    ids = []
    for value, name in enumerate((first, second)):
        answer = put(url, "image", name, drawn(value))
        assert answer.status_code == 200, answer.text
        ids.append(answer.json()["image"])
    assert ids[0] != ids[1] and sorted(store.list_images()) == sorted(ids)
    for value, image_id in enumerate(ids):
        assert np.asarray(Image.open(store.get_image_uri(image_id))).max() == value


def test_folders_in_a_files_name_do_not_count(url, store, tmp_path):
    for name in ("C:\\scans\\a.png", "scans/b.png", "../../c.png"):
        assert put(url, "image", name, drawn(1)).status_code == 200
    assert sorted(store.list_images()) == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["studies"]


def test_another_image_is_replaced_only_when_asked_to(url, store):
    assert put(url, "image", "one.png", drawn(1), image="one", params='{"PatientID": "P1"}').status_code == 200
    for query in ({"image": "one"}, {}):
        answer = put(url, "image", "one.png", drawn(2), **query)
        assert answer.status_code == 409 and "overwrite=true" in answer.json()["detail"]
    assert put(url, "image", "again.png", drawn(1), image="one").status_code == 200
    assert store.get_image_info("one")["PatientID"] == "P1"
    for value, options in ((2, {"overwrite": "true"}), (3, {"params": '{"overwrite": true}'})):
        assert put(url, "image", "one.png", drawn(value), image="one", **options).status_code == 200
        assert np.asarray(Image.open(store.get_image_uri("one"))).max() == value
    assert put(url, "image", "one.png", drawn(4), image="one", params='{"overwrite": "yes"}').status_code == 400


def test_a_label_is_saved_whatever_its_file_is_called(url, store):
    put(url, "image", "one.png", drawn(1))
    for name in ("one.seg.png", "v1.2.final.png", "O'Brien.PNG"):
        answer = put(url, "label", name, drawn(1), image="one", params='{"label_info": [{"name": "disc", "idx": 1}]}')
        assert answer.status_code == 200, answer.text
        saved = answer.json()
        assert (saved["image"], saved["label"], saved["handed_over"]) == ("one", "one", True) and saved["version"]
    assert store.get_labeled_images() == ["one"]
    assert store.get_label_info("one", "final")["label_info"] == [{"name": "disc", "idx": 1}]


@pytest.mark.parametrize("params", ["[]", "3", "null", '"text"', "{broken", "[" * 2000, '{"a": NaN}', '{"a": 1e999}'])
@pytest.mark.parametrize("path", ["image", "label"])
def test_params_that_are_no_object_are_refused_and_nothing_is_stored(url, store, path, params):
    put(url, "image", "one.png", drawn(1))
    answer = put(url, path, "two.png", drawn(2), image="one" if path == "label" else "two", params=params)
    assert answer.status_code == 400 and answer.json()["detail"]
    assert store.list_images() == ["one"] and store.get_labeled_images() == []
    json.dumps(store.json(), allow_nan=False)


@pytest.mark.parametrize(
    ("path", "query", "name", "status"),
    [
        ("image", {}, "page.html", 400),
        ("image", {}, ".hidden.png", 400),
        ("image", {}, "x" * 300 + ".png", 400),
        ("image", {"image": "x" * 300}, "a.png", 400),
        ("image", {"image": "../evil"}, "a.png", 400),
        ("image", {"image": "a\nb"}, "a.png", 400),
        ("image", {"overwrite": "perhaps"}, "a.png", 400),
        ("label", {"image": "nobody"}, "a.png", 404),
        ("label", {"image": "one", "tag": "../../up"}, "a.png", 400),
        ("label", {"image": "one", "tag": ".history"}, "a.png", 400),
        ("label", {}, "a.png", 400),
    ],
)
def test_what_cannot_be_stored_is_refused_with_a_sentence(url, store, tmp_path, path, query, name, status):
    put(url, "image", "one.png", drawn(1))
    before = sorted(tmp_path.rglob("*"))
    answer = put(url, path, name, drawn(2), **query)
    assert answer.status_code == status and answer.json()["detail"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_request_without_a_file(url):
    answer = requests.put(f"{url}/datastore/image", data={"params": "{}"}, timeout=60)
    assert answer.status_code == 400 and "file" in answer.json()["detail"]


def test_an_image_is_downloaded_as_it_was_sent(url):
    put(url, "image", "patient.07.png", drawn(1))
    answer = requests.get(f"{url}/datastore/image", params={"image": "patient.07"}, timeout=60)
    assert answer.status_code == 200 and answer.content == drawn(1)
    assert answer.headers["content-type"] == "image/png" and "patient.07.png" in answer.headers["content-disposition"]


def test_a_series_is_downloaded_as_a_zip_of_its_files(url, store, tmp_path):
    series = save_series(tmp_path / "studies" / "ct", np.zeros((3, 8, 8), np.int16))
    (series / ".DS_Store").write_bytes(b"x")
    store.refresh()
    answer = requests.get(f"{url}/datastore/image", params={"image": "ct"}, timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert 'filename="ct.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files == {f"ct/{file.name}": file.read_bytes() for file in series.glob("*.dcm")}
    assert requests.head(f"{url}/datastore/image", params={"image": "ct"}, timeout=60).status_code == 200


def head(url, **query):
    return requests.head(f"{url}/datastore/image", params=query, timeout=60).status_code


def test_check_sums_tell_whether_a_copy_is_the_same(url):
    put(url, "image", "one.png", drawn(1))
    for algorithm in ("SHA256", "SHA512", "MD5"):
        digest = hashlib.new(algorithm, drawn(1)).hexdigest()
        assert head(url, image="one", check_sum=f"{algorithm}:{digest}") == 200
        assert head(url, image="one", check_sum=f"{algorithm}:{digest[::-1]}") == 404
    assert head(url, image="one") == head(url, image="one", check_sum=hashlib.sha256(drawn(1)).hexdigest()) == 200
    assert head(url, image="one", check_sum="FOO:abc") == 400


@pytest.mark.parametrize("ask", [requests.get, requests.head])
@pytest.mark.parametrize(("image", "status"), [("nobody", 404), ("../evil", 400), ("", 404)])
def test_what_cannot_be_downloaded(url, ask, image, status):
    assert ask(f"{url}/datastore/image", params={"image": image}, timeout=60).status_code == status


def test_what_is_noted_of_an_image(url):
    put(url, "image", "one.png", drawn(1), params='{"PatientID": "P1"}')
    answer = requests.get(f"{url}/datastore/image/info", params={"image": "one"}, timeout=60)
    assert answer.status_code == 200 and answer.json()["PatientID"] == "P1" and answer.json()["name"] == "one.png"
    for image, status in (("nobody", 404), ("", 404), ("../one", 400)):
        assert requests.get(f"{url}/datastore/image/info", params={"image": image}, timeout=60).status_code == status
