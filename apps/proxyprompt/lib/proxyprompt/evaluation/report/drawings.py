"""The paper's figures of numbers, drawn from records: over K and M, over the quality and the similarity of supports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.stats import gaussian_kde

from proxyprompt.evaluation.drawing import save

from . import reported
from .findings import QUALITY, qualities
from .sheets import OURS, Sheet

_RIDGE_DRAWS = 5  # fewer tell nothing about a distribution
_DPI = 110


def draw_supports(sheets: Sequence[Sheet], path: Path) -> Path | None:
    """A row for each record that has several K: box plots of Dice over the support draws, and their densities as ridges
    (Fig. 6 and 13). None when there is no such record.
    """
    some = [sheet for sheet in sheets if len(sheet.counts()) > 1]
    if not some:
        return None
    figure, axes = plt.subplots(
        len(some), 2, figsize=(8, 2.8 * len(some)), squeeze=False, layout="constrained", width_ratios=(3, 2)
    )
    for (left, right), sheet in zip(axes, some, strict=True):
        counts = sheet.counts()
        draws = [sheet.draws(OURS, count) for count in counts]
        left.boxplot(draws, tick_labels=[str(count) for count in counts], widths=0.5, showmeans=True)
        left.set(title=f"{sheet.label}: {len(draws[0])} draws", xlabel="supports, K", ylabel="mean Dice")
        _ridges(right, counts, draws)
    return save(figure, path, dpi=_DPI)


def _ridges(axis: Axes, counts: Sequence[int], draws: Sequence[Sequence[float]]) -> None:
    """One density above the other, K upwards."""
    whole = np.concatenate([np.asarray(some) for some in draws])
    margin = 0.2 * (whole.max() - whole.min()) + 1e-3
    places = np.linspace(whole.min() - margin, whole.max() + margin, 300)
    for level, (count, some) in enumerate(zip(counts, draws, strict=True)):
        axis.text(places[0], level + 0.08, f"K={count}", fontsize=8)
        if len(some) < _RIDGE_DRAWS or np.ptp(some) < 1e-6:
            axis.plot(some, [level] * len(some), "|", color=f"C{level}")
            continue
        density = gaussian_kde(some)(places)
        axis.fill_between(places, level, level + 0.9 * density / density.max(), alpha=0.6, color=f"C{level}")
    axis.set(yticks=[], xlabel="mean Dice", xlim=(places[0], places[-1]), ylim=(-0.1, len(counts)))


def draw_quality(sheet: Sheet, path: Path) -> Path | None:
    """Dice of the output over that of the support masks, the paper's beside it (Table 7, Fig. 11). None when no worse
    masks were tried.
    """
    tried = qualities(sheet)
    if not tried:
        return None
    figure, axis = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    for count in sheet.counts():
        names = [(quality, f"{QUALITY}{quality:g}") for quality in tried if quality < 1] + [(1.0, OURS)]
        dice = [(quality, np.mean(draws)) for quality, name in names if (draws := sheet.draws(name, count))]
        if len(dice) > 1:
            axis.plot(*zip(*dice, strict=True), marker="o", label=f"here, K={count}")
    theirs = [(prompt / 100, output / 100) for prompt, output in reported.QUALITY]
    axis.plot(*zip(*theirs, strict=True), marker="s", color="gray", linestyle="--", label="the paper, SAM ViT-H")
    axis.set(xlabel="Dice of the support masks", ylabel="Dice of the output", ylim=(0, 1))
    axis.legend(frameon=False, fontsize=8)
    return save(figure, path, dpi=_DPI)


def similarity(sheet: Sheet) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(collection, structure) -> (mean square error of support and target, Dice), of each case and draw with K = 1."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for unit in sheet.of(OURS, 1):
        pairs = zip(unit.notes.get("support_mse", ()), unit.scores, strict=False)
        found.setdefault((unit.collection, unit.structure), []).extend(
            (mse, score.dice) for mse, score in pairs if score.dice is not None
        )
    return {key: pairs for key, pairs in found.items() if pairs}


def draw_similarity(sheet: Sheet, path: Path) -> Path | None:
    """Dice over the mean square error between support and target. None where it was not measured (K = 1)."""
    pairs = similarity(sheet)
    if not pairs:
        return None
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    axis.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for key, some in pairs.items():
        mse, dice = zip(*some, strict=True)
        axis.plot(mse, dice, ".", markersize=4, label=", ".join(key))
    axis.set(xlabel="mean square error of support and target, gray levels", ylabel="Dice", xscale="log", ylim=(0, 1))
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    return save(figure, path, dpi=_DPI)
