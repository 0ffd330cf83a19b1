"""What answers at the viewer's addresses."""

import gzip

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from proxyprompt.viewer.pages import Beneath, ViewerFiles, page_of

HASHED = "app.bundle.0f6159c501addfe9.js"


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "viewer"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<html><head><script src='/a.js'></script></head></html>")
    (folder / HASHED).write_text("script" * 1000)
    (folder / f"{HASHED}.gz").write_bytes(gzip.compress(b"script" * 1000))
    (folder / "assets" / "b.css").write_text("b {}")
    (folder / "app-config.js").write_text("theirs")
    (tmp_path / "secret.txt").write_text("secret")
    return ViewerFiles(folder)


@pytest.fixture
def client(files):
    return TestClient(Beneath(files, PlainTextResponse("otherwise", 404)))


def test_the_import_map_comes_before_every_script_and_is_the_only_change():
    page = page_of("<html><head><script src='/a.js'></script></head></html>")
    assert page.startswith('<html><head><script type="importmap">{"imports":{"@proxyprompt/extension":"/ohif/')
    assert page.endswith("</script><script src='/a.js'></script></head></html>")


@pytest.mark.parametrize("address", ["/ohif/", "/ohif/proxyprompt", "/ohif/anything/else"])
def test_every_address_of_the_viewer_is_its_page(files, address):
    answer = files.page(address)
    assert b"importmap" in answer.body and answer.headers["cache-control"] == "no-cache"


def test_the_address_of_monai_labels_mode_leads_to_ours(files):
    answer = files.page("/ohif/monai-label", "StudyInstanceUIDs=1.2")
    assert (answer.status_code, answer.headers["location"]) == (307, "/ohif/proxyprompt?StudyInstanceUIDs=1.2")


def test_hashed_files_are_kept_by_browsers_and_sent_small(client):
    answer = client.get(f"/{HASHED}")
    assert answer.text == "script" * 1000 and answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    plain = client.get(f"/{HASHED}", headers={"Accept-Encoding": "identity"})
    assert plain.text == "script" * 1000 and "content-encoding" not in plain.headers


def test_other_files_are_asked_for_each_time(client):
    answer = client.get("/assets/b.css")
    assert (answer.text, answer.headers["content-type"]) == ("b {}", "text/css; charset=utf-8")
    assert answer.headers["cache-control"] == "no-cache"


def test_the_configuration_is_ours(client):
    assert "@proxyprompt/mode" in client.get("/app-config.js").text


@pytest.mark.parametrize("address", ["/", "/index.html", "/assets", "/none.js", "/%2e%2e/secret.txt"])
def test_all_else_is_answered_by_the_server(client, address):
    assert client.get(address).text == "otherwise"


def test_only_reading_is_answered(client):
    assert client.post("/assets/b.css").text == "otherwise"
