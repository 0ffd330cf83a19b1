"""Two real servers on one folder, while clients hang up, the disk fills and one of them is killed."""

import io
import json
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from breaking import filled
from PIL import Image
from squares import write_squares
from things import opened
from tiny_atto import weights

from proxyprompt.benchmark.server import RunningServer, running_server
from proxyprompt.session.journal import LABEL, Journal

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]

SHAPE = (48, 64)
IDLE = 100


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A small one of its own, where this user may make one."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def servers(disk, tmp_path_factory):
    studies, own = disk[0] / "studies", tmp_path_factory.mktemp("servers")
    write_squares(studies, count=8, labelled=3)
    conf = {**weights(own), "labels": "head=1", "background_scoring": "false", "upload_seconds": "20"}
    with ExitStack() as stack:
        logs = [own / name / "server.log" for name in ("one", "two")]
        for log in logs:
            log.parent.mkdir()
        yield [stack.enter_context(running_server(studies, log=log, conf=conf)) for log in logs]


def label(value: int) -> bytes:
    array = np.zeros(SHAPE, np.uint8)
    array[: value % 40 + 2, : value // 40 + 2] = 1
    content = io.BytesIO()
    Image.fromarray(array).save(content, format="PNG")
    return content.getvalue()


def submit(server: RunningServer, study: str, content: bytes) -> requests.Response:
    return requests.put(
        f"{server.url}/datastore/label",
        params={"image": study, "tag": "final"},
        files={"label": (f"{study}.png", content)},
        data={"params": json.dumps({"label_info": [{"name": "head", "idx": 1}]})},
        timeout=120,
    )


def infer(server: RunningServer, study: str, timeout: float = 300) -> requests.Response:
    query = {"image": study, "output": "json"}
    return requests.post(f"{server.url}/infer/proxyprompt", params=query, data={"params": "{}"}, timeout=timeout)


def logged(server: RunningServer, request: str) -> dict:
    """The line of a request, which is written when the answer is on its way."""
    log = server.studies / ".proxyprompt/logs/requests.jsonl"
    end = time.monotonic() + 30
    while time.monotonic() < end:
        lines = [json.loads(text) for text in log.read_text().splitlines()]
        if found := [line for line in lines if line["request"] == request]:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no line of {request} in {log}")


def alive(server: RunningServer) -> bool:
    return requests.get(f"{server.url}/info/", timeout=60).status_code == 200


def opened_connection(server: RunningServer, text: str = "") -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(text.encode())
    return connection


def test_health_figures_and_log(servers):
    server = servers[0]
    assert requests.get(f"{server.url}/health/live", timeout=10).json() == {"live": True}
    ready = requests.get(f"{server.url}/health/ready", timeout=30)
    assert ready.status_code == 200, ready.text
    answer = infer(server, "s7")
    assert answer.status_code == 200, answer.text
    line = logged(server, answer.headers["X-Request-ID"])
    assert line["route"] == "/infer/{model}" and line["outcome"] == "ok" and line["version"] and line["supports"]
    assert line["seconds_of"]["decode"] > 0 and "s7" not in json.dumps(line)
    figures = requests.get(f"{server.url}/metrics", timeout=10).text
    assert 'route="/infer/{model}",status="200"' in figures and "process_resident_memory_bytes" in figures


def test_clients_that_wait_and_hang_up_hold_nobody_up(servers):
    server = servers[0]
    half = "PUT /datastore/label?image=s6&tag=final HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nhalf"
    texts = ("", "GET /info/ HTT", half)
    waiting = [opened_connection(server, texts[n % 3]) for n in range(IDLE)]
    asked = "POST /infer/proxyprompt?image=s7 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    for _ in range(5):
        opened_connection(server, asked).close()  # hung up while it is computed
    started = time.monotonic()
    assert alive(server) and infer(server, "s7").status_code == 200
    assert time.monotonic() - started < 120
    for connection in waiting:
        connection.close()
    assert "s6" not in opened(server.studies).get_labeled_images()


def test_what_one_stores_the_other_serves(servers):
    one, two = servers
    assert submit(one, "s3", label(1)).status_code == 200
    assert submit(two, "s4", label(2)).status_code == 200
    end = time.monotonic() + 60
    while time.monotonic() < end:
        shown = [requests.get(f"{server.url}/info/", timeout=60).json() for server in servers]
        offered = [info["models"]["proxyprompt"]["config"]["support"] for info in shown]
        if all({"s3", "s4"} <= set(each) for each in offered):
            return
        time.sleep(1)
    raise AssertionError(offered)


def test_a_full_disk_is_said_and_nothing_is_lost(servers, disk):
    if not disk[1]:
        pytest.skip("only root may mount a small file system here")
    server, before = servers[0], label(1)
    with filled(disk[0], free_pages=0):
        answer = submit(server, "s3", label(77) + b"\0" * 9000)
        assert answer.status_code == 507 and "disk is full" in answer.json()["detail"]
        upload = {"file": ("new.png", label(5) + b"\0" * 9000)}
        assert requests.put(f"{server.url}/datastore/image", files=upload, timeout=60).status_code == 507
        assert requests.get(f"{server.url}/health/ready", timeout=30).status_code == 503
        assert alive(server) and infer(server, "s7").status_code == 200
        assert (server.studies / "labels/final/s3.png").read_bytes() == before
    assert requests.get(f"{server.url}/health/ready", timeout=30).status_code == 200
    assert submit(server, "s3", label(3)).status_code == 200


def test_one_is_killed_while_labels_come_in_and_none_is_lost(servers):
    one, two = servers
    sent: dict[str, list[bytes]] = {study: [] for study in ("s5", "s6")}
    stored: dict[str, int] = {}

    def annotate(study: str) -> None:
        for n in range(1000):
            sent[study].append(label(n))
            try:
                if submit(one, study, sent[study][-1]).status_code == 200:
                    stored[study] = n
            except requests.RequestException:
                return

    annotators = [threading.Thread(target=annotate, args=(study,)) for study in sent]
    for each in annotators:
        each.start()
    end = time.monotonic() + 300
    while time.monotonic() < end and (len(stored) < len(sent) or min(stored.values()) < 2):
        time.sleep(0.2)
    for pid in (*children(one.process.pid), one.process.pid):
        os.kill(pid, signal.SIGKILL)
    for each in annotators:
        each.join(120)
    store = opened(one.studies)
    for study, contents in sent.items():
        kept = Path(store.get_label_uri(study, "final")).read_bytes()
        assert kept in contents[stored[study] :], study  # the last one that was answered, or the one under way
    noted = [entry["image"] for entry in Journal(one.studies / ".proxyprompt/journal.jsonl") if entry["event"] == LABEL]
    assert all(noted.count(study) >= stored[study] for study in sent)
    assert not list(one.studies.glob("*.damaged-*"))
    assert alive(two) and submit(two, "s5", label(9)).status_code == 200
    assert infer(two, "s7").status_code == 200


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            child = int(stat.parent.name)
            found += [*children(child), child]
    return found
