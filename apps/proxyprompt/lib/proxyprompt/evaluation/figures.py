"""Dice over the number of supports, and how the networks from scratch came to rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .drawing import save
from .record import Unit
from .summary import ResultRow

COLUMNS = 4


def plot(units: Sequence[Unit], table: Sequence[ResultRow], path: Path) -> Path:
    """One panel a structure: Dice of every method over K, with its spread over support draws as a band; one more panel
    with the training losses of the methods that noted a ``curve``. The suffix decides the format; written beside, then
    renamed.
    """
    panels = list(dict.fromkeys((row.collection, row.structure) for row in table if row.dice is not None))
    curves = [unit for unit in units if "curve" in unit.notes]
    count = len(panels) + bool(curves)
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.2 * columns, 2.7 * lines + 0.5), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        _over_supports(
            axis, [row for row in table if (row.collection, row.structure) == panel and row.dice is not None]
        )
        axis.set_title(", ".join(panel), fontsize=9)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    if curves:
        axis = axes.flat[count - 1]
        for unit in curves:
            steps = [unit.notes["window"] * (n + 1) for n in range(len(unit.notes["curve"]))]
            axis.plot(steps, unit.notes["curve"], linewidth=0.8, alpha=0.7)
        axis.set_title(f"training loss from scratch, {len(curves)} draws", fontsize=9)
        axis.set_xlabel("steps")
    return save(figure, path, dpi=110)


def _over_supports(axis: Axes, some: Sequence[ResultRow]) -> None:
    axis.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for method in dict.fromkeys(row.method for row in some):
        rows = sorted((row for row in some if row.method == method), key=lambda row: row.supports)
        counts, dice = [row.supports for row in rows], [row.dice.mean for row in rows]
        (line,) = axis.plot(counts, dice, marker="o", markersize=3, label=method)
        spread = [row.spread or 0.0 for row in rows]
        low, high = ([d + sign * s for d, s in zip(dice, spread, strict=True)] for sign in (-1, 1))
        axis.fill_between(counts, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks := sorted({row.supports for row in some}), [str(tick) for tick in ticks])
    axis.set_ylim(0, 1)
    axis.set_xlabel("supports")
    axis.set_ylabel("Dice")
