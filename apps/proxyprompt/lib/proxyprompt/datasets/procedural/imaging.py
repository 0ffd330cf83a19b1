"""Light, detector and display: what one scanner or camera makes of an image.

G groups, M members, C channels. A group has one imaging style; its members differ as scans of several patients do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import textures
from .anatomy import Layout
from .catalogue import ANATOMIES, HABITS
from .randomness import Random, axis, spread

ENLARGED = 0.2  # share of groups


def habit(layout: Layout, name: str) -> Tensor:
    """(G, 1): the chance that the kinds of anatomy drawn have for a way of being imaged."""
    return torch.tensor([getattr(HABITS[kind], name) for kind in ANATOMIES], device=layout.kind.device)[
        layout.kind, None
    ]


def field_of_view(random: Random, layout: Layout, members: int, size: int) -> Tensor:
    """Signed function (G, M, h, w) of what the device sees: everything, a circle, a sector or a frame."""
    groups = len(layout.kind)
    pick = random.uniform(groups, 1)
    bounds = torch.cat([habit(layout, name) for name in ("circle", "wedge", "frame")], 1).cumsum(1)
    chosen = (pick > bounds).sum(1)  # 0 circle, 1 sector, 2 frame, 3 everything
    view = torch.ones(groups, members, size, size, device=random.device)
    line = axis(size, random.device)
    for index, form in enumerate((_circle, _sector, _frame)):
        rows = (chosen == index).nonzero()[:, 0]
        if len(rows):
            view[rows] = form(random, len(rows), members, line[None, None, None, :], line[None, None, :, None])
    return view


def _circle(random: Random, groups: int, members: int, x: Tensor, y: Tensor) -> Tensor:
    x0, y0 = spread(random.normal(2, groups, members, std=0.03))
    radius = random.uniform(groups, 1, low=0.8, high=1.15) + random.normal(groups, members, std=0.02)
    cut = random.uniform(groups, 1, low=0.75, high=1.3)
    disc = spread(radius) - ((x - x0).square() + (y - y0).square()).sqrt()
    return torch.minimum(disc, spread(cut) - (y - y0).abs())


def _sector(random: Random, groups: int, members: int, x: Tensor, y: Tensor) -> Tensor:
    x0 = spread(random.normal(groups, members, std=0.03))
    apex = random.uniform(groups, 1, low=-2.2, high=-1.05) + random.normal(groups, members, std=0.03)
    half = random.uniform(groups, 1, low=0.45, high=0.9)
    down = y - spread(apex)
    depth = ((x - x0).square() + down.square()).sqrt()
    sector = torch.minimum(down * spread(half) - (x - x0).abs(), spread(0.95 - apex) - depth)
    return torch.minimum(sector, depth - spread(-0.95 - apex))


def _frame(random: Random, groups: int, members: int, x: Tensor, y: Tensor) -> Tensor:
    right, left, below, above = spread(random.uniform(4, groups, 1, low=0.6, high=1.1))
    return torch.minimum(torch.minimum(right - x, left + x), torch.minimum(below - y, above + y))


def expose(random: Random, layout: Layout, canvas: Tensor, view: Tensor, contrast: Tensor) -> Tensor:
    """Images (C, G, M, h, w) of any range to images in [0, 1], in place.

    view: signed function of what the device sees. contrast: (G,) of the faintest structure that is asked for; noise
    and speckle are kept in proportion to it, so that what is asked for can be seen.
    """
    channels, groups, members, size = canvas.shape[:4]
    one, each = (groups, 1), (groups, members)
    canvas.clamp_(0, 1.3)
    inverted = random.chance(0.25 if channels == 1 else 0.12, *one)
    canvas = canvas.sub_(spread(inverted)).abs_()

    line = axis(size, random.device)
    uneven = (random.uniform(*one) < habit(layout, "uneven")).float()
    unevenness = random.log_uniform(*one, low=0.02, high=0.12) + uneven * random.uniform(*one, low=0.1, high=0.35)
    light = random.noise(*each, size=size, cells=2).mul_(spread(unevenness))
    falloff = uneven * random.uniform(*one, high=0.5)
    light -= spread(falloff) * (line.square()[None, :] + line.square()[:, None])
    speckled = (random.uniform(*one) < habit(layout, "speckle")).float()
    light += spread(random.normal(*each, std=0.25) * (0.3 + speckled)) * line[:, None]
    if bool(speckled.any()):
        light -= _shadows(random, groups, members, size).mul_(spread(speckled))
    light.exp_()
    if bool(speckled.any()):
        strength = torch.minimum(random.uniform(*one, low=0.08, high=0.4), contrast[:, None] * 1.8)
        grains = textures.draw_speckle(random, groups, members, size)
        light *= grains.mul_(spread(speckled * strength)).add_(1).clamp_min_(0)
    canvas *= light
    glints = random.chance(0.2, *one) * (channels > 1)
    if bool(glints.any()):
        canvas += random.noise(*each, size=size, cells=26).sub_(2.2).clamp_min_(0).mul_(spread(glints * 3))
    canvas *= view.mul_(size / 2).clamp_(0, 1)

    level = torch.minimum(random.log_uniform(*one, low=0.004, high=0.1), contrast[:, None] * 0.7)
    level = level * random.uniform(*each, low=0.7, high=1.3)
    canvas += random.normal(*canvas.shape).mul_(spread(level))
    _soften(canvas, random.uniform(*each) * random.chance(0.6, *one))
    _enlarge(random, canvas)
    return _display(random, canvas)


def _enlarge(random: Random, canvas: Tensor) -> None:
    """Some groups, in place, as if their images had been small: fewer pixels, interpolated."""
    size = canvas.shape[-1]
    factor = random.log_uniform(canvas.shape[1], low=1.5, high=4.0)
    for group in (random.chance(ENLARGED, canvas.shape[1]) > 0).nonzero()[:, 0].tolist():
        side = round(size / float(factor[group]))
        small = F.interpolate(canvas[:, group], (side, side), mode="area")
        canvas[:, group] = F.interpolate(small, (size, size), mode="bilinear", align_corners=False)


def _display(random: Random, canvas: Tensor) -> Tensor:
    """Window and gamma-like curve, in place: most groups well exposed, some dark, some with burnt-out lights."""
    groups, members = canvas.shape[1:3]
    one, each = (groups, 1), (groups, members)
    some = canvas[..., ::2, ::2].movedim(0, 2).flatten(2)
    mean, deviation = some.mean(-1), some.std(-1)
    top = random.uniform(*one, low=0.6, high=1.2) * random.normal(*each, std=0.07).exp()
    gain = (top / (mean + 2.2 * deviation).clamp_min(0.02)).clamp(0.4, 10.0)
    gain = torch.where(random.chance(0.85, *one) > 0, gain, random.normal(*each, std=0.1).exp())
    black = (mean - 2 * deviation).clamp_min(0) * random.uniform(*one) * random.chance(0.4, *one)
    bend = (random.normal(*one, std=0.3) + random.normal(*each, std=0.1)).clamp(-0.8, 0.8)
    canvas.sub_(spread(black)).mul_(spread(gain)).clamp_(0, 1)
    return canvas.addcmul_(canvas - canvas.square(), spread(bend))


def _shadows(random: Random, groups: int, members: int, size: int) -> Tensor:
    """Dark rays from above that start somewhere in depth: (G, M, h, w), as an exponent."""
    line = axis(size, random.device)
    ray = line[None, :] / (line[:, None] + 2.2)
    shade = torch.zeros(groups, members, size, size, device=random.device)
    for _ in range(2):
        where = random.uniform(groups, members, low=-0.5, high=0.5)
        width = random.log_uniform(groups, members, low=0.02, high=0.12)
        start = random.uniform(groups, members, low=-0.9, high=0.6)
        depth = random.chance(0.6, groups, members) * random.uniform(groups, members, high=1.6)
        cone = ((ray - spread(where)) * spread(1 / width)).square_().clamp_max_(20).neg_().exp_()
        shade.addcmul_(cone, ((line[:, None] - spread(start)) * 12).sigmoid_() * spread(depth))
    return shade


def _soften(canvas: Tensor, amount: Tensor) -> None:
    """A 3 x 3 binomial blur of the given share, in place. image: (C, G, M, h, w); amount: (G, M) in [0, 1]."""
    for dim in (-1, -2):
        length = canvas.shape[dim] - 2
        before, here, after = (canvas.narrow(dim, start, length) for start in range(3))
        change = (before + after).mul_(0.5).sub_(here).mul_(spread(amount * 0.5))
        here.add_(change)
