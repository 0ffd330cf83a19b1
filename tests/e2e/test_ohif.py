"""The radiologist's day in OHIF: real Orthanc, real server, real Chromium. Screenshots are kept and looked at.

They go to the folder that OHIF_SCREENSHOTS names, else to the test's own.
"""

import io

import numpy as np
import pydicom
import pytest
import viewer_page

from proxyprompt.io.dicom_seg import segment_names
from proxyprompt.io.study import read_study

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
]


def submitted(archived, name, folder):
    """name -> (Z, rows, columns) bool of the newest SEG of a study in the archive."""
    study = archived.studies[name]
    found = [pydicom.dcmread(io.BytesIO(file)) for file in archived.archive.instances(Modality="SEG")]
    mine = [seg for seg in found if seg.ReferencedSeriesSequence[0].SeriesInstanceUID == study.series]
    newest = max(mine, key=lambda seg: seg.ContentDate + seg.ContentTime)
    newest.save_as(folder / "seg.dcm")
    labels = read_study(study.folder).read_label(folder / "seg.dcm")
    return {label: labels == number for number, label in segment_names(folder / "seg.dcm").items()}


def dice(a, b):
    return 2 * (a & b).sum() / max(1, a.sum() + b.sum())


def sizes(drawn):
    return {name: int(mask.sum()) for name, mask in drawn.items() if mask.any()}


# one day


@pytest.mark.parametrize(
    ("target", "support", "following", "names"),
    [
        ("us_07", "us_01", "us_10", {"head", "symphysis"}),
        ("rgb_09", "rgb_02", "rgb_10", {"lesion", "disc"}),
        ("mr_07", "mr_01", "mr_08", {"organ", "nodule"}),
        ("cine_02", "us_02", None, {"head", "symphysis"}),
    ],
)
def test_choose_a_support_segment_correct_submit_and_go_on(
    archived, viewer, tmp_path, target, support, following, names
):
    study = archived.studies[target]
    viewer.open(study.study)
    offered = viewer.supports()
    assert study.series not in offered
    assert support in offered[archived.series(support)]
    viewer.let_choose()
    viewer.count()
    viewer.pick(archived.series(support))
    answer = viewer.segment()
    assert viewer.clicks == 2
    assert {used["id"] for used in answer["supports"]} == {archived.series(support)}
    assert set(answer["structures"]) == names
    viewer.shot(f"{target}_segmented")
    viewer.activate(next(iter(sorted(names))))
    viewer.brush((0.45, 0.25), (0.55, 0.25))
    viewer.shot(f"{target}_brushed")
    modality = {"us": "US", "cine": "US", "rgb": "OP", "mr": "MR"}[target.split("_")[0]]
    assert viewer.submit().endswith(f"as the label of {modality} · {target}")
    assert viewer.kind() == "good"
    drawn = submitted(archived, target, tmp_path)
    assert set(drawn) == names and sizes(drawn) == viewer.painted()
    largest = max(study.structures, key=lambda name: (study.truth == study.structures[name]).sum())
    assert dice(drawn[largest], study.truth == study.structures[largest]) > 0.25
    assert study.series in archived.supports()
    viewer.let_choose()
    if following:
        viewer.open(archived.studies[following].study)
        assert target in viewer.supports()[study.series]
        viewer.pick(study.series)
        assert {used["id"] for used in viewer.segment()["supports"]} == {study.series}
        viewer.shot(f"{following}_with_the_new_support")
        viewer.let_choose()


def test_a_point_corrects_one_structure_and_is_taken_back(archived, viewer):
    viewer.open(archived.studies["us_10"].study)
    viewer.segment()
    before = viewer.painted()
    viewer.activate("head")
    answer = viewer.point((0.5, 0.5))
    clicks = answer["clicks"]["head"]
    assert (clicks["inside"], clicks["outside"], clicks["slices"]) == (1, 0, [0])
    assert set(answer["label_names"]) == {"head"}
    viewer.shot("point")
    clicked = viewer.painted()
    assert clicked["head"] == answer["structures"]["head"]["voxels"] != before["head"]
    viewer.press("#pp-undo")
    viewer.page.wait_for_timeout(1000)
    assert viewer.painted() == before and viewer.page.locator(".pp-inside").count() == 0
    viewer.press("#pp-redo")
    viewer.page.wait_for_timeout(1000)
    assert viewer.painted() == clicked and viewer.page.locator(".pp-inside").count() == 1


