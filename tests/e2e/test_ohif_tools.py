"""What the panel does beside Auto-segment and Submit, in a real Chromium: see test_ohif.py."""

from dataclasses import replace

import pytest
import viewer_page

from proxyprompt.benchmark.server import APP
from proxyprompt.foundation import weights_identity
from proxyprompt.predictor.adapters import AdapterStore

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


def test_a_run_is_cancelled_here_and_on_the_server(archived, viewer):
    viewer.open(archived.studies["mr_06"].study)
    viewer.press("#pp-run")
    viewer.page.locator("#pp-busy", has_text="of 14 slices").wait_for()
    with viewer.page.expect_response(lambda r: "/progress/" in r.url and r.request.method == "DELETE") as answered:
        viewer.press("#pp-cancel")
    assert answered.value.json() == {"cancelled": True}
    assert viewer.settled().startswith("Auto-segment was cancelled: nothing was changed")
    assert viewer.painted() == {}
    assert set(viewer.segment()["structures"]) == {"organ", "nodule"}


def test_a_whole_training_tells_what_it_does_and_its_version_is_compared(archived, viewer):
    viewer.open(archived.studies["us_09"].study)
    viewer.option("minutes", "0.05")
    viewer.press("#pp-train")
    viewer.page.wait_for_function("() => document.querySelector('#pp-training')?.textContent.length > 10", timeout=1000)
    told = {viewer.page.locator("#pp-training").inner_text()}
    viewer.page.locator("#pp-stop").wait_for()
    while not viewer.page.locator("#pp-train").is_visible():
        told.add(viewer.page.locator("#pp-training").inner_text())
        viewer.page.wait_for_timeout(1000)
    viewer.option("minutes", "")
    assert any("loads the model" in text for text in told) and len(told) > 2, told
    said = viewer.page.locator("#pp-training").inner_text()
    version, _, fate = said.partition(" ")
    assert fate.startswith(("is used from now on", "is not used")), said
    viewer.shot("trained")
    version = _offered(archived, version)
    viewer.open(archived.studies["us_09"].study)
    viewer.page.locator(f'#pp-version option[value="{version}"]').wait_for(state="attached")
    shipped = next(v for v in viewer.page.locator("#pp-version option").all_inner_texts() if v.startswith("atto-"))
    viewer.page.locator("#pp-version").select_option(version)
    assert viewer.segment()["adapter"] == version
    new = viewer.pixels()
    with viewer.page.expect_response(lambda r: "/infer/" in r.url):
        viewer.page.locator("#pp-compare").select_option(shipped)
    assert viewer.settled() == f"This is {shipped}. Toggle shows {version}"
    old = viewer.pixels()
    assert old != new
    viewer.shot("compared")
    for name, drawn in ((version, new), (shipped, old)):
        viewer.press("#pp-toggle")
        viewer.page.wait_for_timeout(500)
        assert viewer.pixels() == drawn and viewer.said().startswith(f"This is {name}.")
    viewer.page.locator("#pp-version").select_option(shipped)


def _offered(archived, version):
    """A copy of a version that is on offer whatever the promotion check said of it."""
    folder = next(archived.server.studies.rglob("adapters"))
    foundation, sha256 = weights_identity("atto", APP / "model", verify=True)
    store = AdapterStore(folder, foundation=foundation, foundation_sha256=sha256)
    header, state = store.load(version)
    store.save(replace(header, name=f"{version}-shown", status="published"), state)
    return f"{version}-shown"


_SURFACES = """() => [...window.cornerstone.getRenderingEngines()][0].getViewports()
  .flatMap(viewport => viewport.getActors()).filter(actor => /-Surface-/.test(actor.representationUID ?? '')).length"""
