"""One training in several processes: one for each GPU of the machine, or as many as were asked for.

MONAI Label starts one process for a training. That one starts the others with its own command line, so that each of
them builds the app and reads the studies itself, and they train one model (:mod:`proxyprompt.training.distributed`).
One that is left alone ends: nobody waits for a process that was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch.distributed.elastic.utils.distributed import get_free_port

from proxyprompt.training.distributed import process_group

_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 15.0  # what ended another process may well be about to end this one, with a reason


def automatic(device: str) -> int:
    """How many processes train on ``device`` if nobody says: one for each GPU, unless it is a certain one."""
    return 1 if device == "cpu" else most(device)


def most(device: str) -> int:
    """How many there can be: GPUs, or cores. Two processes cannot share a GPU."""
    if device == "cpu":
        return os.cpu_count() or 1
    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def joins() -> bool:
    """Whether this process was started to train beside another one."""
    return int(os.environ.get("RANK", "0")) > 0


@contextmanager
def several(count: int, device: str, *, logs: Path | None = None) -> Iterator[None]:
    """Within, this process and ``count - 1`` like it are one process group; in one of those that it starts, it joins.

    logs: the folder where the others write what they would have said on the screen.
    """
    if joins():
        starter = os.getppid()
        with _ending_if(lambda: os.getppid() != starter), process_group(device):
            yield
        return
    if count == 1:
        yield
        return
    if device == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    group = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(get_free_port()),
        "LOCAL_RANK": "0",
    }
    with ExitStack() as stack:
        others = [_start(number, group, device, logs, stack) for number in range(1, count)]
        os.environ.update({**group, "RANK": "0"})
        for name in (*group, "RANK"):
            stack.callback(os.environ.pop, name)
        with _ending_if(lambda: any(other.poll() for other in others)), process_group(device):
            yield


def _main_module() -> str:
    spec = sys.modules["__main__"].__spec__
    assert spec is not None  # MONAI Label starts its tasks by `python -m`
    return spec.name


def _start(
    number: int, group: dict[str, str], device: str, logs: Path | None, stack: ExitStack
) -> subprocess.Popen[bytes]:
    """Another process like this one. When ``stack`` closes it is waited for; after an error it is ended."""
    own = {"RANK": str(number), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    if device != "cpu":  # to each its own GPU, as the only one that it sees
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        own["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number] if visible else str(number)
    command = [sys.executable, "-m", _main_module(), *sys.argv[1:]]
    said = subprocess.DEVNULL if logs is None else stack.enter_context((logs / f"process-{number}.log").open("w"))
    process = subprocess.Popen(command, env={**os.environ, **group, **own}, stdout=said, stderr=subprocess.STDOUT)

    def end(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            process.kill()
        process.wait()

    stack.push(end)
    return process


@contextmanager
def _ending_if(alone: Callable[[], bool]) -> Iterator[None]:
    """Ends this process as soon as it is ``alone``: it would wait for the others for hours."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS):
            if alone() and not over.wait(_GRACE_SECONDS):
                print(
                    "another process of this training ended; the next one goes on from its last checkpoint", flush=True
                )
                os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
