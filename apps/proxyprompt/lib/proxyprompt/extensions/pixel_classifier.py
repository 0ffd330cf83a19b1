"""A linear classifier of pixels, fitted in closed form to the supports, mixed with the mask of the proxy prompt.

A token of the proxy prompt stands for a region of 32 x 32 pixels (with two halvings), so that P says well what a
structure is and where, and badly how it runs through single pixels: vessels. Ridge regression on the foundation's fine
maps says the opposite. How much of it is mixed in, and above which logit a pixel counts as inside, is decided for each
structure by the supports themselves, each segmented from the others. What it brings: docs/atto.md. Not part of the
paper; ``--conf paper true`` leaves it out.

Axes: ``K`` supports, ``N`` structures, ``F`` features of a pixel, ``G`` the side of the grid of the finest maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyprompt.foundation.base import Features, size_of
from proxyprompt.metrics.segmentation import overlap_of_tensors

RIDGE = 0.01
"""Of the regression on standardised features."""
LOGIT = 4.0
"""The classifier's score of a pixel that is surely inside, as a logit."""
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""What may be mixed in of the classifier."""
OFFSETS = (0.0, -0.5, 0.5, -1.0, 1.0, -1.5, 1.5, -2.0, 2.0, -3.0)
"""What may be added to the mixture's logits, the smallest first. Thin structures want more: where half of a pixel of
the maps is covered, half of it is drawn."""
SINGLE = (0.25, 0.0)
"""Share and offset where there is one support, which nothing can be tried on."""


@dataclass(frozen=True)
class PixelClassifier:
    """Of N structures.

    Attributes:
        weights: (N, F).
        bias: (N,).
        share: (N,), of its score in the mixture, from 0 to 1.
        offset: (N,), added to the mixture's logits.
    """

    weights: Tensor
    bias: Tensor
    share: Tensor
    offset: Tensor

    def only(self, index: int) -> PixelClassifier:
        """That of one of the structures.

        Args:
            index: which of the N.

        Returns:
            The classifier with N = 1.
        """
        one = slice(index, index + 1)
        return PixelClassifier(self.weights[one], self.bias[one], self.share[one], self.offset[one])

    def score(self, features: Features) -> Tensor:
        """Of every pixel, from about -1 (outside) to 1 (inside).

        Args:
            features: of B images.

        Returns:
            (B, N, G, G).
        """
        maps = _levels(features)
        size, parts = maps[0].shape[-2:], self.weights.split([level.shape[1] for level in maps], 1)
        total = self.bias.view(1, -1, 1, 1)
        for level, weights in zip(maps, parts, strict=True):  # the sum is as of all maps at G, and cheaper
            total = total + _resize(F.conv2d(level, weights[..., None, None]), size)
        return total

    def mix(self, logits: Tensor, features: Features) -> Tensor:
        """The mixture with masks of the decoder.

        Args:
            logits: (B, N, s, s).
            features: of the B images.

        Returns:
            (B, N, s, s).
        """
        share, offset = self.share.view(1, -1, 1, 1), self.offset.view(1, -1, 1, 1)
        if not bool(share.any()):
            return logits + offset
        return _mixed(logits, _resize(self.score(features), logits.shape[-2:]), share) + offset


def can_classify(features: Features) -> bool:
    """Whether the foundation has maps that are fine enough.

    Args:
        features: of any image.

    Returns:
        True when it has.
    """
    return bool(features.fine)


def moments(features: Features, masks: Tensor) -> Tensor:
    """What the regression needs to know of one support.

    Inside and outside count by the root of their areas, so that small structures are not drowned.

    Args:
        features: of one image.
        masks: (1, N, S, S) in [0, 1].

    Returns:
        (N, F + 2, F + 2): weighted means of the products of all features, 1, and the target in [-1, 1].
    """
    maps = _levels(features)
    size = size_of(maps[0])
    pixels = torch.cat([_resize(level, size) for level in maps], 1)[0].flatten(1)  # (F, G * G)
    inside = F.adaptive_avg_pool2d(masks, size)[0].flatten(1)  # (N, G * G)
    area = inside.mean(1, keepdim=True)
    weights = torch.where(area > 0, 1 + inside * (((1 - area) / area.clamp_min(1e-6)).clamp_min(1).sqrt() - 1), 1.0)
    weights = weights / weights.sum(1, keepdim=True)
    ones = torch.ones_like(pixels[:1])
    rows = [torch.cat([pixels, ones, 2 * target[None] - 1]) for target in inside]
    return torch.stack([(row * weight) @ row.mT for row, weight in zip(rows, weights, strict=True)])


def fit(described: Tensor) -> PixelClassifier:
    """Ridge regression.

    Args:
        described: (N, F + 2, F + 2), :func:`moments` summed over supports.

    Returns:
        The classifier of N structures, with a share of 1 and no offset.
    """
    described = described.double() / described[:, -2:-1, -2:-1].double()
    mean, target = described[:, :-2, -2], described[:, -2, -1]  # (N, F), (N,)
    covariance = described[:, :-2, :-2] - mean[:, :, None] * mean[:, None]
    deviation = covariance.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt() + 1e-4
    together = described[:, :-2, -1] - mean * target[:, None]
    normal = covariance / (deviation[:, :, None] * deviation[:, None])
    normal = normal + RIDGE * torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
    weights = torch.linalg.solve(normal, together / deviation) / deviation
    bias = target - (weights * mean).sum(1)
    ones = torch.ones_like(bias, dtype=torch.float32)
    return PixelClassifier(weights.float(), bias.float(), ones, torch.zeros_like(ones))


def dice_of_mixtures(logits: Tensor, scores: Tensor, masks: Tensor) -> Tensor:
    """How well each of :data:`SHARES` with each of :data:`OFFSETS` segments a support from others.

    Args:
        logits: (1, N, s, s), the decoder's from the others.
        scores: (1, N, G, G), the classifier's from the others.
        masks: (1, N, S, S) in [0, 1], the truth.

    Returns:
        (shares, offsets, N), Dice on the masks' own pixels.
    """
    drawn, truth = _resize(logits, size_of(scores)), masks > 0.5
    found = []
    for share in SHARES:
        mixture = _resize(_mixed(drawn, scores, share), size_of(masks))
        found.append([overlap_of_tensors(mixture > -offset, truth)[0][0] for offset in OFFSETS])
    return torch.stack([torch.stack(each) for each in found])


def best_mixture(dice: Sequence[Tensor]) -> tuple[float, float]:
    """The smallest of :data:`SHARES`, with the smallest of :data:`OFFSETS`, that is as good as the best.

    As good: over the supports that were tried it falls short by no more than half the standard error of the
    difference. A few supports are easily fitted by chance.

    Args:
        dice: of each support that was tried, (shares, offsets); none where there was nothing to try.

    Returns:
        Share and offset.
    """
    if not len(dice):
        return SINGLE
    each = torch.stack(list(dice)).flatten(1)
    short = each[:, each.mean(0).argmax(), None] - each
    error = short.std(0) / len(each) ** 0.5 if len(each) > 1 else torch.zeros_like(short[0])
    share, offset = divmod(int((short.mean(0) <= 0.5 * error + 1e-6).nonzero()[0]), len(OFFSETS))
    return SHARES[share], OFFSETS[offset]


def _mixed(logits: Tensor, score: Tensor, share: Tensor | float) -> Tensor:
    return (1 - share) * logits + share * LOGIT * score


def _levels(features: Features) -> list[Tensor]:
    """(B, channels, side, side) float each, the finest first.

    Coarser maps are left to the proxy prompt: with them the classifier fits a few supports too well, and the mixture
    was worse (by .03 with the pyramid's maps, on one to three cases of 13 collections).
    """
    return [level.float() for level in features.fine]


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
