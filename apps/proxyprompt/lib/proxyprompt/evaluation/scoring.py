"""What one method gets for one structure of one case.

Dice and IoU count only where the structure is; where it is not, what counts is whether anything is drawn. Distances
are measured in whole volumes whose spacing is known, with MONAI's metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from proxyprompt.metrics.segmentation import overlap

TOLERANCE = 2.0
"""Millimetres within which a surface counts as right (normalised surface Dice)."""


@dataclass(frozen=True)
class Score:
    """dice, iou: over all slices of the case; None where the truth is empty. hd95: mm, None also where nothing is drawn
    (there nsd is 0). Slices: how many hold the structure and how many of those stay empty; how many do not hold it and
    on how many of those something is drawn. smoothness: of a volume or clip, mean Dice of neighbouring slices of which
    any is drawn on; truth_smoothness: the same of the truth.
    """

    dice: float | None
    iou: float | None
    hd95: float | None
    nsd: float | None
    present_slices: int
    missed_slices: int
    absent_slices: int
    false_slices: int
    smoothness: float | None = None
    truth_smoothness: float | None = None


def score(predicted: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float] | None = None) -> Score:
    """predicted, truth: (Z, h, w) bool. spacing: mm between slices, rows and columns; None where it is not known.

    ValueError when the shapes differ.
    """
    agreement = overlap(predicted, truth)
    drawn, there = predicted.any(axis=(1, 2)), truth.any(axis=(1, 2))
    dice, iou = agreement if there.any() else (None, None)
    hd95 = nsd = None
    if spacing is not None and there.any():
        hd95, nsd = _surface(predicted, truth, spacing)
    return Score(
        dice=dice,
        iou=iou,
        hd95=hd95,
        nsd=nsd,
        present_slices=int(there.sum()),
        missed_slices=int((there & ~drawn).sum()),
        absent_slices=int((~there).sum()),
        false_slices=int((drawn & ~there).sum()),
        smoothness=_smoothness(predicted),
        truth_smoothness=_smoothness(truth),
    )


def _smoothness(masks: NDArray[np.bool_]) -> float | None:
    pairs = [overlap(*pair).dice for pair in pairwise(masks) if any(mask.any() for mask in pair)]
    return float(np.mean(pairs)) if pairs else None


def image_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean square error of two images (3, h, w) in [0, 1], as the paper counts it: in gray levels, 0 to 255. Both are
    brought to 128 x 128 pixels.
    """
    small = [F.interpolate(torch.from_numpy(image)[None], (128, 128), mode="area") for image in (one, other)]
    return float((255 * (small[0] - small[1])).square().mean())


def _surface(
    predicted: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[float | None, float]:
    """(HD95 in mm, normalised surface Dice); the truth is not empty."""
    if not predicted.any():
        return None, 0.0
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice  # seconds: only where it is needed

    either = np.nonzero(predicted | truth)
    box = tuple(slice(max(0, at.min() - 1), at.max() + 2) for at in either)
    one, other = (torch.from_numpy(mask[box])[None, None].float() for mask in (predicted, truth))
    options = {"include_background": True, "spacing": list(spacing)}
    distance = compute_hausdorff_distance(one, other, percentile=95, **options)
    surface = compute_surface_dice(one, other, class_thresholds=[TOLERANCE], **options)
    return float(distance), float(surface)
