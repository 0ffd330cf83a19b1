"""A second look: the fine readout once more, seeing what was made of the surroundings at first.

The readout sees every pixel by itself; the decoder sees the whole, and knows what structures look like. Which of them
is to be believed where, and what a mask looks like around a pixel that belongs to it, shows on the supports: each in
turn is segmented from the others (leave-one-out), and one more ridge regression sees, beside the pixel's own features,
both guesses in its surroundings and its place within them ("Auto-context", Tu and Bai, 2010). The mask is a mean of
first and second look. Not part of the paper.

Axes: ``K`` supports, ``N`` objects, ``B`` targets, ``D`` features of the readout, ``R`` of the second look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.dice import hard_dice
from lib.foundation.base import Decoded, Features
from lib.prompt.context import SupportMemory
from lib.prompt.filters import blur, enlarge
from lib.prompt.readout import FineReadout, Pyramid, apart, hats, interpolated, outer, sampled, weighted_moments

SHARE = 0.75  # of the second look in the mask
LEAST_PAIRS = 3  # supports that show an object; what is segmented from a single other one teaches little
FOLDS = 4  # of larger support sets, several at once are left out
SCALES = (1.0, 2.0, 4.0, 8.0)  # standard deviations, in positions of the coarse grid
_SURE = 10.0  # a decoder's logits go on and on
_STIFFNESS = 3.0  # the ridge, compared with the first regression's: there is more to see, and no more to learn from
_UNIT = 0.15  # brings clamped logits to the size of other features
_COARSE = 64  # positions along each side, at least, that surroundings are looked at on
_HATS, _REACH = 7, 3.0  # around a guess, in its standard deviations
_FAINT = 0.02  # what positions outside a guess count for its middle
_LEAST = 0.02  # standard deviation of a guess, as a share of half the picture
_PAIRS = 4  # of larger support sets, fewer positions of each are looked at
_FINE = 4

FIRST, DRAWN = range(2)
"""The readout's guess and the decoder's."""


class Learned(NamedTuple):
    """solution: (1, N, R). first, drawn: both guesses for each support, made of the others, (K, N, h, w), where there
    is one: known, (K, N) bool. None where there is none at all."""

    solution: Tensor
    first: Tensor | None
    drawn: Tensor | None
    known: Tensor


def enlarged(mask_logits: Tensor, prior: Tensor) -> Tensor:
    """The decoder's (B, N, s, s) as large as the readout's (B, N, h, w), and not more sure than is sensible."""
    return enlarge(mask_logits.float(), prior.shape[-2:]).clamp(-_SURE, _SURE)


def look_again(
    readout: FineReadout,
    first: Tensor,
    drawn: Tensor,
    of_image: Tensor,
    solution: Tensor,
) -> Tensor:
    """The mask: (B, N, h, w) logits.

    first: (B, N, h, w), the readout's guess. drawn: as first, the decoder's, :func:`enlarged`. of_image: as first, what
    the second look reads of the image. solution: (1, N, R) or (B, N, R), from :func:`learn`.
    """
    of_first = _read_guess(readout, first, solution, FIRST)
    of_drawn = _read_guess(readout, drawn, solution, DRAWN)
    with torch.autocast(first.device.type, enabled=False):
        found, around = (x + y for x, y in zip(of_first, of_drawn, strict=True))
        return torch.lerp(first.clamp(-_SURE, _SURE), of_image + found + enlarge(around, first.shape[-2:]), SHARE)


def _read_guess(readout: FineReadout, guess: Tensor, solution: Tensor, which: int) -> tuple[Tensor, Tensor]:
    """What the second look makes of one of the guesses, FIRST or DRAWN: of what it is, (B, N, h, w), and of what lies
    around, on a coarser grid. Arguments as of :func:`look_again`."""
    with torch.autocast(guess.device.type, enabled=False):
        guess = guess.clamp(-_SURE, _SURE)
        weights = solution[..., readout.width :].expand(len(guess), -1, -1) * readout.log_scale.exp()
        fine, of_means, of_places = weights.split([_FINE, 4 * len(SCALES), 2 * _HATS**2], -1)
        fine, of_places = fine.unflatten(-1, (2, 2))[..., which, :], of_places.unflatten(-1, (2, _HATS, _HATS))
        of_means = of_means.unflatten(-1, (-1, 2, 2))[..., which, :]
        around = _read_coarse(guess, of_means, of_places[..., which, :, :])
        return _read_signs(guess, fine * _UNIT), around


def learn(
    segment: Callable[[Features, SupportMemory], tuple[Decoded, Tensor]],
    readout: FineReadout,
    maps: Pyramid,
    features: Features,
    memory: SupportMemory,
    valid: Tensor,
    masks: Tensor,
    *,
    tuned: bool = False,
    sample: Tensor | None = None,
) -> Learned:
    """What the second look goes by. With fewer than LEAST_PAIRS supports that show an object, the mask will be the mean
    of both guesses.

    tuned: the decoder was trained on labels like these, maybe on these very ones, so that leave-one-out believes it too
    much. Where it is better than the readout even so, the mask is the decoder's; else there is a second look.

    segment: the decoder's answer and the readout's guess for images and a memory of one support set. maps, features: of
    its K images. valid: (K, N) bool. masks: (K, N, S, S). sample: ``readout.sample(maps)``, where it is known already.
    """
    first, drawn, known = _left_out(segment, features, memory, valid, masks)
    found = [_mixed(readout, 0.5, masks.device)] * masks.shape[1]
    if known.any():
        size = maps.picture.shape[-2:]
        thin = 1 if len(masks) <= _PAIRS else 2
        every = thin * apart(maps)
        sample = readout.sample(maps) if sample is None else sample
        of_image = sample[..., ::thin, ::thin].flatten(2)
        fine, coarse = surroundings(first, drawn)
        around = torch.cat([fine[..., ::every, ::every], interpolated(coarse, size, every)], 2).flatten(3)
        inside, counts = sampled(masks, features.padding, size, every)
        for n in range(masks.shape[1]):
            if tuned and known[:, n].any() and _decoder_is_better(first[:, n], drawn[:, n], masks[:, n], known[:, n]):
                found[n] = _mixed(readout, 1.0, masks.device)
            elif known[:, n].any():
                moments = sum(
                    weighted_moments(torch.cat([of_image[k], around[k, n]]), inside[k, n], counts[k])
                    for k in known[:, n].nonzero()[:, 0].tolist()
                )
                found[n] = readout.solve(moments, _STIFFNESS)
    return Learned(torch.stack(found)[None], first, drawn, known)


def _left_out(
    segment: Callable[[Features, SupportMemory], tuple[Decoded, Tensor]],
    features: Features,
    memory: SupportMemory,
    valid: Tensor,
    masks: Tensor,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Both guesses for each support, made of the others: twice (K, N, h, w). And where there is one, (K, N)."""
    shown = valid & (masks > 0.5).flatten(2).any(-1)
    pairs, folds = len(shown), min(FOLDS, len(shown))
    enough = shown.sum(0) >= LEAST_PAIRS
    each = memory.valid.unflatten(2, (pairs, -1))  # (1, N, K, HW)
    known = torch.zeros_like(shown)
    guesses: dict[int, tuple[Tensor, Tensor]] = {}
    for fold in range(folds if enough.any() else 0):
        out = torch.arange(fold, pairs, folds, device=masks.device)
        others = torch.ones(pairs, dtype=torch.bool, device=masks.device)
        others[out] = False
        asked = shown[others].any(0)  # the others show it, so that something can be said
        declared = (each & others[:, None]).flatten(2)
        declared = torch.where(asked[:, None], declared, memory.valid)
        decoded, prior = segment(features[out], replace(memory, valid=declared))
        drawn = enlarged(decoded.mask_logits, prior)
        guesses |= {k: (prior[i], drawn[i]) for i, k in enumerate(out.tolist())}
        known[out] = valid[out] & asked
    known &= enough
    if not guesses:
        return None, None, known
    first, drawn = (torch.stack([guesses[k][i] for k in range(pairs)]) for i in range(2))
    return first, drawn, known


