"""Questions to a server that hangs up now and then, one that is silent, and one that is not there."""

import socket
import threading
import time

import pytest
import requests
from torch.distributed.elastic.utils.distributed import get_free_port

from proxyprompt.datastores.connection import open_session
from proxyprompt.datastores.unreachable import why_not

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def asked():
    return []


@pytest.fixture
def url(asked):
    """Of a server that hangs up on the first question."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                asked.append(connection.recv(65536).split(b" ")[0])
                if len(asked) > 1:
                    connection.sendall(ANSWER)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_question_is_put_again_when_the_server_hangs_up(url, asked):
    assert open_session(url).get(url).text == "ok" and asked == [b"GET", b"GET"]


def test_what_changes_something_is_not_sent_twice_unasked(url, asked):
    with pytest.raises(requests.ConnectionError) as caught:
        open_session(url).post(url, data=b"x")
    assert asked == [b"POST"] and why_not(caught.value) == "broke off the connection"


def test_silence_is_borne_once():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(requests.Timeout) as caught:
            open_session(address).get(address, timeout=0.5)
        assert time.monotonic() - begun < 1.4 and why_not(caught.value) == "does not answer in time"


def test_who_is_not_there_is_asked_once():
    address = f"http://127.0.0.1:{get_free_port()}"
    begun = time.monotonic()
    with pytest.raises(requests.ConnectionError) as caught:
        open_session(address).get(address)
    assert time.monotonic() - begun < 2 and "is not running" in why_not(caught.value)
