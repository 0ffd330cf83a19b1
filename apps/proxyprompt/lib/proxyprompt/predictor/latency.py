"""Where the time of a request goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("read", "support", "encode", "encode_support", "decode", "click", "agreement", "write")


class Latencies:
    """Seconds of wall clock for each stage of one request. Stages never nest; what is in none of them is ``other``."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spent = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add the time spent inside the block to a stage.

        Args:
            stage: one of :data:`STAGES`.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[stage] += time.perf_counter() - start

    def report(self) -> dict[str, float]:
        """Where the time went until now.

        Returns:
            Seconds by stage, with ``other`` and ``total``; rounded to a tenth of a millisecond.
        """
        total = time.perf_counter() - self._start
        spent = {**self._spent, "other": max(0.0, total - sum(self._spent.values())), "total": total}
        return {stage: round(seconds, 4) for stage, seconds in spent.items()}
