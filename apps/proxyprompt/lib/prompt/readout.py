"""A pixel classifier that is solved, not trained, for each support set: ridge regression on fine features.

The proxy prompt speaks of a 16 x 16 pixel grid; vessels and borders live between its positions. Here every support
position at stride 4 is described by learned features, and the linear map from them to the support's mask that is best
in the least squares sense is found in closed form ("Meta-learning with differentiable closed-form solvers", Bertinetto
et al., 2019). Its sums over positions are additive over supports, so they are kept for each pair and the answer for any
choice of supports is one small linear system. Gradients pass through the solution. Not part of the paper.

Axes: ``E`` support sets, ``K`` pairs, ``N`` objects, ``B`` targets, ``D`` features, ``h = w = S/4``; each position has
2 x 2 cells, so that masks are read at stride 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELLS = 2  # along each side of a position
_PLACE = 5  # x, y and their products
_LEAST = 1e-6  # share of the image that counts as nothing


class Pyramid(NamedTuple):
    """The encoder's maps of B images. fine: (B, C/8, S/4, S/4). middle: (B, C/4, S/8, S/8). coarse: (B, C, H, W)."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor


class FineReadout(nn.Module):
    """dim: the foundation's C. width: learned features of a position."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(dim // 8, width, 3, padding=1)
        self.middle = nn.Conv2d(dim // 4, width, 1)
        self.coarse = nn.Conv2d(dim, width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.log_place = nn.Parameter(torch.tensor(-1.0))  # how much the place in the image counts
        self.log_ridge = nn.Parameter(torch.tensor(-4.0))
        self.log_scale = nn.Parameter(torch.tensor(1.0))  # from a regression of -1 and 1 to logits
        self.width = width + _PLACE + 1
        self.to(memory_format=torch.channels_last)

    def describe(self, maps: Pyramid) -> Tensor:
        """(B, D, h, w) float32: learned features of unit mean square, the place in the image, and 1."""
        shape = maps.fine.shape[-2:]
        coarser = [
            F.interpolate(project(level), shape, mode="bilinear", align_corners=False)
            for project, level in ((self.middle, maps.middle), (self.coarse, maps.coarse))
        ]
        x = F.relu(self.fine(maps.fine) + coarser[0] + coarser[1])
        x = (x + self.mix(x)).float()
        x = x * (x.square().mean(1, keepdim=True) + 1e-4).rsqrt()
        return torch.cat([x, self._place(x)], 1)

    def _place(self, like: Tensor) -> Tensor:
        y, x = (torch.linspace(-1, 1, side, device=like.device) for side in like.shape[-2:])
        y, x = torch.meshgrid(y, x, indexing="ij")
        place = torch.stack([x, y, x * x, y * y, x * y]) * self.log_place.exp()
        place = torch.cat([place, torch.ones_like(place[:1])])
        return place.expand(len(like), -1, -1, -1)

    def moments(self, maps: Pyramid, masks: Tensor, padding: Tensor | None = None) -> Tensor:
        """What a solution needs to know of each pair: (P, N, 2 D + 10, D), to be added over the pairs of a set.

        maps: of P images. masks: (P, N, S, S) in [0, 1]. padding: (P, H, W) bool, positions that count for nothing.
        Rows: the products of features, of all positions and of those inside; then the features of all, of those inside,
        of what each cell has inside, and of both.
        """
        features = self.describe(maps)
        with torch.autocast(masks.device.type, enabled=False):
            if padding is not None:
                outside = F.interpolate(padding[:, None].float(), features.shape[-2:], mode="nearest-exact")
                features = features * (1 - outside)
            x = features.flatten(2)[:, None]  # (P, 1, D, h*w)
            cells = F.adaptive_avg_pool2d(masks.float(), [CELLS * side for side in features.shape[-2:]])
            cells = F.pixel_unshuffle(cells[:, :, None], CELLS).flatten(3)  # (P, N, 4, h*w)
            share = cells.mean(2, keepdim=True)
            objects = masks.shape[1]
            everywhere = torch.cat([x, torch.ones_like(x[:, :, :1])], 2)
            inside = torch.cat([share * everywhere, cells, share * cells], 2)
            products = torch.cat([(everywhere @ x.mT).expand(-1, objects, -1, -1), inside @ x.mT], 2)
            return products / x.shape[-1]

    def solve(self, moments: Tensor) -> Tensor:
        """The linear maps (..., D, 4) of sums of moments (..., 2 D + 10, D).

        Inside and outside weigh like the roots of their areas: small structures count, and large ones keep shape.
        """
        size = self.width
        with torch.autocast(moments.device.type, enabled=False):
            parts = moments.float().split([size, 1, size, 1, CELLS**2, CELLS**2], -2)
            all_products, all_features, in_products, in_features, cells, in_cells = parts
            area = all_features[..., -1:].clamp_min(_LEAST)  # the last feature is 1
            inside = in_features[..., -1:].clamp_min(_LEAST)
            outside = (area - inside).clamp_min(_LEAST)
            weight_in, weight_out = inside.rsqrt(), outside.rsqrt()
            total, more = inside.sqrt() + outside.sqrt(), weight_in - weight_out
            left = (weight_out * all_products + more * in_products) / total
            right = (weight_out * (2 * cells - all_features) + more * (2 * in_cells - in_features)) / total
            left = left + self.log_ridge.exp() * torch.eye(size, device=left.device)
            return torch.linalg.solve(left, right.mT)

    def forward(self, maps: Pyramid, solution: Tensor) -> Tensor:
        """maps: of B targets. solution: (E, N, D, 4), E = 1 or B. Returns logits (B, N, S/2, S/2)."""
        features = self.describe(maps)
        with torch.autocast(solution.device.type, enabled=False):
            cells = torch.einsum("bdhw,bndc->bnchw", features, solution.expand(len(features), -1, -1, -1))
            return F.pixel_shuffle(cells * self.log_scale.exp(), CELLS)[:, :, 0]
