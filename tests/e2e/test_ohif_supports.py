"""Which supports serve in an archive of many kinds, and what is said of them, in a real Chromium: see test_ohif.py."""

import os
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import orthanc
import pytest
import requests
import viewer_page
from archive_studies import REAL, REAL_SERIES, drawn_study, real_study, saved
from dicom_files import MR, dicom, place
from test_server import Server

from proxyprompt.benchmark.server import running_server
from proxyprompt.io.dicom_seg_writer import write_seg

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
    pytest.mark.skipif(orthanc.missing() is not None, reason=orthanc.missing() or ""),
]

SONOGRAMS = ("us_01", "us_02", "us_03", "us_04", "us_05", "us_06")
WRONG = "us_06"  # its label lies elsewhere
PROSTATES = ("Case01", "Case07", "Case14", "Case15", "Case17")  # the last one has no label


def prostate(name, folder):
    """A real volume of the pelvis as a DICOM series whose tags do not say what it shows."""
    image, mask = (nibabel.load(REAL / "promise12" / kind / f"{name}.nii.gz") for kind in ("images", "masks"))
    volume = np.asarray(image.dataobj).transpose(2, 1, 0).clip(0, None).astype(np.uint16)
    truth = (np.asarray(mask.dataobj) > 0).transpose(2, 1, 0).astype(np.uint8)
    files = [place(dicom(plane, sop=MR, modality="MR", number=n + 1), n) for n, plane in enumerate(volume)]
    return saved(name, files, folder, truth, {"prostate": 1})


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Labelled sonograms and prostates; a sonogram, a prostate and a brain without labels."""
    if not (REAL / "promise12").is_dir() or not (REAL / REAL_SERIES["flair"]).is_dir():
        pytest.skip("real images are not here (shared/data)")
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "seg").mkdir()
    studies = {name: drawn_study(name, folder / name) for name in (*SONOGRAMS, "us_07")}
    studies |= {name: prostate(name, folder / name) for name in PROSTATES}
    for name in (*SONOGRAMS, *PROSTATES[:-1]):
        study = studies[name]
        truth = np.roll(study.truth, study.truth.shape[2] // 2, axis=2) if name == WRONG else study.truth
        masks = {s: truth.transpose(2, 1, 0) == value for s, value in study.structures.items()}
        write_seg(study.folder, masks, folder / "seg" / f"{name}.dcm")
    studies["flair"] = real_study("flair")
    cache = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache")}
    asleep = {"background_scoring": "false"}  # this test says when labels are scored
    with orthanc.running(folder / "orthanc") as archive:
        archive.push(folder / "seg", *(study.folder for study in studies.values()))
        with running_server(archive.dicomweb, log=folder / "log", conf=asleep, environment=cache) as running:
            server = Server(running.url, folder, running.process)
            server.wait_for_labels()
            yield SimpleNamespace(server=server, studies=studies)


@pytest.fixture(scope="module")
def viewer(mixed, tmp_path_factory):
    folder = Path(os.environ.get("OHIF_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    with viewer_page.viewer(mixed.server.url, folder) as page:
        yield page


def ids(mixed, names):
    return {mixed.studies[name].series for name in names}


def used(answer):
    return {support["id"] for support in answer["supports"]}


def warnings(viewer):
    return viewer.page.locator(".pp-panel p.pp-warning").all_inner_texts()


def test_each_study_gets_supports_of_its_kind_and_a_brain_gets_no_prostate(mixed, viewer):
    viewer.open(mixed.studies["us_07"].study)
    answer = viewer.segment()
    assert set(answer["structures"]) == {"head", "symphysis"} and used(answer) <= ids(mixed, SONOGRAMS)
    viewer.open(mixed.studies["Case17"].study)
    answer = viewer.segment()
    assert set(answer["structures"]) == {"prostate"} and used(answer) <= ids(mixed, PROSTATES)
    assert viewer.painted()["prostate"] > 0
    viewer.open(mixed.studies["flair"].study)
    viewer.select_viewport("FLAIR")
    viewer.press("#pp-run")
    said = viewer.settled()
    assert "no labelled study fits this image" in said and "prostate" in said and viewer.kind() in ("bad", "warn")
    assert viewer.painted() == {}
    viewer.shot("brain_without_prostate")


def test_supports_that_hardly_look_like_the_image_are_a_warning_in_colour(mixed, viewer):
    viewer.open(mixed.studies["us_07"].study)
    viewer.pick(mixed.studies["Case01"].series)
    answer = viewer.segment()
    assert used(answer) == ids(mixed, ("Case01",)) and answer["supports_fit"] is False
    assert viewer.said().startswith("The supports hardly look like this image") and viewer.kind() == "warn"
    assert viewer.page.locator("#pp-result tr.pp-low").count() == 1
    (said,) = [text for text in warnings(viewer) if "another modality" in text]
    assert "Case01 · MR · Case01 · 2025-01-01" in said  # its name
    assert mixed.studies["Case01"].series not in said
    viewer.shot("unlike_supports")
    viewer.let_choose()


def test_a_flag_is_shown_before_a_person_lets_it_change_results(mixed, viewer):
    wrong = mixed.studies[WRONG].series
    mark = viewer.page.locator(f'#pp-supports figure[data-id="{wrong}"] .pp-flag')
    viewer.open(mixed.studies["us_07"].study)
    viewer.option("supports", "8")
    before = viewer.segment()
    drawn = viewer.pixels()
    assert wrong in used(before) and mark.count() == 0
    scored = requests.post(f"{viewer.url}/scoring/support_quality", params={"run_sync": True}, json={}, timeout=600)
    assert scored.status_code == 200, scored.text
    again = viewer.segment()
    assert again["supports"] == before["supports"] and viewer.pixels() == drawn  # a flag alone changes nothing
    mark.wait_for()  # without a new page
    (said,) = [text for text in warnings(viewer) if "flagged as bad" in text]
    assert WRONG in said and wrong not in said  # its name, and no UID
    viewer.shot("flagged")
    viewer.option("name", "Ada")
    viewer.press(f'#pp-supports figure[data-id="{wrong}"] button[title="Enlarge"]')
    viewer.press("text=Leave it out for everybody")
    viewer.page.locator(f'#pp-supports figure[data-id="{wrong}"] .pp-flag[title*="left out by Ada"]').wait_for()
    without = viewer.segment()
    assert wrong not in used(without) and without["left_out"].keys() == {wrong}
    (said,) = [text for text in warnings(viewer) if "was not used" in text]
    assert WRONG in said and "left out by Ada" in said and wrong not in said and "+00:00" not in said
    viewer.shot("left_out")
    viewer.pick(wrong)
    assert used(viewer.segment()) == {wrong}  # a pinned choice stays, whatever was decided
    viewer.page.reload(wait_until="domcontentloaded")
    viewer.ready()
    assert viewer.page.locator(f'.pp-picked[data-id="{wrong}"]').count() == 1
    viewer.let_choose()


def test_a_label_that_others_store_meanwhile_is_shown_after_a_run(mixed, viewer):
    viewer.open(mixed.studies["us_01"].study)
    assert "shown here" in viewer.page.locator("#pp-stored").inner_text()
    with viewer.page.context.browser.new_context(viewport=viewer_page.WINDOW).new_page() as other_page:
        other = viewer_page.Viewer(other_page, viewer.url, viewer.folder)
        other.open(mixed.studies["us_01"].study)
        other.option("name", "Grace")
        other.activate("head")
        other.brush((0.3, 0.3), (0.4, 0.3))
        assert "Submitted" in other.submit()
    viewer.segment()
    stored = viewer.page.locator("#pp-stored", has_text="by Grace")
    stored.wait_for()
    assert "newer than what is shown here" in stored.inner_text()
    viewer.press("text=Start from it")
    viewer.page.locator("#pp-stored", has_text="shown here").wait_for()
    viewer.brush((0.6, 0.6), (0.7, 0.6))
    assert "Submitted" in viewer.submit()  # it began with that label: there is nothing to ask
