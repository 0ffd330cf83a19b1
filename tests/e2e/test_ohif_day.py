"""What the radiologist does all day, in clicks and seconds: the table of docs/how-to/dicomweb-and-ohif.md.

``day.json`` in the folder of the screenshots (OHIF_SCREENSHOTS) has the figures of this machine.
"""

import json
import time
from contextlib import contextmanager

import pytest
import viewer_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
]


def test_the_day_in_clicks_and_seconds(archived, viewer):
    table = {}

    @contextmanager
    def measured(what, clicks):
        viewer.count()
        started = time.monotonic()
        yield
        table[what] = {"clicks": viewer.clicks, "seconds": round(time.monotonic() - started, 1)}
        assert viewer.clicks <= clicks, table

    viewer.page.goto(f"{viewer.url}/", wait_until="domcontentloaded")
    row = f'#studies tr[data-id="{archived.series("us_10")}"] a'
    viewer.page.locator(row).first.wait_for()
    with measured("open a study from the work list and run", 3):
        viewer.press(row)
        viewer.ready()
        viewer.segment()
    with measured("choose another support by its picture and run", 2):
        viewer.pick(archived.series("us_05"))
        viewer.segment()
    viewer.let_choose()
    viewer.open(archived.studies["us_16"].study)
    with measured("correct a stored label (beside the stroke)", 2):
        viewer.brush((0.5, 0.5), (0.6, 0.5))
        assert "Submitted" in viewer.submit()
    with measured("next sample", 1):
        viewer.next_sample()
    (viewer.folder / "day.json").write_text(json.dumps(table, indent=1))
