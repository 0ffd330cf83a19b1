"""One step of pretraining: groups of images that are supports and targets of each other.

Axes: ``G`` groups of ``M`` members, ``N`` objects, ``R = G * M`` images, ``C`` channels, ``H = W = S/16``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyprompt.extensions.refinement import first_mask, mask_prompt
from proxyprompt.foundation.atto import Atto
from proxyprompt.foundation.base import Decoded, Features, FrameMemory, MemoryBank, Prompts, no_clicks
from proxyprompt.prompt_generator.generator import ProxyPromptGenerator

from .pool import Group
from .prompts import boxes_of, draw_clicks, draw_correction, jitter_boxes, join, rough_logits

SURE = 10.0  # logits of a mask that is known
BESIDE_PROXY = ("proxy_points", "proxy_box", "proxy_mask")
"""Kinds of prompts beside P: a click, a box, and the mask that P draws."""
BOX_SHARE = 0.04
"""By which boxes are larger or smaller than the structure."""


@dataclass(frozen=True)
class Episode:
    """Encoded groups.

    Attributes:
        features: of R images.
        images: (R, 3, S, S), normalised.
        masks: (R, N, S/2, S/2) float in {0, 1}.
        groups, members: G, M.
    """

    features: Features
    images: Tensor
    masks: Tensor
    groups: int
    members: int

    @property
    def full_masks(self) -> Tensor:
        """(R, N, S, S)."""
        return F.interpolate(self.masks, scale_factor=2.0, mode="nearest")

    def by_group(self, x: Tensor) -> Tensor:
        """(R, ...) -> (G, M, ...)."""
        return x.unflatten(0, (self.groups, self.members))


def begin(foundation: Atto, groups: list[Group], members: int, objects: int, random: torch.Generator) -> Episode:
    """Draw members and structures, and encode what the trunk made of them."""
    images, maps, masks = [], [], []
    for group in groups:
        chosen = torch.randperm(len(group.images), generator=random)[:members]
        shown = group.masks[chosen].flatten(2).any(-1).sum(0).float()
        weights = (shown > 1).float() + 1e-3  # of structures that two of the chosen show
        picked = torch.multinomial(weights, objects, replacement=objects > len(weights), generator=random)
        images.append(group.images[chosen])
        masks.append(group.masks[chosen][:, picked])
        maps.append([x[chosen] for x in group.maps])
    device = foundation.mean.device
    joined = [torch.cat(level).to(device) for level in zip(*maps, strict=True)]
    if not torch.is_autocast_enabled(device.type):
        joined = [level.float() for level in joined]
    pixels = (torch.cat(images).to(device).float() / 255 - foundation.mean) / foundation.std
    features = foundation.encode_maps(joined)
    return Episode(features, pixels, torch.cat(masks).to(device).float(), len(groups), members)


class Probes(nn.Module):
    """Linear readings of E_ctx and of each token of P: deep supervision that only training uses.

    Args:
        dim: C.
        cells: positions of the embedding's grid along each side of what a token stands for.
    """

    def __init__(self, dim: int, cells: int) -> None:
        super().__init__()
        self.fine, self.cells = 4, cells
        self.context = nn.Conv2d(dim, self.fine**2, 1)
        self.token = nn.Linear(dim, (self.fine * cells) ** 2)

    def forward(self, context: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at stride 4.

        Args:
            context: (R, N, C, H, W).
            tokens: (R, N, T, C).

        Returns:
            (R, N, S/4, S/4) of E_ctx, and of P.
        """
        of_context = F.pixel_shuffle(self.context(context.flatten(0, 1)), self.fine)
        side = context.shape[-1] // self.cells
        of_tokens = self.token(tokens.flatten(0, 1)).mT.unflatten(2, (side, side))
        of_tokens = F.pixel_shuffle(of_tokens, self.fine * self.cells)
        return tuple(x[:, 0].unflatten(0, context.shape[:2]) for x in (of_context, of_tokens))


