"""Nothing that says who a patient is leaves the studies: no log, no figure, no version, no journal has it.

A real server on DICOM files full of recognizable words is used as people use it, refusals and a training among it. Ids
of studies are not looked for: they are names of files.
"""

import json
import time

import numpy as np
import pytest
import requests
from dicom_files import CR, dicom, save_series, seg
from labelled_folders import write_plain_images
from PIL import Image
from pydicom import dcmread
from tiny_atto import APP, write_tiny_atto

from proxyprompt.benchmark.server import running_server
from proxyprompt.evaluation.client import Client, ServerError

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

PATIENTS, NAMES = 5, {"ring": (1,), "core": (2,)}
TAGS = {
    "PatientName": "Zweistein^Edeltraud",
    "PatientID": "PIDQ7731",
    "PatientBirthDate": "19110213",
    "PatientAddress": "Bernsteingasse 5",
    "OtherPatientIDs": "OPIDQ881",
    "InstitutionName": "Quarzklinik",
    "ReferringPhysicianName": "Wunderlich^Ottokar",
    "AccessionNumber": "ACCX5519",
}
BROKEN = {"PatientBirthDate": "13.Hornung", "PatientID": "PIDQ\\7731\x07", "PatientName": "Zweistein=" * 9}
WORDS = ("zweistein", "edeltraud", "pidq", "19110213", "hornung", "bernstein", "quarz", "wunderlich", "accx5519")
OWN = ("logs/requests.jsonl", "journal.jsonl", "structures.json", "training/stats.json", "adapters/groups.json")
OWN += ("adapters/adapter-",)
"""What must be there, and be searched."""


def tell(ds, number=0, tags=TAGS):
    """The dataset with all that must not get out; ``number`` is the patient's."""
    for name, value in {**TAGS, **tags}.items():
        setattr(ds, name, f"{value}{number}" if name in ("PatientID", "AccessionNumber") else value)
    return ds


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Images of CR with their masks, a patient each."""
    folder = tmp_path_factory.mktemp("drawn")
    write_plain_images(folder / "plain", groups=PATIENTS)
    for n in range(PATIENTS):
        pixels = np.asarray(Image.open(folder / "plain/images" / f"g{n}_0.png"))
        tell(dicom(pixels, sop=CR, modality="CR", series=f"1.2.3.{n}"), n).save_as(folder / f"scan{n}.dcm")
        Image.open(folder / "plain/masks" / f"g{n}_0.png").save(folder / f"mask{n}.png")
    broken = dicom(pixels, sop=CR, modality="CR", series="1.2.9")
    tell(broken, tags=BROKEN).save_as(folder / "broken.dcm")
    (folder / "cut.dcm").write_bytes((folder / "scan0.dcm").read_bytes()[:-900])
    tell(seg(np.ones((1, 9, 9), bool), [0], [1], {1: "ring"})).save_as(folder / "misfit.dcm")
    report = dicom(pixels, sop="1.2.840.10008.5.1.4.1.1.88.11", modality="SR", series="1.2.8")
    tell(report).save_as(folder / "report.dcm")
    return folder


def refused(function, *arguments, **options):
    with pytest.raises(ServerError) as found:
        function(*arguments, **options)
    assert found.value.status == 400, found.value


def use(url, drawn, studies):
    """Everything that people do."""
    client = Client(url)
    for n in range(PATIENTS):
        client.add_image(drawn / f"scan{n}.dcm", patient=f"PIDQ7731{n}")
        if n:
            client.submit(f"scan{n}", drawn / f"mask{n}.png", NAMES)
    client.add_image(drawn / "scan1.dcm", patient="PIDQ77311")
    client.add_image(drawn / "broken.dcm", patient="PIDQ77319")
    asked(url, "/activelearning/random")  # all that are left have a patient
    for name in ("report.dcm", "cut.dcm"):
        (studies / name).write_bytes((drawn / name).read_bytes())
    volume = save_series(drawn / "series", np.random.default_rng(0).integers(0, 900, (4, 48, 56)).astype(np.int16))
    for path in volume.iterdir():
        tell(dcmread(path)).save_as(path)
    volume.rename(studies / "series")
    wait_until_listed(client, "series", "cut")
    client.segment("scan0")
    client.segment("broken", support=["scan1"])
    client.segment("series", support=["scan1"])
    refused(client.segment, "cut")
    client.submit("scan0", drawn / "misfit.dcm")
    refused(client.segment, "scan1", support=["scan0"])
    refused(client.segment, "scan0", support=["nobody"])
    client.submit("scan0", drawn / "mask0.png", NAMES)
    for path, body in (
        ("/activelearning/random", {}),
        ("/activelearning/first", {}),
        ("/scoring/support_disagreement?run_sync=true", {}),
        ("/batch/infer/proxyprompt?images=all&run_sync=true", {"max_workers": 1}),
    ):
        asked(url, path, **body)
    with (drawn / "scan2.dcm").open("rb") as file:
        answer = requests.put(f"{url}/session/", files={"files": ("scan2.dcm", file)}, timeout=600)
    assert answer.status_code == 200, answer.text[:300]
    for path in ("/info/", "/datastore/?output=all", "/proxyprompt/studies?text=Zweistein", "/datastore/?output=train"):
        assert requests.get(f"{url}{path}", timeout=600).status_code == 200, path
    client.train(max_epochs=1, max_minutes=0.1)
    while (status := client.training()[0])["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(1)
    assert status["status"] == "DONE", status["details"]
    client.segment("scan0")


def asked(url, path, **body):
    answer = requests.post(f"{url}{path}", json=body, timeout=600)
    assert answer.status_code == 200, (path, answer.text[:300])


def wait_until_listed(client, *names):
    end = time.monotonic() + 120
    while True:
        try:
            return [client.image_info(name) for name in names]
        except ServerError:
            assert time.monotonic() < end, f"{names} are not listed"
            time.sleep(0.5)


def test_what_says_who_a_patient_is_stays_in_the_studies(drawn, tmp_path):
    app_log = APP / "logs" / "app.log"
    before = app_log.stat().st_size if app_log.exists() else 0
    studies = tmp_path / "studies"
    studies.mkdir()
    conf = {"weights_dir": write_tiny_atto(tmp_path).parent, "background_scoring": "true"}
    with running_server(studies, log=tmp_path / "server.log", conf=conf) as server:
        use(server.url, drawn, studies)
        texts = {"metrics": requests.get(f"{server.url}/metrics", timeout=60).content}
    texts["server.log"] = (tmp_path / "server.log").read_bytes()
    texts["app.log"] = app_log.read_bytes()[before if app_log.stat().st_size >= before else 0 :]
    for path in (studies / ".proxyprompt").rglob("*"):
        if path.is_file():
            texts[str(path.relative_to(studies))] = path.read_bytes()
    for own in OWN:
        assert any(own in name for name in texts), (own, sorted(texts))
    assert b"scan0" in texts["server.log"]  # the search below finds what is there
    found = {
        f"{name}: {word}: {around(text.lower(), word)}"
        for name, text in texts.items()
        for word in WORDS
        if word.encode() in text.lower()
    }
    assert not found, "\n".join(sorted(found))
    assert json.loads((studies / "datastore_v2.json").read_text())["objects"]  # which is part of the studies


def around(text, word):
    at = text.index(word.encode())
    return text[max(0, at - 120) : at + 80]
