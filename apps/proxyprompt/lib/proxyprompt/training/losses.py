"""What training minimises (paper, eq. 13, and what it leaves out: absent structures)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyprompt.foundation.base import Decoded
from proxyprompt.metrics.segmentation import overlap_of_tensors

EPSILON = 1.0  # pixels; keeps the Dice of tiny structures finite


class SegmentationLoss(NamedTuple):
    """total: scalar. dice: (B, N), hard Dice at threshold 0, for the logs; NaN where the structure is absent."""

    total: Tensor
    dice: Tensor
    parts: dict[str, float]


def soft_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice of probabilities (eq. 13) over the last two axes: (..., h, w) twice -> (...)."""
    probabilities = logits.sigmoid()
    overlap = (probabilities * masks).sum((-2, -1))
    return (2 * overlap + EPSILON) / (probabilities.sum((-2, -1)) + masks.sum((-2, -1)) + EPSILON)


def segmentation_loss(
    decoded: Decoded,
    masks: Tensor,
    *,
    asked: Tensor | None = None,
    inside: Tensor | None = None,
    pixel_weight: float = 1.0,
    presence_weight: float = 0.2,
    iou_weight: float = 0.1,
) -> SegmentationLoss:
    """Dice and pixel-wise cross-entropy where the structure is present; presence for all; the IoU head on its own mask.

    decoded: of B images and N objects. masks: (B, N, h, w) in [0, 1]; the logits are resized to them, so that thin
    structures count at full resolution. asked: (B, N) bool, the pairs that count; inside: (B, h, w) bool, the pixels
    that do (not the padding); all of them without it. Dice has no gradient on an empty target, hence the presence term;
    SAM 2 gates absent objects itself, hence no mask term for them.
    """
    logits = F.interpolate(decoded.mask_logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False)
    present = masks.flatten(2).amax(-1) > 0.5
    asked = torch.ones_like(present) if asked is None else asked
    inside = torch.ones_like(masks[:, :1], dtype=torch.bool) if inside is None else inside[:, None]
    drawn = present & asked
    count = drawn.sum().clamp_min(1)
    masked = logits.masked_fill(~inside, -torch.inf)
    dice_term = ((1 - soft_dice(masked, masks)) * drawn).sum() / count
    pixels = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    pixels = (pixels * inside).sum((-2, -1)) / inside.sum((-2, -1))
    pixel_term = (pixels * drawn).sum() / count
    presence = F.binary_cross_entropy_with_logits(decoded.presence_logit.float(), present.float(), reduction="none")
    presence_term = (presence * asked).sum() / asked.sum().clamp_min(1)
    with torch.no_grad():
        dice, iou = overlap_of_tensors(masked > 0, masks > 0.5)
        dice = dice.masked_fill(~drawn, torch.nan)
    iou_term = ((decoded.iou.float() - iou).abs() * drawn).sum() / count
    total = dice_term + pixel_weight * pixel_term + presence_weight * presence_term + iou_weight * iou_term
    parts = {"soft_dice": dice_term, "pixel": pixel_term, "presence": presence_term, "iou": iou_term}
    return SegmentationLoss(total, dice, {name: value.item() for name, value in parts.items()})


def grid_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice and cross-entropy of coarse masks, where the structure is present.

    logits: (B, N, H, W). masks: (B, N, S, S) in [0, 1]. Returns a scalar.
    """
    shares = F.adaptive_avg_pool2d(masks, logits.shape[-2:])
    present = masks.flatten(2).amax(-1) > 0.5
    pixels = F.binary_cross_entropy_with_logits(logits, shares, reduction="none").mean((-2, -1))
    each = 1 - soft_dice(logits, shares) + pixels
    return (each * present).sum() / present.sum().clamp_min(1)
