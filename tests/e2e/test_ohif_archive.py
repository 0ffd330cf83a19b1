"""OHIF on an archive that others use too: its list of studies, 3D Slicer beside it, an archive that goes away."""

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import orthanc
import pytest
import requests
import SimpleITK as sitk
import viewer_page
from archive_studies import ArchiveStudy, labelled_and_not
from dicom_files import dicom
from pydicom.uid import generate_uid
from tiny_atto import write_tiny_atto

from proxyprompt.benchmark.server import running_server

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
]
KINDS = ("us", "cine", "mr")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass
class Bench:
    """A server on an archive that can be stopped; ``waiting``: kind -> study without a label."""

    url: str
    waiting: dict[str, ArchiveStudy]
    archive: ExitStack
    orthanc: orthanc.Orthanc
    page: viewer_page.Viewer

    def info(self):
        return requests.get(f"{self.url}/info/", timeout=60).json()

    def supports(self):
        return self.info()["models"]["proxyprompt"]["config"]["support"]


@pytest.fixture(scope="module", params=["true", None], ids=["converted", "unset"])
def bench(request, tmp_path_factory):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    folder = tmp_path_factory.mktemp("archive")
    waiting = labelled_and_not(folder / "dicom", KINDS)
    environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache"), "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "1"}
    if request.param:
        environment["MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI"] = request.param
    conf = {"weights_dir": write_tiny_atto(folder).parent, "background_scoring": "false"}
    with ExitStack() as archive:
        running = archive.enter_context(orthanc.running(folder / "orthanc"))
        running.push(folder / "dicom")
        with running_server(running.dicomweb, log=folder / "server.log", conf=conf, environment=environment) as server:
            end = time.monotonic() + 300
            while len(requests.get(f"{server.url}/proxyprompt/supports", timeout=60).json()["supports"]) < 2 * len(
                KINDS
            ):
                assert time.monotonic() < end
                time.sleep(1)
            with viewer_page.viewer(server.url, tmp_path_factory.mktemp("screenshots")) as page:
                yield Bench(server.url, waiting, archive, running, page)


@pytest.mark.parametrize("kind", KINDS)
def test_3d_slicer_and_the_viewer_label_for_each_other(bench, tmp_path, kind):
    study, page = bench.waiting[kind], bench.page
    answer = requests.get(f"{bench.url}/datastore/image", params={"image": study.series}, timeout=300)  # as 3D Slicer
    assert answer.status_code == 200, answer.text
    (tmp_path / "image.nii.gz").write_bytes(answer.content)
    image = sitk.ReadImage(str(tmp_path / "image.nii.gz"))
    shape = image.GetSize()[::-1]
    label = sitk.GetImageFromArray(study.truth.astype(np.uint8).reshape(shape))
    label.CopyInformation(image)
    sitk.WriteImage(label, str(tmp_path / "label.nii.gz"))
    names = [{"name": name, "idx": value} for name, value in study.structures.items()]
    stored = requests.put(
        f"{bench.url}/datastore/label",
        params={"image": study.series, "tag": "final"},
        files={"label": ("label.nii.gz", (tmp_path / "label.nii.gz").read_bytes())},
        data={"params": json.dumps({"label_info": names, "client_id": "Slicer"})},
        timeout=300,
    )
    assert stored.status_code == 200, stored.text
    page.open(study.study)
    assert page.painted() == {name: int((study.truth == value).sum()) for name, value in study.structures.items()}
    assert "Slicer" in page.page.locator("#pp-stored").inner_text()
    page.activate(next(iter(study.structures)))
    page.brush((0.5, 0.4), (0.6, 0.4))
    drawn = page.painted()
    assert page.submit().startswith("Submitted: ")
    assert page.kind() == "good"
    assert study.series in bench.supports()
    back = requests.get(f"{bench.url}/datastore/label", params={"label": study.series, "tag": "final"}, timeout=300)
    assert back.status_code == 200, back.text
    page.shot(f"{kind}_of_slicer_and_viewer")
    page.open(study.study)
    assert page.painted() == drawn


def test_the_study_list_filters_pages_and_describes(bench):
    page = bench.page
    page.page.goto(f"{bench.url}/ohif/", wait_until="domcontentloaded")
    page.page.get_by_text("Study List").wait_for()
    page.page.get_by_text("us_01 study").first.wait_for()  # the description
    page.page.get_by_text("mr_02").first.wait_for()
    page.page.locator("input").first.fill("us_03")  # below "Patient"
    page.page.get_by_text("mr_02").first.wait_for(state="detached")
    assert page.page.get_by_text("us_03").count() > 0
    page.shot("filtered_list")
    several = requests.get(f"{bench.url}/proxy/dicom/qido/studies", params={"limit": 5, "offset": 10}, timeout=60)
    assert len(several.json()) == 2  # of twelve


def test_the_series_of_one_patient_only_stand_beside_the_image(bench):
    page = bench.page
    page.open(bench.waiting["us"].study)
    shown = page.page.locator('[data-cy^="study-browser-thumbnail"]')
    names = " ".join(shown.all_inner_texts())
    assert bench.waiting["us"].name in names
    assert "mr_0" not in names
    assert "cine_0" not in names


def test_a_secondary_capture_is_a_study_like_any_other(bench, tmp_path):
    page = bench.page
    pixels = np.random.default_rng(3).integers(0, 200, (90, 110), dtype=np.uint8)
    file = dicom(pixels, sop=SECONDARY_CAPTURE, modality="OT")
    file.PatientID = file.PatientName = "capture"
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.StudyDescription = file.SeriesDescription = "screen of a machine"
    file.StudyDate, file.StudyTime, file.StudyID, file.AccessionNumber = "20250101", "120000", "1", "1"
    file.save_as(tmp_path / "capture.dcm", write_like_original=False)
    bench.orthanc.push(tmp_path / "capture.dcm")
    end = time.monotonic() + 60
    while True:
        rows = requests.get(f"{bench.url}/proxyprompt/studies", timeout=60).json()["studies"]
        if file.SeriesInstanceUID in {row["id"] for row in rows}:
            break
        assert time.monotonic() < end
        time.sleep(1)
    page.open(file.StudyInstanceUID)
    page.pick(next(id for id, name in page.supports().items() if "us_0" in name))
    assert page.segment()["structures"]
    assert "screen of a machine" in page.submit()
    assert file.SeriesInstanceUID in bench.supports()
    page.let_choose()


def test_an_archive_that_is_stopped_keeps_nobody_waiting(bench):  # the last one: it does not come back
    page = bench.page
    page.open(bench.waiting["mr"].study)
    page.segment()
    drawn = page.painted()
    bench.archive.close()
    begun = time.monotonic()
    assert page.segment()["structures"]
    assert time.monotonic() - begun < 60
    page.press("#pp-submit")
    said = page.settled()
    page.shot("archive_stopped")
    assert "as soon as the archive is back" in said
    assert page.kind() == "warn"
    assert not any(word in said for word in ("Error", "Exception", "HTTPConnection"))
    assert page.painted().keys() == drawn.keys()
    taken = time.monotonic()
    assert bench.waiting["mr"].series in bench.supports()
    assert time.monotonic() - taken < 5
