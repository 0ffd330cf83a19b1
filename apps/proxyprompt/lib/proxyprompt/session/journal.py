"""What happened to the studies, one JSON object a line, never changed afterwards.

``proposal``: the model segmented a study. ``label``: a label of it came in. The session report
(:mod:`proxyprompt.session.report`) is made of nothing else.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

logger = logging.getLogger(__name__)

PROPOSAL, LABEL = "proposal", "label"


class Journal:
    """path: the file; it need not exist yet, its folder is made. Threads and processes may write at once."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, event: str, **facts: Any) -> None:
        """Adds a line with the time (UTC). A disk that takes no more is logged, no error: the work itself is done."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered and appending: the line goes out in one piece, wherever the file's end is by then.
            with self.path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # a line that is being written is not cut off
                try:
                    _write_whole(file, f"{_line_end(file)}{line}\n".encode())
                finally:
                    fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile has it open, too
        except OSError as error:
            logger.warning("%s could not be noted in %s: %s", event, self.path, error)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The lines in order.

        One that a crash or a full disk cut off, or that somebody edited, is logged and left out.
        """
        try:
            file = self.path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        with file:
            for number, line in enumerate(file, start=1):
                try:
                    entry = json.loads(line)
                    _check(entry)
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    logger.warning("%s, line %d is no entry: %.80s", os.path.basename(self.path), number, line)
                    continue
                yield entry


def _line_end(file: BinaryIO) -> str:
    """What ends the last line, where a crash or a full disk cut it off: the next one is not lost with it."""
    if file.seek(0, os.SEEK_END) == 0:
        return ""
    file.seek(-1, os.SEEK_END)
    return "" if file.read(1) == b"\n" else "\n"


def _write_whole(file: BinaryIO, line: bytes) -> None:
    """All of a line, or nothing of it: a disk that fills up takes a part without a word."""
    end = file.seek(0, os.SEEK_END)
    try:
        while line:
            line = line[file.write(line) :]
    except OSError:
        file.truncate(end)
        raise


def _check(entry: Mapping[str, Any]) -> None:
    """Raises one of several errors for what :meth:`Journal.write` does not write."""
    if datetime.fromisoformat(entry["time"]).tzinfo is None:
        raise ValueError("without a time zone")
    if not isinstance(entry["event"], str) or not isinstance(entry["image"], str):
        raise TypeError("not text")
