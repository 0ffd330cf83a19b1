"""How far the fine readout's guess is to be trusted, beside the mask that the decoder makes of it.

The decoder sees the whole, and knows what structures look like; the readout sees every pixel, and knows nothing but
the supports. Which of them is right for a structure shows on the supports themselves: each in turn is segmented from
the others (leave-one-out cross-validation). Not part of the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.foundation.base import Decoded, Features
from lib.prompt.context import SupportMemory

UNKNOWN = 0.5  # of one support nobody can tell
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FOLDS = 4  # of larger support sets, several at once are left out
_SURE = 10.0  # a decoder's logits go on and on


def blend(mask_logits: Tensor, prior: Tensor, trust: Tensor) -> Tensor:
    """mask_logits: (B, N, s, s), the decoder's. prior: (B, N, h, w), the readout's. trust: (1, N) or (B, N), the
    readout's share. Returns (B, N, h, w)."""
    drawn = F.interpolate(mask_logits.float(), prior.shape[-2:], mode="bilinear", align_corners=False)
    return torch.lerp(drawn.clamp(-_SURE, _SURE), prior.float(), trust[..., None, None])


def cross_validate(
    segment: Callable[[Features, SupportMemory], tuple[Decoded, Tensor]],
    features: Features,
    memory: SupportMemory,
    valid: Tensor,
    masks: Tensor,
) -> Tensor:
    """The one of SHARES with the highest mean Dice, (1, N); UNKNOWN where fewer than two supports show the object.

    segment: the decoder's answer and the readout's guess for images and a memory of one support set. features: of its K
    images. valid: (K, N) bool. masks: (K, N, S, S).
    """
    shown = valid & (masks > 0.5).flatten(2).any(-1)
    pairs, folds = len(shown), min(FOLDS, len(shown))
    each = memory.valid.unflatten(2, (pairs, -1))  # (1, N, K, HW)
    overlaps = torch.zeros(len(SHARES), *shown.shape, device=masks.device)
    scored = torch.zeros_like(shown)
    for fold in range(folds if pairs > 1 else 0):
        out = torch.arange(fold, pairs, folds, device=masks.device)
        others = torch.ones(pairs, dtype=torch.bool, device=masks.device)
        others[out] = False
        asked = shown[others].any(0)  # the others show it, so that something can be said
        if not (asked & shown[out]).any():
            continue
        known = (each & others[:, None]).flatten(2)
        known = torch.where(asked[:, None], known, memory.valid)
        decoded, prior = segment(features[out], replace(memory, valid=known))
        truth = F.adaptive_avg_pool2d(masks[out].float(), prior.shape[-2:]) > 0.5
        for place, share in enumerate(SHARES):
            drawn = blend(decoded.mask_logits, prior, torch.full_like(prior[:1, :, 0, 0], share)) > 0
            both = (drawn & truth).flatten(2).sum(-1)
            overlaps[place, out] = 2 * both / (drawn.flatten(2).sum(-1) + truth.flatten(2).sum(-1)).clamp_min(1)
        scored[out] = shown[out] & asked
    mean = (overlaps * scored).sum(1) / scored.sum(0).clamp_min(1)
    best = torch.tensor(SHARES, device=masks.device)[mean.argmax(0)]
    return torch.where(scored.any(0), best, UNKNOWN)[None]
