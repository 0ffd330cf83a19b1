"""One at a time for each of many things, and nobody waits for those who are about another thing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Locks by name, made when needed and forgotten when nobody holds or wants them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.RLock] = {}
        self._wanted: Counter[str] = Counter()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """The turn for one thing.

        Args:
            name: of the thing.

        Yields:
            Nothing; others who name the same thing wait until the block ends.
        """
        with self._lock:
            lock = self._locks.setdefault(name, threading.RLock())
            self._wanted[name] += 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                self._wanted[name] -= 1
                if not self._wanted[name]:
                    del self._wanted[name], self._locks[name]
