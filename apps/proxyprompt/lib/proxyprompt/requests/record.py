"""What is said of a request in the server's log and figures, noted by whoever knows it.

The server opens a record before it looks at a request; everything that runs for the request, in whatever thread, finds
the same one. Outside of a request nothing is noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_record: ContextVar[dict[str, Any] | None] = ContextVar("request_record", default=None)


@contextmanager
def recording() -> Iterator[dict[str, Any]]:
    """Open a record for what runs within.

    Yields:
        The record, which fills.
    """
    record: dict[str, Any] = {}
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def note_request(**facts: Any) -> None:
    """Note something about the request that is being answered.

    Args:
        **facts: what JSON can hold; no pixels, and nothing of a patient but ids under "study" and "supports".
    """
    record = _record.get()
    if record is not None:
        record.update(facts)
