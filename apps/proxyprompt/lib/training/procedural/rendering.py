"""From structures to images: surfaces, borders, light, detector, field of view.

A group has one imaging style; members differ within it as scans of several patients do. G groups, M members,
S slots, C channels: 1 for gray groups (all that is done to them is done once), 3 for colour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import textures
from .anatomy import Layout
from .catalogue import ANATOMIES, HABITS, SLOTS
from .randomness import Random, axis, spread


def draw_levels(random: Random, layout: Layout, members: int, channels: int) -> Tensor:
    """Mean of background and structures (G, S + 1, M, C).

    Structures stand off from what is below them by a contrast that is drawn from faint to strong, so that no
    absolute level means anything; look-alikes take the level of the slot before them.
    """
    groups = len(layout.kind)
    base = random.uniform(groups, 1, low=0.08, high=0.85)
    contrast = random.log_uniform(groups, 1, low=0.5, high=1.3)
    below, levels = base, [base]
    for slot in range(SLOTS):
        step = random.log_uniform(groups, 1, low=0.06, high=0.5) * contrast
        sign = random.chance(0.5, groups, 1) * 2 - 1
        sign = torch.where((below + sign * step < 0.0) | (below + sign * step > 1.0), -sign, sign)
        level = (below + sign * step).clamp(0, 1)
        if slot:
            level = torch.where(layout.similar[:, slot, None], levels[-1] + random.normal(groups, 1, std=0.02), level)
        levels.append(level)
        below = torch.where(random.chance(0.6, groups, 1) > 0, base, level)
    means = torch.stack(levels, 1)[..., None]  # (G, S + 1, 1, 1)
    means = means + random.normal(groups, SLOTS + 1, members, 1) * random.log_uniform(
        groups, 1, 1, 1, low=0.01, high=0.06
    )
    if channels == 1:
        return means
    tint = random.uniform(groups, 1, 1, channels, low=0.15, high=1.0)
    tint = tint / tint.amax(-1, keepdim=True)
    tint = torch.where(random.chance(0.3, groups, 1, 1, 1) > 0, 1 - 0.15 * tint, tint)  # pale, as stained glass slides
    chroma = random.log_uniform(groups, 1, 1, 1, low=0.02, high=0.35)
    own = random.normal(groups, SLOTS + 1, 1, channels) * chroma
    own = torch.cat([own[:, :1], torch.where(layout.similar[..., None, None], own[:, :-1] * 0.9, own[:, 1:])], 1)
    cast = random.normal(groups, 1, members, channels) * random.log_uniform(groups, 1, 1, 1, low=0.01, high=0.08)
    return means * tint * cast.exp() + own


def paint(random: Random, layout: Layout, fields: Tensor, channels: int) -> Tensor:
    """Structures over a background: (G, M, C, h, w). fields: (G, S, M, h, w), -1 where a structure is absent."""
    groups, _, members, size = fields.shape[:4]
    levels = draw_levels(random, layout, members, channels)
    weights = textures.draw_weights(random, groups, SLOTS + 1)
    bank = textures.draw_bank(random, groups, members, size)
    shared = random.chance(0.35, groups, 1, 1)  # all structures in one texture: only the level differs, or the form
    weights = weights * (1 - shared) + weights[:, :1] * shared
    chroma = (random.normal(groups, SLOTS + 1, channels, std=0.35 if channels > 1 else 0.0) + 1).clamp(-1, 2)
    rim_level = (random.chance(0.7, groups, SLOTS) * 2 - 1) * random.uniform(groups, SLOTS, low=0.1, high=0.5)
    rim_level = rim_level * layout.rim
    rim_width = random.log_uniform(groups, SLOTS, low=0.012, high=0.06)
    dome = random.normal(groups, SLOTS, std=0.12) * random.chance(0.4, groups, SLOTS)

    def surface(slot: int) -> Tensor:
        """Background is slot 0."""
        mixed = torch.zeros_like(bank[0])
        for index in range(textures.TEXTURES):
            mixed.addcmul_(bank[index], spread(weights[:, slot, index], dims=3))
        return mixed

    image = surface(0)[:, :, None] * spread(chroma[:, 0, None]) + spread(levels[:, 0])
    for slot in range(SLOTS):
        if not bool(layout.used[:, slot].any()):
            continue
        field = fields[:, slot]
        own = surface(slot + 1)
        reach = (field * spread(1 / rim_width[:, slot], dims=3)).clamp_(-4, 4)
        own.addcmul_(reach.clamp_min(0).tanh_(), spread(dome[:, slot], dims=3))
        alpha = (field * spread(2 / layout.soft[:, slot], dims=3)).sigmoid_()
        colour = own[:, :, None] * spread(chroma[:, slot + 1, None]) + spread(levels[:, slot + 1])
        image = image.lerp_(colour, alpha[:, :, None])
        if bool((rim_level[:, slot] != 0).any()):
            ring = reach.square_().neg_().exp_().mul_(spread(rim_level[:, slot], dims=3))
            ring.mul_((field > -0.9).float())
            image += ring[:, :, None]
    return image


def field_of_view(random: Random, layout: Layout, members: int, size: int) -> Tensor:
    """Signed function (G, M, h, w) of what the device sees: everything, a circle, a sector or a frame."""
    groups = len(layout.kind)
    chances = torch.tensor(
        [[HABITS[n].circle, HABITS[n].wedge, HABITS[n].frame] for n in ANATOMIES], device=random.device
    )
    pick = random.uniform(groups, 1)
    limits = chances[layout.kind].cumsum(-1)
    circle, wedge = pick < limits[:, :1], (pick >= limits[:, :1]) & (pick < limits[:, 1:2])
    frame = (pick >= limits[:, 1:2]) & (pick < limits[:, 2:])
    line = axis(size, random.device)
    x, y = line[None, None, None, :], line[None, None, :, None]
    shake = random.normal(groups, members, 2, std=0.03)
    x0, y0 = spread(shake[..., 0]), spread(shake[..., 1])
    radius = random.uniform(groups, 1, low=0.8, high=1.15) + random.normal(groups, members, std=0.02)
    cut = random.uniform(groups, 1, low=0.75, high=1.3)
    round_view = spread(radius) - ((x - x0).square() + (y - y0).square()).sqrt()
    round_view = torch.minimum(round_view, spread(cut) - (y - y0).abs())
    apex = random.uniform(groups, 1, low=-2.2, high=-1.05) + random.normal(groups, members, std=0.03)
    half = random.uniform(groups, 1, low=0.45, high=0.9)
    down = y - spread(apex)
    depth = ((x - x0).square() + down.square()).sqrt()
    sector = torch.minimum(down * spread(half) - (x - x0).abs(), spread(0.95 - apex) - depth)
    sector = torch.minimum(sector, depth - spread(-0.95 - apex))
    sides = random.uniform(groups, 1, 4, low=0.6, high=1.1)
    boxed = torch.minimum(
        torch.minimum(spread(sides[..., 0]) - x, spread(sides[..., 1]) + x),
        torch.minimum(spread(sides[..., 2]) - y, spread(sides[..., 3]) + y),
    )
    view = torch.ones(groups, members, size, size, device=random.device)
    for chosen, form in ((circle, round_view), (wedge, sector), (frame, boxed)):
        view = torch.where(spread(chosen), form, view)
    return view


def expose(random: Random, layout: Layout, image: Tensor, view: Tensor) -> Tensor:
    """Light, detector and display: (G, M, C, h, w) of any range to [0, 1]."""
    groups, members, channels, size = image.shape[:4]
    one = (groups, 1)

    def habit(name: str) -> Tensor:
        odds = torch.tensor([getattr(HABITS[n], name) for n in ANATOMIES], device=random.device)[layout.kind]
        return (random.uniform(*one) < odds[:, None]).float()

    image = image.clamp_(0, 1.3)
    inverted = random.chance(0.25, *one)
    image = (image - spread(inverted * 1.0, dims=3)).abs_()

    light = random.noise(groups, members, size=size, cells=2).mul_(
        spread(
            random.log_uniform(*one, low=0.02, high=0.12) + habit("uneven") * random.uniform(*one, low=0.1, high=0.35)
        )
    )
    line = axis(size, random.device)
    falloff = habit("uneven") * random.uniform(*one, low=0.0, high=0.5)
    light -= spread(falloff.expand(groups, members)) * (line.square()[None, :] + line.square()[:, None])
    speckled = habit("speckle")
    slope = random.normal(groups, members, std=0.25) * (0.3 + speckled)
    light += spread(slope) * line[:, None]
    if bool(speckled.any()):
        light -= _shadows(random, groups, members, size).mul_(spread(speckled))
    image *= light.exp_()[:, :, None]

    if bool(speckled.any()):
        grains = textures.draw_speckle(random, groups, members, size)
        grains.mul_(spread(speckled * random.uniform(*one, low=0.08, high=0.35))).add_(1).clamp_min_(0)
        image *= grains[:, :, None]
    glints = random.chance(0.2, *one) * (channels > 1)
    if bool(glints.any()):
        shine = random.noise(groups, members, size=size, cells=16).sub_(2.2).clamp_min_(0).mul_(spread(glints * 3))
        image += shine[:, :, None]

    image *= (view.mul_(size / 2).clamp_(0, 1))[:, :, None]
    level = random.log_uniform(*one, low=0.004, high=0.1) * random.uniform(groups, members, low=0.7, high=1.3)
    grain = random.normal(groups, members, channels, size, size)
    grain.mul_(spread(level, dims=3))
    image += grain
    image = _soften(image, random.uniform(*one).expand(groups, members) * random.chance(0.6, *one))
    gamma = (random.normal(*one, std=0.25) + random.normal(groups, members, std=0.08)).exp()
    gain = (random.normal(groups, members, std=0.1)).exp()
    image = image.mul_(spread(gain, dims=3)).clamp_(1e-4, 1)
    return image.log_().mul_(spread(gamma, dims=3)).exp_()


def _shadows(random: Random, groups: int, members: int, size: int) -> Tensor:
    """Dark rays from above that start somewhere in depth: (G, M, h, w), as an exponent."""
    line = axis(size, random.device)
    ray = line[None, :] / (line[:, None] + 2.2)
    shade = None
    for _ in range(2):
        where = random.uniform(groups, members, low=-0.5, high=0.5)
        width = random.log_uniform(groups, members, low=0.02, high=0.12)
        start = random.uniform(groups, members, low=-0.9, high=0.6)
        depth = random.chance(0.6, groups, members) * random.uniform(groups, members, high=2.0)
        cone = ((ray - spread(where)) / spread(width)).square_().neg_().exp_()
        cone *= ((line[:, None] - spread(start)) * 12).sigmoid_() * spread(depth)
        shade = cone if shade is None else shade + cone
    return shade


def _soften(image: Tensor, amount: Tensor) -> Tensor:
    """A 3 x 3 binomial blur of the given share, in place. image: (G, M, C, h, w); amount: (G, M) in [0, 1]."""
    for dim in (-1, -2):
        length = image.shape[dim] - 2
        before, here, after = image.narrow(dim, 0, length), image.narrow(dim, 1, length), image.narrow(dim, 2, length)
        change = (before + after).mul_(0.5).sub_(here).mul_(spread(amount * 0.5, dims=3))
        here.add_(change)
    return image
