"""Scoring beside the requests, in the server's own process: one thread, and only while nobody waits for an answer.

MONAI Label would start a process for each scoring, which loads everything once more and knows none of the caches.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

logger = logging.getLogger(__name__)

QUIET_SECONDS = 1.0
"""Without a request for this long, a server counts as idle."""


class Idle:
    """Knows whether requests are being answered. Any number of threads may use it."""

    def __init__(self) -> None:
        self._requests = 0
        self._changed = threading.Condition()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around a request."""
        with self._changed:
            self._requests += 1
        try:
            yield
        finally:
            with self._changed:
                self._requests -= 1
                self._changed.notify_all()

    def wait(self) -> None:
        """Returns when no request has been under way for :data:`QUIET_SECONDS`; at once if there never was one."""
        with self._changed:
            while self._requests:
                self._changed.wait_for(lambda: not self._requests)
                self._changed.wait_for(lambda: self._requests, QUIET_SECONDS)


class BackgroundScoring:
    """Runs scoring methods one after the other whenever woken; once more if woken meanwhile."""

    def __init__(self, methods: Sequence[ScoringMethod], datastore: Datastore) -> None:
        self._methods, self._datastore = methods, datastore
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Score now what is not scored yet."""
        self._woken.set()

    def _run(self) -> None:
        while self._woken.wait():
            self._woken.clear()
            for method in self._methods:
                try:
                    method({}, self._datastore)
                except Exception:  # the next label wakes it again
                    logger.exception("background scoring failed: %s", method.description)
