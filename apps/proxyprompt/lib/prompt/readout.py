"""A pixel classifier that is solved, not trained, for each support set: ridge regression on fine features.

The proxy prompt speaks of a 16 x 16 pixel grid; vessels and borders live between its positions. Here pixels of the
supports are described by fixed filters, by the encoder's maps and by their place, and the linear map from them to the
support's mask that is best in the least squares sense is found in closed form ("Meta-learning with differentiable
closed-form solvers", Bertinetto et al., 2019). Its sums over positions are additive over supports, so they are kept for
each pair, and the answer for any choice of supports is one small linear system. Gradients pass through the solution, to
the maps as well, where the readout itself trains; where it does not, a training step costs half. Not part of the paper.

Axes: ``E`` support sets, ``K`` pairs, ``N`` objects, ``B`` targets, ``D`` features, ``h = w`` the sides of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.prompt.filters import CHANNELS, all_channels, distinct_responses, distinct_weights, enlarge

_HATS = 5  # along each side of the image; bilinear
_FAINT = 1e-4  # mean square of a position's channels that counts as nothing
_LEAST = 1e-6  # share of the image that counts as nothing
_ONE, _AT, _SQUARE = range(_HATS, _HATS + 3)  # beside the hats, functions of the row and of the column
_POWERS = ((_ONE, _AT), (_AT, _ONE), (_ONE, _SQUARE), (_SQUARE, _ONE), (_AT, _AT))  # x, y, their products
_PLACES = [  # the products of both functions that describe a place, among all of them
    row * (_HATS + 3) + column for row, column in (*_POWERS, *product(range(_HATS), repeat=2), (_ONE, _ONE))
]
_PLACE = len(_PLACES) - 1
_LOOKED_AT = 64  # positions along each side of a support, at least
_FARTHEST = 4.0  # deviations; what is farther off says no more
_KNOTS = (0.0, 1.0)  # deviations to either side where the function of a filter response may bend
_MAPS = 0.25  # how much the encoder's maps count beside the filters, at first
_HAT = 0.5  # how much the hats do


class Pyramid(NamedTuple):
    """Of B images. picture: (B, 3, h, w), as the encoder saw it, or smaller. fine: (B, C/8, S/4, S/4). middle:
    (B, C/4, S/8, S/8). coarse: (B, C, H, W)."""

    picture: Tensor
    fine: Tensor
    middle: Tensor
    coarse: Tensor


def _trained(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """No gradients, not even to the maps, where the readout's own weights do not train."""

    @wraps(method)
    def call(self: FineReadout, *args: object, **options: object) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.log_ridge.requires_grad):
            return method(self, *args, **options)

    return call


