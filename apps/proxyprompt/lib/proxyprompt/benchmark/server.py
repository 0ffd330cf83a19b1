"""A MONAI Label server of this app in a process of its own, for measurements and tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from torch.distributed.elastic.utils.distributed import get_free_port

APP = Path(__file__).resolve().parents[3]
START_SECONDS = 1200  # imports alone take minutes on a busy machine


@dataclass(frozen=True)
class RunningServer:
    """A server that runs for a measurement.

    Attributes:
        url: where it listens.
        studies: its folder.
        process: to be ended by whoever started it.
        log: what it prints.
    """

    url: str
    studies: Path
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def running_server(
    studies: Path,
    *,
    log: Path,
    conf: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    host: str | None = "127.0.0.1",
) -> Iterator[RunningServer]:
    """Start ``monailabel start_server`` on a free port, wait until it answers, stop it at the end.

    conf: the app's options. environment: variables beside those of a new user, who has none of MONAI Label's.
    host: None leaves it out. RuntimeError, with the end of the log, when the server does not come up.
    """
    port = get_free_port()
    command = [str(Path(sys.executable).parent / "monailabel"), "start_server", "--app", str(APP)]
    command += ["--studies", str(studies), "--port", str(port), *(["--host", host] if host else [])]
    for key, value in (conf or {}).items():
        command += ["--conf", key, str(value)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MONAI")}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**kept, **(environment or {})}, cwd=log.parent
        )
    server = RunningServer(f"http://127.0.0.1:{port}", Path(studies), process, Path(log))
    try:
        _wait_for(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


def _wait_for(server: RunningServer) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}:\n{server.log.read_text()[-3000:]}")
        try:
            requests.get(f"{server.url}/info/", timeout=60)
            return
        except requests.ConnectionError:
            time.sleep(0.5)
    raise RuntimeError(f"no server within {START_SECONDS} s:\n{server.log.read_text()[-3000:]}")