@dataclass(frozen=True)
class Proxied:
    """What the generator made of an episode.

    Attributes:
        tokens: (R, N, T, C), P.
        context: (R, N, C, H, W), E_ctx.
        carried: (R, N, H, W), the supports' masks as the selective map carries them over, in [0, 1].
    """

    tokens: Tensor
    context: Tensor
    carried: Tensor


def draw_supports(episode: Episode, self_support: float, random: torch.Generator) -> Tensor:
    """(G, M, M) bool, [g, target, support]: one to M - 1 other members, those that show the structures
    first, and the target itself with a small chance.
    """
    groups, members = episode.groups, episode.members
    shows = episode.by_group(episode.masks.flatten(2).any(-1).float().mean(1)).cpu()  # (G, M), share of the objects
    chance = torch.rand(groups, members, members, generator=random) / (episode.masks.shape[1] + 1)
    order = chance + (1 - shows)[:, None]  # chance decides among those that show as many of the objects
    order.diagonal(dim1=1, dim2=2).fill_(3.0)
    count = torch.randint(1, members, (groups, members, 1), generator=random)
    chosen = order.argsort(-1).argsort(-1) < count
    itself = torch.rand(groups, members, generator=random) < self_support
    chosen.diagonal(dim1=1, dim2=2).copy_(itself)
    return chosen


def generate(generator: ProxyPromptGenerator, episode: Episode, supports: Tensor) -> Proxied:
    """P of every image from its supports.

    As ``ProxyPromptGenerator.encode_support`` and ``forward``, but each image's A_agg is made once for all the targets
    that it supports, and the selective map is held, to carry the masks over too.
    """
    features, masks = episode.features.embedding, episode.full_masks
    size = features.shape[-2:]
    contexts = generator.encode_pair(episode.images, masks)
    counts = torch.ones(*masks.shape[:2], *size, dtype=torch.bool, device=masks.device)
    values = generator.bridge(features, contexts, counts)  # (R, N, C, H, W)
    shares = F.adaptive_avg_pool2d(episode.masks, size)[:, :, None]
    values = torch.cat([values, shares.to(values.dtype)], 2)
    keys = episode.by_group(features.float().flatten(2).mT).flatten(1, 2)  # (G, M*HW, C)
    with torch.autocast(keys.device.type, enabled=False):
        scale = 1 / math.sqrt(keys.shape[2])
        scores = torch.baddbmm(-keys.square().sum(2)[:, None], keys, keys.mT, alpha=2 * scale, beta=scale)
        positions = size.numel()
        absent = torch.zeros(supports.shape, device=keys.device).masked_fill(~supports.to(keys.device), -torch.inf)
        blocks = scores.view(len(scores), -1, positions, episode.members, positions)
        weights = (blocks.add_(absent[:, :, None, :, None])).flatten(3).flatten(1, 2).softmax(-1)  # (G, M*HW, M*HW)
    values = episode.by_group(values).permute(0, 1, 4, 5, 2, 3).flatten(1, 3)  # (G, M*HW, N, C + 1)
    found = torch.bmm(weights.to(values.dtype), values.flatten(2)).unflatten(2, values.shape[2:])
    found = found.unflatten(1, (episode.members, *size)).flatten(0, 1).permute(0, 3, 4, 1, 2)  # (R, N, C + 1, H, W)
    context, carried = found[:, :, :-1], found[:, :, -1]
    tokens = generator.colorization(features, context)
    return Proxied(tokens, context, carried)


