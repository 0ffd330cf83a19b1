"""How well a segmentation agrees with the truth, and how sure a mean over studies is.

Masks and label maps are numpy arrays of any number of axes, or tensors where that is said. The one rule for empty
masks: a structure that is empty in both the prediction and the truth scores 1 in Dice and in IoU (saying "not here"
where it is not is right); one that is empty in only one of them scores 0.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Overlap(NamedTuple):
    """Agreement of two masks; both in [0, 1], 1 is equal."""

    dice: float
    iou: float


class Interval(NamedTuple):
    """A mean and the bounds of its bootstrap confidence interval."""

    mean: float
    low: float
    high: float


def overlap(predicted: np.ndarray, truth: np.ndarray) -> Overlap:
    """Dice and IoU of two masks of one shape; anything that is not zero is inside. ValueError when shapes differ."""
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape:
        raise ValueError(
            f"the prediction has shape {predicted.shape} and the truth {truth.shape}; bring them to one grid first"
        )
    predicted, truth = predicted != 0, truth != 0
    both = int(np.count_nonzero(predicted & truth))
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth))
    if total == 0:
        return Overlap(1.0, 1.0)
    return Overlap(2 * both / total, both / (total - both))


def overlap_of_tensors(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and IoU by the same rule, of many masks at once.

    Args:
        predicted, truth: (..., h, w) bool.

    Returns:
        (...) float twice.
    """
    both = (predicted & truth).sum((-2, -1)).float()
    total = predicted.sum((-2, -1)) + truth.sum((-2, -1))
    empty = total == 0
    return (2 * both / total).masked_fill(empty, 1.0), (both / (total - both)).masked_fill(empty, 1.0)


def mask_of(labels: np.ndarray, values: int | Collection[int]) -> np.ndarray:
    """Where the integer map ``labels`` holds the value, or one of the values, of a structure; bool, same shape."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub":
        raise ValueError(f"label maps hold integers, this one is {labels.dtype}; round it only if you know why")
    if isinstance(values, int | np.integer):
        return labels == values
    return np.isin(labels, list(values))


def overlaps(
    predicted: np.ndarray,
    truth: np.ndarray,
    structures: Mapping[str, int | Collection[int]],
    *,
    truth_structures: Mapping[str, int | Collection[int]] | None = None,
) -> dict[str, Overlap]:
    """The agreement of two integer label maps of one shape, structure by structure.

    ``structures`` says which value, or set of values, a structure has in the prediction; ``truth_structures`` says it
    for the truth where that numbers them otherwise. Returns every structure of ``truth_structures`` (of ``structures``
    if that is not given); one that the prediction has no value for counts as empty there.
    """
    truth_structures = structures if truth_structures is None else truth_structures
    return {
        name: overlap(mask_of(predicted, structures.get(name, ())), mask_of(truth, values))
        for name, values in truth_structures.items()
    }


def bootstrap_mean(
    values: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of ``values`` (one per study) and its percentile bootstrap interval.

    Studies are drawn with replacement ``resamples`` times; with ``groups`` (one per study: its patient) whole groups
    are, since studies of one patient are alike. The same values and seed give the same interval. Raises ValueError for
    no values, for values that are not finite, for another number of groups and for a confidence outside (0, 1).
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"expected a list of at least one number, one per study, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"values {np.flatnonzero(~np.isfinite(values)).tolist()} are not finite: {values.tolist()}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share between 0 and 1 such as 0.95")
    if groups is not None and len(groups) != values.size:
        raise ValueError(f"{values.size} values but {len(groups)} groups; give the group of every study")
    number: dict[Hashable, int] = {}
    members = [number.setdefault(group, len(number)) for group in (range(values.size) if groups is None else groups)]
    sums, counts = np.bincount(members, weights=values), np.bincount(members)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of ``ours - theirs`` and its interval; entry i of both is the same study.

    A study is drawn with both of its scores, so that what makes it easy or hard for both methods cancels. ValueError
    when the lengths differ; for the rest see :func:`bootstrap_mean`.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} scores against {len(theirs)}; give the two scores of every study, in one order")
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    return bootstrap_mean(differences, groups=groups, confidence=confidence, resamples=resamples, seed=seed)
