"""From structures to a painted image: their levels, surfaces, borders. Light and detector come later (imaging.py).

G groups, M members, S slots, C channels: 1 for gray groups, so that all that is done to them is done once, else 3.
Images are (C, G, M, h, w) while they are worked on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import textures
from .anatomy import Layout
from .catalogue import SLOTS
from .randomness import Random, spread


def draw_levels(random: Random, layout: Layout, members: int, channels: int) -> Tensor:
    """Mean of background and structures (G, S + 1, M, C).

    Structures stand off from what is below them by a contrast that is drawn from faint to strong, so that no
    absolute level means anything; look-alikes take the level of the slot before them.
    """
    groups = len(layout.kind)
    one = (groups, 1)
    base = random.uniform(*one, low=0.08, high=0.9)
    base = torch.where(random.chance(0.25 if channels == 1 else 0.08, *one) > 0, base * 0.12, base)
    contrast = random.log_uniform(*one, low=0.6, high=1.3)
    below, levels = base, [base]
    for slot in range(SLOTS):
        step = random.log_uniform(*one, low=0.07, high=0.5) * contrast
        step = torch.maximum(step, layout.thin[:, slot, None] * 0.12)
        sign = 1 - 2 * (random.uniform(*one) < layout.dark[:, slot, None]).float()
        sign = torch.where((below + sign * step < 0.0) | (below + sign * step > 1.0), -sign, sign)
        level = (below + sign * step).clamp(0, 1)
        if slot:
            level = torch.where(layout.similar[:, slot, None], levels[-1] + random.normal(*one, std=0.02), level)
        levels.append(level)
        below = torch.where(random.chance(0.6, *one) > 0, base, level)
    jitter = random.normal(groups, SLOTS + 1, members, 1) * random.log_uniform(groups, 1, 1, 1, low=0.01, high=0.1)
    means = torch.stack(levels, 1)[..., None] + jitter
    if channels == 1:
        return means.clamp(0.01, 1.2)
    low, high = torch.tensor([[0.15, 0.15, 0.15], [0.7, 0.25, 0.1]]), torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.75, 0.6]])
    warm = random.chance(0.6, groups, 1, 1).long()  # tissue is seen in red to yellow more often than in any hue
    tint = random.between(low.to(random.device)[warm], high.to(random.device)[warm])
    tint = tint / tint.amax(-1, keepdim=True)
    pale = random.chance(0.3, groups, 1, 1, 1)  # as stained glass slides
    tint = torch.where(pale > 0, 1 - 0.15 * tint, tint)
    own = random.normal(groups, SLOTS + 1, 1, channels) * random.log_uniform(groups, 1, 1, 1, low=0.02, high=0.3)
    own[:, 1:] *= 1 - 0.8 * layout.thin[..., None, None] * random.chance(0.6, groups, 1, 1, 1)  # darker, not coloured
    own = torch.cat([own[:, :1], torch.where(layout.similar[..., None, None], own[:, :-1] * 0.9, own[:, 1:])], 1)
    cast = random.normal(groups, 1, members, channels) * random.log_uniform(groups, 1, 1, 1, low=0.01, high=0.1)
    return (means * tint * cast.exp() + own).clamp(0.01, 1.2)


def draw_surfaces(random: Random, groups: int, members: int, size: int) -> Tensor:
    """Texture of background and structures (S + 1, G, M, h, w), mixed from a bank that they share."""
    bank = textures.draw_bank(random, groups, members, size)
    weights = textures.draw_weights(random, groups, SLOTS + 1)
    shared = random.chance(0.35, groups, 1, 1)  # all in one texture: only level or form tell them apart
    weights = weights * (1 - shared) + weights[:, :1] * shared
    mixed = torch.empty(SLOTS + 1, groups, members, size, size, device=random.device)
    for group in range(groups):
        flat = bank[:, group].reshape(textures.TEXTURES, -1)
        mixed[:, group] = (weights[group] @ flat).view(SLOTS + 1, members, size, size)
    return mixed


def _relief(field: Tensor, direction: Tensor, depth: Tensor) -> Tensor:
    """Light from one side on a bulge: (G, M, h, w), strongest at the border. direction: (G, 2), depth: (G,)."""
    step = max(1, field.shape[-1] // 96)
    slope = (field.roll(step, -1) - field).mul_(spread(direction[:, 0], dims=3))
    slope.add_((field.roll(step, -2) - field).mul_(spread(direction[:, 1], dims=3)))
    slope.mul_(field.shape[-1] / (2 * step)).clamp_(-1.5, 1.5)
    reach = field.clamp(0, 1).mul_(spread(1 / depth, dims=3))
    return slope.div_(reach.square_().add_(1))


def paint(random: Random, layout: Layout, fields: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Structures over a background: images (C, G, M, h, w) of any range, contrasts (G, S, M).

    fields: (G, S, M, h, w), -1 where a structure is absent. The contrast says how much a structure changes what was
    there before it: mostly the change of the mean, a little the change pixel by pixel (of two textures).
    """
    groups, _, members, size = fields.shape[:4]
    levels = draw_levels(random, layout, members, channels)
    surfaces = draw_surfaces(random, groups, members, size)
    chroma = (random.normal(groups, SLOTS + 1, channels, std=0.35 if channels > 1 else 0.0) + 1).clamp(-1, 2)
    one = (groups, SLOTS)
    rim = (random.chance(0.7, *one) * 2 - 1) * random.uniform(*one, low=0.1, high=0.5) * layout.rim
    rim_width = random.log_uniform(*one, low=0.012, high=0.06)
    partial = random.chance(0.5, *one)  # rims that fade along the outline
    dome = random.normal(*one, std=0.15) * random.chance(0.4, *one)
    relief = random.uniform(*one, low=0.08, high=0.35) * (random.uniform(*one) < layout.relief).float()
    depth = random.log_uniform(*one, low=0.03, high=0.25)
    lamp = torch.nn.functional.normalize(random.normal(groups, 2), dim=-1)
    patchy = random.noise(groups, members, size=size, cells=3) if bool((rim * partial != 0).any()) else None

    canvas = torch.stack([surfaces[0] * spread(chroma[:, 0, c], dims=3) for c in range(channels)])
    canvas += spread(levels[:, 0].movedim(-1, 0))
    contrasts = fields.new_zeros(groups, SLOTS, members)
    for slot in range(SLOTS):
        if not bool(layout.used[:, slot].any()):
            continue
        field, own = fields[:, slot], surfaces[slot + 1]
        if bool((dome[:, slot] != 0).any()):
            inner = field.clamp(0, 1)
            rise = inner.div_(inner + spread(depth[:, slot], dims=3))
            own.addcmul_(rise, spread(dome[:, slot], dims=3))
        lit = relief[:, slot].nonzero()[:, 0]
        if len(lit):
            own[lit] += _relief(field[lit], lamp[lit], depth[lit, slot]).mul_(spread(relief[lit, slot], dims=3))
        alpha = (field * spread(2 / layout.soft[:, slot], dims=3)).sigmoid_()
        step, difference = torch.zeros(2, groups, members, device=random.device)
        for c in range(channels):
            change = (own * spread(chroma[:, slot + 1, c], dims=3) if channels > 1 else own) - canvas[c]
            change.add_(spread(levels[:, slot + 1, :, c])).mul_(alpha)
            canvas[c] += change
            step += change.sum((-2, -1)).abs_()
            difference += change.abs_().sum((-2, -1))
        weight = alpha.sum((-2, -1)).clamp_min_(1e-3) * channels
        contrasts[:, slot] = (0.8 * step + 0.2 * difference) / weight
        edged = rim[:, slot].nonzero()[:, 0]
        if len(edged):
            away = (field[edged] * spread(1 / rim_width[edged, slot], dims=3)).square_().add_(1).square_()
            ring = (spread(rim[edged, slot], dims=3) / away).mul_(field[edged] > -0.9)
            if patchy is not None:
                fade = (patchy[edged] * 3).sigmoid_()
                ring.mul_(1 - spread(partial[edged, slot], dims=3) * fade)
            canvas[:, edged] += ring
    return canvas, contrasts
