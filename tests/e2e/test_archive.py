"""The loop on a DICOMweb server, over HTTP: real Orthanc, real server."""

import io

import numpy as np
import pydicom
import pytest
import requests
from archive_studies import LABELLED
from requests_toolbelt import MultipartEncoder

from proxyprompt.io.dicom_seg_writer import write_seg
from proxyprompt.io.study import read_study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def stow(archived, file):
    """As OHIF exports a SEG: to the server's proxy."""
    body = MultipartEncoder({"seg": ("seg.dcm", file.read_bytes(), "application/dicom")})
    boundary = body.content_type.split("boundary=")[1]
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    address = f"{archived.server.url}/proxy/dicom/wado/studies"
    return requests.post(address, data=body.to_string(), headers={"Content-Type": kind}, timeout=300)


def voxels(nrrd):
    return np.frombuffer(nrrd.partition(b"\n\n")[2], np.uint8)


def dice(a, b):
    return 2 * (a & b).sum() / max(1, a.sum() + b.sum())


def segment(archived, name, **params):
    nrrd, answer = archived.server.segment(archived.series(name), result_extension=".nrrd", **params)
    return voxels(nrrd), answer


def stored(archived, name):
    """The SEGs of a study in the archive, the newest last."""
    found = [pydicom.dcmread(io.BytesIO(f)) for f in archived.archive.instances(Modality="SEG")]
    mine = [s for s in found if s.ReferencedSeriesSequence[0].SeriesInstanceUID == archived.series(name)]
    return sorted(mine, key=lambda s: s.ContentDate + s.ContentTime)


def test_the_panel_shows_what_the_archive_holds(archived):
    info = archived.server.info()
    labelled = {*LABELLED, "ct"} & set(archived.studies)
    assert {archived.series(name) for name in labelled} <= set(archived.supports())
    assert info["datastore"]["total"] == len(archived.studies)
    task = info["models"]["proxyprompt"]
    assert {"head", "symphysis", "lesion", "disc", "organ", "nodule"} <= set(task["labels"])
    assert task["names"][archived.series("us_01")] == "us_01 · US · us_01 · 2025-01-01"


@pytest.mark.parametrize(
    ("name", "support", "names"),
    [
        ("us_10", "us_02", {"head", "symphysis"}),
        ("rgb_08", "rgb_01", {"lesion", "disc"}),
        ("cine_01", "us_02", {"head", "symphysis"}),
        ("mr_06", "mr_01", {"organ", "nodule"}),
    ],
)
def test_every_kind_of_study_is_segmented(archived, name, support, names):
    study = archived.studies[name]
    drawn, answer = segment(archived, name, support=archived.series(support))
    assert drawn.size == study.truth.size
    assert set(answer["label_names"]) == names and set(np.unique(drawn)) <= {0, *answer["label_names"].values()}
    files = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in study.folder.iterdir()}
    assert len(answer["instances"]) == len(study.truth) and {uid for uid, _ in answer["instances"]} == files
    drawn = drawn.reshape(study.truth.shape)
    largest = max(study.structures, key=lambda n: (study.truth == study.structures[n]).sum())
    assert dice(drawn == answer["label_names"][largest], study.truth == study.structures[largest]) > 0.3


def test_a_submitted_label_is_a_seg_and_a_support_at_once(archived, tmp_path):
    study = archived.studies["mr_05"]
    assert study.series not in archived.supports()
    read_study(study.folder).write_label(study.truth, tmp_path / "label.nii.gz")
    names = [{"name": name, "idx": value} for name, value in study.structures.items()]
    assert archived.put("mr_05", tmp_path / "label.nii.gz", label_info=names).status_code == 200
    assert study.series in archived.supports()
    (seg,) = stored(archived, "mr_05")
    assert {s.SegmentLabel for s in seg.SegmentSequence} == set(study.structures)
    _, answer = segment(archived, "mr_06", support=study.series)
    assert {used["id"] for used in answer["supports"]} == {study.series}


def test_what_the_viewer_exports_counts_and_is_joined_by_name(archived, tmp_path):
    study = archived.studies["us_09"]
    turned = reversed(study.structures.items())  # other numbers than in the other labels
    masks = {name: study.truth.transpose(2, 1, 0) == value for name, value in turned}
    response = stow(archived, write_seg(study.folder, masks, tmp_path / "seg.dcm"))
    assert response.status_code == 200, response.text
    assert study.series in archived.supports()
    ours, answer = segment(archived, "us_08", support=study.series)
    theirs, other = segment(archived, "us_08", support=archived.series("us_01"))
    assert answer["label_names"] == other["label_names"]
    head = answer["label_names"]["head"]
    assert dice(ours == head, theirs == head) > 0.3


def test_the_newest_label_counts(archived, tmp_path):
    study = archived.studies["rgb_07"]
    for names in (["lesion"], ["disc"]):
        masks = {n: study.truth.transpose(2, 1, 0) == study.structures[n] for n in names}
        assert stow(archived, write_seg(study.folder, masks, tmp_path / f"{names[0]}.dcm")).status_code == 200
    _, answer = segment(archived, "rgb_08", support=study.series)
    assert set(answer["label_names"]) == {"disc"}


def test_a_label_that_does_not_fit_is_refused_and_not_stored(archived, tmp_path):
    read_study(archived.studies["us_08"].folder).write_label(
        np.ones(archived.studies["us_08"].truth.shape, np.uint8), tmp_path / "label.nrrd"
    )
    response = archived.put("mr_06", tmp_path / "label.nrrd", label_info=[{"name": "organ", "idx": 1}])
    assert response.status_code == 400 and "grid" in response.json()["detail"]
    (tmp_path / "label.bin").write_bytes(b"\0" * 10)
    response = archived.put("mr_06", tmp_path / "label.bin", label_info=[{"name": "organ", "idx": 1}])
    assert response.status_code == 400 and "instances" in response.json()["detail"]
    assert not stored(archived, "mr_06")


def test_real_mr_from_brush_to_the_next_series(archived, tmp_path):
    if "flair" not in archived.studies:
        pytest.skip("real DICOM is not here (shared/data/dicom_brain_mr)")
    flair, t2 = read_study(archived.studies["flair"].folder), read_study(archived.studies["t2"].folder)
    grey = flair.images(range(len(flair)))[:, 0]
    flair.write_label((grey > 0.25).astype(np.uint8), tmp_path / "head.nii.gz")
    response = archived.put("flair", tmp_path / "head.nii.gz", label_info=[{"name": "tissue", "idx": 1}])
    assert response.status_code == 200, response.text
    drawn, answer = segment(archived, "t2", structure="tissue")
    assert [used["same_group"] for used in answer["supports"]] == [True] * len(answer["supports"])
    inside = t2.images(range(len(t2)))[:, 0] > 0.15
    assert drawn.any() and inside[drawn.reshape(inside.shape) > 0].mean() > 0.5


def test_the_next_sample_is_an_unlabelled_image(archived):
    response = requests.post(f"{archived.server.url}/activelearning/first", json={}, timeout=120)
    sample = response.json()
    assert response.status_code == 200 and sample["Modality"] != "SEG"
    assert sample["id"] not in archived.supports() and sample["StudyInstanceUID"]