def test_the_next_sample_is_one_click_away_and_says_why(archived, viewer):
    viewer.open(archived.studies["us_01"].study)
    viewer.count()
    sample = viewer.next_sample()
    assert viewer.clicks == 1
    assert sample not in archived.supports()
    assert "Proposed next: " in viewer.page.locator(".pp-info").first.inner_text()
    viewer.shot("next_sample")


def test_a_volume_opens_where_something_is_to_be_seen(archived, viewer):
    viewer.open(archived.studies["mr_08"].study)
    viewer.page.wait_for_function(f"() => ({_FRAME})() === 7")  # its middle; scanners' VOI LUT function hides nothing


def test_keys_do_what_their_list_says(archived, viewer):
    viewer.open(archived.studies["us_09"].study)
    size = float(viewer.page.locator("#pp-brush-size").input_value())
    viewer.page.keyboard.press("]")
    viewer.page.wait_for_timeout(500)
    assert float(viewer.page.locator("#pp-brush-size").input_value()) > size
    with viewer.page.expect_response(lambda r: "/infer/" in r.url) as answered:
        viewer.page.keyboard.press("r")
    assert answered.value.status == 200
    viewer.settled()
    for key, tool in (("p", "brush"), ("e", "eraser"), ("f", "foreground"), ("b", "background")):
        viewer.page.keyboard.press(key)
        viewer.page.locator(f"#pp-{tool}.pp-on").wait_for()
    before = viewer.painted()
    viewer.page.keyboard.press("z")
    viewer.page.wait_for_timeout(1000)
    assert viewer.painted() == {} != before


# what broke in the old viewer


def test_play_on_an_ultrasound_clip_and_the_work_stays(archived, viewer):
    viewer.open(archived.studies["cine_01"].study)
    viewer.segment()
    before = viewer.painted()
    viewer.errors.clear()
    frame = viewer.page.evaluate(_FRAME)
    viewer.page.locator('[data-cy="cine-player-play-pause"]').first.click()
    viewer.page.wait_for_function(f"() => ({_FRAME})() !== {frame}")
    viewer.shot("playing")
    assert not viewer.errors and viewer.painted() == before and before


def test_nothing_is_asked_for_from_elsewhere(archived, viewer):
    viewer.asked.clear()
    viewer.page.goto(f"{viewer.url}/ohif/", wait_until="domcontentloaded")
    viewer.page.get_by_text("Study List").wait_for()
    viewer.page.get_by_text("us_08").first.wait_for()
    viewer.shot("study_list")
    viewer.open(archived.studies["us_08"].study)
    viewer.segment()
    elsewhere = [a for a in viewer.asked if not a.startswith((viewer.url, "data:", "blob:"))]
    assert len(viewer.asked) > 20 and elsewhere == []


def test_a_stored_label_is_shown_and_never_replaced_unseen(archived, viewer, tmp_path):
    viewer.open(archived.studies["us_04"].study)
    stored = submitted(archived, "us_04", tmp_path)
    assert viewer.painted() == sizes(stored)
    assert "Labelled by" in viewer.page.locator("#pp-stored").inner_text()
    viewer.shot("stored_label")
    viewer.press("text=Start afresh")
    viewer.page.wait_for_timeout(1000)
    assert viewer.painted() == {}
    viewer.segment()
    viewer.press("#pp-submit")
    assert "which you did not start from" in viewer.answer_dialog("Cancel")
    assert sizes(submitted(archived, "us_04", tmp_path)) == sizes(stored)
    viewer.press("#pp-submit")
    viewer.answer_dialog("Show it instead")
    viewer.page.locator("#pp-stored", has_text="shown here").wait_for()
    assert viewer.painted() == sizes(stored)


def test_two_browsers_on_one_study_do_not_overwrite_each_other(archived, viewer, tmp_path):
    viewer.open(archived.studies["us_05"].study)
    with viewer.page.context.browser.new_context(viewport=viewer_page.WINDOW).new_page() as other_page:
        other = viewer_page.Viewer(other_page, viewer.url, viewer.folder)
        other.open(archived.studies["us_05"].study)
        other.option("name", "Ada")
        other.activate("head")
        other.brush((0.3, 0.3), (0.4, 0.3))
        other.submit()
    theirs = sizes(submitted(archived, "us_05", tmp_path))
    viewer.activate("head")
    viewer.brush((0.6, 0.6), (0.7, 0.6))
    viewer.press("#pp-submit")
    assert "Ada" in viewer.answer_dialog("Show it instead")
    viewer.page.locator("#pp-stored", has_text="Ada").wait_for()
    viewer.page.locator("#pp-busy").wait_for(state="detached")
    assert sizes(submitted(archived, "us_05", tmp_path)) == theirs == viewer.painted()


