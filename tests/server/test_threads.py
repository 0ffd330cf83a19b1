"""Handlers that block, as MONAI Label's do, on a real server."""

import asyncio
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import StreamingResponse
from loopback import serving

from proxyprompt.server.threads import RequestThreads

BUSY = 0.3


class Asked:
    """What the handlers saw."""

    def __init__(self):
        self.busy, self.threads, self.lock = [], set(), threading.Lock()
        self.finished = threading.Event()


def blocking_app(asked):
    app = FastAPI()

    async def only_known(request: Request):
        if request.headers.get("authorization") != "known":
            raise HTTPException(401, "who are you?")
        return "known"

    @app.post("/infer/{model}")
    async def infer(model: str):
        start = time.monotonic()
        time.sleep(BUSY)
        with asked.lock:
            asked.busy.append((start, time.monotonic()))
            asked.threads.add(threading.current_thread().name)
        return {"model": model}

    @app.get("/info/")
    async def info():
        return {"name": "app"}

    @app.get("/slow/")
    async def slow():
        time.sleep(BUSY)
        return {}

    @app.get("/mine")
    async def mine(user: str = Depends(only_known)):
        return user

    @app.put("/file")
    async def put(background: BackgroundTasks, file: UploadFile):
        background.add_task(asked.finished.set)
        return {"sha256": hashlib.sha256(file.file.read()).hexdigest()}

    @app.post("/body")
    async def body(request: Request):
        return len(await request.body())

    @app.get("/stream")
    async def stream():
        async def parts():
            for n in range(5):
                await asyncio.sleep(0.01)
                yield bytes([n]) * 100_000

        return StreamingResponse(parts())

    @app.get("/broken")
    async def broken():
        raise RuntimeError("broken")

    app.add_middleware(RequestThreads, inferences=2, others=8)
    return app


@pytest.fixture
def asked():
    return Asked()


@pytest.fixture
def url(asked):
    with serving(blocking_app(asked)) as url:
        yield url


def most_at_once(busy):
    return max(sum(start <= moment < end for start, end in busy) for moment, _ in busy)


def test_two_inferences_at_once_and_never_three(url, asked):
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda n: requests.post(f"{url}/infer/m{n}", timeout=30).json(), range(6)))
    assert answers == [{"model": f"m{n}"} for n in range(6)]
    assert most_at_once(asked.busy) == 2
    assert all(name.startswith("infer") for name in asked.threads)


def test_looking_something_up_does_not_wait_for_inferences(url):
    with ThreadPoolExecutor(8) as clients:
        inferences = [clients.submit(requests.post, f"{url}/infer/m", timeout=30) for _ in range(6)]
        time.sleep(BUSY / 3)
        taken = []
        for _ in range(5):
            start = time.monotonic()
            assert requests.get(f"{url}/info/", timeout=30).json() == {"name": "app"}
            taken.append(time.monotonic() - start)
        assert not all(inference.done() for inference in inferences)
    assert sorted(taken)[2] < BUSY / 2


def test_other_requests_do_not_wait_for_each_other(url):
    start = time.monotonic()
    with ThreadPoolExecutor(6) as clients:
        list(clients.map(lambda _: requests.get(f"{url}/slow/", timeout=30), range(6)))
    assert time.monotonic() - start < 6 * BUSY / 2


def test_dependencies_decide_as_ever(url):
    assert requests.get(f"{url}/mine", timeout=30).status_code == 401
    assert requests.get(f"{url}/mine", headers={"Authorization": "known"}, timeout=30).json() == "known"


def test_files_bodies_and_streams_pass_whole(url, asked):
    content = bytes(range(256)) * 20_000
    answer = requests.put(f"{url}/file", files={"file": ("f.bin", content)}, timeout=30).json()
    assert answer == {"sha256": hashlib.sha256(content).hexdigest()}
    assert asked.finished.wait(5)
    assert requests.post(f"{url}/body", data=content, timeout=30).json() == len(content)
    assert requests.get(f"{url}/stream", timeout=30).content == b"".join(bytes([n]) * 100_000 for n in range(5))


def test_a_handler_that_fails_is_a_500_and_the_server_goes_on(url):
    assert requests.get(f"{url}/broken", timeout=30).status_code == 500
    assert requests.get(f"{url}/info/", timeout=30).status_code == 200