def _decoder_is_better(first: Tensor, drawn: Tensor, masks: Tensor, known: Tensor) -> bool:
    """By mean Dice. first, drawn: (K, h, w). masks: (K, S, S). known: (K,) bool, those that are compared."""
    truth = F.adaptive_avg_pool2d(masks[known].float(), first.shape[-2:]) > 0.5
    before, after = (hard_dice(guess[known] > 0, truth).mean() for guess in (first, drawn))
    return bool(after > before)


def _mixed(readout: FineReadout, share: float, device: torch.device) -> Tensor:
    """(R,), of a mask that is a mean of the readout's guess and the decoder's. share: of the decoder's."""
    solution = torch.zeros(readout.width + _FINE + 2 * (2 * len(SCALES) + _HATS**2), device=device)
    step = 1 / (SHARE * _UNIT * readout.log_scale.exp())
    own, drawn = (SHARE - share) * step, share * step
    solution[readout.width : readout.width + _FINE] = torch.stack([own, -own, drawn, -drawn])
    return solution


def surroundings(first: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Of (B, N, h, w) guesses, positive and negative part of both: (B, N, _FINE, h, w). And :func:`_coarse`."""
    first, drawn = first.clamp(-_SURE, _SURE), drawn.clamp(-_SURE, _SURE)
    fine = _signs(torch.stack([first, drawn], 2).flatten(0, 1) * _UNIT)
    return fine.unflatten(0, first.shape[:2]), _coarse(first, drawn)


def _coarse(first: Tensor, drawn: Tensor) -> Tensor:
    """Of clamped (B, N, h, w) guesses, on a coarser grid, (B, N, R - D - _FINE, h', w'): positive and negative part of
    their means around the position, and its place within each of them."""
    small = _small(first, drawn)
    within = outer(*_place_within(small)).flatten(1, 2)
    return torch.cat([_signs(_means(small)), within], 1).unflatten(0, first.shape[:2])


def _read_coarse(guess: Tensor, of_means: Tensor, of_places: Tensor) -> Tensor:
    """The weighted sum of what :func:`_coarse` gives of one guess, without it. of_means: (B, N, len(SCALES), 2).
    of_places: (B, N, _HATS, _HATS). Returns (B, N, h', w')."""
    small = _small(guess)
    found = _read_signs(_means(small), of_means.flatten(0, 1)).sum(1, keepdim=True)
    down, across = _place_within(small)
    return (found + down.mT @ of_places.flatten(0, 1)[:, None] @ across).view(*guess.shape[:2], *small.shape[-2:])


def _small(*guesses: Tensor) -> Tensor:
    """(B * N, guesses, h', w'), on a coarser grid."""
    every = max(1, min(guesses[0].shape[-2:]) // _COARSE)
    return torch.stack([F.avg_pool2d(guess, every) for guess in guesses], 2).flatten(0, 1)


def _means(small: Tensor) -> Tensor:
    """small: (B * N, guesses, h', w'). Returns (B * N, len(SCALES) guesses, h', w')."""
    small = small * _UNIT
    return torch.cat([blur(small, scale) for scale in SCALES], 1)


def _signs(x: Tensor) -> Tensor:
    """(B, 2 c, h, w); positive and negative part of each channel lie side by side."""
    return torch.stack([F.relu(x), F.relu(-x)], 2).flatten(1, 2)


def _read_signs(x: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of what :func:`_signs` gives of each channel. x: (B, c, h, w). weights: (B, c, 2)."""
    positive, negative = weights[..., None, None].unbind(2)
    return x * ((positive - negative) / 2) + x.abs() * ((positive + negative) / 2)


def _place_within(logits: Tensor) -> tuple[Tensor, Tensor]:
    """logits: (..., h, w). Hat functions around the middle of what they show, as wide as it is: (..., _HATS, h) of
    rows, (..., _HATS, w) of columns."""
    share = logits.sigmoid()
    share = torch.where(share > 0.5, share, _FAINT * share)
    share = share / share.sum((-2, -1), keepdim=True).clamp_min(1e-6)
    within = []
    for weights in (share.sum(-1), share.sum(-2)):
        place = torch.linspace(-1, 1, weights.shape[-1], device=logits.device)
        middle = (weights * place).sum(-1, keepdim=True)
        spread = (weights * (place - middle).square()).sum(-1, keepdim=True).sqrt() + _LEAST
        within.append(hats(((place - middle) / spread).clamp(-_REACH, _REACH), _HATS, _REACH))
    return within[0], within[1]
