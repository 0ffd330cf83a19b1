"""Workers of this machine: threads of this process, or processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from typing import Any

from .queue import LOST, BatchAnswer, BatchError, BatchItem, BatchWorkers, attempt

logger = logging.getLogger(__name__)

Function = Callable[[BatchItem], Any]
_STARTS = 3
"""Workers that may die one after the other before they are ready."""
_END_SECONDS = 5.0


class ThreadWorkers(BatchWorkers):
    """Threads that share what ``function`` holds.

    Args:
        function: called for each study, from several threads at once.
        count: of threads.
        refusals: exceptions of ``function`` that speak about the study.
    """

    def __init__(self, function: Function, count: int, *, refusals: tuple[type[Exception], ...] = ()) -> None:
        self._function, self._count, self._refusals = function, count, refusals
        self._pool = ThreadPoolExecutor(count, "batch")
        self._running: set[Future[BatchAnswer]] = set()

    @property
    def idle(self) -> int:
        """How many could start now."""
        return self._count - len(self._running)

    def start(self, item: BatchItem) -> None:
        """As for every workers."""
        self._running.add(self._pool.submit(attempt, self._function, item, self._refusals))

    def wait(self) -> list[BatchAnswer]:
        """As for every workers."""
        done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
        return [future.result() for future in done]

    def close(self) -> None:
        """Wait for those at work, then end."""
        self._pool.shutdown()


@dataclass
class _Worker:
    """One process. item: what it works on. ready: whether it has prepared itself."""

    process: BaseProcess
    pipe: Connection
    item: BatchItem | None = None
    ready: bool = False


class ProcessWorkers(BatchWorkers):
    """Processes of this machine; one that dies is replaced, and its study has another try.

    They end with this process: a study that one of them was at is finished, nothing is begun.

    Args:
        make: called once in each process; returns what is called for each study. It must be importable there.
        count: of processes.
        refusals: exceptions of ``make`` that make the batch impossible, and of the function that speak about the study.
    """

    def __init__(self, make: Callable[[], Function], count: int, *, refusals: tuple[type[Exception], ...] = ()) -> None:
        self._make, self._refusals = make, refusals
        self._context = multiprocessing.get_context("spawn")  # a forked copy of a program with threads may hang
        self._failed_starts = 0
        self._workers = [self._new() for _ in range(count)]

    @property
    def idle(self) -> int:
        """How many could start now."""
        return sum(each.ready and each.item is None for each in self._workers)

    def start(self, item: BatchItem) -> None:
        """As for every workers."""
        worker = next(each for each in self._workers if each.ready and each.item is None)
        worker.item = item
        try:
            worker.pipe.send(item)
        except OSError:  # it has just died: wait() sees its pipe closed
            logger.debug("worker %s is gone", worker.process.pid)

    def wait(self) -> list[BatchAnswer]:
        """As for every workers."""
        signalled = wait_for([each.pipe for each in self._workers])
        return [answer for each in list(self._workers) if each.pipe in signalled for answer in self._hear(each)]

    def close(self) -> None:
        """End the processes; none is at work when a batch has come to its end."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(_END_SECONDS)
            if worker.process.is_alive():
                worker.process.terminate()
                worker.process.join(_END_SECONDS)
        self._workers = []

    def _hear(self, worker: _Worker) -> list[BatchAnswer]:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if isinstance(message, BatchAnswer):
            worker.item = None
            return [message]
        if message is not None:
            raise BatchError(message)
        worker.ready, self._failed_starts = True, 0
        return []

    def _bury(self, worker: _Worker) -> list[BatchAnswer]:
        worker.process.join(_END_SECONDS)
        status, pid = worker.process.exitcode, worker.process.pid
        worker.pipe.close()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                raise BatchError(
                    f"{_STARTS} workers ended before they could begin (the last with {status}; -9 means that it was "
                    "killed, mostly for want of memory); start fewer, or give them more memory"
                )
        self._workers[self._workers.index(worker)] = self._new()
        if worker.item is None:
            return []
        message = f"its worker ended with {status} (-9: killed, mostly for want of memory)"
        return [BatchAnswer(worker.item, LOST, message, worker=f"process {pid}")]

    def _new(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._make, self._refusals), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


def made(make: Callable[[], Function], refusals: tuple[type[Exception], ...]) -> tuple[Function | None, str | None]:
    """Prepare a worker.

    Args:
        make: gives what is called for each study.
        refusals: exceptions of it that speak for themselves.

    Returns:
        (what is called, None), or (None, why there is nothing).
    """
    try:
        return make(), None
    except refusals as error:
        return None, str(error)
    except Exception as error:
        logger.exception("a worker could not be prepared")
        return None, f"a worker could not be prepared: {type(error).__name__}: {error}"


def _serve(pipe: Connection, make: Callable[[], Function], refusals: tuple[type[Exception], ...]) -> None:
    """The life of a worker process."""
    function, problem = made(make, refusals)
    pipe.send(problem)
    while function is not None:
        try:
            item = pipe.recv()
            pipe.send(attempt(function, item, refusals))
        except (EOFError, OSError, KeyboardInterrupt):  # the program that gave the work has ended
            return
