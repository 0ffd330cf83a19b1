"""An archive that is stopped, or hangs, while people work: a real Orthanc, ended and held, and a real server."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import orthanc
import pytest
import requests
from archive_studies import labelled_and_not
from tiny_atto import write_tiny_atto

from proxyprompt.benchmark.server import running_server
from proxyprompt.io.study import read_study

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]


class Bench:
    """The server, and an archive that comes and goes."""

    def __init__(self, url, study, folder, port):
        self.url, self.study, self.folder, self.port = url, study, folder, port

    def info(self):
        begun = time.monotonic()
        answer = requests.get(f"{self.url}/info/", timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.json(), time.monotonic() - begun

    def infer(self):
        fields = {"params": (None, json.dumps({"structure": "head"}))}
        where = {"image": self.study.series, "output": "json"}
        return requests.post(f"{self.url}/infer/proxyprompt", params=where, files=fields, timeout=300)

    def submit(self, value, **query):
        labels = np.where(self.study.truth > 0, 1, 0).astype(np.uint8)
        labels[:, :value] = 0
        file = read_study(self.study.folder).write_label(labels, self.folder / "label.nii.gz")
        names = {"label_info": [{"name": "head", "idx": 1}], "client_id": "anna"}
        where = {"image": self.study.series, "tag": "final", **query}
        begun = time.monotonic()
        answer = requests.put(
            f"{self.url}/datastore/label",
            params=where,
            files={"label": (file.name, file.read_bytes())},
            data={"params": json.dumps(names)},
            timeout=300,
        )
        return answer, time.monotonic() - begun

    def waits_for_nothing(self):
        end = time.monotonic() + 120
        while "archive" in self.info()[0]["datastore"]:
            assert time.monotonic() < end
            time.sleep(1)
        return True

    def stored(self):
        found = requests.get(f"{self.url}/proxyprompt/label", params={"image": self.study.series}, timeout=60).json()
        return found["label"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    folder = tmp_path_factory.mktemp("away")
    study = labelled_and_not(folder / "dicom", ("us",))["us"]
    environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache"), "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "1"}
    conf = {"weights_dir": write_tiny_atto(folder).parent, "background_scoring": "false"}
    with orthanc.running(folder / "orthanc") as archive:
        archive.push(folder / "dicom")
        port = int(archive.url.rpartition(":")[2])
    address = f"http://127.0.0.1:{port}/dicom-web"
    with running_server(address, log=folder / "server.log", conf=conf, environment=environment) as server:
        yield Bench(server.url, study, folder, port)


@contextmanager
def up(bench):
    with orthanc.running(bench.folder / "orthanc", bench.port) as archive:
        bench.waits_for_nothing()
        yield archive


def test_a_server_that_starts_before_its_archive_says_so_and_finds_it(bench):
    begun = time.monotonic()
    answer = requests.get(f"{bench.url}/info/", timeout=120)
    assert time.monotonic() - begun < 5 and answer.status_code == 503
    detail = answer.json()["detail"]
    assert "is not running" in detail and "Error" not in detail and "Pool" not in detail
    with orthanc.running(bench.folder / "orthanc", bench.port):
        end = time.monotonic() + 60
        while requests.get(f"{bench.url}/info/", timeout=120).status_code != 200:
            assert time.monotonic() < end
        assert bench.infer().status_code == 200


def test_a_stopped_archive_keeps_nobody_waiting_and_no_label_is_lost(bench):
    with up(bench):
        usual = min(bench.info()[1] for _ in range(3))
        assert bench.infer().status_code == 200
    time.sleep(1.5)
    with ThreadPoolExecutor(8) as several:
        taken = [seconds for _, seconds in several.map(lambda _: bench.info(), range(8))]
    assert min(taken) < usual + 1 and bench.info()[1] < usual + 1
    assert "is not running" in bench.info()[0]["datastore"]["archive"]["problem"]
    assert bench.infer().status_code == 200  # the study is here
    answer, seconds = bench.submit(3)
    assert answer.status_code == 200 and answer.json()["handed_over"] is False, answer.text
    assert "as soon as the archive is back" in answer.json()["detail"] and seconds < 5
    assert bench.study.series in bench.info()[0]["models"]["proxyprompt"]["config"]["support"]
    assert bench.stored()["handed_over"] is False
    with up(bench) as archive:
        assert bench.stored()["handed_over"] is True and bench.stored()["by"] == "anna"
        assert len(archive.instances(Modality="SEG", SeriesInstanceUID=bench.stored()["series"])) == 1


def test_an_archive_that_hangs_keeps_nobody_waiting_either(bench):
    with up(bench) as archive:
        usual = min(bench.info()[1] for _ in range(3))
        archive.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(1.5)
            bench.info()
            assert max(bench.info()[1] for _ in range(3)) < usual + 1
            assert bench.infer().status_code == 200
            opened = bench.stored()["version"]
            answer, seconds = bench.submit(6, base=opened)
            assert answer.status_code == 200 and answer.json()["handed_over"] is False, answer.text
            assert seconds < 45
        finally:
            archive.process.send_signal(signal.SIGCONT)
        bench.waits_for_nothing()
        assert bench.stored()["version"] != opened and bench.stored()["handed_over"]
        assert bench.submit(9, base=opened)[0].status_code == 409
