"""Where the viewer's files come from, and what the proxy tells."""

import asyncio
from types import SimpleNamespace

import pytest
from fastapi import Response
from monailabel.endpoints import ohif, proxy

from proxyprompt.viewer import serve
from proxyprompt.viewer.bundle import ViewerError


@pytest.fixture
def folders(tmp_path):
    for folder, files in (("patched", ["index.html", "a.js"]), ("stock", ["index.html", "a.js", "assets/b.css"])):
        for name in files:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(f"{folder} {name}")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "patched", tmp_path / "stock"


@pytest.mark.parametrize(
    ("address", "served"),
    [
        ("", "patched/index.html"),
        ("a.js", "patched/a.js"),
        ("assets/b.css", "stock/assets/b.css"),
        ("monai-label", "patched/index.html"),
        ("../secret.txt", "patched/index.html"),
        ("assets", "patched/index.html"),
    ],
)
def test_patched_files_come_first_and_nothing_from_outside(folders, tmp_path, address, served):
    answer = serve.page(address, folders)
    assert answer.path == (tmp_path / served).resolve()
    assert answer.headers["cache-control"] == "no-cache"


def proxied(method, status, stored):
    async def stock(request, op, path):
        return Response(f"{op} {path}", status_code=status)

    request = SimpleNamespace(method=method)
    return asyncio.run(serve.listening(stock, stored)(request, "wado", "studies"))


@pytest.mark.parametrize(("method", "status", "calls_expected"), [("POST", 200, 1), ("GET", 200, 0), ("POST", 409, 0)])
def test_a_successful_store_is_announced(method, status, calls_expected):
    calls = []
    answer = proxied(method, status, lambda: calls.append(1))
    assert len(calls) == calls_expected and answer.body == b"wado studies" and answer.status_code == status


def test_a_failure_to_take_it_in_does_not_fail_the_store():
    def fails():
        raise RuntimeError("archive gone")

    assert proxied("POST", 200, fails).status_code == 200


def test_another_ohif_is_served_as_it_is(monkeypatch, tmp_path, caplog):
    def refuse(stock, folder):
        raise ViewerError("a.js: is another version")

    monkeypatch.setattr(serve, "prepare_viewer", refuse)
    for module, name in ((ohif, "get_ohif"), (proxy, "proxy_dicom")):
        monkeypatch.setattr(module, name, getattr(module, name))
    stock = ohif.get_ohif
    serve.install_viewer(tmp_path, lambda: None)
    assert ohif.get_ohif is stock and "a.js: is another version" in caplog.text
