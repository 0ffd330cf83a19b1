"""Structures made of many small parts: vessel trees, fibres, cells, scattered lesions, lobes.

A part is a capsule: a segment from a to b whose radius goes linearly from one end to the other. Each is evaluated in
a small window around itself and joined to the others by the maximum, so that hundreds of them cost little.
Coordinates are (x, y) from -1 to 1 over the image. K: capsules of one structure.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .randomness import Random, spread

MARGIN = 0.035  # how far outside a part its signed function is still followed
CHUNK = {"cpu": 2**17, "cuda": 2**25}  # window pixels at once: what stays in a core's cache, what fills a GPU

Capsules = tuple[Tensor, Tensor, Tensor]  # starts, ends, radii of draw_capsules


def draw_capsules(canvas: Tensor, starts: Tensor, ends: Tensor, radii: Tensor) -> None:
    """Joins capsules to the signed functions ``canvas`` (P, M, size, size), in place; filled with -MARGIN at first.

    starts, ends: (P, M, K, 2). radii: (P, M, K, 2) at the two ends; a negative radius drops the capsule.
    """
    size = canvas.shape[-1]
    count = starts.shape[2]
    radii = torch.where(radii > 0, radii.clamp_min(1.1 / size), radii)  # thinner than a pixel would fall apart
    reach = (ends - starts).abs().amax(-1) / 2 + radii.amax(-1) + MARGIN
    window = min(size, 2 * math.ceil(float((reach * (radii.amin(-1) > 0)).max()) * size / 2) + 1)
    at_once = max(1, CHUNK.get(canvas.device.type, 2**22) // (count * window**2))
    parts = [part.split(at_once) for part in (canvas.flatten(0, 1), *(t.flatten(0, 1) for t in (starts, ends, radii)))]
    for part in zip(*parts, strict=True):
        _draw_windows(*part, window=window)


def _draw_windows(canvas: Tensor, starts: Tensor, ends: Tensor, radii: Tensor, *, window: int) -> None:
    """canvas: (I, size, size); starts, ends, radii: (I, K, 2). Windows of ``window`` x ``window`` pixels.

    A window is shifted to lie within the image: values are right wherever it lies, and those below -MARGIN, of
    dropped or distant capsules, change nothing.
    """
    images, size = canvas.shape[:2]
    middle = ((starts + ends) / 2 + 1) * (size / 2) - window / 2
    corner = middle.round().clamp_(0, size - window).long()
    pixels = corner[..., None] + torch.arange(window, device=starts.device)  # (I, K, 2, window)
    delta = (pixels + 0.5) * (2 / size) - 1 - starts[..., None]
    along = ends - starts
    unit = along / along.square().sum(-1, keepdim=True).clamp_min(1e-8)
    share = delta * unit[..., None]
    t = (share[..., 0, :].unsqueeze(-2) + share[..., 1, :].unsqueeze(-1)).clamp_(0, 1)
    off_x = delta[..., 0, :].unsqueeze(-2) - t * spread(along[..., 0])
    off_y = delta[..., 1, :].unsqueeze(-1) - t * spread(along[..., 1])
    distance = off_x.square_().addcmul_(off_y, off_y).sqrt_()
    value = t.mul_(spread(radii[..., 1] - radii[..., 0])).add_(spread(radii[..., 0])).sub_(distance)
    rows = (torch.arange(images, device=starts.device)[:, None, None] * size + pixels[..., 1, :]) * size
    target = rows.unsqueeze(-1) + pixels[..., 0, :].unsqueeze(-2)
    canvas.view(-1).scatter_reduce_(0, target.view(-1), value.view(-1), "amax")


def _walk(random: Random, starts: Tensor, heading: Tensor, *, steps: int, length: Tensor, wander: Tensor) -> Tensor:
    """Nodes (..., steps + 1, 2) of a smooth random walk. starts: (..., 2); heading, length, wander: (...)."""
    turn = random.normal(*heading.shape, steps) * wander[..., None]
    turn = turn + (random.normal(*heading.shape) * wander * 0.5)[..., None]
    angle = heading[..., None] + turn.cumsum(-1)
    moves = torch.stack([angle.cos(), angle.sin()], -1) * spread(length / steps)
    return torch.cat([starts[..., None, :], starts[..., None, :] + moves.cumsum(-2)], -2)


def _segments(nodes: Tensor, radii: Tensor) -> Capsules:
    """Polylines (P, M, L, T + 1, 2) with radii (P, M, L, T + 1) as flat lists of capsules (P, M, L * T, ...)."""
    starts, ends = nodes[..., :-1, :].flatten(2, 3), nodes[..., 1:, :].flatten(2, 3)
    return starts, ends, torch.stack([radii[..., :-1], radii[..., 1:]], -1).flatten(2, 3)


def trees(random: Random, root: Tensor, size: Tensor, width: Tensor, wander: Tensor, spray: Tensor) -> list[Capsules]:
    """Branching trees around ``root``: thick trunks, thinner branches, thinnest twigs.

    root: (P, M, 2). size: (P, M) reach of the trunks. width: (P, M) radius at the root. wander: (P, M) radians a
    step. spray: (P, M) angle over which the trunks leave the root. Returns the capsules of the three generations.
    """
    pairs, members = size.shape
    lines = []
    facing = torch.atan2(-root[..., 1], -root[..., 0]) + random.normal(pairs, members, std=0.4)
    count, steps = 4, 9
    angle = facing[..., None] + spread(spray, dims=1) * torch.linspace(-0.5, 0.5, count, device=random.device)
    angle = angle + random.normal(pairs, members, count, std=0.25)
    starts = root[..., None, :] + random.normal(pairs, members, count, 2, std=0.02)
    length = size[..., None] * random.uniform(pairs, members, count, low=0.7, high=1.4)
    radius = width[..., None] * random.uniform(pairs, members, count, low=0.6, high=1.2)
    for level, children in enumerate((3, 2, 0)):
        nodes = _walk(random, starts, angle, steps=steps, length=length, wander=wander[..., None].expand_as(angle))
        taper = torch.linspace(1.0, 0.45 if level else 0.6, steps + 1, device=random.device)
        widths = radius[..., None] * taper
        lines.append(_segments(nodes, widths))
        if not children:
            break
        branches = angle.shape[-1] * children
        at = random.integers(steps - 1, pairs, members, angle.shape[-1], children) + 1
        pick = at[..., None].expand(*at.shape, 2)
        starts = nodes.gather(3, pick).flatten(2, 3)
        before = nodes.gather(3, pick - 1).flatten(2, 3)
        direction = torch.atan2(starts[..., 1] - before[..., 1], starts[..., 0] - before[..., 0])
        side = random.chance(0.5, pairs, members, branches) * 2 - 1
        angle = direction + side * random.uniform(pairs, members, branches, low=0.3, high=1.1)
        radius = widths.gather(3, at).flatten(2, 3) * random.uniform(pairs, members, branches, low=0.45, high=0.8)
        length = length.repeat_interleave(children, -1) * random.uniform(pairs, members, branches, low=0.3, high=0.7)
        steps = max(4, steps - 3)
    return lines


def fibres(
    random: Random, centre: Tensor, size: Tensor, width: Tensor, wander: Tensor, count: Tensor
) -> list[Capsules]:
    """One to eight long thin curves that pass near ``centre``; see :func:`trees`. count: (P, M) as float."""
    pairs, members = size.shape
    lanes, steps = 8, 12
    heading = random.uniform(pairs, 1, 1, low=0, high=2 * math.pi) + random.normal(pairs, members, lanes, std=0.3)
    starts = centre[..., None, :] + random.normal(pairs, members, lanes, 2) * size[..., None, None] * 0.4
    length = size[..., None] * random.uniform(pairs, members, lanes, low=1.2, high=2.4)
    back = torch.stack([heading.cos(), heading.sin()], -1) * (length / 2)[..., None]
    nodes = _walk(
        random, starts - back, heading, steps=steps, length=length, wander=wander[..., None].expand_as(length)
    )
    used = torch.arange(lanes, device=random.device) < count[..., None]
    radius = torch.where(used, width[..., None] * random.uniform(pairs, members, lanes, low=0.7, high=1.2), -1.0)
    return [_segments(nodes, radius[..., None].expand(*radius.shape, steps + 1))]


def scatter(
    random: Random, centre: Tensor, size: Tensor, radius: Tensor, count: Tensor, elongation: Tensor
) -> list[Capsules]:
    """Round or elongated parts scattered over a disc: cells, lesions, lobes.

    centre: (P, M, 2). size, radius: (P, M) of the disc and of a part. count: (P, M), at most 24 are drawn.
    elongation: (P, M) length of a part over its radius.
    """
    pairs, members = size.shape
    most = 24
    used = torch.arange(most, device=random.device) < count[..., None]
    where = centre[..., None, :] + random.uniform(pairs, members, most, 2, low=-1, high=1) * size[..., None, None]
    radii = radius[..., None] * random.uniform(pairs, members, most, low=0.7, high=1.3)
    angle = random.uniform(pairs, members, most, low=0, high=math.pi)
    half = torch.stack([angle.cos(), angle.sin()], -1) * (radii * elongation[..., None] / 2)[..., None]
    radii = torch.where(used, radii, -1.0)
    return [(where - half, where + half, torch.stack([radii, radii], -1))]
