"""What operators see of a real server: health, figures, a line a request."""

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from loopback import serving
from prometheus_client.parser import text_string_to_metric_families

from proxyprompt.requests.record import note_request
from proxyprompt.server import request_log
from proxyprompt.server.metrics import Metrics
from proxyprompt.server.observe import Observe
from proxyprompt.server.request_log import RequestLog
from proxyprompt.server.threads import RequestThreads


@contextmanager
def observed(folder, *, checks=None, plain_ids=False, others=4):
    app = FastAPI()
    app.hold = threading.Event()

    @app.post("/infer/{model}")
    def infer(model: str, image: str):
        note_request(study=image, supports=["DOE^JANE", "b"], version="v1", seconds_of={"decode": 0.2}, user="ann")
        return {"model": model}

    @app.get("/held")
    def held():
        app.hold.wait(20)
        return {}

    @app.get("/broken")
    def broken():
        return JSONResponse({}, 500)

    metrics = Metrics(cache=lambda: {"memory_bytes": 7, "disk_bytes": 8, "misses": 3}, version="0.1.0")
    log = RequestLog(folder / "logs", plain_ids=plain_ids)
    app.add_middleware(RequestThreads, others=others)
    app.add_middleware(Observe, metrics=metrics, log=log, checks=checks or {}, check_seconds=0.5)
    with serving(app) as url:
        try:
            yield app, url, log
        finally:
            app.hold.set()


def lines(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def wait_for_lines(log, count):
    """A client has its answer a moment before the server has noted the request."""
    deadline = time.monotonic() + 10
    while (written := len(lines(log)) if log.path.exists() else 0) < count:
        assert time.monotonic() < deadline, f"{written} of {count} requests are noted"
        time.sleep(0.02)


def test_one_line_a_request_and_no_name_in_it(tmp_path):
    with observed(tmp_path) as (_, url, log):
        answer = requests.post(f"{url}/infer/proxyprompt", params={"image": "DOE^JOHN"}, timeout=10)
        requests.get(f"{url}/broken", timeout=10)
        requests.get(f"{url}/nowhere", timeout=10)
        requests.get(f"{url}/health", timeout=10)
    first, second, third = lines(log)
    assert first["request"] == answer.headers["X-Request-ID"]
    kept = ("client", "user", "method", "route", "status", "outcome", "version")
    expected = ("127.0.0.1", "ann", "POST", "/infer/{model}", 200, "ok", "v1")
    assert tuple(first[key] for key in kept) == expected
    assert first["seconds"] > 0 and first["seconds_of"] == {"decode": 0.2} and first["bytes_out"] > 0
    assert first["study"] == log.pseudonym("DOE^JOHN") and first["supports"][0] == log.pseudonym("DOE^JANE")
    assert "DOE" not in log.path.read_text()
    assert (second["outcome"], third["outcome"]) == ("failed", "refused")
    again = RequestLog(tmp_path / "logs")
    assert again.pseudonym("DOE^JOHN") == first["study"]  # also after the server was started again
    assert RequestLog(tmp_path / "other").pseudonym("DOE^JOHN") != first["study"]


def test_ids_stand_in_the_log_where_the_operator_wants_them(tmp_path):
    with observed(tmp_path, plain_ids=True) as (_, url, log):
        requests.post(f"{url}/infer/proxyprompt", params={"image": "case 7"}, timeout=10)
    assert lines(log)[0]["study"] == "case 7"


def test_a_client_that_hangs_up_is_noted(tmp_path):
    with observed(tmp_path) as (app, url, log):
        connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port))
        connection.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        connection.close()
        app.hold.set()
        assert requests.get(f"{url}/broken", timeout=10).status_code == 500
    assert {line["route"] for line in lines(log)} == {"/held", "/broken"}


