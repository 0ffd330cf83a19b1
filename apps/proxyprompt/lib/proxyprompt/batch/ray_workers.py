"""Workers on a Ray cluster: actors, each with its share of cores and GPUs, on whatever machine has room.

``ray`` is an optional requirement (requirements-ray.txt). Every machine of the cluster needs this package, in the same
version, and the same paths to studies, supports and results; ``ray start`` is all that is needed besides.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .queue import LOST, BatchAnswer, BatchError, BatchItem, BatchWorkers, attempt
from .workers import Function, made

logger = logging.getLogger(__name__)

_STARTS = 3
_ASK_SECONDS = 60.0


class RayActor:
    """What lives on the cluster; it ends with the program that started it.

    Args:
        make: as for :class:`proxyprompt.batch.workers.ProcessWorkers`.
        refusals: as there.
    """

    def __init__(self, make: Callable[[], Function], refusals: tuple[type[Exception], ...]) -> None:
        self._make, self._refusals = make, refusals
        self._function: Function | None = None

    def prepare(self) -> str | None:
        """Make what is called for each study.

        Returns:
            Why it cannot be made; None when it is.
        """
        self._function, problem = made(self._make, self._refusals)
        return problem

    def work(self, item: BatchItem) -> BatchAnswer:
        """Do one study.

        Args:
            item: the study.

        Returns:
            What came of it.
        """
        assert self._function is not None
        return attempt(self._function, item, self._refusals)


@dataclass
class _Actor:
    """One actor. task: what it was asked last. item: what it works on; None while it prepares itself, or is idle."""

    handle: Any
    task: Any
    item: BatchItem | None = None


class RayWorkers(BatchWorkers):
    """Actors of a Ray cluster; one that dies is replaced, and its study has another try.

    Args:
        make: as for :class:`proxyprompt.batch.workers.ProcessWorkers`.
        address: of the cluster, as ``ray start`` prints it; "auto" for the one that this machine belongs to.
        count: of actors; 0 for as many as the cluster has room for.
        cpus: cores of each.
        gpus: share of a GPU of each.
        refusals: as there.

    Raises:
        BatchError: when ray is not installed, no cluster answers, or it has no room for one actor.
    """

    def __init__(
        self,
        make: Callable[[], Function],
        *,
        address: str,
        count: int = 0,
        cpus: float = 1.0,
        gpus: float = 0.0,
        refusals: tuple[type[Exception], ...] = (),
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise BatchError(
                f"ray is not installed ({error}): pip install -r requirements-ray.txt, on every machine of the cluster"
            ) from error
        self._ray, self._arguments = ray, (make, refusals)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        try:
            _knock(address)
            ray.init(address=address, namespace="proxyprompt", log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # ray has no class of its own for this
            raise BatchError(
                f"no Ray cluster answers at {address!r} ({error}); start one with ray start --head, and give the "
                "address that it prints, or auto"
            ) from error
        self._class = ray.remote(RayActor).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        room = _room(ray.cluster_resources(), cpus=cpus, gpus=gpus)
        if room < 1:
            ray.shutdown()
            raise BatchError(f"the cluster at {address!r} has no room for a worker of {cpus:g} cores and {gpus:g} GPUs")
        self._failed_starts = 0
        self._idle: list[_Actor] = []
        self._busy: dict[Any, _Actor] = {}
        for _ in range(min(count or room, room)):
            self._new()

    @property
    def idle(self) -> int:
        """How many could start now."""
        return len(self._idle)

    def start(self, item: BatchItem) -> None:
        """As for every workers."""
        actor = self._idle.pop()
        actor.item, actor.task = item, actor.handle.work.remote(item)
        self._busy[actor.task] = actor

    def wait(self) -> list[BatchAnswer]:
        """As for every workers."""
        while True:
            done, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_ASK_SECONDS)
            if done:
                return self._hear(done[0])
            logger.info("waiting for %d workers of the cluster", len(self._busy))

    def close(self) -> None:
        """Leave the cluster, which ends the actors."""
        self._ray.shutdown()

    def _hear(self, task: Any) -> list[BatchAnswer]:
        actor = self._busy.pop(task)
        try:
            answer = self._ray.get(task)
        except self._ray.exceptions.RayActorError as error:
            return self._bury(actor, f"its worker on the cluster ended ({_first_line(error)})")
        except self._ray.exceptions.RayError as error:  # such as a machine that cannot import the package
            return self._bury(actor, f"its worker failed ({_first_line(error)})")
        if actor.item is not None:
            actor.item = None
            self._idle.append(actor)
            return [answer]
        if answer is not None:
            raise BatchError(answer)
        self._failed_starts = 0
        self._idle.append(actor)
        return []

    def _bury(self, actor: _Actor, message: str) -> list[BatchAnswer]:
        self._ray.kill(actor.handle)
        if actor.item is None:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                raise BatchError(f"{_STARTS} workers could not begin, the last because {message}")
        self._new()
        return [] if actor.item is None else [BatchAnswer(actor.item, LOST, message)]

    def _new(self) -> None:
        handle = self._class.remote(*self._arguments)
        actor = _Actor(handle, handle.prepare.remote())
        self._busy[actor.task] = actor


def _knock(address: str) -> None:
    """OSError where nobody listens at host:port; Ray itself would try for ten minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _room(resources: dict[str, float], *, cpus: float, gpus: float) -> int:
    """How many workers a cluster can hold."""
    shares = [resources.get(kind, 0.0) / each for kind, each in (("CPU", cpus), ("GPU", gpus)) if each]
    return int(min(shares, default=0.0))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
