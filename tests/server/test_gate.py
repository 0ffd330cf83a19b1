"""What never reaches a handler."""

import http.client

import pytest
from fastapi import FastAPI, Request
from loopback import serving
from monailabel.config import settings

from proxyprompt.server.gate import Gate, climbs, is_this_machine, route_of, started_without_host


@pytest.mark.parametrize(
    "path",
    [
        *("/..", "/session/..", "/ohif/../../etc/passwd", "/proxy/dicom/../tools/execute-script"),
        *("/proxy/dicom/%2e%2e/system", "/proxy/dicom/%252e%252e/system", "/a\\..\\b", "/a%5cb", "/a\0b", "/a%00"),
    ],
)
def test_paths_that_climb(path):
    assert climbs(path)


@pytest.mark.parametrize(
    "path", ["/", "/infer/proxyprompt", "/ohif/a..b.js", "/datastore/image", "/proxy/dicom/1.2..3"]
)
def test_paths_that_do_not(path):
    assert not climbs(path)


@pytest.mark.parametrize(
    ("client", "here"),
    [
        (("127.0.0.1", 1), True),
        (("::1", 1), True),
        (("::ffff:127.0.0.1", 1), True),
        (None, True),
        (("192.168.1.7", 1), False),
        (("::ffff:10.0.0.1", 1), False),
        (("elsewhere", 1), False),
    ],
)
def test_who_is_this_machine(client, here):
    assert is_this_machine({"client": client}) is here


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (["main.py", "start_server", "--app", "a", "--studies", "s"], True),
        (["main.py", "start_server", "--app", "a", "--port", "8001"], True),
        (["main.py", "start_server", "--host", "0.0.0.0"], False),
        (["main.py", "start_server", "--host=0.0.0.0"], False),
        (["main.py", "start_server", "-i", "0.0.0.0"], False),
        (["pytest", "tests"], False),
    ],
)
def test_whether_an_address_was_chosen(arguments, without):
    assert started_without_host(arguments) is without


def everything():
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "PUT", "POST", "DELETE"])
    async def reached(request: Request):
        return "reached"

    return app


def ask(url, method, path):
    """The status, for a path that is sent as it is: other clients tidy it up first."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request(method, path)
    return connection.getresponse().status


def test_what_is_closed_and_what_is_open():
    with serving(Gate(everything())) as url:
        assert ask(url, "GET", "/info/") == 200
        assert ask(url, "GET", "/model/proxyprompt") == 200
        assert ask(url, "PUT", "/model/proxyprompt") == 403
        assert ask(url, "DELETE", "/model/proxyprompt") == 403
        assert ask(url, "POST", "/reload") == 403
        assert ask(url, "POST", "/reload/") == 403
        assert ask(url, "GET", "/ohif/../../etc/passwd") == 400
        assert ask(url, "GET", "/proxy/dicom/%252e%252e/system") == 400
    with serving(Gate(everything(), model_upload=True)) as url:
        assert ask(url, "PUT", "/model/proxyprompt") == 200


def test_a_prefix_opens_nothing(monkeypatch):
    assert route_of({"path": "/proxied/reload", "root_path": "/proxied"}) == "/reload"
    monkeypatch.setattr(settings, "MONAI_LABEL_API_STR", "/api")
    with serving(Gate(everything())) as url:
        assert ask(url, "PUT", "/api/model/proxyprompt") == 403
        assert ask(url, "POST", "/reload") == 403
        assert ask(url, "GET", "/api/info/") == 200


def test_only_this_machine_unless_an_address_was_chosen():
    app = Gate(everything(), only_here=True)

    async def from_elsewhere(scope, receive, send):
        await app({**scope, "client": ("192.168.1.7", 1)} if scope["type"] == "http" else scope, receive, send)

    with serving(app) as url:
        assert ask(url, "GET", "/info/") == 200
    with serving(from_elsewhere) as url:
        assert ask(url, "GET", "/info/") == 403
