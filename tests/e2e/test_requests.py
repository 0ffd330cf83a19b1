"""Requests that are JSON, but not what is expected: drawn from the server's own description, and by hand.

Whatever comes, the answer is a sentence and never 500, and the server shows its studies afterwards as before.
"""

import io
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from labelled_folders import write_plain_images
from PIL import Image
from tiny_atto import weights

from proxyprompt.benchmark.server import running_server

pytestmark = pytest.mark.e2e

IDS = ["g0_0", "g2_0", "nobody", "", "../x", "O'Brien", "a\0b", "x" * 300, "\ud800"]
SPARE = ["nobody", "../x", "", "spare"]  # what may be deleted
WORDS = {
    "model": ["proxyprompt", "proxyprompt_edit", "spleen"],
    "strategy": ["random", "first", "disagreement", "none"],
    "method": ["support_disagreement", "support_quality", "dice"],
    "tag": ["final", "original", "../up", ""],
    "check_sum": ["SHA256:abc", "FOO:abc", ":", ""],
}
OPTIONS = (
    *("support", "structure", "supports", "adapter", "agreement", "everywhere", "result_extension", "result_dtype"),
    *("model", "image", "images", "label", "label_tag", "label_info", "label_names", "params", "session", "save_label"),
    *("foreground", "background", "ring", "strategy", "client_id", "device", "gpus", "max_workers", "max_batch_size"),
    *("mode", "clean", "corrected"),
    *("multi_gpu", "support_disagreement", "support_quality", "overwrite", "name", "PatientID", "max_epochs", "method"),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["g0_0", "ring", "final", "auto", "all", "true", "../x", ".nrrd", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(OPTIONS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=4)
TEXTS = st.one_of(OBJECTS, VALUES).map(json.dumps) | st.sampled_from(["", "{", "[" * 2000, "\0", "{}"])
NAMES = st.sampled_from(
    ["a.png", "a.b.c.png", "x.nii.gz", "..", ".png", "a" * 300 + ".png", "a\\b.png", "t.tar", "s.bin"]
)


def _png() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.arange(48 * 56, dtype=np.uint8).reshape(48, 56)).save(content, format="PNG")
    return content.getvalue()


CONTENTS = st.sampled_from([_png(), b"", b"no image"])


@dataclass
class Drawn:
    """One request."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


class Description:
    """The server's own description of its requests, to draw some from."""

    def __init__(self, openapi: dict[str, Any]) -> None:
        self._schemas = openapi.get("components", {}).get("schemas", {})
        self.operations = [
            (method.upper(), path, operation)
            for path, methods in sorted(openapi["paths"].items())
            for method, operation in sorted(methods.items())
        ]

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        return self._schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def query(self, name: str, schema: dict[str, Any], method: str) -> st.SearchStrategy[str]:
        choices = [self.resolved(choice) for choice in schema.get("anyOf", [schema])]
        valid = [st.sampled_from(choice["enum"]) for choice in choices if "enum" in choice]
        kinds = {choice.get("type") for choice in choices}
        valid += [st.booleans().map(str)] if "boolean" in kinds else []
        valid += [st.integers().map(str)] if "integer" in kinds else []
        words = SPARE if method == "DELETE" else WORDS.get(name, IDS)
        valid += [st.sampled_from(words)] if "string" in kinds and not valid else []
        return st.one_of(*valid, st.text(max_size=5) if method != "DELETE" else st.just(""))


@st.composite
def drawn_requests(draw, description: Description) -> Drawn:
    method, path, operation = draw(st.sampled_from(description.operations))
    drawn = Drawn(method, path)
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        if parameter["in"] == "path":
            value = draw(st.sampled_from(WORDS.get(name, IDS)) | st.text(max_size=5)) or "x"
            drawn.path = drawn.path.replace(f"{{{name}}}", _encoded(value.replace("/", "_")))
        elif parameter["in"] == "query" and (parameter.get("required") or draw(st.booleans())):
            drawn.query[name] = draw(description.query(name, parameter["schema"], method))
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        drawn.body = {"json": draw(OBJECTS | VALUES)}
    elif content:
        drawn.body = draw(drawn_forms(description.resolved(next(iter(content.values()))["schema"])))
    return _harmless(drawn)


@st.composite
def drawn_forms(draw, schema: dict[str, Any]) -> dict[str, Any]:
    data, files = {}, []
    for name, described in schema.get("properties", {}).items():
        if name not in schema.get("required", []) and draw(st.booleans()):
            continue
        if any(word in json.dumps(described) for word in ("contentMediaType", "binary")):
            files.append((name, (draw(NAMES), draw(CONTENTS))))
        else:
            data[name] = draw(TEXTS)
    return {"data": data, "files": files} if files else {"data": data}


def _harmless(drawn: Drawn) -> Drawn:
    """Nothing starts a process of its own, which would keep the machine busy for minutes, or a long computation."""
    body = drawn.body.get("json")
    if drawn.path.startswith("/train/") and drawn.method == "POST" and not (body and not isinstance(body, dict)):
        drawn.body = {"json": {**(body or {}), "max_epochs": "many"}}
    if drawn.path.startswith(("/scoring/", "/batch/")) and drawn.method == "POST":
        drawn.query["run_sync"] = "true"
        if not body or isinstance(body, dict):
            few = {"images": ["g2_0", "g3_0"]} if drawn.path.startswith("/batch/") else {}
            drawn.body = {"json": {"max_batch_size": 1, **few, **(body or {})}}
    return drawn


def _encoded(text: str) -> str:
    return quote(text.encode(errors="surrogatepass"), safe="")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("requests")
    write_plain_images(folder / "drawn", groups=4)
    shutil.copytree(folder / "drawn" / "images", folder / "studies")
    for name in ("g0_0", "g1_0"):
        (folder / "studies/labels/final").mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"drawn/masks/{name}.png", folder / "studies/labels/final")
    conf = {**weights(folder), "background_scoring": "false"}
    with running_server(folder / "studies", log=folder / "server.log", conf=conf) as running:
        yield running


