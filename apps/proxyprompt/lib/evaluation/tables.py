"""Rows as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from lib.evaluation.record import Unit
from lib.evaluation.scoring import Score
from lib.evaluation.summary import Row, means


def markdown(table: Sequence[Row], *, skipped: Mapping[str, str] | None = None) -> str:
    """Mean Dice of all methods; for each K the structures against the methods; presence; distances."""
    methods = list(dict.fromkeys(row.method for row in table))
    counts = list(dict.fromkeys(row.supports for row in table))
    mean = means(table)
    parts = [
        "Dice, mean over collections.",
        _grid(["method", *(f"K={k}" for k in counts)], _means(mean, methods, counts)),
    ]
    for count in counts:
        some = [row for row in table if row.supports == count]
        parts.append(
            f"Dice with {count} support{'s'[: count - 1]}: mean [95 % interval over groups] ± spread over draws."
        )
        parts.append(_grid(["collection", "structure", "cases", *methods], _by_structure(some, methods, _dice)))
    last = [row for row in table if row.supports == counts[0]]
    for title, cell in (
        (f"Share of slices without the structure on which something is drawn (K={counts[0]}).", _false),
        (f"Share of slices with the structure that stay empty (K={counts[0]}).", _missed),
        (f"HD95 in mm, and normalised surface Dice, where spacing is known (K={counts[0]}).", _distance),
    ):
        if any(cell(row) != "-" for row in last):
            parts += [title, _grid(["collection", "structure", "cases", *methods], _by_structure(last, methods, cell))]
    if skipped:
        parts.append("Not measured:\n\n" + "\n".join(f"- {reason}" for reason in dict.fromkeys(skipped.values())))
    return "\n\n".join(parts) + "\n"


def table_csv(units: Iterable[Unit]) -> str:
    """One line for each case, draw, method and structure."""
    stream = io.StringIO()
    measures = list(Score.__dataclass_fields__)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["collection", "structure", "method", "supports", "seed", "case", "group", *measures])
    for unit in units:
        for case, group, score in zip(unit.cases, unit.groups, unit.scores, strict=True):
            values = (getattr(score, name) for name in measures)
            writer.writerow([*unit.key, case, group, *("" if value is None else value for value in values)])
    return stream.getvalue()


def _means(mean: Mapping[tuple[str, int], float], methods: Sequence[str], counts: Sequence[int]) -> list[list[str]]:
    return [[method, *(_number(mean.get((method, count))) for count in counts)] for method in methods]


def _by_structure(table: Sequence[Row], methods: Sequence[str], cell) -> list[list[str]]:
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in table:
        found.setdefault((row.collection, row.structure), {})[row.method] = row
    return [
        [*key, str(max(row.cases for row in some.values())), *(cell(some[m]) if m in some else "-" for m in methods)]
        for key, some in found.items()
    ]


def _dice(row: Row) -> str:
    if row.dice is None:
        return "-"
    spread = "" if row.spread is None else f" ± {row.spread:.2f}"
    return f"{row.dice.mean:.2f} [{row.dice.low:.2f}, {row.dice.high:.2f}]{spread}"


def _false(row: Row) -> str:
    return _number(row.false_slices)


def _missed(row: Row) -> str:
    return _number(row.missed_slices) if row.false_slices is not None else "-"


def _distance(row: Row) -> str:
    return "-" if row.nsd is None else f"{_number(row.hd95, 1)} / {row.nsd:.2f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _grid(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))
