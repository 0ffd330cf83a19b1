"""One line of JSON a request: who asked for what, which supports and version answered, how long it took, the outcome.

Ids of studies can be names of people: by default the log has pseudonyms, the same one for the same study as long as the
file with the salt is kept. Nothing else of a study is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from proxyprompt.io.files import write_text

logger = logging.getLogger(__name__)

BYTES, FILES = 10 << 20, 10
_IDS = ("study", "supports")
_SAY_SECONDS = 60.0


class RequestLog:
    """The log, which starts a new file when one is full and keeps the last ten.

    Args:
        folder: for ``requests.jsonl`` and the salt; made when it is not there.
        plain_ids: write ids of studies as they are.
    """

    def __init__(self, folder: Path, *, plain_ids: bool = False) -> None:
        self._plain = plain_ids
        self.path = folder / "requests.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._salt = _salt(folder / "salt")
            self._handler: logging.Handler = _Rotating(self.path, maxBytes=BYTES, backupCount=FILES, encoding="utf-8")
        except OSError as error:
            logger.warning("%s cannot be written (%s): requests are noted in the server's own log", self.path, error)
            self._salt = secrets.token_hex(16)
            self._handler = _Own()

    def write(self, facts: Mapping[str, Any]) -> None:
        """Add a line with the time (UTC).

        Args:
            facts: what JSON can hold; ids of studies under "study" and "supports".
        """
        told = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
        if not self._plain:
            told |= {key: self._hidden(told[key]) for key in _IDS if told.get(key)}
        line = json.dumps(told, default=str).encode(errors="backslashreplace").decode()
        self._handler.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))

    def pseudonym(self, id: str) -> str:
        """What stands for an id in the log.

        Args:
            id: of a study.

        Returns:
            12 hex digits.
        """
        return hashlib.sha256(f"{self._salt}:{id}".encode(errors="backslashreplace")).hexdigest()[:12]

    def _hidden(self, ids: Any) -> Any:
        return self.pseudonym(ids) if isinstance(ids, str) else [self.pseudonym(str(each)) for each in ids]


class _Rotating(RotatingFileHandler):
    """A disk that takes no more costs lines, and is said once a minute."""

    _said = float("-inf")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name is logging's)
        """As logging asks."""
        if time.monotonic() - self._said > _SAY_SECONDS:
            self._said = time.monotonic()
            logger.warning("%s cannot be written: requests go unnoted until it can", self.baseFilename)


class _Own(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """As logging asks."""
        logger.info("%s", record.getMessage())


def _salt(path: Path) -> str:
    with contextlib.suppress(OSError):
        if text := path.read_text(encoding="ascii", errors="ignore").strip():
            return text
    made = secrets.token_hex(16)
    write_text(path, made)
    path.chmod(0o600)
    return made