@pytest.fixture(scope="module")
def description(server):
    return Description(requests.get(f"{server.url}/openapi.json", timeout=60).json())


def ask(url: str, drawn: Drawn) -> requests.Response:
    query = "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in drawn.query.items())
    body = dict(drawn.body)
    if "json" in body:
        body = {"data": json.dumps(body["json"]), "headers": {"Content-Type": "application/json"}}
    return requests.request(drawn.method, f"{url}{drawn.path}?{query}", timeout=300, allow_redirects=False, **body)


def check(url: str, drawn: Drawn) -> None:
    answer = ask(url, drawn)
    assert answer.status_code < 500, (drawn, answer.status_code, answer.text[:500])
    if answer.status_code >= 400 and drawn.method != "HEAD":
        assert answer.json()["detail"], (drawn, answer.text[:500])
    for address in ("/info/", "/datastore/?output=all"):
        after = requests.get(f"{url}{address}", timeout=300)
        assert after.status_code == 200, (drawn, address, after.text[:500])


BOUNDED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@BOUNDED
@given(data=st.data())
def test_whatever_comes_is_answered_and_harms_nobody(server, description, data):
    check(server.url, data.draw(drawn_requests(description)))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_whatever_comes_at_length(server, description):
    """For PROXYPROMPT_FUZZ_MINUTES, of which an hour has 60."""
    end = time.monotonic() + 60 * float(os.environ.get("PROXYPROMPT_FUZZ_MINUTES", "10"))
    rounds = 0
    while time.monotonic() < end:

        @settings(BOUNDED, derandomize=False)
        @seed(rounds)
        @given(data=st.data())
        def one_round(data):
            check(server.url, data.draw(drawn_requests(description)))

        one_round()
        rounds += 1
    assert rounds


FORMS = {"params": ["[]", "3", "null", '"x"', "{", '{"a": NaN}', '{"model": []}', '{"model": {}}', '{"session": 3}']}
FORMS["params"] += ['{"label_tag": {}}', '{"support": {"a": 1}}', '{"supports": [[]]}', '{"image": ["g2_0"]}']
BY_HAND = [
    *(Drawn("POST", "/infer/proxyprompt", {"image": "g2_0"}, {"data": {"params": p}}) for p in FORMS["params"]),
    *(Drawn("POST", "/infer/proxyprompt_edit", {"image": "g2_0"}, {"data": {"params": p}}) for p in FORMS["params"]),
    Drawn("POST", "/infer/proxyprompt"),
    Drawn("POST", "/infer/proxyprompt", {"image": "g2_0", "output": "dicom_seg"}),
    Drawn("POST", "/infer/proxyprompt", {}, {"files": [("file", ("a.png", b"x"))]}),
    Drawn("POST", "/infer/proxyprompt", {"image": "g2_0"}, {"files": [("label", ("a.bin", b"x"))]}),
    Drawn("POST", "/infer/wsi_v2/proxyprompt", {"image": "g2_0"}, {"data": {"wsi": '{"level": "x"}'}}),
    Drawn("POST", "/infer/wsi_v2/proxyprompt", {"image": "g2_0"}, {"data": {"wsi": "[]"}}),
    Drawn("POST", "/infer/wsi_v2/proxyprompt", {}, {"data": {"wsi": "{}"}}),
    Drawn("POST", "/infer/wsi_v2/proxyprompt", {}, {"files": [("file", ("a.png", b"x"))]}),
    *(
        Drawn("PUT", path, {"image": "g0_0", "label": "g0_0", "tag": "final"}, {"data": {"info": info}})
        for path in ("/datastore/image/info", "/datastore/label/info")
        for info in ("[]", "3", "null", "{", '{"a": NaN}', '{"strategy": 5}', '{"label_info": 5}')
    ),
    *(
        Drawn("POST", path, {}, {"json": body})
        for path in ("/activelearning/first", "/scoring/support_quality", "/batch/infer/proxyprompt")
        for body in ([], 3, "x", [[]])
    ),
    Drawn("POST", "/scoring/support_disagreement", {"run_sync": "true"}, {"json": {"model": []}}),
    Drawn("POST", "/activelearning/first", {}, {"json": {"strategy": []}}),
    Drawn("POST", "/activelearning/first", {}, {"json": {"strategy": {"a": 1}}}),
    Drawn("POST", "/batch/infer/proxyprompt", {}, {"json": {"max_workers": "two"}}),
    Drawn("POST", "/batch/infer/proxyprompt", {}, {"json": {"device": {"a": 1}}}),
    Drawn("PUT", "/session/", {"uncompress": "true"}, {"files": [("files", ("a.tar", b"x"))]}),
    Drawn("PUT", "/session/", {}, {"files": [("files", ("..", b"x"))]}),
]


@pytest.mark.parametrize("drawn", BY_HAND, ids=lambda drawn: f"{drawn.path} {drawn.query} {drawn.body}"[:90])
def test_what_is_not_as_expected_is_refused(server, drawn):
    check(server.url, drawn)
    assert ask(server.url, drawn).status_code == 400


def test_the_description_tells_of_the_apps_own_requests(description):
    parameters = {
        (method, path): [p["name"] for p in operation.get("parameters", [])]
        for method, path, operation in description.operations
    }
    assert "overwrite" in parameters["PUT", "/datastore/image"]
    assert ("PUT", "/datastore/label") in parameters and ("GET", "/proxyprompt/report") in parameters
