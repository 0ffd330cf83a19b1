"""What stands in front of MONAI Label's handlers."""

import pytest
import requests
from fastapi import FastAPI, HTTPException
from loopback import serving

from proxyprompt.server.forms import last_lines


def test_a_log_that_grows_meanwhile_is_answered_whole(tmp_path):
    log = tmp_path / "app.log"
    log.write_bytes(b"caf\xe9 line\n" * 100_000)
    answer = last_lines(str(log), 0, True, False, 0)
    with log.open("a") as file:
        file.write("another line\n" * 1000)
    server = FastAPI()
    server.get("/logs")(lambda: answer)
    with serving(server) as url:
        got = requests.get(f"{url}/logs", timeout=30)
    assert got.text == "caf\\xe9 line\n" * 100_000
    assert got.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(("lines", "first"), [(3, 7), (None, 0), (0, 0), (-4, 0), (10**12, 0)])
def test_the_last_lines_come(tmp_path, lines, first):
    log = tmp_path / "app.log"
    log.write_text("".join(f"{n}\n" for n in range(10)))
    assert last_lines(str(log), lines).body.decode().splitlines() == [str(n) for n in range(first, 10)]


def test_where_no_log_is_that_is_said(tmp_path):
    with pytest.raises(HTTPException, match="no log is here"):
        last_lines(str(tmp_path / "app.log"), 3)