def beside_proxy(
    foundation: Atto, episode: Episode, kind: str, random: torch.Generator, proxied: Proxied, first: Decoded
) -> tuple[Decoded, Tensor]:
    """What the foundation makes of P and of a prompt drawn from the truth, or of its own mask, beside it.

    Args:
        foundation: to be trained.
        episode: encoded groups.
        kind: one of :data:`BESIDE_PROXY`.
        random: what prompts are drawn with.
        proxied: P.
        first: what was decoded from it alone.

    Returns:
        What was decoded, and the masks it should be.
    """
    masks, prompts = episode.full_masks, Prompts(proxy=proxied.tokens)
    if kind == "proxy_points":
        prompts = replace(prompts, points=draw_correction(first.mask_logits.detach(), masks, random))
    elif kind == "proxy_box":
        prompts = replace(prompts, boxes=jitter_boxes(boxes_of(masks), masks.shape[-1], random, share=BOX_SHARE))
    with torch.no_grad():
        shown = first_mask(partial(foundation.decode, episode.features), prompts)
        shown = mask_prompt((first.mask_logits if shown is None else shown).float())
    return foundation.decode(episode.features, replace(prompts, masks=shown)), episode.masks


def prompted(foundation: Atto, episode: Episode, kind: str, random: torch.Generator) -> list[tuple[Decoded, Tensor]]:
    """What the foundation makes of prompts drawn from the truth.

    Args:
        foundation: to be trained.
        episode: encoded groups.
        kind: box, points, correction, mask or clip.
        random: what prompts are drawn with.

    Returns:
        What was decoded, and the masks it should be.
    """
    features, masks = episode.features, episode.full_masks
    if kind == "box":
        boxes = jitter_boxes(boxes_of(masks), masks.shape[-1], random, share=BOX_SHARE)
        return [(foundation.decode(features, Prompts(boxes=boxes)), episode.masks)]
    if kind == "points":
        return [(foundation.decode(features, Prompts(points=draw_clicks(masks, random))), episode.masks)]
    if kind == "mask":
        return [(foundation.decode(features, Prompts(masks=rough_logits(masks, random))), episode.masks)]
    if kind == "correction":
        answers, clicks, logits = [], draw_clicks(masks, random, most=1), None
        for turn in range(3):
            decoded = foundation.decode(features, Prompts(points=clicks, masks=logits))
            if turn != 1:
                answers.append((decoded, episode.masks))
            logits = decoded.mask_logits.detach().float().clamp(-SURE, SURE)
            clicks = join(clicks, draw_correction(logits, masks, random))
        return answers
    if kind == "clip":
        return _track(foundation, episode)
    raise ValueError(f"unknown kind of prompt {kind!r}")


def _track(foundation: Atto, episode: Episode) -> list[tuple[Decoded, Tensor]]:
    """The first member's mask is given, the second is tracked, the others see both."""
    index = torch.arange(episode.groups * episode.members).unflatten(0, (episode.groups, episode.members))
    known = SURE * (2 * episode.masks - 1)

    def remember(rows: Tensor, decoded: Decoded, logits: Tensor) -> FrameMemory:
        return foundation.remember_frame(episode.features[rows], logits, decoded)

    start = foundation.decode(episode.features[index[:, 0]], Prompts(masks=known[index[:, 0]]))
    first = remember(index[:, 0], start, known[index[:, 0]])
    second = foundation.decode(
        episode.features[index[:, 1]], _nothing(episode, index[:, 1]), MemoryBank((first,), (1,), (True,))
    )
    answers = [(second, episode.masks[index[:, 1]])]
    if episode.members > 2:
        last = remember(index[:, 1], second, second.mask_logits)
        rows = index[:, 2:].flatten()
        times = episode.members - 2

        def repeat(frame: FrameMemory) -> FrameMemory:
            parts = (frame.maps, frame.positions, frame.pointer)
            return FrameMemory(*(part.repeat_interleave(times, 0) for part in parts))

        bank = MemoryBank((repeat(first), repeat(last)), (2, 1), (True, False))
        decoded = foundation.decode(episode.features[rows], _nothing(episode, rows), bank)
        answers.append((decoded, episode.masks[rows]))
    return answers


def _nothing(episode: Episode, rows: Tensor) -> Prompts:
    return Prompts(points=no_clicks(len(rows), episode.masks.shape[1], episode.masks.device))