def test_the_browsers_back_button_asks_before_unsaved_work_is_left(archived, viewer):
    viewer.page.goto(f"{viewer.url}/ohif/", wait_until="domcontentloaded")
    viewer.page.get_by_text("rgb_10").first.click()
    viewer.page.get_by_text("Proxy Prompt", exact=True).first.click()
    viewer.ready()
    study = viewer.page.url
    viewer.segment()
    drawn = viewer.painted()
    viewer.page.evaluate("setTimeout(() => history.back(), 50)")  # or this call waits for the page it goes to
    assert "not submitted" in viewer.answer_dialog("Stay here")
    assert viewer.page.url == study and viewer.painted() == drawn
    viewer.page.evaluate("setTimeout(() => history.back(), 50)")  # or this call waits for the page it goes to
    viewer.answer_dialog("Leave")
    viewer.page.get_by_text("Study List").wait_for()
    viewer.open(archived.studies["rgb_10"].study)
    viewer.press("text=Continue it")
    viewer.page.wait_for_timeout(2500)
    assert viewer.painted() == drawn


def test_leaving_with_unsaved_work_asks_and_a_draft_is_kept(archived, viewer):
    study = archived.studies["us_08"].study
    viewer.open(study)
    viewer.segment()
    viewer.brush((0.4, 0.4), (0.5, 0.4))
    drawn = viewer.painted()
    viewer.dialogs.clear()
    viewer.page.reload(wait_until="domcontentloaded")
    assert viewer.dialogs == ["beforeunload"]
    viewer.ready()
    viewer.page.locator("#pp-draft").wait_for()
    viewer.shot("draft")
    viewer.press("text=Continue it")
    viewer.page.wait_for_timeout(2500)
    assert viewer.painted() == drawn
    viewer.page.locator('[data-cy="return-to-work-list"]').click()
    assert "not submitted" in viewer.answer_dialog("Stay here")
    assert viewer.painted() == drawn
    viewer.page.locator('[data-cy="return-to-work-list"]').click()
    viewer.answer_dialog("Leave")
    viewer.page.get_by_text("Study List").wait_for()
    viewer.open(study)
    viewer.press("text=Discard it")
    viewer.page.locator("#pp-draft").wait_for(state="detached")
    assert viewer.painted() == {}


def test_there_is_no_field_for_the_address_of_the_server(archived, viewer):
    viewer.open(archived.studies["us_01"].study)
    viewer.page.locator("#pp-options summary").click()
    fields = viewer.page.locator(".pp-panel input:not([type=range]):not([type=checkbox])")
    assert fields.count() > 0
    assert not any("http" in value for value in fields.evaluate_all("all => all.map(one => one.value)"))
    assert "127.0.0.1" not in viewer.page.locator(".pp-panel").inner_text()


def test_a_stored_label_is_corrected_with_two_clicks(archived, viewer, tmp_path):
    viewer.open(archived.studies["us_06"].study)
    before = viewer.painted()
    viewer.count()
    viewer.brush((0.5, 0.5), (0.6, 0.5))
    viewer.submit()
    assert viewer.clicks == 2 and viewer.kind() == "good"
    after = sizes(submitted(archived, "us_06", tmp_path))
    assert after == viewer.painted() != before


def test_the_brush_fits_the_image_and_asks_for_a_name(archived, viewer):
    viewer.open(archived.studies["rgb_08"].study)
    viewer.press("#pp-brush")
    dialog = viewer.page.locator("dialog.pp-dialog")
    dialog.locator("input").fill("drusen")
    dialog.get_by_text("OK").click()
    viewer.page.locator("#pp-brush.pp-on").wait_for()
    viewer.brush((0.5, 0.5), (0.5, 0.5))
    rows, columns = archived.studies["rgb_08"].truth.shape[1:]
    painted = viewer.painted()
    assert set(painted) == {"drusen"} and 0.0005 < painted["drusen"] / (rows * columns) < 0.02


def test_a_submit_that_reaches_no_server_is_said_and_loses_nothing(archived, viewer):
    viewer.open(archived.studies["us_08"].study)
    viewer.segment()
    drawn = viewer.painted()
    viewer.page.context.set_offline(True)
    try:
        viewer.press("#pp-submit")
        said = viewer.settled()
    finally:
        viewer.page.context.set_offline(False)
    assert said.startswith("Not submitted: The server does not answer") and viewer.kind() == "bad"
    assert viewer.painted() == drawn
    viewer.shot("server_away")
    assert viewer.submit().startswith("Submitted: ")


