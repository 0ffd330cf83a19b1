"""The radiologist's loop in OHIF: real Orthanc, real server, real Chromium. Screenshots are kept and looked at.

They go to the folder that OHIF_SCREENSHOTS names, else to the test's own.
"""

import io
import os
from pathlib import Path

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


@pytest.fixture(scope="module")
def viewer(archived, tmp_path_factory):
    screenshots = Path(os.environ.get("OHIF_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    with viewer_page.viewer(archived.server.url, screenshots) as page:
        yield page


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
    offered = viewer.offered("support")
    assert study.series not in offered
    assert offered[archived.series(support)].startswith(support)
    viewer.choose(support=archived.series(support))
    told = viewer.segment()
    assert support in told and "Research use only" in told and all(name in told for name in names)
    viewer.shot(f"{target}_segmented")
    viewer.activate(next(iter(sorted(names))))
    viewer.brush((0.45, 0.25), (0.55, 0.25))
    viewer.shot(f"{target}_brushed")
    viewer.submit()
    drawn = submitted(archived, target, tmp_path)
    assert set(drawn) == names
    largest = max(study.structures, key=lambda name: (study.truth == study.structures[name]).sum())
    assert dice(drawn[largest], study.truth == study.structures[largest]) > 0.25
    assert study.series in archived.supports()
    if following:
        viewer.open(archived.studies[following].study)
        assert viewer.offered("support")[study.series].startswith(target)
        viewer.choose(support=study.series)
        assert target in viewer.segment()
        viewer.shot(f"{following}_with_the_new_support")


def test_a_click_corrects_one_structure_and_is_taken_back(archived, viewer):
    viewer.open(archived.studies["us_10"].study)
    viewer.segment()
    before = viewer.painted()
    answer = viewer.click_prompt("head", (0.5, 0.5))
    clicks = answer["clicks"]["head"]
    assert (clicks["inside"], clicks["outside"], clicks["slices"]) == (1, 0, [0])
    assert set(answer["label_names"]) == {"head"}
    viewer.shot("click")
    clicked = viewer.painted()
    assert clicked["head"] == answer["structures"]["head"]["voxels"] != before["head"]
    viewer.undo()
    assert viewer.painted() == before
    viewer.undo()
    assert viewer.painted() == clicked


def test_two_real_series_side_by_side(archived, viewer, tmp_path):
    if "flair" not in archived.studies:
        pytest.skip("real DICOM is not here (shared/data/dicom_brain_mr)")
    flair = read_study(archived.studies["flair"].folder)
    label = (flair.images(range(len(flair)))[:, 0] > 0.25).astype(np.uint8)
    flair.write_label(label, tmp_path / "label.nii.gz")
    response = archived.put("flair", tmp_path / "label.nii.gz", label_info=[{"name": "tissue", "idx": 1}])
    assert response.status_code == 200, response.text
    viewer.open(archived.studies["t2"].study)
    viewer.select_viewport("T2_reg")
    viewer.choose(support=archived.series("flair"), structure="tissue")
    assert "the same patient" in viewer.segment()
    viewer.shot("brain_segmented")
    viewer.submit()
    drawn = submitted(archived, "t2", tmp_path)
    assert set(drawn) == {"tissue"} and dice(drawn["tissue"], label > 0) > 0.2


@pytest.mark.parametrize("strategy", ["first", "random"])
def test_the_chosen_strategy_proposes_the_next_sample(archived, viewer, strategy):
    viewer.open(archived.studies["us_01"].study)
    asked, sample = viewer.next_sample(strategy)
    assert asked.endswith(f"/activelearning/{strategy}")
    assert sample["id"] not in archived.supports()
    assert viewer.page.url.endswith(sample["StudyInstanceUID"])


def test_update_model_starts_and_stops_a_training(archived, viewer):
    viewer.open(archived.studies["us_01"].study)
    assert viewer.update_model("Update Model") == 200
    viewer.shot("training")
    assert viewer.update_model("Stop Training") == 200


def test_what_a_training_made_is_used_until_it_is_rolled_back(archived, viewer):
    parent = archived.server.info()["models"]["proxyprompt"]["config"]["adapter"][0]
    viewer.open(archived.studies["us_08"].study)
    little = {"trainable": "all", "max_minutes": "0.05", "learning_rate": "0.00003"}
    viewer.choose("train", **little)  # a few pixels change: not worse, so published
    assert viewer.update_model("Update Model") == 200
    said = viewer.wait_for_training()
    viewer.shot("trained")
    version, _, fate = said.partition(" ")
    assert fate.startswith("is used from now on: mean Dice"), said
    told = viewer.segment()
    assert version in told and parent not in told
    viewer.shot("new_version")
    viewer.choose(adapter=parent)
    assert parent in viewer.segment()


def test_why_a_request_failed_is_said(archived, viewer):
    viewer.open(archived.studies["us_01"].study)
    viewer.choose(support=archived.series("us_01"))
    assert "is the target itself" in viewer.segment_refused()
    viewer.shot("refused")
