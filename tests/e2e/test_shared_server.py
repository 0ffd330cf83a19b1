"""A real server that many use at once, some of them with bad intentions. Started as its manual says: without --host."""

import hashlib
import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
import pytest
import requests
from PIL import Image
from squares import write_squares
from tiny_atto import weights

from proxyprompt.benchmark.load import run_load
from proxyprompt.benchmark.server import running_server

pytestmark = pytest.mark.e2e
CLIMB, ROOTED, UP = "../../escaped", "/etc/passwd", ".."


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e2e")
    write_squares(folder / "studies", count=8, labelled=3)
    conf = {**weights(folder), "labels": "head=1"}
    with running_server(folder / "studies", log=folder / "server.log", conf=conf, host=None) as running:
        yield running


def plain_image(server):
    return (server.studies / "s7.png").read_bytes()


def ask(server, method, path, query=None, *, files=None, fields=None, body=None, json_body=None):
    """The status, for an address that is sent as it is: most clients tidy it up first."""
    prepared = requests.Request(method, server.url, files=files, data=fields or body, json=json_body).prepare()
    headers = {name: value for name, value in prepared.headers.items() if name != "Content-Length"}
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=300)
    connection.request(method, f"{path}?{urlencode(query or {})}", body=prepared.body, headers=headers)
    return connection.getresponse().status


def traversals(server):
    """(what it is, status) of everything that names a file or folder which is not its business."""
    file = {"file": ("x.png", plain_image(server))}
    label = {"label": ("x.png", plain_image(server))}
    for bad in (CLIMB, ROOTED, UP, "a\\b", str(server.studies / "s7.png")):
        for model in ("proxyprompt", "wsi/proxyprompt", "wsi_v2/proxyprompt"):
            yield (
                f"infer {model} {bad}",
                ask(server, "POST", f"/infer/{model}", {"image": bad}, fields={"params": "{}"}),
            )
        for params in (
            {"image": bad},
            {"session": {"name": bad, "image": bad}},
            {"label_tag": bad, "save_label": True},
        ):
            fields = {"params": json.dumps(params)}
            yield f"infer {params}", ask(server, "POST", "/infer/proxyprompt", {"image": "s7"}, fields=fields)
        yield f"session {bad}", ask(server, "POST", "/infer/proxyprompt", {"session_id": bad}, fields={"params": "{}"})
        yield f"put image {bad}", ask(server, "PUT", "/datastore/image", {"image": bad}, files=file)
        yield f"delete image {bad}", ask(server, "DELETE", "/datastore/image", {"id": bad})
        for method, path in (("GET", "image"), ("HEAD", "image"), ("GET", "image/info")):
            yield f"{method} {path} {bad}", ask(server, method, f"/datastore/{path}", {"image": bad})
        yield f"put info {bad}", ask(server, "PUT", "/datastore/image/info", {"image": bad}, fields={"info": "{}"})
        for name, tag in ((bad, "final"), ("s0", bad)):
            about = {"label": name, "tag": tag}
            yield f"put label {about}", ask(server, "PUT", "/datastore/label", {**about, "image": name}, files=label)
            yield f"delete label {about}", ask(server, "DELETE", "/datastore/label", {"id": name, "tag": tag})
            yield f"get label {about}", ask(server, "GET", "/datastore/label", about)
            yield f"check label {about}", ask(server, "HEAD", "/datastore/label", {"image": name, "tag": tag})
            yield f"get label info {about}", ask(server, "GET", "/datastore/label/info", about)
            yield f"put label info {about}", ask(server, "PUT", "/datastore/label/info", about, fields={"info": "{}"})
            yield f"old label info {about}", ask(server, "PUT", "/datastore/updatelabelinfo", about, fields={})
        for request in ({"images": [bad]}, {"label_tag": bad}, {"bundle_path": bad}, {"gpus": bad}):
            yield f"batch {request}", ask(server, "POST", "/batch/infer/proxyprompt", json_body=request)
        for request in ({"bundle_path": bad}, {"weights": bad}, {"proxyprompt": {"run": [bad]}}):
            yield f"train {request}", ask(server, "POST", "/train/proxyprompt", json_body=request)
            yield f"train all {request}", ask(server, "POST", "/train/", json_body=request)
            yield f"score {request}", ask(server, "POST", "/scoring/spread", json_body=request)
        for method, place in (
            *(("GET", "session"), ("DELETE", "session"), ("GET", "model"), ("GET", "model/info"), ("PUT", "model")),
            *(("DELETE", "model"), ("GET", "proxy/dicom"), ("POST", "proxy/dicom/wado"), ("GET", "proxy/dicom/qido")),
            *(("POST", "infer"), ("POST", "train"), ("POST", "activelearning"), ("POST", "batch/infer")),
        ):
            for encoded in (quote(bad, safe=""), quote(quote(bad, safe=""), safe="")):
                yield f"{method} {place}/{encoded}", ask(server, method, f"/{place}/{encoded}", {"image": "s7"})
    for place in ("/ohif/../../etc/passwd", "/static/../../app.py", "/logs/../../etc/passwd", "/ohif/%2e%2e/x"):
        yield place, ask(server, "GET", place)
    for name in ("datastore_v2.json", "dataset.json", "groups.csv", "code.py", "page.html", ".lock", "plain"):
        yield f"image {name}", ask(server, "PUT", "/datastore/image", files={"file": (name, b"{}")})
        where = {"image": "s0", "tag": "final"}
        yield f"label {name}", ask(server, "PUT", "/datastore/label", where, files={"label": (name, b"{}")})
    yield "reload", ask(server, "POST", "/reload")
    yield "other weights", ask(server, "PUT", "/model/proxyprompt", files=file)
    yield "no weights", ask(server, "DELETE", "/model/proxyprompt")
    yield "no model", ask(server, "POST", "/train/spleen", json_body={})
    yield "no strategy", ask(server, "POST", "/activelearning/spleen", json_body={})


