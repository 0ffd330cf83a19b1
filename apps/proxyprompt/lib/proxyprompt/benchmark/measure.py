"""Times and memory, measured so that they mean something on a busy machine: ratios within one run."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

_PAGE = os.sysconf("SC_PAGE_SIZE")
Work = Callable[[], object]


@dataclass(frozen=True)
class BenchmarkRow:
    """One measured figure.

    value: seconds, bytes or a ratio, as ``unit`` says ("s", "MB", "x"). aim: the value that is aimed at, or None;
    at_least: whether larger is better. note: the absolute numbers behind a ratio.
    """

    part: str
    name: str
    value: float
    unit: str
    aim: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim

    def to_dict(self) -> dict[str, object]:
        """As JSON."""
        return {**asdict(self), "reached": self.reached}


def seconds(work: Work) -> float:
    """One call, to its end on a GPU too."""
    _finish()
    start = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - start


def compare(*works: Work, budget: float, rounds: int = 2) -> list[float]:
    """The least seconds of each, called in turns (after one call each to warm up) for at least ``rounds`` rounds.

    budget: seconds of further rounds; of works that take ten times that, the first call counts as a round. In turns, so
    that what else the machine does meets all alike; the least, because disturbance only adds.
    """
    best = [seconds(work) for work in works]
    long = bool(budget) and sum(best) > 10 * budget
    if sum(best) <= budget:  # a short work's first call says more about caches than about it
        best = [float("inf")] * len(works)
    start, done = time.perf_counter(), int(long)
    while done < rounds or (not long and time.perf_counter() - start < budget):
        best = [min(b, seconds(work)) for b, work in zip(best, works, strict=True)]
        done += 1
    return best


def peak_bytes(work: Work) -> int:
    """How much more memory the process (on CUDA: the device) holds at most during ``work`` than before it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    give_back_freed_memory()
    before = highest = resident_bytes()
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.002):
            highest = max(highest, resident_bytes())

    watcher = threading.Thread(target=watch, name="peak-memory")
    watcher.start()
    try:
        work()
    finally:
        over.set()
        watcher.join()
    return max(highest, resident_bytes()) - before


def give_back_freed_memory() -> None:
    """Has the C library return what is freed but kept, so that memory taken again is seen to be taken."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Memory of this process that is not swapped out."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def machine() -> dict[str, object]:
    """What the numbers were measured on; nothing that tells one machine of a kind from another."""
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(memory / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_at_start": round(os.getloadavg()[0], 1),
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
