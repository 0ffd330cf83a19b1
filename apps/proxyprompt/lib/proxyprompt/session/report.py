"""The session report: what labelling cost, study by study and structure by structure, from the journal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from itertools import pairwise
from typing import Any

from .journal import LABEL, PROPOSAL

IDLE_MINUTES = 5.0
"""A longer pause between two events of a study counts as this much: the reader was somewhere else."""


@dataclass(frozen=True)
class SessionRow:
    """One structure of one study.

    requests: proposals that held it. clicks: made for it, also those taken back. study_minutes: from the study's first
    event to its newest label, long pauses cut; the same for all structures of a study. slices, slices_unchanged,
    voxels, voxels_changed: the newest label against the proposal before it, see
    :func:`proxyprompt.session.recorder.changes`; None before there is a label. supports, adapter: of the last proposal
    before it. labelled: when the newest label came in, ISO 8601; empty before.
    """

    study: str
    structure: str
    requests: int
    clicks: int
    study_minutes: float
    slices: int | None
    slices_unchanged: int | None
    voxels: int | None
    voxels_changed: int | None
    supports: str
    adapter: str
    labelled: str


def session_rows(journal: Iterable[Mapping[str, Any]]) -> list[SessionRow]:
    """The rows, studies in the order of their newest labels, those without a label last."""
    by_study: dict[str, list[Mapping[str, Any]]] = {}
    for entry in filter(_is_usable, journal):
        by_study.setdefault(entry["image"], []).append(entry)
    studies = [_study_rows(study, events) for study, events in by_study.items()]
    ordered = sorted((rows for rows in studies if rows), key=lambda rows: rows[0].labelled or "9999")
    return [row for rows in ordered for row in rows]


def write_csv(rows: Iterable[SessionRow]) -> str:
    """CSV with a header line."""
    out = io.StringIO()
    table = csv.DictWriter(out, [f.name for f in fields(SessionRow)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    return out.getvalue()


def _is_usable(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is as the ``Recorder`` writes it: the journal is a file, and may have been edited."""
    structures, clicks, supports = entry.get("structures"), entry.get("clicks", {}), entry.get("supports", [])
    if not isinstance(structures, Mapping) or not isinstance(clicks, Mapping) or not isinstance(supports, list | tuple):
        return False
    if entry["event"] == LABEL and not (
        isinstance(entry.get("sha256"), str) and all(isinstance(found, Mapping) for found in structures.values())
    ):
        return False
    counts = all(isinstance(count, int) for count in clicks.values())
    return counts and all(isinstance(name, str) for name in supports)


def _study_rows(study: str, events: list[Mapping[str, Any]]) -> list[SessionRow]:
    events = sorted(events, key=lambda event: event["time"])
    newest = max((n for n, event in enumerate(events) if event["event"] == LABEL), default=None)
    while newest and _again(events[newest - 1], events[newest]):
        newest -= 1
    considered = events if newest is None else events[: newest + 1]
    label = None if newest is None else events[newest]
    proposals = [event for event in considered if event["event"] == PROPOSAL]
    names = dict.fromkeys(name for event in (*proposals, *([label] if label else [])) for name in event["structures"])
    return [_row(study, name, proposals, label, _minutes(considered)) for name in names]


def _row(
    study: str, name: str, proposals: list[Mapping[str, Any]], label: Mapping[str, Any] | None, minutes: float
) -> SessionRow:
    mine = [event for event in proposals if name in event["structures"]]
    last = mine[-1] if mine else {}
    found = (label or {}).get("structures", {}).get(name, {})
    return SessionRow(
        study=study,
        structure=name,
        requests=len(mine),
        clicks=_clicks([event.get("clicks", {}).get(name, 0) for event in proposals]),
        study_minutes=round(minutes, 2),
        slices=found.get("slices"),
        slices_unchanged=found.get("unchanged"),
        voxels=found.get("voxels"),
        voxels_changed=found.get("changed"),
        supports=";".join(last.get("supports", ())),
        adapter=last.get("adapter", ""),
        labelled=(label or {}).get("time", ""),
    )


def _again(before: Mapping[str, Any], label: Mapping[str, Any]) -> bool:
    """Whether a label is the one before, stored once more, e.g. by a viewer that repeats itself."""
    return before["event"] == LABEL and before["sha256"] == label["sha256"]


def _clicks(counts: list[int]) -> int:
    """Each request holds all clicks so far: what came on top of the one before was made."""
    return sum(max(0, after - before) for before, after in pairwise([0, *counts]))


def _minutes(events: list[Mapping[str, Any]]) -> float:
    times = [datetime.fromisoformat(event["time"]) for event in events]
    pauses = [(after - before).total_seconds() / 60 for before, after in pairwise(times)]
    return sum(min(pause, IDLE_MINUTES) for pause in pauses)
