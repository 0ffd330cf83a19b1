"""Every error of a handler is an answer that says what was wrong."""

import errno

import pytest
import requests
from fastapi import FastAPI
from loopback import serving

from proxyprompt.errors import refuse
from proxyprompt.io.errors import StudyError, StudyExists
from proxyprompt.server.answers import install_answers

ERRORS = {
    "refused": (refuse("bad \ud800 input"), 400),
    "unusable": (StudyError("structures.json: is not a registry"), 400),
    "exists": (StudyExists("there is a study already"), 409),
    "long": (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 400),
    "gone": (FileNotFoundError(errno.ENOENT, "No such file", "one.png"), 404),
    "full": (OSError(errno.ENOSPC, "No space left"), 507),
    "disk": (OSError(errno.EIO, "Input/output error"), 500),
    "away": (requests.ConnectionError("HTTPConnectionPool: NewConnectionError: [Errno 111] Connection refused"), 502),
    "slow": (requests.ReadTimeout("HTTPConnectionPool: Read timed out."), 502),
    "ours": (ZeroDivisionError("division"), 500),
}


@pytest.fixture(scope="module")
def url():
    server = FastAPI()

    @server.get("/fails/{how}")
    def fails(how: str):
        raise ERRORS[how][0]

    @server.post("/takes")
    def takes(params: dict, count: int = 0):
        return params

    install_answers(server)
    with serving(server) as url:
        yield url


@pytest.mark.parametrize("how", ERRORS)
def test_an_error_is_a_sentence_with_a_status(url, how):
    answer = requests.get(f"{url}/fails/{how}", timeout=30)
    assert answer.status_code == ERRORS[how][1]
    detail = answer.json()["detail"]
    assert detail and "Error" not in detail and "Pool" not in detail  # no names of Python's


@pytest.mark.parametrize("body", ["[]", "3", "null", '"text"', "{broken", "", '["\\ud800", NaN]', "[" * 5000])
def test_a_body_that_is_not_what_is_expected_is_refused_with_what_is(url, body):
    answer = requests.post(f"{url}/takes", data=body, headers={"Content-Type": "application/json"}, timeout=30)
    assert answer.status_code == 400 and answer.json()["detail"]


def test_a_query_that_is_not_what_is_expected(url):
    answer = requests.post(f"{url}/takes?count=many", json={}, timeout=30)
    assert answer.status_code == 400
    assert (
        "count" in answer.json()["detail"]
        and "integer" in answer.json()["detail"]
        and "many" in answer.json()["detail"]
    )
