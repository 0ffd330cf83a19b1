"""The downloader against a real server on this machine that misbehaves in every way we know."""

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fetch_weights
import pytest

from proxyprompt.foundation.checkpoints import CHECKPOINTS, Checkpoint, sidecar, verify_checkpoint

CONTENT = bytes(range(256)) * 4000  # 1 MB


class Handler(BaseHTTPRequestHandler):
    """What it serves is told by the path: /good, /breaks, /short, /lies, /page, /norange, /other."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Range")))
        kind = self.path.strip("/")
        if kind == "gone":
            self.send_error(404)
            return
        if kind == "down":
            self.send_error(503)
            return
        body = {"lies": CONTENT[::-1], "page": b"<html>log in first</html>"}.get(kind, CONTENT)
        start = 0
        if (wanted := self.headers.get("Range")) and kind != "norange":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            total = len(body) + (1 if kind == "other" else 0)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{total}")
        else:
            self.send_response(200)
        body = body[start:]
        if kind in ("endless", "short"):  # no length given: the end of the connection is the end of the file
            body = body * 2 if kind == "endless" else body[: len(body) // 2]
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "breaks":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def handle(self):
        with contextlib.suppress(ConnectionError):  # a client that has had enough hangs up
            super().handle()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.seen = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def url(server):
    server.seen.clear()
    return lambda kind: f"http://127.0.0.1:{server.server_port}/{kind}"


@pytest.fixture
def entry(monkeypatch):
    """A small entry in the real table."""
    made = Checkpoint(
        "tiny",
        "tiny.pth",
        "http://127.0.0.1:9/",
        "CC0",
        bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(CHECKPOINTS, "tiny", made)
    return made


@pytest.fixture
def fetch(entry, tmp_path, capsys):
    def call(*options):
        status = fetch_weights.main(["tiny", "--dir", str(tmp_path), *map(str, options)])
        said = capsys.readouterr()
        return status, said.out + said.err

    return call


def test_downloads_checks_and_remembers(fetch, url, entry, tmp_path):
    status, said = fetch("--url", url("good"))
    assert status == 0 and "sha256 checked" in said
    assert (tmp_path / "tiny.pth").read_bytes() == CONTENT
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.pth", "tiny.pth.sha256.json"}
    assert json.loads(sidecar(tmp_path / "tiny.pth").read_text())["sha256"] == entry.sha256
    status, said = fetch("--url", url("gone"))  # needs no server any more
    assert status == 0 and "there already" in said


def test_goes_on_after_a_broken_connection(fetch, url, server, tmp_path):
    status, said = fetch("--url", url("breaks"))
    part = tmp_path / "tiny.pth.part"
    assert status == 1 and "run the same command again" in said
    kept = part.stat().st_size
    assert 0 < kept <= len(CONTENT) // 2
    assert not (tmp_path / "tiny.pth").exists()
    status, _ = fetch("--url", url("good"))
    assert status == 0
    assert server.seen[-1] == ("/good", f"bytes={kept}-")
    assert (tmp_path / "tiny.pth").read_bytes() == CONTENT and not part.exists()


def test_an_early_end_without_a_length_is_noticed(fetch, url, tmp_path):
    status, said = fetch("--url", url("short"))
    assert status == 1 and f"ended at {len(CONTENT) // 2} of {len(CONTENT)}" in said
    assert (tmp_path / "tiny.pth.part").stat().st_size == len(CONTENT) // 2


def test_starts_again_where_the_server_knows_no_ranges(fetch, url, server, tmp_path):
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT[:1000])
    status, _ = fetch("--url", url("norange"))
    assert status == 0 and server.seen == [("/norange", "bytes=1000-")]
    assert (tmp_path / "tiny.pth").read_bytes() == CONTENT


def test_wrong_content_is_deleted(fetch, url, tmp_path):
    status, said = fetch("--url", url("lies"))
    assert status == 1 and "sha256 is" in said and "was deleted" in said
    assert list(tmp_path.iterdir()) == []


def test_a_spoilt_beginning_is_deleted_too(fetch, url, tmp_path):
    (tmp_path / "tiny.pth.part").write_bytes(b"?" * 1000)
    status, said = fetch("--url", url("good"))
    assert status == 1 and "was deleted" in said
    assert list(tmp_path.iterdir()) == []


def test_more_than_announced_is_cut_short(fetch, url, tmp_path):
    status, said = fetch("--url", url("endless"))
    assert status == 1 and "too long" in said
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_not_downloaded(fetch, url, tmp_path):
    status, said = fetch("--url", url("page"))
    assert status == 1 and f"offers 25 bytes, tiny has {len(CONTENT)}" in said
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT[:1000])
    status, said = fetch("--url", url("other"))
    assert status == 1 and "another file" in said
    assert (tmp_path / "tiny.pth.part").stat().st_size == 1000


@pytest.mark.parametrize(("kind", "said"), [("gone", "does not exist (404)"), ("down", "answers 503")])
def test_says_what_the_server_said(fetch, url, tmp_path, kind, said):
    status, text = fetch("--url", url(kind))
    assert status == 1 and said in text and "--url" in text
    assert list(tmp_path.iterdir()) == []


def test_no_server_at_all(fetch, tmp_path):
    status, said = fetch("--url", "http://127.0.0.1:9/")
    assert status == 1 and "failed at 0" in said and "--from" in said


def test_a_complete_part_needs_no_server(fetch, tmp_path):
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT)
    status, _ = fetch("--url", "http://127.0.0.1:9/")
    assert status == 0 and (tmp_path / "tiny.pth").read_bytes() == CONTENT


def test_takes_a_file_carried_by_hand(fetch, tmp_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stick")
    good, cut, wrong = folder / "good", folder / "cut", folder / "wrong"
    good.write_bytes(CONTENT)
    cut.write_bytes(CONTENT[:-1])
    wrong.write_bytes(CONTENT[::-1])
    for source, message in ((cut, "cut off"), (wrong, "was deleted"), (folder / "none", "no such file")):
        status, said = fetch("--from", source)
        assert status == 1 and message in said
        assert list(tmp_path.iterdir()) == []
    assert wrong.exists()
    assert fetch("--from", good)[0] == 0
    assert (tmp_path / "tiny.pth").read_bytes() == good.read_bytes() == CONTENT


def test_a_file_of_the_users_own_is_left_alone(fetch, url, tmp_path):
    (tmp_path / "tiny.pth").write_bytes(b"fine-tuned")
    status, said = fetch("--url", url("good"))
    assert status == 1 and "move it away" in said
    assert (tmp_path / "tiny.pth").read_bytes() == b"fine-tuned"


def test_without_a_published_sha256_the_md5_counts_and_the_sha256_is_recorded(monkeypatch, tmp_path, capsys, url):
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    entry = Checkpoint("med", "med.pth", "", "CC0", bytes=len(CONTENT), md5=md5)
    monkeypatch.setitem(CHECKPOINTS, "med", entry)
    arguments = ["med", "--dir", str(tmp_path), "--url"]
    assert fetch_weights.main([*arguments, url("lies")]) == 1
    assert "md5 is" in capsys.readouterr().err
    assert fetch_weights.main([*arguments, url("good")]) == 0
    record = json.loads(sidecar(tmp_path / "med.pth").read_text())
    assert record["first_use"] == hashlib.sha256(CONTENT).hexdigest() == verify_checkpoint(entry, tmp_path / "med.pth")


def test_of_unknown_length_it_is_taken_from_a_file_only(monkeypatch, tmp_path, capsys, url):
    monkeypatch.setitem(CHECKPOINTS, "new", Checkpoint("new", "new.pt", "https://example.org/new.pt", "CC0"))
    arguments = ["new", "--dir", str(tmp_path / "model")]
    assert fetch_weights.main([*arguments, "--url", url("good")]) == 1
    assert "by hand from https://example.org/new.pt, then: fetch_weights.py new --from FILE" in capsys.readouterr().err
    (tmp_path / "downloaded").write_bytes(CONTENT)
    assert fetch_weights.main([*arguments, "--from", str(tmp_path / "downloaded")]) == 0
    assert "no hash of it is known here" in capsys.readouterr().out
    record = json.loads(sidecar(tmp_path / "model" / "new.pt").read_text())
    assert record["first_use"] == hashlib.sha256(CONTENT).hexdigest()


def test_list_and_wrong_names(entry, tmp_path, capsys):
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT[: len(CONTENT) // 4])
    assert fetch_weights.main(["--list", "--dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "25 % fetched" in text
    for name, known in CHECKPOINTS.items():
        assert name in text and known.licence in text
    assert fetch_weights.main(["sam_vit_z"]) == 2
    assert "sam_vit_b, sam_vit_l" in capsys.readouterr().err
    assert fetch_weights.main([]) == 2


def test_runs_as_a_command():
    script = Path(fetch_weights.__file__)
    done = subprocess.run([sys.executable, script, "--list"], capture_output=True, text=True, cwd="/", check=True)
    assert "sam2.1_hiera_large" in done.stdout