def tree(folder):
    """Every file but those in which the server keeps its own things."""
    own = (".proxyprompt", ".lock", "server.log")
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(own) for part in path.relative_to(folder).parts)
    }


def test_no_path_leads_anywhere(server):
    before = tree(server.studies.parent)
    wrong = [(what, status) for what, status in traversals(server) if not 400 <= status < 500]
    assert not wrong
    assert tree(server.studies.parent) == before
    assert requests.get(f"{server.url}/info/", timeout=60).status_code == 200


def test_other_machines_are_refused_without_host(server):
    """Asked by the address that others would use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks which address would be used
        except OSError:
            pytest.skip("this machine has no address but its own")
        address = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no address but its own")
    response = requests.get(f"http://{address}:{urlsplit(server.url).port}/info/", timeout=60)
    assert response.status_code == 403 and "--host" in response.json()["detail"]


def work(server, study):
    """An annotator: asks for a proposal, changes it, submits it, and looks at what was stored."""
    fields = {"params": json.dumps({"client_id": study})}
    query = {"image": study, "output": "image"}
    response = requests.post(
        f"{server.url}/infer/proxyprompt", params=query, files={"params": (None, fields["params"])}
    )
    assert response.status_code == 200, response.text
    own = np.full(np.asarray(Image.open(server.studies / f"{study}.png")).shape[:2], 0, np.uint8)
    own[: 5 + int(study[1:]), :20] = 1
    path = server.studies.parent / f"own_{study}.png"
    Image.fromarray(own).save(path)
    info = {"params": json.dumps({"label_info": [{"name": "head", "idx": 1}], "who": study})}
    where = {"image": study, "tag": "final"}
    answer = requests.put(
        f"{server.url}/datastore/label", params=where, files={"label": (path.name, path.read_bytes())}, data=info
    )
    assert answer.status_code == 200, answer.text
    where = {"label": study, "tag": "final"}
    stored = requests.get(f"{server.url}/datastore/label", params=where, timeout=60).content
    known = requests.get(f"{server.url}/datastore/label/info", params=where, timeout=60).json()
    return stored == path.read_bytes(), known.get("who")


def test_annotators_at_once_get_and_keep_their_own(server):
    studies = ["s4", "s5", "s6"]
    with ThreadPoolExecutor(3) as annotators:
        kept = list(annotators.map(lambda study: work(server, study), studies))
    assert kept == [(True, study) for study in studies]
    offered = requests.get(f"{server.url}/info/", timeout=60).json()["models"]["proxyprompt"]["config"]["support"]
    assert set(studies) < set(offered)
    report = requests.get(f"{server.url}/proxyprompt/report", timeout=60)
    assert report.headers["content-type"].startswith("text/csv")
    rows = [line.split(",") for line in report.text.splitlines()]
    cells = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows if row[1] == "head"}
    assert cells["s4"]["voxels"] == str(20 * 9)
    plain_image = requests.get(f"{server.url}/proxyprompt/report", params={"format": "png"}, timeout=60)
    assert plain_image.content.startswith(b"\x89PNG")


def test_many_clients_get_right_answers_without_waiting_for_each_other(server):
    """The short form of scripts/load_test.py, which also looks at the clock."""
    load = run_load(server.url, clients=6, seconds=10)
    assert not load.wrong
    assert load.most_at_once == 2
    assert load.percentile("info", 50) < load.percentile("infer", 50)


def work_list(server, **filters):
    return requests.get(f"{server.url}/proxyprompt/studies", params=filters, timeout=60).json()


def test_the_work_list_says_what_is_labelled_by_whom_and_what_is_proposed_why(server):
    everything = work_list(server)
    images = requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"]
    assert {row["id"] for row in everything["studies"]} == set(images) and everything["total"] == len(images)
    labelled = work_list(server, state="labelled")
    assert {row["id"] for row in labelled["studies"]} >= {"s0", "s1", "s2"}
    assert labelled["total"] == everything["counts"]["labelled"] == len(images) - everything["counts"]["unlabelled"]
    sample = requests.post(f"{server.url}/activelearning/random", json={"client_id": "anna"}, timeout=120).json()
    assert sample["reason"]
    (row,) = [each for each in work_list(server, state="proposed")["studies"] if each["id"] == sample["id"]]
    assert row["proposed"]["to"] == "anna" and row["proposed"]["reason"]
    assert row["id"] in {each["id"] for each in work_list(server, state="unlabelled")["studies"]}
    fields = {"params": json.dumps({"label_info": [{"name": "head", "idx": 1}], "client_id": "bert"})}
    file = {"label": ("x.png", (server.studies / "labels" / "final" / "s0.png").read_bytes())}
    where = {"image": sample["id"], "tag": "final", "base": ""}
    answer = requests.put(f"{server.url}/datastore/label", params=where, files=file, data=fields, timeout=60)
    assert answer.status_code == 200, answer.text
    (row,) = work_list(server, by="Bert")["studies"]
    assert (row["id"], row["state"], row["label"]["structures"]) == (sample["id"], "labelled", ["head"])
    assert work_list(server, text=sample["id"].upper())["studies"] == [row]
    assert work_list(server, structure="HEAD", by="bert")["studies"] == [row]
    pages = [work_list(server, limit=3, offset=offset)["studies"] for offset in range(0, len(images), 3)]
    assert [row["id"] for page in pages for row in page] == [row["id"] for row in everything["studies"]]
    assert requests.get(f"{server.url}/proxyprompt/studies?state=lost", timeout=60).status_code == 400


def test_a_flag_is_shown_and_a_person_decides(server):
    label = hashlib.sha256((server.studies / "labels" / "final" / "s1.png").read_bytes()).hexdigest()
    note = {"support_quality": {"dice": {"head": 0.2}, "flagged": ["head"], "label": label}}
    decide, where = f"{server.url}/proxyprompt/flags", {"image": "s1", "leave_out": "true", "client_id": "anna"}
    assert requests.post(decide, params={**where, "image": "s0"}, timeout=60).status_code == 400
    assert requests.post(decide, params={**where, "image": "nobody"}, timeout=60).status_code == 404
    about = {"info": json.dumps(note)}
    requests.put(f"{server.url}/datastore/image/info", params={"image": "s1"}, data=about, timeout=60)
    (row,) = work_list(server, flagged="true")["studies"]
    assert (row["id"], row["flagged"], row["dice"], row["decision"]) == ("s1", ["head"], {"head": 0.2}, None)
    assert requests.post(decide, params=where, timeout=60).status_code == 200
    (row,) = work_list(server, flagged="true")["studies"]
    assert row["decision"]["leave_out"] is True and row["decision"]["by"] == "anna"
    fields = {"params": (None, json.dumps({"structure": "head"}))}
    asked = {"image": "s7", "output": "json"}
    answer = requests.post(f"{server.url}/infer/proxyprompt", params=asked, files=fields, timeout=300).json()
    assert "anna" in answer["left_out"]["s1"] and "s1" not in {used["id"] for used in answer["supports"]}
    requests.post(decide, params={**where, "leave_out": "false"}, timeout=60)
    answer = requests.post(f"{server.url}/infer/proxyprompt", params=asked, files=fields, timeout=300).json()
    assert answer["left_out"] == {}
