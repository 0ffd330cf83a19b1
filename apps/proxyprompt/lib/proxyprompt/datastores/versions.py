"""Who wrote which label of a study, and when: the one that counts, and those before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from proxyprompt.io.errors import StudyExists

NOBODY = ""
"""Whose a label is that does not say."""


class LabelChanged(StudyExists):
    """A label that was written since somebody opened the study would be replaced unseen."""


@dataclass(frozen=True)
class LabelVersion:
    """One label of a study.

    Attributes:
        version: names it; two labels of one study have two.
        by: who wrote it; NOBODY where that is not known.
        time: when, ISO 8601 in UTC; "" where that is not known.
        structures: what it names, as far as that is known without reading it.
        current: whether it is the one that counts.
        series: SeriesInstanceUID of its DICOM SEG, which viewers can load; "" for other files.
        handed_over: whether the archive has it.
    """

    version: str
    by: str = NOBODY
    time: str = ""
    structures: tuple[str, ...] = ()
    current: bool = False
    series: str = ""
    handed_over: bool = True


def writer_of(info: Mapping[str, Any] | None) -> str:
    """Who wrote a label.

    Args:
        info: what was noted with it.

    Returns:
        The user, else the client; NOBODY where neither was noted.
    """
    for key in ("user", "client_id"):
        given = (info or {}).get(key)
        if isinstance(given, str) and given.strip():
            return given.strip()
    return NOBODY


def names_in(info: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The structures that a label's info names.

    Args:
        info: what was noted with it.

    Returns:
        Their names, in its order.
    """
    entries = (info or {}).get("label_info")
    if not isinstance(entries, list):
        return ()
    names = [entry.get("name") for entry in entries if isinstance(entry, Mapping)]
    return tuple(name for name in names if isinstance(name, str))


def moment(seconds: float) -> str:
    """A time as people and programs read it.

    Args:
        seconds: since 1970.

    Returns:
        ISO 8601 in UTC, to the second.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def check_base(image_id: str, versions: list[LabelVersion], base: str | None) -> None:
    """Refuse to replace a label that somebody else wrote meanwhile.

    Args:
        image_id: of the study.
        versions: its labels as they are now.
        base: the version that the client had opened, "" for none, None for a client that does not say.

    Raises:
        LabelChanged: when the label that counts is another one than ``base``.
    """
    current = next((each for each in versions if each.current), None)
    if base is None or base == (current.version if current else ""):
        return
    if current is None:
        raise LabelChanged(
            f"the label of {image_id} that this one was made from is gone: send replace=true to store it"
        )
    whose = f" by {current.by}" if current.by else ""
    when = f" at {current.time}" if current.time else ""
    raise LabelChanged(
        f"the label of {image_id} was written{whose}{when}, after this study was opened here: open the study again to "
        "start from that label, or send replace=true to put this one in its place (that one is kept)"
    )