def test_the_pages_at_the_root_work_alone(archived, viewer):
    viewer.asked.clear()
    viewer.page.goto(f"{viewer.url}/", wait_until="domcontentloaded")
    row = viewer.page.locator(f'#studies tr[data-id="{archived.series("us_01")}"]')
    row.wait_for()
    assert "us_01" in row.inner_text() and "labelled" in row.inner_text()
    viewer.page.locator("#state").select_option("unlabelled")
    row.wait_for(state="detached")
    viewer.shot("work_list")
    viewer.page.goto(f"{viewer.url}/docs", wait_until="domcontentloaded")
    viewer.page.get_by_text("/infer/{model}").first.wait_for()
    viewer.shot("docs")
    assert all(address.startswith(viewer.url) for address in viewer.asked)


def test_options_and_the_report_survive_tabs_and_page_loads(archived, viewer):
    viewer.open(archived.studies["us_09"].study)
    viewer.option("name", "Grace")
    viewer.option("agreement", False)
    viewer.option("agreement", True)
    viewer.option("everywhere", True)
    viewer.segment()
    report = viewer.page.locator("#pp-result").inner_text()
    for open_again in (lambda: _other_tab_and_back(viewer.page), lambda: viewer.open(archived.studies["us_09"].study)):
        open_again()
        viewer.page.locator("#pp-result").wait_for()
        assert viewer.page.locator("#pp-result").inner_text() == report
        assert viewer.page.locator("#pp-option-name").input_value() == "Grace"
        assert viewer.page.locator("#pp-option-everywhere").is_checked()
    viewer.option("everywhere", False)


def test_two_series_side_by_side_keep_their_own_overlays(archived, viewer, tmp_path):
    if "flair" not in archived.studies:
        pytest.skip("real DICOM is not here (shared/data/dicom_brain_mr)")
    flair = read_study(archived.studies["flair"].folder)
    label = (flair.images(range(len(flair)))[:, 0] > 0.25).astype(np.uint8)
    flair.write_label(label, tmp_path / "label.nii.gz")
    response = archived.put("flair", tmp_path / "label.nii.gz", label_info=[{"name": "tissue", "idx": 1}])
    assert response.status_code == 200, response.text
    viewer.open(archived.studies["t2"].study)
    viewer.select_viewport("FLAIR_reg")
    assert viewer.painted() == {"tissue": int(label.sum())}
    viewer.select_viewport("T2_reg")
    assert viewer.painted() == {}
    viewer.pick(archived.series("flair"))
    viewer.want("tissue")
    assert any("the same patient" in text for text in viewer.segment()["warnings"])
    viewer.shot("brain_segmented")
    assert "T2_reg" in viewer.submit()
    drawn = submitted(archived, "t2", tmp_path)
    assert set(drawn) == {"tissue"} and dice(drawn["tissue"], label > 0) > 0.2
    viewer.select_viewport("FLAIR_reg")
    assert viewer.painted() == {"tissue": int(label.sum())}
    viewer.let_choose()


def test_why_a_request_failed_is_said(archived, viewer):
    viewer.open(archived.studies["us_10"].study)
    viewer.want("nodule")
    viewer.pick(archived.series("us_01"))
    viewer.press("#pp-run")
    assert "nodule" in viewer.settled() and viewer.kind() == "bad"
    viewer.shot("refused")
    viewer.let_choose()


# training


def test_update_model_says_what_it_does_from_the_first_second_and_stops(archived, viewer):
    viewer.open(archived.studies["us_01"].study)
    viewer.press("#pp-train")
    viewer.page.wait_for_function("() => document.querySelector('#pp-training')?.textContent.length > 10", timeout=3000)
    viewer.page.locator("#pp-stop").wait_for()
    viewer.page.wait_for_timeout(3000)
    viewer.shot("training")
    viewer.press("#pp-stop")
    viewer.page.locator("#pp-train").wait_for()


_FRAME = "() => [...window.cornerstone.getRenderingEngines()][0].getViewports()[0].getCurrentImageIdIndex()"


def _other_tab_and_back(page) -> None:
    page.locator('[data-cy="panelSegmentationWithToolsLabelMap-btn"]').click()
    page.locator("#pp-run").wait_for(state="detached")
    page.locator('[data-cy="proxyprompt-btn"]').click()
    page.locator("#pp-run").wait_for()
