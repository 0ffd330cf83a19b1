"""What was measured, in one JSON file that an interrupted run goes on with.

A unit is one method on the targets of one structure from one draw of supports. It is found again only if everything
that decided it is the same: other weights measure that method anew and leave the others' units as they are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from proxyprompt.io.files import write_json

from .scoring import Score

FORMAT = 1
SAVE_SECONDS = 10.0  # what an interruption may cost at most, besides the unit under way


class RecordError(ValueError):
    """The file cannot be gone on with; the message says what to do."""


@dataclass(frozen=True)
class Unit:
    """supports: K. drawn: the support slices, ``case:slice``. cases, groups, scores: one entry for each target.

    decides: hash over everything that decided the scores. seconds: learning and segmenting. notes: the method's own.
    """

    collection: str
    structure: str
    method: str
    supports: int
    seed: int
    decides: str
    drawn: list[str]
    cases: list[str]
    groups: list[str]
    scores: list[Score]
    seconds: float
    notes: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        return self.collection, self.structure, self.method, self.supports, self.seed

    def to_json(self) -> dict[str, object]:
        """Scores as columns: a tenth of the size, and still readable."""
        columns = {name: [_short(getattr(score, name)) for score in self.scores] for name in Score.__dataclass_fields__}
        return {**asdict(self), "scores": columns, "notes": dict(self.notes)}

    @classmethod
    def from_json(cls, content: Mapping) -> Unit:
        columns = content["scores"]
        known = [name for name in Score.__dataclass_fields__ if name in columns]
        scores = [Score(**dict(zip(known, row, strict=True))) for row in zip(*(columns[n] for n in known), strict=True)]
        if not len(scores) == len(content["cases"]) == len(content["groups"]):
            raise ValueError(f"{len(scores)} scores for {len(content['cases'])} cases")
        return cls(**{**content, "scores": scores})


class Record:
    """The units measured so far. path: None keeps them in memory only.

    RecordError for a file that is not such a record.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._units: dict[tuple, Unit] = {}
        self._saved = time.monotonic()
        if path is not None and path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                if content["format"] != FORMAT:
                    raise ValueError(f"format {content['format']}, expected {FORMAT}")
                self._units = {unit.key: unit for unit in map(Unit.from_json, content["units"])}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise RecordError(
                    f"{path}: is not a record of scripts/evaluate.py ({error}); name another file, or take it away"
                ) from error

    def has(self, key: tuple, decides: str) -> bool:
        """Whether the unit was measured under the very same conditions."""
        return key in self._units and self._units[key].decides == decides

    def add(self, unit: Unit) -> None:
        """Takes it in, and saves the file now and then."""
        self._units[unit.key] = unit
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def units(self, keys: Iterable[tuple]) -> list[Unit]:
        """Those of the keys that were measured, in this order."""
        return [self._units[key] for key in keys if key in self._units]

    def save(self, summary: Mapping[str, object] | None = None) -> None:
        """All units ever measured, and what is said of the whole. Written beside, then renamed."""
        if self.path is None:
            return
        self._saved = time.monotonic()
        content = {
            **(summary or {}),
            "complete": summary is not None,
            "format": FORMAT,
            "units": [unit.to_json() for unit in self._units.values()],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, content, allow_nan=False)


def _short(value: float | int | None) -> float | int | None:
    return round(value, 5) if isinstance(value, float) else value
