"""What happened to the studies, one JSON object a line, never changed afterwards.

``proposal``: the model segmented a study. ``label``: a label of it came in. The session report
(:mod:`lib.session.report`) is made of nothing else.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
            with open(self.path, "ab", buffering=0) as file:
                file.write(f"{line}\n".encode())
        except OSError as error:
            logger.warning("%s could not be noted in %s: %s", event, self.path, error)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The lines in order. One that a crash or a full disk cut off is logged and left out."""
        if not self.path.exists():
            return
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                try:
                    entry = json.loads(line)
                    datetime.fromisoformat(entry["time"]), entry["event"], entry["image"]
                except (ValueError, TypeError, KeyError):
                    logger.warning("%s, line %d is no entry: %.80s", os.path.basename(self.path), number, line)
                    continue
                yield entry
