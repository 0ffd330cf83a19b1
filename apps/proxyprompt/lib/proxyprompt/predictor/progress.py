"""How far a request is, for whoever waits for it, and whether it is still wanted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from proxyprompt.io.errors import StudyError


class CancelledError(StudyError):
    """A request that nobody waits for any more."""


class RequestProgress:
    """One request under way. Thread safe.

    Attributes:
        done: slices that are done.
        total: slices that there are; 0 as long as that is not known.
    """

    def __init__(self) -> None:
        self.done = self.total = 0
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """It is not wanted any more: it ends at its next step."""
        self._cancelled.set()

    def advance(self, done: int, total: int) -> None:
        """Note how far the request is.

        Args:
            done: slices that are done.
            total: slices that there are.

        Raises:
            CancelledError: when it was cancelled.
        """
        self.done, self.total = done, total
        if self._cancelled.is_set():
            raise CancelledError(f"the request was cancelled after {done} of {total} slices; nothing was changed")


class FollowedRequests:
    """The requests under way that their clients have named. Thread safe."""

    def __init__(self) -> None:
        self._known: dict[str, RequestProgress] = {}

    @contextmanager
    def following(self, name: object) -> Iterator[None]:
        """What runs within the block, in this thread, is the request of this name.

        Args:
            name: what the client calls it; followed only if it is a text.
        """
        if not isinstance(name, str) or not name:
            yield
            return
        progress = self._known[name] = RequestProgress()
        token = _current.set(progress)
        try:
            yield
        finally:
            _current.reset(token)
            self._known.pop(name, None)

    def get(self, name: str) -> RequestProgress | None:
        """A request under way.

        Args:
            name: what its client calls it.

        Returns:
            None where there is none of this name (any more).
        """
        return self._known.get(name)


_current: ContextVar[RequestProgress | None] = ContextVar("progress", default=None)


def advance(done: int, total: int) -> None:
    """Note how far the request of this thread is, if anybody follows it.

    Args:
        done: slices that are done.
        total: slices that there are.

    Raises:
        CancelledError: when it was cancelled.
    """
    progress = _current.get()
    if progress is not None:
        progress.advance(done, total)
