"""Stored labels in the panel: what a Submit replaces is kept and offered back, in a real Chromium; see test_ohif.py."""

import pytest
import viewer_page
from test_ohif import sizes, submitted

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
]


def test_the_label_before_is_kept_and_offered_back(archived, viewer, tmp_path):
    viewer.open(archived.studies["us_17"].study)
    first = sizes(submitted(archived, "us_17", tmp_path))
    pixels = viewer.pixels()
    assert viewer.painted() == first
    assert viewer.page.get_by_text("Earlier labels").count() == 0
    viewer.option("name", "Ada")
    viewer.activate("head")
    viewer.brush((0.3, 0.3), (0.5, 0.3))
    corrected = viewer.pixels()
    assert "Submitted" in viewer.submit()
    viewer.page.locator("#pp-stored", has_text="by Ada").wait_for()
    viewer.press("text=Earlier labels")
    viewer.shot("earlier_labels")
    assert "which label shall count again" in viewer.choose_in_dialog(0).casefold()
    viewer.page.locator("#pp-message", has_text="counts again").wait_for()
    assert viewer.pixels() == pixels != corrected
    assert sizes(submitted(archived, "us_17", tmp_path)) == first
    viewer.press("text=Earlier labels")
    assert "by Ada" in viewer.page.locator("dialog.pp-dialog").inner_text()  # what was replaced by that is kept, too
    with viewer.page.expect_response(lambda r: "/label/voxels" in r.url):
        viewer.choose_in_dialog(0)
    viewer.page.wait_for_timeout(2000)  # it is being drawn
    assert viewer.pixels() == corrected
