"""Units to figures: means with intervals, spread over support draws, and what one method gains over another.

The Dice of a structure is the mean over its cases, each the mean over its support draws; intervals come from drawing
groups. A collection is the mean of its structures, the whole the mean of the collections, so that no large collection
outweighs the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from proxyprompt.metrics.segmentation import Interval, bootstrap_mean, paired_bootstrap

from .record import Unit


@dataclass(frozen=True)
class ResultRow:
    """One method on one structure with K supports.

    spread: standard deviation over support draws of the mean over cases; lowest: the worst draw. false_slices: share of
    the slices without the structure on which something is drawn; missed_slices: share of those with it that stay empty.
    smoothness, truth_smoothness: as :class:`~proxyprompt.evaluation.scoring.Score`, mean over cases and draws.
    None for what does not apply.
    """

    collection: str
    structure: str
    method: str
    supports: int
    cases: int
    groups: int
    draws: int
    dice: Interval | None
    spread: float | None
    lowest: float | None
    iou: Interval | None
    hd95: float | None
    nsd: float | None
    missed_slices: float | None
    false_slices: float | None
    smoothness: float | None
    truth_smoothness: float | None
    seconds: float


def rows(units: Sequence[Unit]) -> list[ResultRow]:
    """One for each collection, structure, K and method, in the order of the units."""
    return [_row(key, draws) for key, draws in _by_row(units).items()]


def means(table: Sequence[ResultRow], measure: str = "dice") -> dict[tuple[str, int], float]:
    """(method, K) -> mean over collections of the mean over structures. measure: "dice" or "iou"."""
    return {key: _mean(_over_structures(values).values()) for key, values in _by_method(table, measure).items()}


def mean_gains(table: Sequence[ResultRow], method: str) -> dict[tuple[str, int], Interval]:
    """(other method, K) -> what ``method`` gains over it on the structures that both measured, mean over collections;
    collections are drawn for the interval.
    """
    found, dice = {}, _by_method(table)
    for (other, count), theirs in dice.items():
        ours = dice.get((method, count), {})
        gained = {key: ours[key] - theirs[key] for key in ours if key in theirs}
        if other != method and gained:
            found[other, count] = bootstrap_mean(list(_over_structures(gained).values()))
    return found


def _by_method(
    table: Sequence[ResultRow], measure: str = "dice"
) -> dict[tuple[str, int], dict[tuple[str, str], float]]:
    """(method, K) -> (collection, structure) -> mean."""
    found: dict[tuple[str, int], dict[tuple[str, str], float]] = {}
    for row in table:
        value: Interval | None = getattr(row, measure)
        if value is not None:
            found.setdefault((row.method, row.supports), {})[row.collection, row.structure] = value.mean
    return found


def _over_structures(values: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Collection -> mean over its structures."""
    found: dict[str, list[float]] = {}
    for (collection, _), value in values.items():
        found.setdefault(collection, []).append(value)
    return {collection: float(np.mean(some)) for collection, some in found.items()}


def gains(units: Sequence[Unit], method: str) -> list[dict[str, object]]:
    """What ``method`` gains over each other one, by structure and K: paired by case, groups drawn."""
    of_case = {key: by_case(draws, "dice") for key, draws in _by_row(units).items()}
    groups = {
        (unit.collection, case): group for unit in units for case, group in zip(unit.cases, unit.groups, strict=True)
    }
    found = []
    for (collection, structure, other, count), theirs in of_case.items():
        ours = of_case.get((collection, structure, method, count), {})
        both = [case for case in ours if case in theirs]
        if other == method or not both:
            continue
        interval = paired_bootstrap(
            [ours[case] for case in both],
            [theirs[case] for case in both],
            groups=[groups[collection, case] for case in both],
        )
        found.append(
            {"collection": collection, "structure": structure, "over": other, "supports": count, **_of(interval)}
        )
    return found


def summarise(units: Sequence[Unit], *, method: str = "proxyprompt") -> dict[str, object]:
    """For the record. mean_dice, mean_iou: of ``method`` (of the first one, if it was not measured) at the first K."""
    table = rows(units)
    mean, iou = means(table), means(table, "iou")
    first = next((key for key in mean if key[0] == method), next(iter(mean), None))
    return {
        "mean_dice": mean.get(first),
        "mean_iou": iou.get(first),
        "mean_dice_of": first and {"method": first[0], "supports": first[1]},
        "means": [
            {"method": name, "supports": count, "dice": dice, "iou": iou[name, count]}
            for (name, count), dice in mean.items()
        ],
        "mean_gains": [
            {"over": name, "supports": count, **_of(gain)} for (name, count), gain in mean_gains(table, method).items()
        ],
        "rows": [{**asdict(row), "dice": row.dice and _of(row.dice), "iou": row.iou and _of(row.iou)} for row in table],
        "gains": gains(units, method),
    }


def _of(interval: Interval) -> dict[str, float]:
    return {name: round(value, 5) for name, value in interval._asdict().items()}


def _by_row(units: Sequence[Unit]) -> dict[tuple[str, str, str, int], list[Unit]]:
    found: dict[tuple[str, str, str, int], list[Unit]] = {}
    for unit in units:
        found.setdefault(unit.key[:4], []).append(unit)
    return found


def _row(key: tuple[str, str, str, int], draws: Sequence[Unit]) -> ResultRow:
    first = draws[0]
    of_group = dict(zip(first.cases, first.groups, strict=True))
    dice = by_case(draws, "dice")
    of_draw = [value for unit in draws if (value := _mean(s.dice for s in unit.scores)) is not None]
    scores = [s for unit in draws for s in unit.scores]
    return ResultRow(
        *key,
        cases=len(dice),
        groups=len({of_group[case] for case in dice}),
        draws=len(draws),
        dice=_interval(dice, of_group),
        spread=float(np.std(of_draw, ddof=1)) if len(of_draw) > 1 else None,
        lowest=min(of_draw, default=None),
        iou=_interval(by_case(draws, "iou"), of_group),
        hd95=_mean(s.hd95 for s in scores),
        nsd=_mean(s.nsd for s in scores),
        missed_slices=_share([(s.missed_slices, s.present_slices) for s in scores]),
        false_slices=_share([(s.false_slices, s.absent_slices) for s in scores]),
        smoothness=_mean(s.smoothness for s in scores),
        truth_smoothness=_mean(s.truth_smoothness for s in scores),
        seconds=round(sum(unit.seconds for unit in draws), 2),
    )


def by_case(draws: Sequence[Unit], measure: str) -> Mapping[str, float]:
    """Case -> mean over the draws; cases without the structure are left out."""
    values: dict[str, list[float]] = {}
    for unit in draws:
        for case, score in zip(unit.cases, unit.scores, strict=True):
            if (value := getattr(score, measure)) is not None:
                values.setdefault(case, []).append(value)
    return {case: float(np.mean(some)) for case, some in values.items()}


def _interval(values: Mapping[str, float], of_group: Mapping[str, str]) -> Interval | None:
    """values: by case."""
    return bootstrap_mean(list(values.values()), groups=[of_group[case] for case in values]) if values else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _share(pairs: Sequence[tuple[int, int]]) -> float | None:
    whole = sum(of for _, of in pairs)
    return sum(part for part, _ in pairs) / whole if whole else None
