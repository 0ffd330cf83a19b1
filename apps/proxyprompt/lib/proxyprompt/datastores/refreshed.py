"""A value that another machine knows, for many who ask, of whom none waits behind the others or for what hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 0.5
"""Seconds that anybody waits for a newer value than the one that is known."""
FIRST_PATIENCE = 10.0
"""The same where none is known yet, since the last sign that there will be one."""
PAUSE = 3.0
"""Seconds after a failure in which nobody asks again."""


class Refreshed(Generic[T]):
    """Asks for a value when the one it has is too old, in one thread of its own at a time. Thread safe.

    Args:
        ask: gets the value; may take long, and may raise.
        expiry: seconds for which a value holds.
        patience: as :data:`PATIENCE`.
        first_patience: as :data:`FIRST_PATIENCE`.
    """

    def __init__(
        self,
        ask: Callable[[], T],
        *,
        expiry: float,
        patience: float = PATIENCE,
        first_patience: float = FIRST_PATIENCE,
    ) -> None:
        self._ask, self._expiry = ask, expiry
        self._patience, self._first_patience = patience, first_patience
        self._changed = threading.Condition()
        self._values: list[T] = []  # none or one
        self._asked_at = float("-inf")  # when the value that is known was asked for
        self._begun: float | None = None  # when the attempt under way began
        self._failed_at = self._sign_at = float("-inf")
        self._failure: Exception | None = None

    @property
    def failure(self) -> Exception | None:
        """Why the last attempt brought nothing; None where it did."""
        with self._changed:
            return self._failure

    def get(self) -> T:
        """The value, or the last one known where a newer one is not to be had soon.

        Returns:
            The value.

        Raises:
            Exception: of the last attempt, where no value is known; TimeoutError while the first attempt takes long.
        """
        with self._changed:
            if not self._is_fresh(time.monotonic() - self._expiry) and not self._rests():
                self._begin()
                self._wait()
            return self._known()

    def newer(self) -> T:
        """The value as it is now.

        Returns:
            A value that was asked for after this call.

        Raises:
            Exception: of the attempt; TimeoutError where it takes longer than the patience for a first value.
        """
        now = time.monotonic()
        end = now + self._first_patience
        with self._changed:
            while self._asked_at < now:
                if self._begun is None:
                    if self._failed_at >= now and self._failure is not None:
                        raise self._failure
                    self._begin()
                if not self._changed.wait(timeout=max(0.0, end - time.monotonic())):
                    raise TimeoutError("no newer value in time")
            return self._values[0]

    def sign_of_life(self) -> None:
        """Said by ``ask`` when it gets on: who waits for a first value goes on waiting."""
        with self._changed:
            self._sign_at = time.monotonic()

    def forget(self) -> None:
        """What is known is out of date; the next call asks, failures or not."""
        with self._changed:
            self._asked_at = self._failed_at = float("-inf")

    # inside, under the lock

    def _is_fresh(self, since: float) -> bool:
        return bool(self._values) and self._asked_at > since

    def _rests(self) -> bool:
        return time.monotonic() - self._failed_at < PAUSE

    def _known(self) -> T:
        if self._values:
            return self._values[0]
        raise self._failure or TimeoutError("the first answer is not here yet")

    def _wait(self) -> None:
        begun = self._begun
        while begun is not None and self._begun == begun:
            end = begun + self._patience if self._values else max(begun, self._sign_at) + self._first_patience
            left = end - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(timeout=left)

    def _begin(self) -> None:
        if self._begun is None:
            self._begun = time.monotonic()
            threading.Thread(target=self._attempt, args=(self._begun,), name="listing", daemon=True).start()

    def _attempt(self, begun: float) -> None:
        values: list[T] = []
        failure: Exception | None = None
        try:
            values = [self._ask()]
        except Exception as error:  # those who wait for the value get it
            failure = error
        with self._changed:
            self._failure = failure
            if values:
                self._values, self._asked_at = values, begun
            else:
                self._failed_at = time.monotonic()
            self._begun = None
            self._changed.notify_all()
