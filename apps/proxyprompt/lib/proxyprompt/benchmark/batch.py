"""How fast a batch of drawn studies goes over one process, several, and a local Ray cluster; and what survives kills.

Each run is the command that users give (scripts/segment.py), in a process of its own. What it did is told by the files
that it left: a result each, and the lines of its journal, which name the workers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from proxyprompt.batch.folder import BatchFolder
from proxyprompt.batch.queue import DONE

PIXELS = 128
STRUCTURES = ("ring", "core")
SUPPORTS = 2
_LOOK_SECONDS = 0.5
# On a machine that does much else, starting takes Ray longer than it waits by itself.
_PATIENCE = {
    "RAY_worker_niceness": "0",  # by itself Ray gives way to everything else
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_worker_register_timeout_seconds": "900",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "20",
}
_PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
_LONGEST = 4 * 3600.0
_START_SECONDS = 900.0
_STARTS = 6


@dataclass
class BatchRun:
    """What was measured of one kind of workers.

    Attributes:
        kind: "one process", "processes" or "ray".
        workers: how many.
        studies: how many have a result.
        seconds: from the first result to the last.
        per_minute: results a minute in that time.
        load: the machine's average number of running programs, at the start and at the end.
        memory_mb: largest resident memory of a worker in the first third of the run, and in the last.
        killed: what was killed, in order.
        twice: studies that were written more than once, or whose result changed after it was there.
        lost: studies without a result.
    """

    kind: str
    workers: int
    studies: int = 0
    seconds: float = 0.0
    per_minute: float = 0.0
    load: tuple[float, float] = (0.0, 0.0)
    memory_mb: tuple[float, float] = (0.0, 0.0)
    killed: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def __str__(self) -> str:
        killed = f"; killed: {', '.join(self.killed)}" if self.killed else ""
        return (
            f"{self.kind}, {self.workers} workers: {self.studies} studies, {self.per_minute:.1f} a minute, memory of a "
            f"worker {self.memory_mb[0]:.0f} then {self.memory_mb[1]:.0f} MB, load {self.load[0]:.1f} to "
            f"{self.load[1]:.1f}; {len(self.twice)} twice, {len(self.lost)} lost{killed}"
        )


def write_studies(folder: Path, *, count: int) -> Path:
    """Draw small images of a disc in a ring, of which the first two are labelled.

    Args:
        folder: made.
        count: of those that are to be segmented.

    Returns:
        The folder.
    """
    labels = folder / "labels" / "final"
    labels.mkdir(parents=True)
    for n in range(count + SUPPORTS):
        image, mask = _draw(np.random.default_rng(n))
        Image.fromarray(image).save(folder / f"s{n:04d}.png")
        if n < SUPPORTS:
            Image.fromarray(mask).save(labels / f"s{n:04d}.png")
    return folder


@contextmanager
def ray_cluster(*, cpus: int, log: Path) -> Iterator[str]:
    """A Ray cluster of this machine alone, for as long as the block lasts.

    Args:
        cpus: workers that it has room for.
        log: what it prints.

    Yields:
        Its address.

    Raises:
        RuntimeError: when it does not start, with what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        process, address = _started_cluster(cpus, Path(folder), log)
        try:
            yield address
        finally:
            _end_cluster(process)


