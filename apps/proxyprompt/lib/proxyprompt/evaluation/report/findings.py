"""The paper's findings, asked of what was measured here: confirmed, refuted, or undecided, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from proxyprompt.evaluation.record import Unit
from proxyprompt.metrics.segmentation import Interval, bootstrap_mean

from .reported import SHOTS, is_variant
from .sheets import OURS, Sheet, difference

QUALITY = f"{OURS}, masks at Dice "
UNRELATED = f"{OURS}, supports of "
GOOD_MASK = 0.8
"""Dice of a support mask from which on it is called good."""


class Finding(NamedTuple):
    """claim: the paper's. measured: what should be above zero if it holds. of: which record and numbers of supports."""

    claim: str
    measured: Interval
    of: str

    @property
    def verdict(self) -> str:
        if self.measured.low > 0:
            return "confirmed"
        return "refuted" if self.measured.high < 0 else "undecided"


def findings(sheets: Sequence[Sheet]) -> list[Finding]:
    """All that the records can tell; the first of several variants is what the others are compared with."""
    found = [finding for sheet in sheets for finding in (*_over_supports(sheet), *_of_supports(sheet))]
    return [*found, *_of_variants(sheets), *_of_training(sheets)]


def qualities(sheet: Sheet) -> list[float]:
    """The Dice of the support masks that were tried, besides the true ones."""
    return sorted({float(unit.method.removeprefix(QUALITY)) for unit in sheet.units if unit.method.startswith(QUALITY)})


def _over_supports(sheet: Sheet) -> Iterator[Finding]:
    counts = sheet.counts()
    if len(counts) < 2 or is_variant(sheet.label):
        return
    few, many = counts[0], counts[-1]
    setting = f"{sheet.label}: K = {many} against K = {few}"
    gain = difference(sheet.of(OURS, many), sheet.of(OURS, few))
    if gain:
        yield Finding("Dice rises with the number of supports", gain, setting)
    kept = sheet.plan.get("shots")  # with all of the images that are kept as supports, every draw is the same
    count = max((count for count in counts[1:] if not kept or count < kept), default=None)
    if count is None:
        return
    spreads = [_spread_by_structure(sheet.of(OURS, k)) for k in (few, count)]
    both = [key for key in spreads[0] if key in spreads[1]]
    if both:
        less = bootstrap_mean([spreads[0][key] - spreads[1][key] for key in both])
        setting = f"{sheet.label}: K = {count} against K = {few}"
        yield Finding("its spread over support draws shrinks", less, setting)


def _of_supports(sheet: Sheet) -> Iterator[Finding]:
    """What wrong images and wrong masks cost."""
    count = max(sheet.counts(), default=0)
    ours, setting = sheet.of(OURS, count), f"{sheet.label}: K = {count}"
    for method in dict.fromkeys(unit.method for unit in sheet.units if unit.method.startswith(UNRELATED)):
        if loss := difference(ours, sheet.of(method, count)):
            yield Finding(f"an unrelated support hurts ({method.removeprefix(UNRELATED)})", loss, setting)
    tried = qualities(sheet)
    good = [quality for quality in tried if GOOD_MASK <= quality < 1]
    if 0.0 in tried and (loss := difference(ours, sheet.of(f"{QUALITY}0", count))):
        yield Finding("empty support masks hurt", loss, setting)
        for quality in good[:1]:
            if kept := difference(sheet.of(f"{QUALITY}{quality:g}", count), sheet.of(f"{QUALITY}0", count)):
                half = Interval(*(value - 0.5 * loss.mean for value in kept))
                claim = f"masks at Dice {quality:g} cost less than half of what empty ones do"
                yield Finding(claim, half, setting)


def alike(one: Sheet, other: Sheet) -> bool:
    """Whether both models were trained in the same way, from the same start, and tested alike: what else differs is the
    variant. A model that was not trained here is like none.
    """
    ours = [sheet.methods.get(OURS, {}) for sheet in (one, other)]
    same = ("training", "untrained", "foundation", "image_size")
    tested = ("supports_share", "split_seed", "limit_targets", "target_slices", "shots")
    return (
        "training" in ours[0]
        and all(ours[0].get(name) == ours[1].get(name) for name in same)
        and all(one.plan.get(name) == other.plan.get(name) for name in tested)
    )


def _of_variants(sheets: Sequence[Sheet]) -> Iterator[Finding]:
    """full: the model as it is; other labels: trained without a part, or with another one."""
    by_label = {sheet.label: sheet for sheet in sheets}
    full = by_label.get("full")
    if full is None:
        return
    claims = {
        "without-csm": "the selective module helps",
        "without-ccm": "the colorization module helps",
        "without-csm-ccm": "both modules help",
        "vit": "Vision Mamba is better than a ViT",
        "resnet50": "Vision Mamba is better than ResNet-50",
    }
    for label, claim in claims.items():
        other = by_label.get(label)
        if other is None or not alike(full, other):
            continue
        for count in [k for k in full.counts() if k in other.counts()][-1:]:
            if gain := difference(full.of(OURS, count), other.of(OURS, count)):
                yield Finding(claim, gain, f"full against {label}, K = {count}")


def _of_training(sheets: Sequence[Sheet]) -> Iterator[Finding]:
    """strategy-1, strategy-2, strategy-3: trained on each set, on those of a modality, on all. shots-M: on M images of
    each; ``full`` on the most.
    """
    by_label = {sheet.label: sheet for sheet in sheets}
    fewest = min((label for label in by_label if label.startswith(SHOTS)), key=shots_of, default=None)
    compared = [
        ("strategy-1", "strategy-3", "training on one set at a time beats training on all"),
        ("strategy-2", "strategy-3", "training on the sets of a modality beats training on all"),
        ("full", fewest, "Dice rises with the number of training images"),
    ]
    for more, less, claim in compared:
        if more not in by_label or less not in by_label or not alike(by_label[more], by_label[less]):
            continue
        for count in [k for k in by_label[more].counts() if k in by_label[less].counts()][-1:]:
            if gain := difference(by_label[more].of(OURS, count), by_label[less].of(OURS, count)):
                yield Finding(claim, gain, f"{more} against {less}, K = {count}")


def shots_of(label: str) -> int:
    """M of a record called ``shots-M``; ValueError for another number than a whole one."""
    return int(label.removeprefix(SHOTS))


def _spread_by_structure(units: Sequence[Unit]) -> dict[tuple[str, str], float]:
    """(collection, structure) -> standard deviation over draws of the mean over cases."""
    found: dict[tuple[str, str], list[float]] = {}
    for unit in units:
        dice = [score.dice for score in unit.scores if score.dice is not None]
        if dice:
            found.setdefault((unit.collection, unit.structure), []).append(float(np.mean(dice)))
    return {key: float(np.std(values, ddof=1)) for key, values in found.items() if len(values) > 1}
