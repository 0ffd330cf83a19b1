"""Where the viewer's files come from, and our pages."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.endpoints import ohif

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


@pytest.fixture
def restored(monkeypatch):
    monkeypatch.setattr(ohif, "get_ohif", ohif.get_ohif)


@pytest.fixture
def server():
    app = FastAPI(docs_url=None, redoc_url="/docs")
    app.get("/")(lambda: "stock")
    app.get("/info/")(lambda: "info")
    app.include_router(ohif.router)
    return app


def test_the_current_viewer_is_served_where_its_package_is(restored, server, monkeypatch, tmp_path):
    monkeypatch.setenv("PROXYPROMPT_OHIF", str(tmp_path))
    (tmp_path / "index.html").write_text("<html><head></head></html>")
    (tmp_path / "a.js").write_text("a")
    serve.install_viewer(server, tmp_path / "copies")
    serve.install_pages(server)
    client = TestClient(server)
    for address in ("/ohif", "/ohif/", "/ohif/proxyprompt?StudyInstanceUIDs=1.2"):
        assert "importmap" in client.get(address).text, address
    assert client.get("/a.js").text == "a"
    assert client.get("/ohif/proxyprompt/web/panel.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/ohif/proxyprompt/web/none.js").status_code == 404
    assert "importmap" in client.get("/ohif/proxyprompt/web/..%2Fpages.py").text
    assert client.get("/info/").text == '"info"' and client.get("/none").status_code == 404


def test_our_pages_stand_at_the_root_and_ask_nobody_else(server):
    serve.install_pages(server)
    client = TestClient(server)
    for address, script in (("/", "home.js"), ("/docs", "docs.js")):
        page = client.get(address).text
        assert script in page and "://" not in page
    for file in serve.WEB.iterdir():
        assert "https://" not in file.read_text(), f"{file.name} names another site"


def test_without_the_package_the_older_viewer_is_served_and_the_log_says_what_is_missing(
    restored, server, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("PROXYPROMPT_OHIF", str(tmp_path / "none"))
    serve.install_viewer(server, tmp_path / "copies")
    assert "without our panel" in caplog.text and "python -m proxyprompt.viewer.package" in caplog.text
    page = TestClient(server).get("/ohif/")
    assert page.status_code == 200 and "googleapis" not in page.text


def test_another_older_viewer_is_served_as_it_is(restored, server, monkeypatch, tmp_path, caplog):
    def refuse(stock, folder):
        raise ViewerError("a.js: is another version")

    monkeypatch.setenv("PROXYPROMPT_OHIF", str(tmp_path / "none"))
    monkeypatch.setattr(serve, "prepare_viewer", refuse)
    stock = ohif.get_ohif
    serve.install_viewer(server, tmp_path)
    assert ohif.get_ohif is stock and "a.js: is another version" in caplog.text