def _started_cluster(cpus: int, folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Ray gives parts of itself fifteen seconds to start, which a busy machine may not; so it gets several tries."""
    for attempt in range(1, _STARTS + 1):
        port, *others = _free_ports(5)
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"]
        command += [f"--num-cpus={cpus}", "--num-gpus=0", "--include-dashboard=false", "--disable-usage-stats"]
        command += [f"--temp-dir={folder / str(attempt)}", f"--object-store-memory={100 << 20}"]
        command += ["--node-ip-address=127.0.0.1"]
        command += [f"--{name}={number}" for name, number in zip(_PORTS, others, strict=True)]
        with log.open("wb") as out:
            environment = {**_PATIENCE, **os.environ}
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and process.poll() is None and not _has_dead_part(process.pid):
            if "Ray runtime started" in log.read_text(errors="replace"):
                return process, f"127.0.0.1:{port}"
            time.sleep(0.5)
        _end_cluster(process)
    raise RuntimeError(f"the cluster did not start:\n{log.read_text(errors='replace')[-2000:]}")


class BatchBenchmark:
    """Runs scripts/segment.py on a folder of studies.

    Args:
        script: scripts/segment.py.
        studies: a folder, as :func:`write_studies` makes it.
        scratch: for results and logs.
        options: more of the command.
    """

    def __init__(self, script: Path, studies: Path, scratch: Path, options: Sequence[str] = ()) -> None:
        self._script, self._studies, self._scratch = script, studies, scratch
        self._options = options

    def run(self, kind: str, *, workers: int, ray: str | None = None, kill: bool = False) -> BatchRun:
        """Segment everything once.

        Args:
            kind: what it is called.
            workers: how many.
            ray: address of a cluster; None for processes.
            kill: after a quarter of the results a worker is killed, after half of them the command itself, which is
                then given again.

        Returns:
            What was measured.
        """
        out = self._scratch / kind.replace(" ", "-")
        measured = BatchRun(kind, workers)
        before = os.getloadavg()[0]
        watch = _Watch(BatchFolder(out), measured)
        wanted = [path.stem for path in sorted(self._studies.glob("*.png"))][SUPPORTS:]
        end = time.monotonic() + _LONGEST
        process = self._start(out, workers, ray)
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(_LOOK_SECONDS)
                done = watch.look(len(wanted))
                if kill and not measured.killed and done >= len(wanted) // 4 and (pid := watch.worker()):
                    os.kill(pid, signal.SIGKILL)
                    measured.killed.append(f"worker {pid} after {done}")
                if kill and len(measured.killed) == 1 and done >= len(wanted) // 2:
                    process.kill()
                    process.wait()
                    measured.killed.append(f"the command after {done}")
                    process = self._start(out, workers, ray)
        finally:
            process.kill()
            process.wait()
        watch.look(len(wanted))
        measured.load = before, os.getloadavg()[0]
        watch.finish(wanted)
        return measured

    def _start(self, out: Path, workers: int, ray: str | None) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(self._script), "--studies", str(self._studies), "--out", str(out)]
        command += [part for n in range(SUPPORTS) for part in ("--support", f"s{n:04d}")]
        command += ["--names", *STRUCTURES, "--workers", str(workers), *self._options]
        command += ["--ray", ray] if ray else []
        log = (self._scratch / f"{out.name}.log").open("ab")
        with log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**_PATIENCE, **os.environ})


def _end_cluster(process: subprocess.Popen[bytes]) -> None:
    """It ends its own programs; those that are left, where it did not start as it should, are ended here."""
    started = _descendants(process.pid)
    process.terminate()
    try:
        process.wait(5 if _has_dead_part(process.pid) else 60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _has_dead_part(pid: int) -> bool:
    """Whether a program that it started has ended, and nobody has noticed."""
    for each in _descendants(pid):
        with suppress(OSError):
            if Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
    return False


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


def _draw(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image and its mask (96, 112)."""
    rows, columns = np.ogrid[:96, :112]
    distance = np.hypot(rows - rng.uniform(35, 60), columns - rng.uniform(40, 70))
    mask = (distance < 25).astype(np.uint8) + (distance < 12)
    return np.clip(60 + 70 * mask + rng.normal(0, 8, mask.shape), 0, 255).astype(np.uint8), mask


class _Watch:
    """Looks at a run from outside while it lasts."""

    def __init__(self, folder: BatchFolder, measured: BatchRun) -> None:
        self._folder, self._measured = folder, measured
        self._seen: dict[str, tuple[int, int]] = {}  # result -> inode and time
        self._times: list[float] = []
        self._memory: list[tuple[int, float]] = []

    def look(self, total: int) -> int:
        """Takes in new results; how many there are."""
        for path in sorted(self._folder.folder.glob("*.png")):
            status = path.stat()
            now = status.st_ino, status.st_mtime_ns
            if path.stem not in self._seen:
                self._times.append(status.st_mtime)
            elif self._seen[path.stem] != now:
                self._measured.twice.append(path.stem)
            self._seen[path.stem] = now
        sizes = [mb for pid in self._workers() if (mb := _resident_mb(pid))]
        if sizes and self._seen:
            self._memory.append((len(self._seen), max(sizes)))
        return len(self._seen)

    def worker(self) -> int | None:
        """One that lives."""
        return next((pid for pid in reversed(self._workers()) if _resident_mb(pid)), None)

    def finish(self, wanted: Sequence[str]) -> None:
        """Sums up."""
        measured, times = self._measured, sorted(self._times)
        measured.studies = len(self._seen)
        measured.lost = [name for name in wanted if name not in self._seen]
        lines = Counter(entry["image"] for entry in self._folder.journal if entry["event"] == DONE)
        measured.twice += [name for name, count in lines.items() if count > 1]
        if len(times) > 1:
            measured.seconds = times[-1] - times[0]
            measured.per_minute = 60 * (len(times) - 1) / max(1e-9, measured.seconds)
        third = len(wanted) / 3
        early = [mb for done, mb in self._memory if done <= third]
        late = [mb for done, mb in self._memory if done >= 2 * third]
        measured.memory_mb = max(early, default=0.0), max(late, default=0.0)

    def _workers(self) -> list[int]:
        """Their processes, in the order in which they came to be known."""
        names = [str(entry.get("worker", "")) for entry in self._folder.journal]
        return [int(pid) for name in dict.fromkeys(names) if (pid := name.rpartition(":")[2]).isdigit()]


def _resident_mb(pid: int) -> float:
    """Of a process; 0 for one that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
