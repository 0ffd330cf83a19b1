"""How far a batch is, on the screen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from .queue import DONE, BatchAnswer


class BatchProgress:
    """Says now and then how many studies are done, how fast it goes, and when it will end.

    Args:
        total: studies of the batch.
        before: of them done by earlier runs.
        say: shows a line.
        every: seconds between two lines; the first and the last study always get one.
    """

    def __init__(self, total: int, before: int, say: Callable[[str], object], *, every: float = 10.0) -> None:
        self._total, self._before, self._say, self._every = total, before, say, every
        self._counts: Counter[bool] = Counter()
        self._started = time.monotonic()
        self._first: float | None = None
        self._said = float("-inf")

    def note(self, answer: BatchAnswer) -> None:
        """Take in what came of a study.

        Args:
            answer: the last one about it.
        """
        now = time.monotonic()
        self._counts[answer.status == DONE] += 1
        if answer.status != DONE:
            self._say(f"{answer.item.id}: not done: {answer.message}")
        if now - self._said >= self._every or self._left() == 0:
            self._said = now
            self._say(str(self))
        if self._first is None:
            self._first = now

    def per_minute(self) -> float:
        """Studies a minute since the first one was done, which waits for the workers to get ready; 0 before that."""
        handled = sum(self._counts.values()) - 1
        if self._first is None or handled < 1:
            return 0.0
        return 60.0 * handled / max(1e-9, time.monotonic() - self._first)

    def __str__(self) -> str:
        done, failed, rate = self._before + self._counts[True], self._counts[False], self.per_minute()
        text = f"{done} of {self._total} studies, {failed} failed"
        if rate:
            text += f", {rate:.1f} a minute"
        if rate and self._left():
            text += f", about {timedelta(seconds=round(60 * self._left() / rate))} to go"
        return text

    def _left(self) -> int:
        return self._total - self._before - sum(self._counts.values())
