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
_EVERY = 2  # of the positions along each side, so many apart, are looked at for the moments


class Pyramid(NamedTuple):
    """The encoder's maps of B images. fine: (B, C/8, S/4, S/4). middle: (B, C/4, S/8, S/8). coarse: (B, C, H, W)."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor


class FineReadout(nn.Module):
    """dim: the foundation's C. width: learned features of a position that see the fine maps.

    Beside them stand the positive and the negative part of each channel of the coarse map (at first; learned, too).
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(dim // 8, width, 3, padding=1)
        self.middle = nn.Conv2d(dim // 4, width, 1)
        self.coarse = nn.Conv2d(dim, width, 1)
        self.parts = nn.Conv2d(dim, 2 * dim, 1)
        with torch.no_grad():
            self.parts.weight.copy_(torch.cat([torch.eye(dim), -torch.eye(dim)])[..., None, None])
            self.parts.bias.zero_()
        self.log_place = nn.Parameter(torch.tensor(-1.0))  # how much the place in the image counts
        self.log_ridge = nn.Parameter(torch.tensor(-7.0))
        self.log_scale = nn.Parameter(torch.tensor(1.0))  # from a regression of -1 and 1 to logits
        self.width = 2 * dim + width + _PLACE + 1
        self.to(memory_format=torch.channels_last)

    def describe(self, maps: Pyramid, every: int = 1) -> Tensor:
        """(B, D, h, w) float32: learned features of unit mean square, the place in the image, and 1.

        every: so many positions apart, to (B, D, h/every, w/every).
        """
        rows, columns = (
            _interpolation(coarse, fine, maps.fine.device)[::every]
            for coarse, fine in zip(maps.coarse.shape[-2:], maps.fine.shape[-2:], strict=True)
        )
        parts = torch.einsum("bchw,yh,xw->bcyx", self._parts(maps), rows, columns)
        return torch.cat([parts, self._details(maps)[..., ::every, ::every]], 1)

    def _parts(self, maps: Pyramid) -> Tensor:
        """(B, 2 C, H, W), what describes a position by the coarse map; interpolated between the positions."""
        return F.relu(self.parts(_unit(maps.coarse))).float()

    def _details(self, maps: Pyramid) -> Tensor:
        """(B, width + 6, h, w), what does by the fine maps and by the place."""
        x = self.fine(maps.fine)
        for project, level in ((self.middle, maps.middle), (self.coarse, maps.coarse)):
            x = x + F.interpolate(project(level), x.shape[-2:], mode="bilinear", align_corners=False)
        x = _unit(F.relu(x))
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
        features, shape = self.describe(maps, _EVERY), maps.fine.shape[-2:]
        with torch.autocast(masks.device.type, enabled=False):
            cells = F.adaptive_avg_pool2d(masks.float(), [CELLS * side for side in shape])
            cells = F.pixel_unshuffle(cells[:, :, None], CELLS)[..., ::_EVERY, ::_EVERY]  # (P, N, 4, h, w)
            if padding is not None:
                outside = F.interpolate(padding[:, None].float(), features.shape[-2:], mode="nearest-exact")
                features = features * (1 - outside)
            x, cells = features[:, None].flatten(-2), cells.flatten(-2)
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
        parts, details = self._parts(maps), self._details(maps)
        with torch.autocast(solution.device.type, enabled=False):
            solution = solution.expand(len(parts), -1, -1, -1)
            by_parts, by_details = solution.split([parts.shape[1], details.shape[1]], 2)
            coarse = torch.einsum("bdhw,bndc->bnchw", parts, by_parts).flatten(1, 2)  # interpolated after the product
            cells = torch.einsum("bdhw,bndc->bnchw", details, by_details)
            coarse = F.interpolate(coarse, cells.shape[-2:], mode="bilinear", align_corners=False)
            cells = (cells + coarse.unflatten(1, cells.shape[1:3])) * self.log_scale.exp()
            return F.pixel_shuffle(cells, CELLS)[:, :, 0]


def _unit(x: Tensor) -> Tensor:
    """float32, of mean square 1 over the channels of each position."""
    x = x.float()
    return x * (x.square().mean(1, keepdim=True) + 1e-4).rsqrt()


def _interpolation(coarse: int, fine: int, device: torch.device) -> Tensor:
    """(fine, coarse), bilinear interpolation along one side as a product."""
    return F.interpolate(torch.eye(coarse, device=device)[None], fine, mode="linear", align_corners=False)[0].T
