"""MONAI Label's older OHIF, which serves where npm cannot be reached, in a real Chromium without other sites."""

import time

import pytest
import viewer_page

from proxyprompt.benchmark.server import running_server

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
]


@pytest.fixture(scope="module")
def older(archived, tmp_path_factory):
    folder = tmp_path_factory.mktemp("older")
    environment = {
        "PROXYPROMPT_OHIF": str(folder / "nothing"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache"),
    }
    with running_server(archived.archive.dicomweb, log=folder / "server.log", environment=environment) as running:
        yield running


def test_it_opens_and_segments_a_volume(archived, older, viewer, record_property):
    assert "python -m proxyprompt.viewer.package" in older.log.read_text()
    page = viewer.page.context.browser.new_context(viewport=viewer_page.WINDOW).new_page()
    page.route(lambda address: not address.startswith((older.url, "data:", "blob:")), lambda route: route.abort())
    old = viewer_page.Viewer(page, older.url, viewer.folder)
    page.goto(f"{older.url}/ohif/", wait_until="domcontentloaded")
    page.get_by_text("mr_06").first.wait_for()
    old.count()
    started = time.monotonic()
    old.press("text=mr_06")
    old.press("text=MONAI Label")
    page.wait_for_selector(".cornerstone-canvas")
    with page.expect_response(lambda r: r.url.endswith("/info/") and r.request.method == "GET"):
        old.press(".settingsTable button.actionButton")
    page.wait_for_timeout(2000)  # the models are being listed
    with page.expect_response(lambda r: "/infer/" in r.url and r.request.method == "POST") as answered:
        old.press('button:text-is("Run")')
    assert answered.value.status == 200, answered.value.text()
    record_property("clicks", old.clicks)
    record_property("seconds", round(time.monotonic() - started, 1))
    old.shot("older_viewer")
    elsewhere = [a for a in old.asked if not a.startswith((older.url, "data:", "blob:"))]
    assert len(old.asked) > 20 and elsewhere == []
    page.context.close()
