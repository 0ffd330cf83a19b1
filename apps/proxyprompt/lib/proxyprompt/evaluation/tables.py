"""Rows as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

from proxyprompt.metrics.segmentation import Interval

from .record import Unit
from .scoring import Score
from .summary import ResultRow, mean_gains, means


def markdown(
    table: Sequence[ResultRow],
    *,
    method: str = "proxyprompt",
    methods: Mapping[str, Mapping[str, object]] | None = None,
    skipped: Mapping[str, str] | None = None,
) -> str:
    """Mean Dice and IoU of all methods, and what ``method`` gains; then the structures K by K, presence, distances.

    methods: the settings of each, to be told at the end. skipped: what could not be measured, and why.
    """
    names = list(dict.fromkeys(row.method for row in table))
    counts = list(dict.fromkeys(row.supports for row in table))
    mean, gain = means(table), mean_gains(table, method)
    parts = [f"Dice, mean over collections; in brackets what {method} gains [95 % interval over collections]."]
    cells = {(name, k): _number(mean.get((name, k))) + _gain(gain.get((name, k))) for name in names for k in counts}
    lines = [[name, *(cells[name, k] for k in counts)] for name in names]
    parts.append(grid(["method", *(f"K={k}" for k in counts)], lines))
    iou = means(table, "iou")
    parts.append("IoU, mean over collections.")
    lines = [[name, *(_number(iou.get((name, k))) for k in counts)] for name in names]
    parts.append(grid(["method", *(f"K={k}" for k in counts)], lines))
    for count in counts:
        for title, cell in (
            ("Dice: mean [95 % interval over groups] ± spread over support draws.", _dice),
            ("IoU: mean [95 % interval over groups].", _iou),
            ("Share of slices without the structure on which something is drawn.", _false),
            ("Share of slices with the structure that stay empty, in volumes that also have slices without.", _missed),
            ("Dice of neighbouring slices of a volume or frames of a clip (of the truth).", _smooth),
            ("HD95 in mm / normalised surface Dice at 2 mm, where spacing is known.", _distance),
        ):
            lines = _by_structure([row for row in table if row.supports == count], names, cell)
            if lines:
                parts.append(f"K={count}. {title}")
                parts.append(grid(["collection", "structure", "cases", *names], lines))
    if skipped:
        parts.append("Not measured:\n\n" + "\n".join(f"- {reason}" for reason in dict.fromkeys(skipped.values())))
    for name, settings in (methods or {}).items():
        parts.append(f"{name}: {settings_text(settings)}.")
    return "\n\n".join(parts) + "\n"


def settings_text(settings: Mapping[str, object]) -> str:
    """In a line; hashes shortened, the many options of a training left to the record."""
    short = {key: str(value)[:12] if key == "weights" else value for key, value in settings.items()}
    short |= {key: "as in the record" for key, value in settings.items() if isinstance(value, Mapping)}
    return ", ".join(f"{key} {value}" for key, value in short.items()) or "no settings"


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


def _by_structure(
    table: Sequence[ResultRow], methods: Sequence[str], cell: Callable[[ResultRow], str]
) -> list[list[str]]:
    """A line for each structure of which any method has something to tell."""
    found: dict[tuple[str, str], dict[str, ResultRow]] = {}
    for row in table:
        found.setdefault((row.collection, row.structure), {})[row.method] = row
    lines = []
    for key, some in found.items():
        cells = [cell(some[method]) if method in some else "-" for method in methods]
        if any(text != "-" for text in cells):
            lines.append([*key, str(max(row.cases for row in some.values())), *cells])
    return lines


def _gain(interval: Interval | None) -> str:
    return "" if interval is None else f" ({interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}])"


def _dice(row: ResultRow) -> str:
    return _bounded(row.dice) + ("" if row.spread is None else f" ± {row.spread:.2f}")


def _iou(row: ResultRow) -> str:
    return _bounded(row.iou)


def _bounded(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _false(row: ResultRow) -> str:
    return _number(row.false_slices)


def _missed(row: ResultRow) -> str:
    return _number(row.missed_slices) if row.false_slices is not None else "-"


def _smooth(row: ResultRow) -> str:
    return "-" if row.smoothness is None else f"{row.smoothness:.2f} ({_number(row.truth_smoothness)})"


def _distance(row: ResultRow) -> str:
    return "-" if row.nsd is None else f"{_number(row.hd95, 1)} / {row.nsd:.2f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def grid(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))
