"""Best, median and worst cases, for people to look at: a support, the truth, and what each method drew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt

from proxyprompt.metrics.segmentation import overlap

from .catalogue import FINETUNED, UNETS
from .drawing import COLOURS, outline, save, show
from .episodes import EvalEpisodes
from .methods import Method
from .record import Unit
from .run import EvalConfig, episodes_of


def draw_overlays(plan: EvalConfig, methods: Sequence[Method], units: Sequence[Unit], folder: Path) -> list[Path]:
    """One PNG for each collection and structure, at the first K and the first draw of the first method.

    What would have to be trained again is left out. Written beside, then renamed.
    """
    shown = [method for method in methods if method.name not in (*UNETS, *FINETUNED)]
    written = []
    for collection in plan.collections:
        episodes = episodes_of(plan, collection, methods)
        for structure in collection.structures:
            units_here = [u for u in units if (u.collection, u.structure) == (collection.name, structure)]
            first = next((u for u in units_here if shown and u.method == shown[0].name), None)
            if first is None or all(score.dice is None for score in first.scores):
                continue
            path = folder / f"{collection.name}-{structure}.png"
            measured = {unit.method for unit in units_here}
            figure = _figure(episodes, structure, first, [method for method in shown if method.name in measured])
            written.append(save(figure, path, dpi=90))
    return written


def _figure(episodes: EvalEpisodes, structure: str, unit: Unit, methods: Sequence[Method]) -> plt.Figure:
    supports = episodes.supports(structure, unit.supports, unit.seed)
    fitted = [method.fit(supports, seed=unit.seed) for method in methods]
    cases = {case.id: case for case in episodes.targets_of(structure)}
    chosen = _ranked(unit)
    size = (2.6 * (2 + len(methods)), 2.8 * len(chosen))
    figure, axes = plt.subplots(len(chosen), 2 + len(methods), figsize=size, squeeze=False, layout="constrained")
    for row, (rank, case_id) in zip(axes, chosen, strict=True):
        slices, truth = episodes.target(cases[case_id], structure)
        index = int(truth.sum(axis=(1, 2)).argmax())
        spacing = slices.study.pixel_spacing
        aspect = spacing[0] / spacing[1]
        show(row[0], supports.images[0])
        outline(row[0], supports.masks[0][0], COLOURS[0])
        row[0].set_title(f"support {unit.drawn[0]}", fontsize=8)
        image = slices.images([index])[0]
        show(row[1], image, aspect=aspect)
        outline(row[1], truth[index], COLOURS[3])
        where = f", slice {slices.indices[index]}" if len(slices) > 1 else ""
        row[1].set_title(f"{rank}: {case_id}{where}", fontsize=8)
        for axis, method, each in zip(row[2:], methods, fitted, strict=True):
            mask = each.segment(slices, truth)
            show(axis, image, aspect=aspect)
            outline(axis, mask[index], COLOURS[1])
            axis.set_title(f"{method.name} {overlap(mask, truth).dice:.2f}", fontsize=8)
    figure.suptitle(f"{episodes.collection.name}, {structure}, K={unit.supports}", fontsize=10)
    return figure


def _ranked(unit: Unit) -> list[tuple[str, str]]:
    """(best, median or worst; case), without the cases that do not hold the structure."""
    order = sorted(
        (score.dice, case) for case, score in zip(unit.cases, unit.scores, strict=True) if score.dice is not None
    )
    picks = {"best": -1, "median": len(order) // 2, "worst": 0}
    return list({order[at][1]: (rank, order[at][1]) for rank, at in picks.items()}.values())