class FineReadout(nn.Module):
    """dim: the foundation's C. What is learned is how much each feature counts."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        maps = 2 * (dim // 8 + dim // 4 + dim)
        self.width = maps + 4 * CHANNELS + _PLACE + 1
        self.log_weight = nn.Parameter(torch.zeros(self.width - 1))
        with torch.no_grad():
            self.log_weight[:maps] = math.log(_MAPS)
            self.log_weight[-(_HATS**2) :] = math.log(_HAT)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(1e-2)))  # as a share of the features' mean square
        self.log_scale = nn.Parameter(torch.tensor(math.log(6.0)))  # from a regression of -1 and 1 to logits
        self._hidden: Tensor | None = None

    def describe(self, maps: Pyramid, every: int = 1) -> Tensor:
        """(B, D, h/every, w/every) float32, of positions so many apart. The last feature is 1.

        Positive and negative part of each channel of the maps, interpolated; a piecewise linear function of each filter
        response; the place in the image.
        """
        size = maps.picture.shape[-2:]
        parts = [interpolated(self._both_parts(level.float()), size, every) for level in maps[1:]]
        gray, chunks = distinct_responses(maps.picture)
        responses = all_channels(torch.cat([chunk[..., ::every, ::every] for chunk in chunks], 1), gray)
        parts += self._pieces(responses.clamp(-_FARTHEST, _FARTHEST))
        parts.append(self._place(maps.picture)[..., ::every, ::every].expand(len(maps.picture), -1, -1, -1))
        return torch.cat(parts, 1) * self._weights()[:, None, None]

    @staticmethod
    def _both_parts(level: Tensor) -> Tensor:
        """(B, 2 c, h, w) of a map of the encoder: divided by its root mean square over channels; its positive part."""
        unit = level * (level.square().mean(1, keepdim=True) + _FAINT).rsqrt()
        return torch.cat([unit, F.relu(unit)], 1)

    @classmethod
    def _read_level(cls, level: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of both parts. weights: (B, N, 2 c). Returns (B, N, h, w)."""
        return torch.einsum("bdhw,bnd->bnhw", cls._both_parts(level), weights)

    @staticmethod
    def _pieces(responses: Tensor) -> Iterator[Tensor]:
        """As many channels each."""
        for knot in _KNOTS:
            yield F.relu(responses - knot)
            yield F.relu(-knot - responses)

    @staticmethod
    def _read_pieces(responses: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of :meth:`_pieces`. weights: (B, N, pieces, c). Returns (B, N, h, w).

        A pair of pieces is the positive and the negative part of what lies beyond a knot.
        """
        found = 0
        for knot, of_pair in zip(_KNOTS, weights.unflatten(2, (-1, 2)).unbind(2), strict=True):
            beyond = F.softshrink(responses, knot) if knot else responses
            above, below = of_pair.unbind(2)  # (B, N, c) each
            found = found + torch.einsum("bdhw,bnd->bnhw", beyond, (above - below) / 2)
            found = found + torch.einsum("bdhw,bnd->bnhw", beyond.abs(), (above + below) / 2)
        return found

    @classmethod
    def _add_filtered(cls, found: Tensor, pictures: Tensor, weights: Tensor) -> Tensor:
        """weights: (B, N, pieces, CHANNELS). The weighted sum of all pieces of all filters, and of ``found``,
        (B, N, h, w)."""
        gray, chunks = distinct_responses(pictures)
        weights, at = distinct_weights(weights, gray), 0
        for chunk in chunks:
            own = weights[..., at : at + chunk.shape[1]]
            at += chunk.shape[1]
            found = found + cls._read_pieces(chunk.clamp(-_FARTHEST, _FARTHEST), own)
        return found

    @staticmethod
    def _place(like: Tensor) -> Tensor:
        """(1, _PLACE + 1, h, w), the last of them 1."""
        down, across = (_along(side, like.device) for side in like.shape[-2:])
        return outer(down, across)[None, _PLACES]

    @staticmethod
    def _placed(weights: Tensor, size: tuple[int, int]) -> Tensor:
        """The weighted sum of what :meth:`_place` gives, without it. weights: (B, N, _PLACE + 1). (B, N, h, w)."""
        down, across = (_along(side, weights.device) for side in size)
        products = weights.new_zeros(*weights.shape[:-1], len(down) * len(across))
        products[..., _PLACES] = weights
        return down.mT @ products.unflatten(-1, (len(down), -1)) @ across

    def _weights(self) -> Tensor:
        weights = self.log_weight.exp()
        if self._hidden is not None:
            weights = weights * ~self._hidden
        return torch.cat([weights, weights.new_ones(1)])

    @contextmanager
    def hiding(self, hidden: Tensor) -> Iterator[None]:
        """Without some of the features, (D - 1,) bool: training shows the decoder guesses that are worse than need be,
        as those on real images are."""
        self._hidden = hidden
        try:
            yield
        finally:
            self._hidden = None

    @_trained
    def sample(self, maps: Pyramid, thin: int = 1) -> Tensor:
        """:meth:`describe` of the positions of supports that are looked at. thin: of one of so many of them."""
        with torch.autocast(maps.picture.device.type, enabled=False):
            return self.describe(maps, thin * apart(maps))

    @_trained
    def moments(
        self,
        maps: Pyramid,
        masks: Tensor,
        padding: Tensor | None = None,
        *,
        thin: int = 1,
        sample: Tensor | None = None,
    ) -> Tensor:
        """What a solution needs to know of each pair: (P, N, D + 1, D), to be added over the pairs of a set.

        maps: of P images. masks: (P, N, S, S) in [0, 1]. padding: (P, H, W) bool, positions that count for nothing.
        thin: look at one of so many positions along each side. sample: from :meth:`sample`, where it is known already.
        """
        with torch.autocast(masks.device.type, enabled=False):
            features = self.sample(maps, thin) if sample is None else sample
            inside, counts = sampled(masks, padding, maps.picture.shape[-2:], thin * apart(maps))
            return torch.stack(
                [
                    torch.stack([weighted_moments(x.flatten(1), y, c) for y in of_pair])
                    for x, of_pair, c in zip(features, inside, counts, strict=True)
                ]
            )

    @_trained
    def solve(self, moments: Tensor, stiffness: float = 1.0) -> Tensor:
        """The linear maps (..., D) of sums of moments (..., D + 1, D). stiffness: a factor of the ridge."""
        with torch.autocast(moments.device.type, enabled=False):
            left, right = moments.float().split([moments.shape[-1], 1], -2)
            strength = stiffness * self.log_ridge.exp() * left.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
            left = left + strength * torch.eye(left.shape[-1], device=left.device)
            return torch.linalg.solve(left, right.mT)[..., 0]

    @_trained
    def forward(self, maps: Pyramid, solution: Tensor) -> Tensor:
        """maps: of B targets. solution: (E, N, D), E = 1 or B. Returns logits (B, N, h, w)."""
        size = maps.picture.shape[-2:]
        with torch.autocast(solution.device.type, enabled=False):
            weights = (solution * self._weights()).expand(len(maps.picture), -1, -1)
            levels = [level.float() for level in maps[1:]]
            sizes = [2 * level.shape[1] for level in levels]
            pieces = 2 * len(_KNOTS) * CHANNELS
            *of_levels, of_pieces, of_place = weights.split([*sizes, pieces, _PLACE + 1], -1)
            found = self._placed(of_place, size)
            found = self._add_filtered(found, maps.picture, of_pieces.unflatten(-1, (-1, CHANNELS)))
            for level, factors in zip(levels, of_levels, strict=True):
                found = found + enlarge(self._read_level(level, factors), size)  # the sum first comes to the same
            return found * self.log_scale.exp()


def apart(maps: Pyramid) -> int:
    """How many pixels lie between those of supports that are looked at."""
    return max(1, min(maps.picture.shape[-2:]) // _LOOKED_AT)


def sampled(masks: Tensor, padding: Tensor | None, size: tuple[int, int], every: int) -> tuple[Tensor, Tensor]:
    """Of one of so many positions of pictures of ``size``, M of them: the share of the mask, (P, N, M), and 0 where a
    position counts for nothing, (P, M). masks: (P, N, S, S). padding: (P, H, W) bool."""
    inside = F.adaptive_avg_pool2d(masks.float(), size)[..., ::every, ::every]
    counts = torch.ones_like(inside[:, 0])
    if padding is not None:
        counts = 1 - F.interpolate(padding[:, None].float(), inside.shape[-2:], mode="nearest-exact")[:, 0]
    return inside.flatten(2), counts.flatten(1)


def weighted_moments(features: Tensor, inside: Tensor, counts: Tensor) -> Tensor:
    """Of the positions of one picture: the weighted products of features, and of features and what they should say.

    features: (D, M). inside: (M,), shares in [0, 1]. counts: (M,), 0 where a position counts for nothing. Inside and
    outside weigh like the roots of their areas: small structures count, and large ones keep shape; all weights of a
    picture add up to 1. Returns (D + 1, D).
    """
    share = (inside * counts).sum() / counts.sum().clamp_min(1)
    within, without = share.clamp_min(_LEAST), (1 - share).clamp_min(_LEAST)
    weights = counts * (inside * within.rsqrt() + (1 - inside) * without.rsqrt())
    weights = weights / weights.sum().clamp_min(_LEAST)
    weighted = features * weights
    return torch.cat([weighted @ features.T, (weighted @ (2 * inside - 1))[None]])


def hats(at: Tensor, along: int, reach: float = 1.0) -> Tensor:
    """Linear hat functions on ``along`` places of [-reach, reach], (..., along, n) of (..., n). At each point they add
    up to 1."""
    middles = torch.linspace(-reach, reach, along, device=at.device)[:, None]
    apart = 2 * reach / (along - 1)
    return (1 - (at.unsqueeze(-2) - middles).abs() / apart).clamp_min(0)


def outer(down: Tensor, across: Tensor) -> Tensor:
    """All products of functions of the row, (..., r, h), and of the column, (..., c, w): (..., r * c, h, w)."""
    return (down[..., :, None, :, None] * across[..., None, :, None, :]).flatten(-4, -3)


@cache
@torch.inference_mode(False)  # what is kept may be trained with
def _along(side: int, device: torch.device) -> Tensor:
    """(_HATS + 3, side) of a row or column: hats, 1, the place and its square."""
    at = torch.linspace(-1, 1, side, device=device)
    return torch.cat([hats(at, _HATS), torch.stack([torch.ones_like(at), at, at * at])])


def interpolated(x: Tensor, size: tuple[int, int], every: int = 1) -> Tensor:
    """(..., size[0]/every, size[1]/every): (..., h, w) interpolated to ``size``, of which one position of so many is
    made."""
    rows, columns = (
        F.interpolate(torch.eye(own, device=x.device)[None], side, mode="linear", align_corners=False)[0, :, ::every]
        for own, side in zip(x.shape[-2:], size, strict=True)
    )
    return ((x @ columns).mT @ rows).mT  # in this order each is one large product
