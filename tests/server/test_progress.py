"""How far a request is, and its end, while it runs in another thread."""

import threading

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from proxyprompt.predictor.progress import CancelledError, FollowedRequests, advance
from proxyprompt.server.progress import progress_router


@pytest.fixture
def requests():
    return FollowedRequests()


@pytest.fixture
def client(requests):
    server = FastAPI()
    server.include_router(progress_router(requests))
    return TestClient(server)


def test_a_request_says_how_far_it_is_and_ends_when_it_is_cancelled(requests, client):
    begun, looked, ended = threading.Event(), threading.Event(), []

    def work():
        try:
            with requests.following("mine"):
                advance(1, 5)
                begun.set()
                looked.wait(30)
                advance(2, 5)
        except CancelledError as error:
            ended.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(30)
    assert client.get("/proxyprompt/progress/mine").json() == {"done": 1, "total": 5}
    assert client.delete("/proxyprompt/progress/mine").json() == {"cancelled": True}
    looked.set()
    thread.join(30)
    assert ended == ["the request was cancelled after 2 of 5 slices; nothing was changed"]
    assert client.get("/proxyprompt/progress/mine").json() == {"done": 0, "total": 0}


def test_another_request_goes_on(requests, client):
    with requests.following("mine"):
        assert client.delete("/proxyprompt/progress/other").json() == {"cancelled": False}
        advance(1, 2)


@pytest.mark.parametrize("name", [None, "", ["a"], 3])
def test_what_has_no_name_is_not_followed(requests, name):
    with requests.following(name):
        advance(1, 2)
    advance(1, 2)  # nor is what runs in no block
