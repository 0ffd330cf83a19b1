"""What comes to a folder of studies, and goes, while the server runs; and what is still on its way.

Half a file is no damaged study, and half a series no whole one. A file is on its way from its first byte until whoever
writes it closes it; where the system does not tell of closing (network drives), until it has not changed for a while.
A folder is on its way until nothing has come to it for a moment.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

logger = logging.getLogger(__name__)

QUIET = 0.5
"""Seconds without news after which the folder is looked at again."""
FOLDER_QUIET = 1.0
"""Seconds in which nothing comes to a folder that is whole."""
QUIET_WITHOUT_EVENTS = 3.0
"""The same for files and folders where the system does not tell of closing."""
STALLED = 10.0
"""Seconds after which a file that was seen to grow, and does not any more, is taken as it is without being closed."""
_CHANGES = ("created", "modified", "moved", "deleted", "closed")


class Arrivals(FileSystemEventHandler):
    """Watches a folder and all below it, but for hidden folders. Any number of threads may ask.

    folder: of the studies. settled: called, in a thread of this object, a moment after something has changed, and again
    as long as something is on its way. listed: called when only the list of studies, the file ``list_name``, has
    changed.
    """

    def __init__(
        self,
        folder: str | Path,
        settled: Callable[[], object],
        *,
        list_name: str = "",
        listed: Callable[[], object] = lambda: None,
    ) -> None:
        self._folder, self._settled = Path(os.path.abspath(folder)), settled
        self._list_name, self._listed = list_name, listed
        self._changed = threading.Condition()
        self._news = False
        self._touched: dict[str, float] = {}  # an entry directly in the folder -> when it had news
        self._open: dict[str, bool] = {}  # files that nobody was seen to close -> whether they were seen to grow
        self._tells_of_closing = True
        self._observer: BaseObserver | None = None

    def start(self, observer: BaseObserver | None = None) -> None:
        """Begin to watch. observer: one that is not scheduled yet; the system's own by default, else polling."""
        for candidate in (observer or Observer(), PollingObserver()):
            try:
                candidate.schedule(self, str(self._folder), recursive=True)
                candidate.start()
            except OSError as error:  # no more watches are to be had
                logger.warning("%s cannot be watched by %s: %s", self._folder, type(candidate).__name__, error)
                continue
            self._observer = candidate
            self._tells_of_closing = not isinstance(candidate, PollingObserver)
            threading.Thread(target=self._follow, name="arrivals", daemon=True).start()
            return

    def stop(self) -> None:
        """Watch no more; for good."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()

    def on_the_way(self, path: str) -> bool:
        """Whether a file or folder is still being written. path: relative to the folder of studies."""
        whole = self._folder / path
        with self._changed:
            touched = self._touched.get(path.partition("/")[0])
            if touched is None:
                return False
            age = time.monotonic() - touched
            if whole.is_dir():
                return age < self._quiet or any(self._is_open(name) for name in self._open if _below(name, whole))
            if self._tells_of_closing:
                return self._is_open(str(whole))
        return _age(whole) < QUIET_WITHOUT_EVENTS

    def dispatch(self, event: FileSystemEvent) -> None:
        """What the observer calls for everything that happens."""
        if event.event_type not in _CHANGES or (event.is_directory and event.event_type == "modified"):
            return
        paths = [os.fsdecode(path) for path in (event.src_path, getattr(event, "dest_path", "")) if path]
        inside = [path for path in paths if self._entry(path)]
        if not inside:
            return
        if all(self._entry(path) == self._list_name for path in inside):
            if event.event_type in ("moved", "closed") or not self._tells_of_closing:  # it is whole
                self._listed()
            return
        with self._changed:
            for path in inside:
                self._touched[self._entry(path)] = time.monotonic()
            if not event.is_directory and self._tells_of_closing:
                self._follow_writing(event.event_type, paths)
            self._news = True
            self._changed.notify()

    # inside

    @property
    def _quiet(self) -> float:
        return FOLDER_QUIET if self._tells_of_closing else QUIET_WITHOUT_EVENTS

    def _entry(self, path: str) -> str:
        """The first part of a path below the folder; "" where a part of it is hidden, and for the folder itself."""
        try:
            parts = Path(path).relative_to(self._folder).parts
        except ValueError:
            return ""
        return "" if not parts or any(part.startswith(".") for part in parts) else parts[0]

    def _follow_writing(self, what: str, paths: list[str]) -> None:
        if what == "created":
            self._open[paths[0]] = False
        elif what == "modified":
            if paths[0] in self._open:  # else a look at it, or its rights: it was closed before
                self._open[paths[0]] = True
        else:
            for path in paths:
                self._open.pop(path, None)

    def _is_open(self, path: str) -> bool:
        """A file that was there before its folder was watched is closed, or is about to grow."""
        return path in self._open and _is_written(Path(path), STALLED if self._open[path] else FOLDER_QUIET)

    def _under_way(self) -> bool:
        """Forgets what has settled; whether anything is left. Under the lock."""
        self._open = {path: grew for path, grew in self._open.items() if self._is_open(path)}
        writing = {self._entry(path) for path in self._open}
        now = time.monotonic()
        self._touched = {e: t for e, t in self._touched.items() if e in writing or now - t < self._quiet + QUIET}
        return bool(self._touched)

    def _follow(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._news, timeout=QUIET if self._under_way() else None)
            time.sleep(QUIET)  # more may come at once
            self._news = False
            try:
                self._settled()
            except Exception:  # the next change tries again
                logger.exception("%s could not be looked at", self._folder)


def _below(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)


def _is_written(path: Path, patience: float) -> bool:
    """Whether a file that nobody was seen to close may still be growing.

    Writing sets both its times at once; one that was renamed, linked or given its old time has a younger inode.
    """
    try:
        status = path.lstat()
    except OSError:
        return False
    renamed = status.st_ctime_ns != status.st_mtime_ns or status.st_nlink > 1
    return stat.S_ISREG(status.st_mode) and not renamed and time.time() - status.st_mtime < patience


def _age(path: Path) -> float:
    """Seconds since a file changed; infinite where there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")
