"""A pixel classifier that is solved, not trained, for each support set: ridge regression on fine features.

The proxy prompt speaks of a 16 x 16 pixel grid; vessels and borders live between its positions. Here pixels of the
supports are described by fixed filters and by the encoder's maps, and the linear map from them to the support's mask
that is best in the least squares sense is found in closed form ("Meta-learning with differentiable closed-form
solvers", Bertinetto et al., 2019). Its sums over positions are additive over supports, so they are kept for each pair,
and the answer for any choice of supports is one small linear system. Gradients pass through the solution. Not part of
the paper.

Axes: ``E`` support sets, ``K`` pairs, ``N`` objects, ``B`` targets, ``D`` features, ``h = w`` the sides of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.prompt.filters import CHANNELS, filter_responses

_PLACE = 5  # x, y and their products
_LEAST = 1e-6  # share of the image that counts as nothing
_LOOKED_AT = 64  # positions along each side of a support, at least
_FARTHEST = 4.0  # deviations; what is farther off says no more
_MAPS = 0.25  # how much the encoder's maps count beside the filters, at first


class Pyramid(NamedTuple):
    """Of B images. picture: (B, 3, h, w), as the encoder saw it, or smaller. fine: (B, C/8, S/4, S/4). middle:
    (B, C/4, S/8, S/8). coarse: (B, C, H, W)."""

    picture: Tensor
    fine: Tensor
    middle: Tensor
    coarse: Tensor


class FineReadout(nn.Module):
    """dim: the foundation's C. What is learned is how much each feature counts."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        maps = 2 * (dim // 8 + dim // 4 + dim)
        self.width = maps + 4 * CHANNELS + _PLACE + 1
        self.log_weight = nn.Parameter(torch.zeros(self.width - 1))
        with torch.no_grad():
            self.log_weight[:maps] = math.log(_MAPS)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(1e-2)))  # as a share of the features' mean square
        self.log_scale = nn.Parameter(torch.tensor(math.log(6.0)))  # from a regression of -1 and 1 to logits

    def describe(self, maps: Pyramid, every: int = 1) -> Tensor:
        """(B, D, h/every, w/every) float32, of positions so many apart. The last feature is 1.

        Positive and negative part of each channel of the maps, interpolated; a piecewise linear function of each filter
        response; the place in the image.
        """
        parts = []
        for level in self._levels(maps):
            rows, columns = (
                _interpolation(own, side, level.device)[::every]
                for own, side in zip(level.shape[-2:], maps.picture.shape[-2:], strict=True)
            )
            parts.append(torch.einsum("bchw,yh,xw->bcyx", level, rows, columns))
        parts += self._pieces(filter_responses(maps.picture)[..., ::every, ::every])
        parts.append(self._place(maps.picture)[..., ::every, ::every].expand(len(maps.picture), -1, -1, -1))
        return torch.cat(parts, 1) * self._weights()[:, None, None]

    @staticmethod
    def _levels(maps: Pyramid) -> Iterator[Tensor]:
        for level in (maps.fine, maps.middle, maps.coarse):
            unit = level.float()
            unit = unit * (unit.square().mean(1, keepdim=True) + 1e-4).rsqrt()
            yield torch.cat([unit, F.relu(unit)], 1)

    @staticmethod
    def _pieces(responses: Tensor) -> Iterator[Tensor]:
        """As many channels each."""
        responses = responses.clamp(-_FARTHEST, _FARTHEST)
        for knot in (0.0, 1.0):
            yield F.relu(responses - knot)
            yield F.relu(-knot - responses)

    @staticmethod
    def _place(like: Tensor) -> Tensor:
        """(1, 6, h, w), the last of them 1."""
        y, x = (torch.linspace(-1, 1, side, device=like.device) for side in like.shape[-2:])
        y, x = torch.meshgrid(y, x, indexing="ij")
        return torch.stack([x, y, x * x, y * y, x * y, torch.ones_like(x)])[None]

    def _weights(self) -> Tensor:
        return torch.cat([self.log_weight.exp(), self.log_weight.new_ones(1)])

    def moments(self, maps: Pyramid, masks: Tensor, padding: Tensor | None = None) -> Tensor:
        """What a solution needs to know of each pair: (P, N, 2 D + 3, D), to be added over the pairs of a set.

        maps: of P images. masks: (P, N, S, S) in [0, 1]. padding: (P, H, W) bool, positions that count for nothing.
        Rows, of the mean over positions: the products of features, and the features; both times the mask; the features
        times the squared mask.
        """
        size = maps.picture.shape[-2:]
        every = max(1, min(size) // _LOOKED_AT)
        with torch.autocast(masks.device.type, enabled=False):
            features = self.describe(maps, every)
            inside = F.adaptive_avg_pool2d(masks.float(), size)[..., ::every, ::every]
            if padding is not None:
                outside = F.interpolate(padding[:, None].float(), features.shape[-2:], mode="nearest-exact")
                features = features * (1 - outside)
            x, inside = features.flatten(2), inside.flatten(2)[:, :, None]  # (P, D, M), (P, N, 1, M)
            everywhere = torch.cat([x, torch.ones_like(x[:, :1])], 1)
            of_all = (everywhere @ x.mT)[:, None].expand(-1, masks.shape[1], -1, -1)
            of_mask = torch.cat([everywhere[:, None] * inside, inside.square()], 2) @ x.mT[:, None]
            return torch.cat([of_all, of_mask], 2) / x.shape[-1]

    def solve(self, moments: Tensor) -> Tensor:
        """The linear maps (..., D) of sums of moments (..., 2 D + 3, D).

        Inside and outside weigh like the roots of their areas: small structures count, and large ones keep shape.
        """
        size = self.width
        with torch.autocast(moments.device.type, enabled=False):
            all_products, all_features, in_products, in_features, squared = moments.float().split(
                [size, 1, size, 1, 1], -2
            )
            area = all_features[..., -1:].clamp_min(_LEAST)  # the last feature is 1
            inside = in_features[..., -1:].clamp_min(_LEAST)
            outside = (area - inside).clamp_min(_LEAST)
            weight_in, weight_out = inside.rsqrt(), outside.rsqrt()
            total, more = inside.sqrt() + outside.sqrt(), weight_in - weight_out
            left = (weight_out * all_products + more * in_products) / total
            right = (weight_out * (2 * in_features - all_features) + more * (2 * squared - in_features)) / total
            strength = self.log_ridge.exp() * left.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
            left = left + strength * torch.eye(size, device=left.device)
            return torch.linalg.solve(left, right.mT)[..., 0]

    def forward(self, maps: Pyramid, solution: Tensor) -> Tensor:
        """maps: of B targets. solution: (E, N, D), E = 1 or B. Returns logits (B, N, h, w)."""
        size = maps.picture.shape[-2:]
        with torch.autocast(solution.device.type, enabled=False):
            weights = (solution * self._weights()).expand(len(maps.picture), -1, -1)
            at, found = 0, 0.0
            for level in self._levels(maps):  # interpolated after the product, which comes to the same
                read = torch.einsum("bdhw,bnd->bnhw", level, weights[..., at : at + level.shape[1]])
                found = found + F.interpolate(read, size, mode="bilinear", align_corners=False)
                at += level.shape[1]
            for piece in self._pieces(filter_responses(maps.picture)):
                found = found + torch.einsum("bdhw,bnd->bnhw", piece, weights[..., at : at + piece.shape[1]])
                at += piece.shape[1]
            found = found + torch.einsum("dhw,bnd->bnhw", self._place(maps.picture)[0], weights[..., at:])
            return found * self.log_scale.exp()


def _interpolation(own: int, side: int, device: torch.device) -> Tensor:
    """(side, own), bilinear interpolation along one side as a product."""
    return F.interpolate(torch.eye(own, device=device)[None], side, mode="linear", align_corners=False)[0].T
