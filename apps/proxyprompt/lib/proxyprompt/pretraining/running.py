"""Means of figures between two lines of a log."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping


class RunningMeans:
    """Collects figures by name; those that are not a number do not count."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)
        self._steps, self._since = 0, time.monotonic()

    def add(self, figures: Mapping[str, float]) -> None:
        """The figures of one step."""
        self._steps += 1
        for name, value in figures.items():
            if math.isfinite(value):
                self._values[name].append(value)

    def take(self) -> tuple[float, str]:
        """(Seconds a step, the means in words) since the last call, and start anew."""
        now = time.monotonic()
        seconds = (now - self._since) / max(1, self._steps)
        means = {name: sum(values) / len(values) for name, values in sorted(self._values.items())}
        self._values.clear()
        self._steps, self._since = 0, now
        return seconds, self.text(means)

    @staticmethod
    def text(figures: Mapping[str, float]) -> str:
        """``name value`` of each."""
        return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
