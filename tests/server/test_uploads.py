"""Versions that come over the network."""

import pytest
import requests
import torch
from fastapi import FastAPI
from loopback import serving
from versions import NAME, write_version

from proxyprompt.predictor.adapters import AdapterStore
from proxyprompt.server.answers import install_answers
from proxyprompt.server.install import include_first
from proxyprompt.server.uploads import upload_router


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "served", foundation="atto-1", foundation_sha256="a" * 64)


@pytest.fixture
def url(store):
    server = FastAPI()

    @server.put("/model/{model}")
    async def what_was_there_before(model: str):
        return "not asked"

    install_answers(server)
    include_first(server, upload_router(lambda: store))
    with serving(server) as url:
        yield url


def put(url, name, content):
    return requests.put(f"{url}/model/proxyprompt", files={"file": (name, content)}, timeout=30)


def test_a_version_trained_elsewhere_is_added(url, store, tmp_path):
    file = write_version(tmp_path / "elsewhere")
    answer = put(url, file.name, file.read_bytes())
    assert answer.status_code == 200 and answer.json()["version"] == NAME
    assert store.versions() == [NAME]
    assert torch.equal(store.load(NAME)[1]["weight"], torch.ones(2, 2))


def test_what_is_no_version_for_these_weights_is_refused(url, store, tmp_path):
    other = write_version(tmp_path / "other", sha256="b" * 64).read_bytes()
    good = write_version(tmp_path / "good").read_bytes()
    changed = good[:-1] + bytes([good[-1] ^ 1])
    names = [(f"{NAME}.safetensors", content) for content in (b"", b"nonsense", other, changed)]
    for name, content in [*names, ("..safetensors", good), (".safetensors", good)]:
        answer = put(url, name, content)
        assert answer.status_code == 400, (name, answer.text)
        assert "not taken" in answer.json()["detail"]
    assert not store.folder.exists()


def test_no_version_is_replaced(url, store, tmp_path):
    for value, status in ((1.0, 200), (2.0, 400)):
        file = write_version(tmp_path / f"from{value}", value=value)
        assert put(url, file.name, file.read_bytes()).status_code == status
    assert torch.equal(store.load(NAME)[1]["weight"], torch.ones(2, 2))