def test_figures_are_what_prometheus_reads(tmp_path):
    with observed(tmp_path) as (_, url, log):
        for _ in range(3):
            requests.post(f"{url}/infer/proxyprompt", params={"image": "x"}, timeout=10)
        requests.get(f"{url}/made-up-1", timeout=10)
        requests.get(f"{url}/made-up-2", timeout=10)
        wait_for_lines(log, 5)
        text = requests.get(f"{url}/metrics", timeout=10)
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {}
    for family in text_string_to_metric_families(text.text):
        for sample in family.samples:
            samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    asked = (("method", "POST"), ("route", "/infer/{model}"), ("status", "200"))
    assert samples["proxyprompt_requests_total", asked] == 3
    other = (("method", "GET"), ("route", "other"), ("status", "404"))
    assert samples["proxyprompt_requests_total", other] == 2  # whatever addresses people make up
    assert samples["proxyprompt_inference_seconds_count", (("stage", "decode"),)] == 3
    assert samples["proxyprompt_cache_bytes", (("where", "disk"),)] == 8
    assert samples["proxyprompt_cache_events_total", (("event", "misses"),)] == 3
    assert samples["process_resident_memory_bytes", ()] > 1e6


def test_health_says_what_is_wrong_and_answers_whatever_the_server_is_at(tmp_path):
    state = {"studies": None}

    def broken():
        raise OSError("no such folder")

    checks = {
        "studies": lambda: state["studies"],
        "slow": lambda: time.sleep(state.get("slow", 0)),
        "more": lambda: None,
    }
    with observed(tmp_path, checks=checks, others=2) as (_, url, _log):
        for _ in range(5):  # every thread is taken, and there is a queue
            threading.Thread(target=requests.get, args=(f"{url}/held",), kwargs={"timeout": 30}).start()
        time.sleep(0.2)
        assert requests.get(f"{url}/health/live", timeout=2).json() == {"live": True}
        ready = requests.get(f"{url}/health/ready", timeout=2)
        assert ready.status_code == 200 and ready.json()["ready"]
        state["studies"] = "the archive is away"
        ready = requests.get(f"{url}/health", timeout=2)
        assert ready.status_code == 503 and ready.json()["wrong"] == {"studies": "the archive is away"}
        state.update(studies=None, slow=1.5)
        ready = requests.get(f"{url}/health", timeout=2)
        assert ready.status_code == 503 and "0.5 s" in ready.json()["wrong"]["slow"]
        assert requests.get(f"{url}/health/live", timeout=2).status_code == 200


def test_the_log_starts_a_new_file_and_keeps_the_last_ten(tmp_path, monkeypatch):
    monkeypatch.setattr(request_log, "BYTES", 500)
    log = RequestLog(tmp_path / "logs")
    for number in range(300):
        log.write({"number": number})
    files = sorted((tmp_path / "logs").glob("requests.jsonl*"))
    assert len(files) == 11 and all(file.stat().st_size <= 500 for file in files)
    assert lines(log)[-1]["number"] == 299


def test_a_folder_that_takes_no_log_stops_nobody(tmp_path, caplog):
    (tmp_path / "logs").write_text("a file where the folder should be")
    with caplog.at_level("INFO"), observed(tmp_path) as (_, url, _log):
        assert requests.post(f"{url}/infer/proxyprompt", params={"image": "x"}, timeout=10).status_code == 200
    assert "cannot be written" in caplog.text and '"route": "/infer/{model}"' in caplog.text


@pytest.mark.parametrize(("client", "asked"), [("127.0.0.1", False), ("192.0.2.7", True)])
def test_other_machines_do_not_see_them_where_nobody_else_is_answered(tmp_path, client, asked):
    """They get what the gate says, which is behind it."""
    behind = []

    async def gate(scope, receive, send):
        behind.append(scope["path"])

    async def send(message):
        pass

    metrics = Metrics(cache=dict, version="0")
    observe = Observe(gate, metrics=metrics, log=RequestLog(tmp_path), checks={}, only_here=True)
    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "client": (client, 1)}
    asyncio.run(observe(scope, None, send))
    assert bool(behind) == asked
