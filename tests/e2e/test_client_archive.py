"""MONAI Label's own Python client, and what 3D Slicer does, on a DICOMweb server: CT, MR, ultrasound, clip, fundus."""

import io
import json
import time
from pathlib import Path

import client_example
import numpy as np
import orthanc
import pydicom
import pytest
import requests
import SimpleITK as sitk
from archive_studies import labelled_and_not
from monailabel.client import MONAILabelClient
from tiny_atto import write_tiny_atto

from proxyprompt.benchmark.server import running_server
from proxyprompt.io.study import read_study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
KINDS = ("ct", "mr", "us", "cine", "rgb")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(folder, kind -> study without a label), for an archive of each server."""
    folder = tmp_path_factory.mktemp("drawn") / "dicom"
    return folder, labelled_and_not(folder, KINDS)


@pytest.fixture(
    scope="module",
    params=["true", pytest.param("false", marks=pytest.mark.slow), None],
    ids=["converted", "not converted", "unset"],
)
def archived(request, tmp_path_factory, drawn):
    """(server, archive, kind -> study without a label); the archive holds one more of each, with a label."""
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    folder = tmp_path_factory.mktemp("archive")
    dicom, waiting = drawn
    environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache")}
    if request.param is not None:
        environment["MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI"] = request.param
    conf = {"weights_dir": write_tiny_atto(folder).parent, "background_scoring": "false"}
    with orthanc.running(folder / "orthanc") as archive:
        archive.push(dicom)
        with running_server(archive.dicomweb, log=folder / "server.log", conf=conf, environment=environment) as server:
            yield server, archive, waiting


@pytest.fixture
def client(archived, tmp_path):
    return MONAILabelClient(archived[0].url, tmpdir=str(tmp_path))


def supports(client):
    return set(client.info()["models"]["proxyprompt"]["config"]["support"]) - {"auto"}


def downloaded(client, sample, folder):
    """As 3D Slicer gets an image: from the path where that is on its machine, else from the server."""
    path = Path(sample.get("path", ""))
    if not path.is_file():
        answer = requests.get(f"{client.get_server_url()}/datastore/image", params={"image": sample["id"]}, timeout=300)
        assert answer.status_code == 200, answer.text
        path = folder / sample["name"]
        path.write_bytes(answer.content)
    return sitk.ReadImage(str(path))


def segs_on(archive, series):
    found = [pydicom.dcmread(io.BytesIO(file)) for file in archive.instances(Modality="SEG")]
    return [seg for seg in found if seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series]


@pytest.mark.parametrize("kind", KINDS)
def test_segment_correct_submit(archived, client, tmp_path, kind):
    _, archive, waiting = archived
    study = waiting[kind]
    _wait_for_labels(client)
    sample = {"id": study.series, "name": f"{study.series}.nii.gz"}
    image = downloaded(client, sample, tmp_path)
    shape = image.GetSize()[::-1]  # ITK reads NIfTI of one colour slice as 2-D
    assert shape in (study.truth.shape, study.truth.shape[1:])
    structure = next(iter(study.structures))
    mask, answer = client.infer("proxyprompt", study.series, {"structure": structure})
    assert sitk.ReadImage(mask).GetSize() == study.truth.shape[::-1]
    z, y, x = (int(n) for n in np.argwhere(study.truth == study.structures[structure])[0])
    edit = {"label": structure, "foreground": [[x, y, z]], "background": []}
    mask, answer = client.infer("proxyprompt_edit", study.series, edit)
    drawn = sitk.ReadImage(mask)
    assert sitk.GetArrayFromImage(drawn).reshape(study.truth.shape)[z, y, x] == answer["label_names"][structure]
    label = sitk.GetImageFromArray(
        study.truth.astype(np.uint8).reshape(shape)
    )  # as Slicer writes it: on the grid of what it opened
    label.CopyInformation(image)
    sitk.WriteImage(label, str(tmp_path / "label.nii.gz"))
    names = [{"name": name, "idx": value} for name, value in study.structures.items()]
    client.save_label(study.series, str(tmp_path / "label.nii.gz"), tag="final", params={"label_info": names})
    assert study.series in supports(client)
    (seg,) = segs_on(archive, study.series)
    assert {segment.SegmentLabel for segment in seg.SegmentSequence} == set(study.structures)
    back = tmp_path / "back.dcm"
    seg.save_as(back, write_like_original=False)
    labels = read_study(study.folder).to_grid(read_study(study.folder).read_label(back))
    assert ((labels > 0) == (study.truth > 0).reshape(labels.shape)).all()


def test_the_example_labels_the_rest(archived, client, capsys):
    server, _, _ = archived
    _wait_for_labels(client)
    before = supports(client)
    extra = requests.get(f"{server.url}/proxyprompt/studies", params={"state": "unlabelled"}, timeout=60).json()
    rounds = min(2, extra["total"])
    assert client_example.main(["--server", server.url, "--rounds", str(rounds)]) == 0
    assert len(supports(client)) == len(before) + rounds
    assert "is a support now" in capsys.readouterr().out


def test_a_series_is_still_to_be_had_as_dicom(archived, client):
    server, _, waiting = archived
    where = {"image": waiting["mr"].series, "format": "dicom"}
    answer = requests.get(f"{server.url}/datastore/image", params=where, timeout=60)
    assert answer.headers["content-type"] == "application/zip"


def test_a_result_as_dicom_seg(archived, client):
    server, _, waiting = archived
    fields = {"params": (None, json.dumps({"structure": "head"}))}
    where = {"image": waiting["us"].series, "output": "dicom_seg"}
    answer = requests.post(f"{server.url}/infer/proxyprompt", params=where, files=fields, timeout=300)
    assert answer.status_code == 200, answer.text
    seg = pydicom.dcmread(io.BytesIO(answer.content))
    assert seg.Modality == "SEG" and "head" in {segment.SegmentLabel for segment in seg.SegmentSequence}


def _wait_for_labels(client):
    end = time.monotonic() + 300
    while len(supports(client)) < client.info()["datastore"]["completed"]:
        assert time.monotonic() < end
        time.sleep(1)
