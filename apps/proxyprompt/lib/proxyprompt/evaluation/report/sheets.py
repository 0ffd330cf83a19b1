"""Records of ``scripts/evaluate.py``, read again to be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from proxyprompt.evaluation.record import RecordError, Unit
from proxyprompt.evaluation.summary import by_case
from proxyprompt.metrics.segmentation import Interval, paired_bootstrap

OURS = "proxyprompt"


@dataclass(frozen=True)
class Sheet:
    """One record. label: what it is called beside others. plan, methods: as the record tells them."""

    label: str
    plan: Mapping[str, object]
    methods: Mapping[str, Mapping[str, object]]
    units: tuple[Unit, ...]

    @classmethod
    def read(cls, given: str) -> Sheet:
        """given: ``FILE`` or ``LABEL=FILE``; the label is else the file's name. RecordError for a file that is none, or
        of a run that was not finished.
        """
        label, _, name = given.rpartition("=")
        path = Path(name)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not content["complete"]:
                raise RecordError(f"{path}: its run was interrupted; the same evaluate.py command finishes it")
            units = tuple(map(Unit.from_json, content["units"]))
            return cls(label or path.stem, content["plan"], content["methods"], units)
        except RecordError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"{path}: is not a record of scripts/evaluate.py ({error!r})") from error

    def counts(self, method: str = OURS) -> list[int]:
        """The numbers of supports, K, that ``method`` was measured with."""
        return sorted({unit.supports for unit in self.units if unit.method == method})

    def of(self, method: str, count: int) -> list[Unit]:
        return [unit for unit in self.units if (unit.method, unit.supports) == (method, count)]

    def draws(self, method: str, count: int) -> list[float]:
        """One figure for each support draw: mean over collections of the mean over structures, as the paper's."""
        return [float(np.mean(list(dice.values()))) for dice in _by_draw(self.of(method, count)).values()]


def merged(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Records of one label as one: of models that were trained for a collection each, say.

    ValueError when two of them measured the same.
    """
    found: dict[str, Sheet] = {}
    for sheet in sheets:
        if (before := found.get(sheet.label)) is None:
            found[sheet.label] = sheet
            continue
        if twice := {_what(unit) for unit in before.units} & {_what(unit) for unit in sheet.units}:
            collection, structure, method, count, _ = sorted(twice)[0]
            raise ValueError(
                f"two records called {sheet.label} measured {method} on {collection} {structure}, K = {count}; "
                "give them different names, LABEL=FILE"
            )
        plan = {**before.plan, "collections": [*before.plan["collections"], *sheet.plan["collections"]]}
        found[sheet.label] = Sheet(sheet.label, plan, before.methods, before.units + sheet.units)
    return list(found.values())


def _what(unit: Unit) -> tuple[str, str, str, int, int]:
    return unit.collection, unit.structure, unit.method, unit.supports, unit.seed


def _by_draw(units: Sequence[Unit]) -> dict[int, dict[str, float]]:
    """Seed -> collection -> mean Dice; only draws that all structures have."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for unit in units:
        dice = [score.dice for score in unit.scores if score.dice is not None]
        if dice:
            found.setdefault(unit.seed, {}).setdefault(unit.collection, {})[unit.structure] = float(np.mean(dice))
    most = max((sum(map(len, some.values())) for some in found.values()), default=0)
    return {
        seed: {collection: float(np.mean(list(dice.values()))) for collection, dice in some.items()}
        for seed, some in found.items()
        if sum(map(len, some.values())) == most
    }


def difference(ours: Sequence[Unit], theirs: Sequence[Unit], measure: str = "dice") -> Interval | None:
    """Mean of ours - theirs over the cases that both measured, each the mean over its draws; groups are drawn for the
    interval. None where they have no case in common.
    """
    one, other = _all_cases(ours, measure), _all_cases(theirs, measure)
    both = [case for case in one if case in other]
    if not both:
        return None
    group = {
        (unit.collection, case): (unit.collection, of_case)
        for unit in ours
        for case, of_case in zip(unit.cases, unit.groups, strict=True)
    }
    return paired_bootstrap(
        [one[case] for case in both],
        [other[case] for case in both],
        groups=[group[collection, case] for collection, _, case in both],
    )


def _all_cases(units: Sequence[Unit], measure: str) -> dict[tuple[str, str, str], float]:
    """(collection, structure, case) -> mean over the draws."""
    found: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        found.setdefault((unit.collection, unit.structure), []).append(unit)
    return {(*key, case): value for key, draws in found.items() for case, value in by_case(draws, measure).items()}
