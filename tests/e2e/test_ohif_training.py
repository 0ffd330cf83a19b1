"""From labels to a new version of the model, and two versions compared, in a real Chromium: see test_ohif.py."""

import pytest
import viewer_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
]


def test_a_training_makes_a_version_that_is_compared_with_the_one_before(archived, viewer):
    viewer.open(archived.studies["us_10"].study)
    before = viewer.segment()["adapter"]
    first = viewer.pixels()
    assert viewer.page.locator("#pp-compare").count() == 0  # there is one version only
    viewer.option("minutes", "0.3")
    viewer.press("#pp-train")
    viewer.page.locator("#pp-training", has_text="epoch").wait_for(timeout=viewer_page.TRAINING)
    viewer.shot("training_epoch")
    viewer.page.locator("#pp-train").wait_for(timeout=viewer_page.TRAINING)
    said = viewer.page.locator("#pp-training").inner_text()
    viewer.shot("trained")
    stats = archived.server.info()["train_stats"]["proxyprompt"]
    assert stats["status"] == "published" and stats["validation_groups"] >= 3
    assert said.startswith(f"{stats['version']} is used from now on: mean Dice ")
    viewer.page.locator("#pp-compare").wait_for()  # without a new page
    versions = viewer.page.locator("#pp-version option").all_inner_texts()
    assert versions == [stats["version"], before]
    assert viewer.segment()["adapter"] == stats["version"]
    new = viewer.pixels()
    assert viewer.compare(before)["adapter"] == before
    assert viewer.said() == f"This is {before}. Toggle shows {stats['version']}"
    assert viewer.pixels() == first != new
    viewer.shot("compared")
    for expected, name in ((new, stats["version"]), (first, before)):
        viewer.press("#pp-toggle")
        viewer.page.locator("#pp-message", has_text=f"This is {name}").wait_for()
        assert viewer.pixels() == expected
    viewer.option("minutes", "")
