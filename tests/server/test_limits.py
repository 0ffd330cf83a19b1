"""What clients may send: by a real server, over real connections."""

import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from loopback import serving

from proxyprompt.server.limits import Limits, Rates, RequestBounds
from proxyprompt.server.threads import RequestThreads

OTHERS = 3


@contextmanager
def bounded(*, per_minute=0, upload_bytes=1 << 20, upload_seconds=1.0, read_seconds=1.0):
    app = FastAPI()
    app.seen = []

    @app.put("/store")
    async def store(request: Request):
        body = await request.body()
        app.seen.append(len(body))
        return {"bytes": len(body)}

    @app.get("/ping")
    def ping():
        return {}

    @app.get("/much")
    def much():
        return StreamingResponse(b"x" * 100_000 for _ in range(1000))

    app.add_middleware(RequestThreads, others=OTHERS)
    bounds = RequestBounds(upload_bytes=upload_bytes, upload_seconds=upload_seconds, per_minute=per_minute)
    app.add_middleware(Limits, bounds=bounds, read_seconds=read_seconds)
    with serving(app) as url:
        yield app, url


def opened(url, text):
    connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10)
    connection.sendall(text.encode())
    return connection


def test_a_body_arrives_as_it_was_sent():
    with bounded(upload_bytes=5 << 20) as (_, url):
        for size in (0, 1, 1 << 20, (1 << 20) + 1, 3 << 20):
            assert requests.put(f"{url}/store", data=b"x" * size, timeout=10).json() == {"bytes": size}
        pieces = (b"y" * 1000 for _ in range(2000))  # of no known length
        assert requests.put(f"{url}/store", data=pieces, timeout=10).json() == {
            "bytes": 2_000_000
        }  # of no known length


@pytest.mark.parametrize("announced", [True, False])
def test_what_is_too_large_is_refused_and_never_reaches_a_handler(announced):
    with bounded(upload_bytes=1 << 20) as (app, url):
        body = b"x" * (2 << 20)
        answer = requests.put(f"{url}/store", data=body if announced else iter([body]), timeout=10)
        assert answer.status_code == 413 and "1 MB" in answer.json()["detail"]
        assert not app.seen
        assert requests.get(f"{url}/ping", timeout=10).status_code == 200


def test_who_waits_in_the_middle_of_a_request_holds_nobody_up():
    with bounded(upload_seconds=2.0) as (app, url):
        head = "PUT /store HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"
        waiting = [opened(url, head) for _ in range(20 * OTHERS)]
        started = time.monotonic()
        assert requests.get(f"{url}/ping", timeout=10).status_code == 200
        assert time.monotonic() - started < 1.5
        answer = b"".join(iter(lambda: waiting[0].recv(1000), b"")).decode()  # until it is closed
        assert answer.startswith("HTTP/1.1 408") and "upload_seconds" in answer
        assert not app.seen
        for connection in waiting:
            connection.close()


def test_who_hangs_up_in_the_middle_is_forgotten():
    with bounded() as (app, url):
        opened(url, "PUT /store HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf").close()
        assert requests.get(f"{url}/ping", timeout=10).status_code == 200
        assert not app.seen


def test_who_does_not_read_the_answer_frees_its_thread():
    with bounded(read_seconds=0.5) as (_, url):
        lazy = [opened(url, "GET /much HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(OTHERS)]
        time.sleep(0.3)
        started = time.monotonic()
        assert requests.get(f"{url}/ping", timeout=10).status_code == 200  # every thread was taken
        assert time.monotonic() - started < 5
        for connection in lazy:
            connection.close()


def test_too_many_requests_of_one_client():
    with bounded(per_minute=3) as (_, url):
        answers = [requests.get(f"{url}/ping", timeout=10) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
        assert requests.get(f"{url}/health", timeout=10).status_code == 404  # passed on, not counted


def test_a_rate_refills_and_forgets():
    rates = Rates(1200)
    assert all(rates.wait("a") == 0 for _ in range(1200))
    assert rates.wait("a") == 1 and rates.wait("b") == 0
    time.sleep(0.2)
    assert rates.wait("a") == 0
    for n in range(11_000):
        rates.wait(str(n))
    assert len(rates._left) == 10_000


def test_a_full_disk_is_said(monkeypatch, tmp_path):
    with bounded() as (app, url), monkeypatch.context() as patch:
        patch.setattr("tempfile.SpooledTemporaryFile", lambda *_: open("/dev/full", "w+b", buffering=0))  # noqa: SIM115
        answer = requests.put(f"{url}/store", data=b"x" * 100, timeout=10)
        assert answer.status_code == 507 and "disk is full" in answer.json()["detail"]
        assert not app.seen


def test_many_at_once_get_their_own():
    with bounded(upload_bytes=5 << 20, upload_seconds=20) as (_, url):
        got = {}

        def ask(n):
            got[n] = requests.put(f"{url}/store", data=b"x" * n, timeout=30).json()["bytes"]

        threads = [threading.Thread(target=ask, args=(n * 50_000,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(size == n for n, size in got.items()) and len(got) == 20
