"""Labels over HTTP: by whom and when, none replaced unseen, and those before brought back."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from fastapi import FastAPI
from loopback import serving
from PIL import Image

from proxyprompt.datastores.folder import StudyFolder
from proxyprompt.requests.defaults import IMAGE_PATTERNS
from proxyprompt.requests.safety import guard
from proxyprompt.server.answers import install_answers
from proxyprompt.server.install import include_first
from proxyprompt.server.labels import label_router
from proxyprompt.server.studies import study_router


def png(value):
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def store(tmp_path):
    made = guard(StudyFolder(str(tmp_path / "studies"), extensions=IMAGE_PATTERNS))
    (tmp_path / "case.png").write_bytes(png(9))
    made.add_image("case", str(tmp_path / "case.png"), {})
    return made


@pytest.fixture
def saved():
    return []


@pytest.fixture
def url(store, saved):
    server = FastAPI()
    app = SimpleNamespace(datastore=lambda: store, on_save_label=lambda *ids: saved.append(ids))
    install_answers(server)
    include_first(server, study_router(app))
    server.include_router(label_router(app))
    with serving(server) as url:
        yield url


def put(url, value, who="", /, *, names=("head",), **query):
    info = {"label_info": [{"name": name, "idx": n} for n, name in enumerate(names, 1)]}
    fields = {"params": json.dumps({**info, **({"client_id": who} if who else {})})}
    where = {"image": "case", "tag": "final", **query}
    files = {"label": ("case.png", png(value))}
    return requests.put(f"{url}/datastore/label", params=where, files=files, data=fields, timeout=60)


def label(url, image="case"):
    return requests.get(f"{url}/proxyprompt/label", params={"image": image}, timeout=60)


def history(url):
    return requests.get(f"{url}/proxyprompt/label/history", params={"image": "case"}, timeout=60).json()["versions"]


def file(url, version):
    return requests.get(f"{url}/proxyprompt/label/file", params={"image": "case", "version": version}, timeout=60)


def test_by_whom_and_when(url):
    assert label(url).json() == {"image": "case", "label": None, "earlier": 0}
    answer = put(url, 1, "anna", names=("head", "symphysis")).json()
    told = label(url).json()["label"]
    assert (told["by"], told["structures"], told["current"]) == ("anna", ["head", "symphysis"], True)
    assert told["version"] == answer["version"] and told["time"].startswith("20") and answer["handed_over"]
    assert label(url, "nobody").status_code == 404


def test_a_label_that_was_written_since_is_not_replaced_unseen(url, saved):
    first = put(url, 1, "anna", base="").json()["version"]
    answer = put(url, 2, "bert", base="")  # bert had opened the study before anna sent hers
    assert (
        answer.status_code == 409 and "by anna" in answer.json()["detail"] and "replace=true" in answer.json()["detail"]
    )
    assert len(saved) == 1 and file(url, first).content == png(1)
    second = put(url, 2, "bert", base=first).json()["version"]
    assert second != first and put(url, 3, "anna", base=first).status_code == 409
    assert put(url, 3, "anna", base=first, replace="true").status_code == 200
    assert [version["by"] for version in history(url)] == ["anna", "bert", "anna"]


def test_what_a_client_opened_may_stand_among_the_params(url):
    put(url, 1)
    where, files = {"image": "case", "tag": "final"}, {"label": ("case.png", png(2))}
    fields = {"params": json.dumps({"base": ""})}
    answer = requests.put(f"{url}/datastore/label", params=where, files=files, data=fields, timeout=60)
    assert answer.status_code == 409
    fields = {"params": json.dumps({"base": "", "replace": True})}
    answer = requests.put(f"{url}/datastore/label", params=where, files=files, data=fields, timeout=60)
    assert answer.status_code == 200


def test_clients_that_know_nothing_of_it_replace_and_the_one_before_is_kept(url):
    for value in (1, 2, 3):
        assert put(url, value, f"reader {value}").status_code == 200
    now, *before = history(url)
    assert [each["by"] for each in (now, *before)] == ["reader 3", "reader 2", "reader 1"]
    assert [file(url, each["version"]).content for each in (now, *before)] == [png(3), png(2), png(1)]
    assert not any(each["current"] for each in before)


def test_the_one_before_comes_back(url, saved):
    for value in (1, 2):
        put(url, value, f"reader {value}", names=(f"organ {value}",))
    _, before = history(url)
    where = {"image": "case", "version": before["version"], "client_id": "carl"}
    answer = requests.post(f"{url}/proxyprompt/label/restore", params={**where, "base": "x"}, timeout=60)
    assert answer.status_code == 409
    answer = requests.post(f"{url}/proxyprompt/label/restore", params=where, timeout=60)
    assert answer.status_code == 200, answer.text
    told = label(url).json()
    assert (told["label"]["by"], told["label"]["structures"], told["earlier"]) == ("carl", ["organ 1"], 2)
    assert file(url, told["label"]["version"]).content == png(1) and len(saved) == 3
    answer = requests.post(f"{url}/proxyprompt/label/restore", params={**where, "version": "x"}, timeout=60)
    assert answer.status_code == 400 and before["version"] in answer.json()["detail"]
    assert file(url, "x").status_code == 400


def test_a_deleted_label_has_no_history(url, store):
    for value in (1, 2):
        put(url, value)
    store.remove_label("case", "final")
    assert history(url) == []
    assert not [path for path in (store.kept_image("case").parent / "labels" / ".history").rglob("*") if path.is_file()]


def test_proposals_are_never_refused(url):
    put(url, 1)
    assert put(url, 2, tag="original", base="").status_code == 200
