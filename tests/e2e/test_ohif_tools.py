"""What the panel does beside Auto-segment and Submit, in a real Chromium: see test_ohif.py."""

import pytest
import viewer_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
]


def test_a_painted_slice_stays_and_its_neighbours_follow(archived, viewer):
    viewer.open(archived.studies["mr_05"].study)
    viewer.segment()
    first = viewer.pixels()
    viewer.activate("organ")
    viewer.brush((0.3, 0.3), (0.5, 0.3), (0.5, 0.5))
    painted = viewer.pixels()
    (slice_,) = [n for n, pixels in enumerate(painted) if pixels != first[n]]
    viewer.page.locator("#pp-painted").wait_for()
    answer = viewer.segment()
    assert len(answer["corrected"]) == 1
    viewer.shot("painted_slice")
    followed = viewer.pixels()
    assert followed[slice_] == painted[slice_]
    assert sum(followed[n] != first[n] for n in range(len(first)) if n != slice_) >= 2
    viewer.press("#pp-undo")
    viewer.page.wait_for_timeout(1000)
    assert viewer.pixels() == painted
    viewer.press("#pp-undo")
    viewer.page.wait_for_timeout(1500)
    assert viewer.pixels() == first and viewer.page.locator("#pp-painted").count() == 0


def test_a_box_and_a_lasso_run_at_once_and_are_taken_back(archived, viewer):
    viewer.open(archived.studies["us_09"].study)
    viewer.segment()
    before = viewer.painted()
    viewer.activate("head")
    answer = viewer.shape("box", (0.5, 0.3), (0.8, 0.7))
    assert answer["clicks"]["head"]["boxes"] == 1 and set(answer["label_names"]) == {"head"}
    boxed = viewer.painted()
    assert boxed["head"] == answer["structures"]["head"]["voxels"] != before["head"]
    assert viewer.page.locator(".pp-outline").count() == 1
    viewer.shot("box")
    answer = viewer.shape("lasso", (0.4, 0.3), (0.7, 0.3), (0.75, 0.6), (0.45, 0.65), (0.4, 0.4))
    clicks = answer["clicks"]["head"]
    assert (clicks["boxes"], clicks["inside"]) == (1, 1)  # in the place of the first box
    viewer.shot("lasso")
    for expected in (boxed, before):
        viewer.press("#pp-undo")
        viewer.page.wait_for_timeout(1000)
        assert viewer.painted() == expected


def test_where_the_supports_disagree_lies_over_the_image(archived, viewer):
    viewer.open(archived.studies["us_09"].study)
    viewer.segment()
    with viewer.page.expect_response(lambda r: "/proxyprompt/disagreement" in r.url) as answered:
        viewer.press("#pp-unsure")
    assert answered.value.status == 200
    found = answered.value.body()
    rows, columns = archived.studies["us_09"].truth.shape[1:]
    assert len(found) == rows * columns and max(found) > 100 and found.count(0) > len(found) / 2
    viewer.page.locator(".pp-uncertain").wait_for(state="attached")
    viewer.shot("uncertainty")
    viewer.press("#pp-unsure")
    viewer.page.locator(".pp-uncertain").wait_for(state="detached")


def test_the_structures_of_a_volume_are_shown_as_surfaces(archived, viewer):
    viewer.open(archived.studies["mr_02"].study)
    drawn = viewer.pixels()
    assert viewer.page.evaluate(_SURFACES) == 0
    viewer.asked.clear()
    viewer.press("#pp-3d")
    viewer.page.wait_for_function(f"() => ({_SURFACES})() === 2")
    viewer.page.locator("#pp-busy").wait_for(state="detached")
    viewer.shot("surfaces")
    viewer.press("#pp-3d")
    viewer.page.wait_for_function(f"() => ({_SURFACES})() === 0")
    viewer.page.locator("#pp-busy").wait_for(state="detached")
    viewer.page.wait_for_timeout(2000)
    assert viewer.pixels() == drawn and viewer.page.locator(".pp-unsaved").count() == 0
    assert all(address.startswith((viewer.url, "data:", "blob:")) for address in viewer.asked)


def test_a_running_request_is_cancelled_on_the_server_too_and_changes_nothing(archived, viewer):
    viewer.open(archived.studies["mr_06"].study)
    viewer.option("supports", "16")  # so that there is time
    viewer.press("#pp-run")
    viewer.page.locator("#pp-busy", has_text="slices").wait_for()
    viewer.shot("running")
    with viewer.page.expect_response(lambda r: r.request.method == "DELETE") as ended:
        viewer.press("#pp-cancel")
    assert ended.value.json()["cancelled"] is True
    assert viewer.settled() == "Auto-segment was cancelled: nothing was changed"
    viewer.page.wait_for_timeout(5000)  # nothing comes in late
    assert viewer.painted() == {} and viewer.page.locator("#pp-result").count() == 0
    viewer.shot("cancelled")
    viewer.option("supports", "")
    assert "organ" in viewer.segment()["structures"]


_SURFACES = """() => [...window.cornerstone.getRenderingEngines()][0].getViewports()
  .flatMap(viewport => viewport.getActors()).filter(actor => /-Surface-/.test(actor.representationUID ?? '')).length"""
