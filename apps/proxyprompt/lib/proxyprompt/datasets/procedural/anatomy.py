"""From a kind of anatomy to the signed functions of its structures in every member.

G groups, M members, S slots. Anatomy coordinates are image coordinates (-1 to 1, x then y) under the member's own
view: a similarity and a smooth displacement, as between two patients or two scans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from . import shapes, strokes
from .catalogue import ANATOMIES, FAMILIES, HABITS, SLOTS, THIN, Slot
from .randomness import Random, axis, spread

BANK = (4, 8, 16, 32)  # bumps of the noise fields that roughen outlines and make regions


@dataclass(frozen=True)
class View:
    """How each member sees the anatomy. x, y: (G, M, h, w) anatomy coordinates of the pixels of a working grid."""

    x: Tensor
    y: Tensor
    matrix: Tensor  # (G, M, 2, 2), image to anatomy
    shift: Tensor  # (G, M, 2)

    def to_image(self, points: Tensor) -> Tensor:
        """Anatomy points (G, M, K, 2) in image coordinates, but for the smooth displacement."""
        return torch.linalg.solve(self.matrix, (points - self.shift[:, :, None]).transpose(-1, -2)).transpose(-1, -2)

    @property
    def zoom(self) -> Tensor:
        """(G, M) anatomy length per image length."""
        return self.matrix.det().abs().sqrt()


@dataclass(frozen=True)
class Layout:
    """What the slots of G groups are: (G, S) tensors unless said otherwise."""

    kind: Tensor  # (G,) index into ANATOMIES
    family: Tensor  # index into FAMILIES
    used: Tensor  # bool
    soft: Tensor  # border width in half image sides
    weight: Tensor
    similar: Tensor  # bool: looks like the slot before
    see_through: Tensor  # bool
    rim: Tensor  # bool
    relief: Tensor  # chance
    dark: Tensor  # chance
    thin: Tensor  # bool
    parent: Tensor  # index, -1 for none
    centre: Tensor  # (G, S, M, 2) anatomy coordinates
    size: Tensor  # (G, S, M)
    aspect: Tensor  # (G, S, M)
    rough: Tensor  # (G, S)

    def take(self, index: Tensor) -> Layout:
        """The layout of some of the groups. index: (g,)."""
        return Layout(*[getattr(self, field.name)[index] for field in fields(self)])


def draw_view(random: Random, groups: int, members: int, size: int) -> View:
    """Views on a working grid of ``size``, which may be coarser than the image: nothing in a view is sharp."""
    strength = random.uniform(groups, 1, low=0.1, high=1.0)
    angle = random.normal(groups, members, std=0.3) * strength
    angle = angle + random.chance(0.12, groups, 1) * random.uniform(groups, members, low=-math.pi, high=math.pi)
    scale = (random.normal(groups, members, std=0.2) * strength).exp()
    mirror = 1 - 2 * random.chance(0.5, groups, members) * random.chance(0.25, groups, 1)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    matrix = torch.stack([torch.stack([cosine * mirror, -sine], -1), torch.stack([sine * mirror, cosine], -1)], -2)
    shift = random.normal(groups, members, 2, std=0.16) * strength[..., None]
    line = axis(size, random.device)
    base_x, base_y = line[None, :], line[:, None]
    bent = random.noise(groups, members, 2, size=size, cells=2).mul_(spread(strength * 0.07, dims=3))
    bent.add_(random.noise(groups, members, 2, size=size, cells=5).mul_(spread(strength * 0.025, dims=3)))
    x = bent[:, :, 0] + spread(matrix[..., 0, 0]) * base_x + spread(matrix[..., 0, 1]) * base_y + spread(shift[..., 0])
    y = bent[:, :, 1] + spread(matrix[..., 1, 0]) * base_x + spread(matrix[..., 1, 1]) * base_y + spread(shift[..., 1])
    return View(x, y, matrix, shift)


def _table(kind: Tensor, value: Callable[[Slot], object]) -> Tensor:
    """value(Slot) for every slot of the drawn anatomies: (G, S, ...)."""
    rows = [[value(slot) for slot in (*slots, *[Slot(use=0.0)] * (SLOTS - len(slots)))] for slots in ANATOMIES.values()]
    return torch.tensor(rows, device=kind.device)[kind]


def draw_layout(
    random: Random, groups: int, members: int, *, gray: bool, anatomies: Collection[str] = tuple(ANATOMIES)
) -> Layout:
    """Draw which structures lie where.

    Args:
        random: where chance comes from.
        groups: of images of one kind.
        members: images in each.
        gray: whether the images will be gray.
        anatomies: kinds to choose from.

    Returns:
        The layout of all images.
    """
    odds = [(HABITS[name].gray if gray else HABITS[name].colour) * (name in anatomies) for name in ANATOMIES]
    odds = torch.tensor(odds, device=random.device)
    kind = torch.multinomial(odds, groups, replacement=True, generator=random.generator)
    choices = math.lcm(1, 2, 3)
    families = _table(kind, lambda s: [FAMILIES.index(f) for f in s.families * (choices // len(s.families))])
    family = families.gather(2, random.integers(choices, groups, SLOTS, 1))[..., 0]

    def number(name: str) -> Tensor:
        return _table(kind, lambda s: float(getattr(s, name)))

    def ranged(name: str) -> Tensor:
        low, high = _table(kind, lambda s: getattr(s, name)).log().unbind(-1)
        return random.between(low, high).exp()

    used = random.uniform(groups, SLOTS) < number("use")
    parent = _table(kind, lambda s: -1 if s.parent is None else s.parent)
    used &= torch.where(parent >= 0, used.gather(1, parent.clamp_min(0)), True)

    thin = torch.isin(family, torch.tensor([FAMILIES.index(f) for f in THIN], device=kind.device))
    ignored = thin & (random.chance(0.7, groups, 1) > 0)  # few annotators cut a vessel out of an organ

    spread_of_members = random.uniform(groups, SLOTS, 1, low=0.3, high=1.4)
    place = random.normal(groups, SLOTS, 1, 2) * number("offset")[..., None, None]
    roam = (number("roam")[..., None] * spread_of_members)[..., None]
    place = place + random.normal(groups, SLOTS, members, 2) * roam
    place = torch.where((parent < 0)[..., None, None], (place / 0.8).tanh() * 0.8, place)  # mostly in the image
    size = ranged("size")[..., None] * (random.normal(groups, SLOTS, members, std=0.15) * spread_of_members).exp()
    centres, sizes = [], []
    for slot in range(SLOTS):
        up = parent[:, slot]
        if slot == 0:
            centres.append(place[:, 0])
            sizes.append(size[:, 0])
            continue
        pick = torch.arange(groups, device=kind.device)
        at, reach = torch.stack(centres, 1)[pick, up], torch.stack(sizes, 1)[pick, up]
        child = (up >= 0)[:, None]
        thread = child & (family[:, slot] == FAMILIES.index("tree"))[:, None]
        centres.append(torch.where(child[..., None], at + place[:, slot] * reach[..., None], place[:, slot]))
        sizes.append(torch.where(child & ~thread, size[:, slot] * reach, size[:, slot]))
    stretch = number("aspect").log()[..., None] * random.uniform(groups, SLOTS, 1, low=-0.5, high=0.5)
    return Layout(
        kind=kind,
        family=family,
        used=used,
        soft=ranged("soft") * (2 / 128),
        weight=number("weight"),
        similar=random.uniform(groups, SLOTS) < number("similar"),
        see_through=(number("see_through") > 0) | ignored,
        rim=random.uniform(groups, SLOTS) < number("rim"),
        relief=number("relief"),
        dark=number("dark"),
        thin=thin,
        parent=parent,
        centre=torch.stack(centres, 1),
        size=torch.stack(sizes, 1),
        aspect=(stretch + random.normal(groups, SLOTS, members, std=0.08)).exp(),
        rough=number("rough") * random.log_uniform(groups, SLOTS, low=0.3, high=1.5),
    )


def evaluate(random: Random, layout: Layout, view: View, size: int) -> Tensor:
    """Signed functions (G, S, M, size, size) of all slots; -1 where a group does not use a slot."""
    groups, members, work = view.x.shape[:3]
    signed = view.x.new_full((groups, SLOTS, members, size, size), -1.0)
    bank = torch.stack([random.noise(groups, members, size=work, cells=cells) for cells in BANK], 2)
    for index, family in enumerate(FAMILIES):
        group, slot = torch.nonzero((layout.family == index) & layout.used, as_tuple=True)
        if len(group):
            values = _family(random, family, layout, view, bank, group, slot, size)
            signed.view(-1, members, size, size).index_copy_(0, group * SLOTS + slot, values)
    return signed


def _family(
    random: Random, family: str, layout: Layout, view: View, bank: Tensor, group: Tensor, slot: Tensor, size: int
) -> Tensor:
    """Signed functions (P, M, size, size) of the P (group, slot) pairs of one family."""
    pairs, members = len(group), view.x.shape[1]
    centre, scale, aspect = layout.centre[group, slot], layout.size[group, slot], layout.aspect[group, slot]

    if family in ("tree", "fibres", "scatter"):
        zoom = view.zoom[group]
        middle = view.to_image(layout.centre.transpose(1, 2))[group, :, slot]
        reach = scale / zoom
        wander = random.log_uniform(pairs, 1, low=0.08, high=0.55).expand(pairs, members)
        thin = random.log_uniform(pairs, 1, low=0.005, high=0.028) * random.uniform(pairs, members, low=0.85, high=1.15)
        if family == "tree":
            spray = random.uniform(pairs, 1, low=0.8, high=6.3).expand(pairs, members)
            parts = strokes.trees(random, middle, reach, thin, wander * 0.7, spray)
        elif family == "fibres":
            count = (random.log_uniform(pairs, 1, low=1, high=8) + random.uniform(pairs, members)).floor()
            parts = strokes.fibres(random, middle, reach, thin * 1.2, wander, count)
        else:
            child = (layout.parent[group, slot] >= 0)[:, None]
            count = random.log_uniform(pairs, 1, low=2, high=24) * random.uniform(pairs, members, low=0.7, high=1.3)
            radius = random.log_uniform(pairs, 1, low=0.025, high=0.16) / zoom
            count = torch.where(child, random.integers(4, pairs, 1) + 1, count.floor())
            radius = torch.where(child, reach * random.uniform(pairs, 1, low=0.35, high=0.6), radius)
            reach = torch.where(child, reach * 0.6, reach)
            elongation = (random.chance(0.4, pairs, 1) * random.uniform(pairs, 1, high=2.5)).expand(pairs, members)
            parts = strokes.scatter(random, middle, reach, radius, count, elongation)
        canvas = torch.full((pairs, members, size, size), -strokes.MARGIN, device=random.device)
        for part in parts:
            strokes.draw_capsules(canvas, *part)
        return canvas

    decay = random.uniform(pairs, 1, low=0.3, high=0.8)
    mix = random.normal(pairs, 1, len(BANK)) * decay[..., None] ** torch.arange(len(BANK), device=random.device)
    mix = mix / mix.square().sum(-1, keepdim=True).sqrt()
    noise = (bank[group] * spread(mix.expand(pairs, members, len(BANK)))).sum(2)
    if family == "region":
        threshold = 1.1 - 1.6 * scale
        return _enlarge(shapes.level_set(noise, threshold).mul_(0.12), size)
    if family == "ridges":
        return shapes.ridges(_enlarge(noise, size), scale * 0.3).mul_(0.12)

    turn = random.uniform(pairs, 1, low=0, high=2 * math.pi) + random.normal(pairs, members, std=0.15)
    if family == "band":
        turn = random.normal(pairs, 1, std=0.25) + random.normal(pairs, members, std=0.06)
    cosine, sine = turn.cos(), turn.sin()
    dx, dy = view.x[group] - spread(centre[..., 0]), view.y[group] - spread(centre[..., 1])
    root = aspect.sqrt()
    x = dx * spread(cosine / scale / root) + dy * spread(sine / scale / root)
    y = dy.mul_(spread(cosine / scale * root)).sub_(dx.mul_(spread(sine / scale * root)))
    rough = layout.rough[group, slot][:, None]
    fall = 1.0 / torch.arange(1, shapes.HARMONICS + 1, device=random.device)
    harmonics = random.normal(pairs, 1, 2, shapes.HARMONICS) + 0.4 * random.normal(pairs, members, 2, shapes.HARMONICS)
    harmonics = harmonics * spread(rough, dims=2) * fall
    if family == "star":
        field = shapes.star(x, y, harmonics)
    elif family == "polygon":
        angles = torch.arange(shapes.SIDES, device=random.device) * (2 * math.pi / shapes.SIDES)
        angles = angles + random.normal(pairs, 1, shapes.SIDES, std=0.3) + random.normal(pairs, members, 1, std=0.05)
        sides = random.uniform(pairs, 1, shapes.SIDES, low=0.6, high=1.1).expand(pairs, members, shapes.SIDES)
        field = shapes.polygon(x, y, angles.expand(pairs, members, shapes.SIDES), sides)
    elif family == "band":
        field = shapes.band(x, y, random.normal(pairs, members, std=0.1) * scale, torch.ones_like(scale))
    else:
        width = random.uniform(pairs, 1, low=0.08, high=0.25) * random.uniform(pairs, members, low=0.8, high=1.2)
        cut = random.uniform(pairs, 1, low=-0.4, high=2.5).expand(pairs, members)
        field = shapes.arc(x, y, harmonics, width, cut)
    field.addcmul_(noise, spread(rough * 0.35).expand_as(noise))
    return _enlarge(field.mul_(spread(scale)), size)


def _enlarge(field: Tensor, size: int) -> Tensor:
    """Bilinear, from the working grid to the image's: signed functions are smooth, so outlines stay exact enough."""
    return torch.nn.functional.interpolate(field, size=(size, size), mode="bilinear", align_corners=False)
