"""Every study has its turn: one that fails never stops the others, and a worker that dies costs only a try.

What computes is a :class:`BatchWorkers`: threads of a server, processes of this machine, or actors of a Ray cluster.
A worker holds one study at a time, so that what waits is only names, however many there are.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

logger = logging.getLogger(__name__)

DONE, REFUSED, FAILED, LOST = "done", "refused", "failed", "lost"
ATTEMPTS = 3


class BatchError(RuntimeError):
    """A batch that cannot be done at all. The message says why and what to do."""


@dataclass(frozen=True)
class BatchItem:
    """One study of a batch.

    Attributes:
        id: its name, unique in the batch.
        source: where it is: a path, or what the worker knows how to fetch.
        options: what else the worker needs to know.
    """

    id: str
    source: str = ""
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class BatchAnswer:
    """What became of one study.

    Attributes:
        item: the study.
        status: "done"; "refused", for input that cannot be used, which trying again does not change; "failed", for
            everything else that went wrong; "lost", where the worker died.
        message: why it is not done, for the user.
        seconds: that it took.
        worker: host and process that worked on it.
        value: what the function returned.
        attempts: how often it was tried.
    """

    item: BatchItem
    status: str
    message: str = ""
    seconds: float = 0.0
    worker: str = ""
    value: Any = None
    attempts: int = 1


class BatchWorkers(ABC):
    """What computes. Used by one thread."""

    @property
    @abstractmethod
    def idle(self) -> int:
        """How many could start now."""

    @abstractmethod
    def start(self, item: BatchItem) -> None:
        """Give a study to an idle worker.

        Args:
            item: the study.
        """

    @abstractmethod
    def wait(self) -> list[BatchAnswer]:
        """Sleep until something happens.

        Returns:
            What has come of studies since; empty when a worker has merely become ready.

        Raises:
            BatchError: when no worker can work.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the workers."""

    def __enter__(self) -> BatchWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def run_batch(
    items: Iterable[BatchItem],
    workers: BatchWorkers,
    *,
    attempts: int = ATTEMPTS,
    note: Callable[[BatchAnswer], object] = lambda answer: None,
) -> dict[str, BatchAnswer]:
    """Give every study its turn.

    Args:
        items: the studies; taken one by one, as workers become idle.
        workers: what computes.
        attempts: how often a study is tried that fails for another reason than its own content; such studies come
            again after all others.
        note: is told of each study once, when nothing more is done for it.

    Returns:
        id -> the last answer.

    Raises:
        BatchError: when no worker can work.
    """
    waiting, again = iter(items), deque[BatchItem]()
    tried: Counter[str] = Counter()
    answers: dict[str, BatchAnswer] = {}
    running = 0
    following = next(waiting, None)
    while running or following is not None or again:
        while workers.idle and (following is not None or again):
            if following is not None:
                item, following = following, next(waiting, None)
            else:
                item = again.popleft()
            workers.start(item)
            running += 1
        for answer in workers.wait():
            running -= 1
            tried[answer.item.id] += 1
            count = tried[answer.item.id]
            if answer.status in (FAILED, LOST) and count < attempts:
                logger.warning("%s: %s; it is tried again (%d of %d)", answer.item.id, answer.message, count, attempts)
                again.append(answer.item)
                continue
            answers[answer.item.id] = answer = replace(answer, attempts=count)
            note(answer)
    return answers


def attempt(
    function: Callable[[BatchItem], Any], item: BatchItem, refusals: tuple[type[Exception], ...] = ()
) -> BatchAnswer:
    """Call a function for one study, whatever it raises.

    Args:
        function: what is to be done.
        item: the study.
        refusals: exceptions that speak about the study; their text is the message.

    Returns:
        What came of it; the trace of what is no refusal goes to the log.
    """
    started, worker = time.monotonic(), f"{socket.gethostname()}:{os.getpid()}"
    value, status, message = None, DONE, ""
    try:
        value = function(item)
    except refusals as error:
        status, message = REFUSED, str(getattr(error, "msg", "") or error)
    except MemoryError:
        status, message = FAILED, "out of memory; give each worker more, or start fewer"
    except Exception as error:
        logger.exception("%s failed", item.id)
        status, message = FAILED, f"{type(error).__name__}: {error}"
    return BatchAnswer(item, status, message, time.monotonic() - started, worker, value)
