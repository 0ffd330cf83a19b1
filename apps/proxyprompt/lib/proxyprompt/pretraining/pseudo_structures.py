"""Structures that nobody labelled, on real images: what looks alike in all images of a group.

Few real tasks teach a network those tasks; many made ones teach it to look at the support. Three kinds: clusters of a
random projection of the trunk's features, a band of smoothed intensities, and thin bright or dark lines.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from .randomness import chance, uniform

LEAST, MOST = 0.003, 0.35  # share of the image that a structure may cover


def pseudo_structure(images: Tensor, maps: list[Tensor], side: int) -> Tensor | None:
    """One structure of a group.

    Args:
        images: (M, 3, S, S) uint8.
        maps: the trunk's, at strides 2 to 32.
        side: of the masks.

    Returns:
        (M, side, side) bool, or None when what was tried shows in too few members.
    """
    kind = uniform(0, 1)
    if kind < 0.5:
        masks = _cluster(maps, side)
    else:
        gray = images.float().mean(1, keepdim=True) / 255
        gray = F.interpolate(gray, (side, side), mode="bilinear", align_corners=False, antialias=True)
        masks = _band(gray) if kind < 0.75 else _lines(gray)
    share = masks.float().mean((-2, -1))
    shows = (share > LEAST) & (share < MOST)
    if shows.sum() < max(2, len(images) // 2):
        return None
    return masks & shows[:, None, None]


def _cluster(maps: list[Tensor], side: int) -> Tensor:
    """A cluster of k-means on a random projection of maps at strides 4 to 16."""
    scales = [x.float() for x in maps[1:4]]
    grid = scales[0].shape[-2:]
    parts = []
    for x in scales:
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.std((0, 2, 3), keepdim=True) + 1e-5)
        projection = torch.randn(int(uniform(2, 9)), x.shape[1], 1, 1) / x.shape[1] ** 0.5
        parts.append(uniform(0, 1) * F.interpolate(F.conv2d(x, projection), grid, mode="bilinear", align_corners=False))
    features = torch.cat(parts, 1)
    points = features.movedim(1, -1).flatten(0, 2)
    sample = points[torch.randint(len(points), (3000,))]
    centres = sample[: int(uniform(4, 15))].clone()
    for _ in range(6):
        nearest = torch.cdist(sample, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        counts = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    chosen = int(uniform(0, len(centres)))
    distance = torch.cdist(points, centres)
    others = distance.clone()
    others[:, chosen] = torch.inf
    margin = (others.amin(1) - distance[:, chosen]).unflatten(0, (len(features), *grid))
    return F.interpolate(margin[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0] > 0


def _band(gray: Tensor) -> Tensor:
    """What lies between two quantiles of the group's smoothed intensities."""
    smooth = gaussian_blur(gray, [13, 13], [uniform(0.8, 4.0)] * 2)[:, 0]
    low = uniform(0, 0.95)
    cuts = torch.quantile(smooth[:, ::4, ::4].flatten(), torch.tensor([low, min(1.0, low + uniform(0.04, 0.25))]))
    return (smooth >= cuts[0]) & (smooth <= cuts[1])


def _lines(gray: Tensor) -> Tensor:
    """Ridges or valleys: where the largest second derivative stands out."""
    smooth = gaussian_blur(gray, [13, 13], [uniform(0.7, 2.5)] * 2)
    if chance(0.5):
        smooth = -smooth
    kernel = smooth.new_tensor([[[[0, 0, 0], [1, -2, 1], [0, 0, 0]]], [[[0, 1, 0], [0, -2, 0], [0, 1, 0]]],
                                [[[0.25, 0, -0.25], [0, 0, 0], [-0.25, 0, 0.25]]]])  # fmt: skip
    xx, yy, xy = F.conv2d(F.pad(smooth, (1, 1, 1, 1), mode="replicate"), kernel).unbind(1)
    strength = (xx + yy) / 2 + ((xx - yy).square() / 4 + xy.square()).sqrt()
    cut = torch.quantile(strength[:, ::3, ::3].flatten(1), 1 - uniform(0.03, 0.12), 1)
    return strength > cut[:, None, None].clamp_min(1e-4)
