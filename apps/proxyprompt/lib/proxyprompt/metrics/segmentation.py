"""How well a segmentation agrees with the truth, and how sure a mean over studies is.

Masks and label maps are numpy arrays of any number of axes, or tensors where that is said. The one rule for empty
masks: a structure that is empty in both the prediction and the truth scores 1 in Dice and in IoU (saying "not here"
where it is not is right); one that is empty in only one of them scores 0.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


class Overlap(NamedTuple):
    """Agreement of two masks.

    Attributes:
        dice: in [0, 1], 1 is equal.
        iou: intersection over union, also in [0, 1].
    """

    dice: float
    iou: float


class Interval(NamedTuple):
    """A mean and its bootstrap confidence interval.

    Attributes:
        mean: of the values.
        low: lower bound.
        high: upper bound.
    """

    mean: float
    low: float
    high: float


def overlap(predicted: ArrayLike, truth: ArrayLike) -> Overlap:
    """Dice and IoU of two masks.

    Args:
        predicted: any number of axes; anything that is not zero is inside.
        truth: as predicted, of the same shape.

    Returns:
        Their agreement; 1 where both are empty.

    Raises:
        ValueError: the shapes differ.
    """
    drawn, true = np.asarray(predicted), np.asarray(truth)
    if drawn.shape != true.shape:
        raise ValueError(
            f"the prediction has shape {drawn.shape} and the truth {true.shape}; bring them to one grid first"
        )
    drawn, true = drawn != 0, true != 0
    both = int(np.count_nonzero(drawn & true))
    total = int(np.count_nonzero(drawn)) + int(np.count_nonzero(true))
    if total == 0:
        return Overlap(1.0, 1.0)
    return Overlap(2 * both / total, both / (total - both))


def overlap_of_tensors(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and IoU by the same rule, of many masks at once.

    Args:
        predicted: (..., h, w) bool.
        truth: as predicted.

    Returns:
        (...) float twice; 1 where both are empty.
    """
    both = (predicted & truth).sum((-2, -1)).float()
    total = predicted.sum((-2, -1)) + truth.sum((-2, -1))
    empty = total == 0
    return (2 * both / total).masked_fill(empty, 1.0), (both / (total - both)).masked_fill(empty, 1.0)


def mask_of(labels: ArrayLike, values: int | Collection[int]) -> NDArray[np.bool_]:
    """Where a label map holds a structure.

    Args:
        labels: whole numbers, any number of axes.
        values: the value of the structure, or its values.

    Returns:
        The mask, of the same shape.

    Raises:
        ValueError: the map does not hold whole numbers.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub":
        raise ValueError(f"label maps hold integers, this one is {labels.dtype}; round it only if you know why")
    if isinstance(values, int | np.integer):
        return np.asarray(labels == values)
    return np.isin(labels, list(values))


def overlaps(
    predicted: ArrayLike,
    truth: ArrayLike,
    structures: Mapping[str, int | Collection[int]],
    *,
    truth_structures: Mapping[str, int | Collection[int]] | None = None,
) -> dict[str, Overlap]:
    """The agreement of two label maps, structure by structure.

    Args:
        predicted: whole numbers, any number of axes.
        truth: as predicted, of the same shape.
        structures: name of a structure -> its value, or set of values, in the prediction.
        truth_structures: the same for the truth, where that numbers them otherwise.

    Returns:
        Name -> agreement, for every structure of the truth; one that the prediction has no value for counts as empty
        there.

    Raises:
        ValueError: the shapes differ, or a map does not hold whole numbers.
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
    """The mean over studies and its percentile bootstrap interval.

    The same values and seed give the same interval.

    Args:
        values: one for each study.
        groups: of each study, its patient: whole groups are drawn then, since studies of one patient are alike.
        confidence: the share of resampled means that the interval holds.
        resamples: how often studies are drawn, with replacement.
        seed: of the draws.

    Returns:
        Mean and interval.

    Raises:
        ValueError: there are no values, some are not finite, there is another number of groups, or the confidence is
            outside (0, 1).
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or given.size == 0:
        raise ValueError(f"expected a list of at least one number, one per study, got an array of shape {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError(f"values {np.flatnonzero(~np.isfinite(given)).tolist()} are not finite: {given.tolist()}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share between 0 and 1 such as 0.95")
    if groups is not None and len(groups) != given.size:
        raise ValueError(f"{given.size} values but {len(groups)} groups; give the group of every study")
    number: dict[Hashable, int] = {}
    members = [number.setdefault(group, len(number)) for group in (range(given.size) if groups is None else groups)]
    sums, counts = np.bincount(members, weights=given), np.bincount(members)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(given.mean()), float(low), float(high))


def paired_bootstrap(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean difference of two methods and its interval.

    A study is drawn with both of its scores, so that what makes it easy or hard for both methods cancels.

    Args:
        ours: one for each study.
        theirs: of the same studies, in the same order.
        groups: as for :func:`bootstrap_mean`.
        confidence: as for :func:`bootstrap_mean`.
        resamples: as for :func:`bootstrap_mean`.
        seed: as for :func:`bootstrap_mean`.

    Returns:
        Mean and interval of ``ours - theirs``.

    Raises:
        ValueError: the lengths differ, or as for :func:`bootstrap_mean`.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} scores against {len(theirs)}; give the two scores of every study, in one order")
    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return bootstrap_mean(differences.tolist(), groups=groups, confidence=confidence, resamples=resamples, seed=seed)
