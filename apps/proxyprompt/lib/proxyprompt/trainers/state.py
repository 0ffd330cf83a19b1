"""What a training leaves on disk for others to see: that it runs, how far it is, what came of it.

The training runs in a process of its own, which may be killed at any moment; the server only reads. So the progress is
one small file, written beside and renamed, and whether it still runs is told by a lock that ends with the process.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from proxyprompt.io.files import write_json
from proxyprompt.training.errors import TrainingError

if TYPE_CHECKING:
    from proxyprompt.training.finetune import Progress

RUNNING, FAILED, INTERRUPTED = "running", "failed", "interrupted"
_WRITE_SECONDS = 1.0
_PATIENCE = 1.0  # others take the lock for an instant, to see whether it is free


class TrainingState:
    """The folder of a server's trainings: ``stats.json``, the lock, the run that can be resumed, the logs of others.

    The statistics have the names that viewers look for: ``epoch``, ``total_epochs``, ``best_metric``, ``start_ts``
    (seconds since 1970), and ``total_time`` once it has ended. ``status`` is "running", "interrupted", "failed", or
    what became of the version: "published", "refused" or "unproven"; ``message`` says more. ``resumed_from``: the step
    at which an interrupted training was taken up again; 0 for a new one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.run_folder, self._logs = self.folder / "run", self.folder / "logs"
        self._stats, self._lock = self.folder / "stats.json", self.folder / "lock"
        self._written, self._epoch = float("-inf"), 0
        self._resumed_from: int | None = None
        self._left_over = False

    def stats(self) -> dict[str, Any]:
        """As they stand; {} before the first training. Cheap: asked for at every request to ``/info/``."""
        stats = self._last()
        if stats.get("status") == RUNNING and not self._runs():
            stats |= {
                "status": INTERRUPTED,
                "total_time": stats.get("current_time", ""),
                "message": "interrupted; the next training with the same data and options goes on from there",
            }
        return stats

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """One training at a time; the lock goes with the process, however that ends. TrainingError when one runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            stats = self.stats()
            raise TrainingError(
                f"a training is running already (epoch {stats.get('epoch', 0)} of {stats.get('total_epochs', '?')}); "
                "wait for its end, or stop it with DELETE /train/"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def start(self, *, epochs: int) -> None:
        """Nothing is known yet but that it runs."""
        self._resumed_from, self._left_over = None, self._last().get("status") == RUNNING
        begun = {"status": RUNNING, "message": "reading the labelled studies", "start_ts": int(time.time())}
        self._write({**begun, **_times(0.0)}, epochs)

    def progress(self, progress: Progress, *, minutes: float | None) -> None:
        """How far it is; at most about once a second, and at every new epoch. minutes: the limit, None for none."""
        if self._resumed_from is None:
            self._resumed_from = progress.step - 1
        elif progress.epoch == self._epoch and time.monotonic() - self._written < _WRITE_SECONDS:
            return
        self._epoch = progress.epoch
        stats = {
            **self._last(),
            **_times(progress.seconds),
            "message": self._how_it_began(),
            "resumed_from": self._resumed_from,
            "epoch": progress.epoch,
            "step": progress.step,
            "best_metric": round(progress.best or 0.0, 4),
            "loss": round(progress.loss, 4),
            "learning_rate": progress.learning_rate,
            "validation": _rounded(progress.validation or {}),
        }
        self._write(stats, expected_epochs(progress, minutes))

    def finish(self, status: str, message: str, **more: Any) -> dict[str, Any]:
        """Writes how it ended, and returns it."""
        stats = self._last() or {"start_ts": int(time.time()), **_times(0.0)}
        stats |= {"status": status, "message": message, "total_time": stats.get("current_time", ""), **more}
        self._write(stats, stats.get("total_epochs", 1))
        return stats

    def put_away(self, version: str) -> None:
        """Keeps TensorBoard's log of a training that ended, under the name of its version."""
        with contextlib.suppress(OSError):
            (self._logs / version).mkdir(parents=True, exist_ok=True)
            for file in self.run_folder.glob("events.*"):
                file.replace(self._logs / version / file.name)

    def _how_it_began(self) -> str:
        if self._resumed_from:
            return f"goes on from step {self._resumed_from}"
        if self._left_over:
            return "began anew: options, version or labels are not those of the training that was interrupted"
        return "training"

    def _last(self) -> dict[str, Any]:
        """{} where the file is missing or damaged: it only says how far a training has come."""
        with contextlib.suppress(OSError, ValueError):
            stats = json.loads(self._stats.read_text(encoding="utf-8"), parse_constant=lambda constant: None)
            return stats if isinstance(stats, dict) else {}
        return {}

    def _write(self, stats: Mapping[str, Any], epochs: int) -> None:
        """Nobody's training ends because the disk takes no more statistics."""
        self._written = time.monotonic()
        content = {"epoch": 0, "best_metric": 0.0, **stats, "total_epochs": max(1, epochs)}
        with contextlib.suppress(OSError):
            write_json(self._stats, content, indent=1)

    def _runs(self) -> bool:
        lock = FileLock(self._lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False


def expected_epochs(progress: Progress, minutes: float | None) -> int:
    """How many epochs there will be, should the minutes end first: what a progress bar needs."""
    by_time = 0.0 if not minutes else min(1.0, progress.seconds / (60 * minutes))
    by_steps = progress.step / progress.steps
    if by_time <= by_steps:
        return progress.epochs
    return max(1, progress.epoch, math.ceil(progress.epochs * by_steps / by_time))


def _times(seconds: float) -> dict[str, str]:
    return {"current_time": str(timedelta(seconds=round(seconds)))}


def _rounded(validation: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in validation.items()}
