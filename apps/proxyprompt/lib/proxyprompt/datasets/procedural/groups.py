"""Groups of images of one anatomy: what one episode of in-context segmentation is cut from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Layout, draw_layout, draw_view, evaluate
from .catalogue import ANATOMIES, CHILDREN, SLOTS
from .imaging import expose, field_of_view
from .painting import paint
from .randomness import Random

GRAY = 0.55  # share of gray groups
ABSENT = 0.08  # share of structures missing from a member
NESTED = 0.35  # share of the children that also count for their parent's mask
LEAST_AREA = 0.0008  # of the image; what shows less of itself is absent
LEAST_CONTRAST = 0.04  # a structure that changes the image by less is not asked for
CHUNK_PIXELS = {"cpu": 2**17, "cuda": 2**24}  # per plane: what stays in a core's cache, what fills a GPU
ATTEMPTS = 6


@dataclass(frozen=True)
class Groups:
    """G groups of M members: any member can support any other of its group.

    images: (G, M, 3, size, size) float32 in [0, 1], the three channels equal in gray groups. masks:
    (G, M, N, size, size) bool, N structures of the anatomy. present: (G, M, N) bool; False where the mask is empty.
    """

    images: Tensor
    masks: Tensor
    present: Tensor


def draw_groups(
    groups: int,
    members: int,
    size: int,
    *,
    objects: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    ease: float = 0.0,
    anatomies: Collection[str] = tuple(ANATOMIES),
) -> Groups:
    """Draws ``groups`` random anatomies, each ``members`` times, with ``objects`` of their structures as masks.

    At least two members hold each object. An anatomy with fewer visible structures than ``objects`` repeats some.
    ease: how much large structures are preferred (at 1 ten times the area is asked for ten times as often): a young
    model learns little from threads and specks. anatomies: the kinds to draw from.
    The same generator state gives the same groups on the same kind of device. Raises ValueError for sizes that
    cannot be drawn.
    """
    if not anatomies or set(anatomies) - ANATOMIES.keys():
        raise ValueError(f"anatomies {sorted(anatomies)} given; expected some of {', '.join(ANATOMIES)}")
    if groups < 1 or members < 2 or objects < 1:
        raise ValueError(
            f"groups={groups}, members={members}, objects={objects} given; expected at least 1 group, 2 members "
            "(a support and a target) and 1 object."
        )
    if size < 32:
        raise ValueError(f"size={size} given; expected at least 32 pixels, below that no structure can be told.")
    random = Random(generator, device)
    images = torch.empty(groups, members, 3, size, size, device=random.device)
    masks = torch.empty(groups, members, objects, size, size, dtype=torch.bool, device=random.device)
    gray = random.uniform(groups) < GRAY
    at_once = max(1, CHUNK_PIXELS.get(random.device.type, 2**20) // (members * size * size))
    for channels, chosen in ((1, gray), (3, ~gray)):
        rows = chosen.nonzero()[:, 0]
        if not len(rows):
            continue
        layout = draw_layout(random, len(rows), members, gray=channels == 1, anatomies=anatomies)
        for part in torch.arange(len(rows), device=random.device).split(at_once):
            images[rows[part]], masks[rows[part]] = _draw_valid(
                random, layout.take(part), size, objects, channels, ease, anatomies
            )
    return Groups(images, masks, masks.flatten(3).any(-1))


def _draw_valid(
    random: Random,
    layout: Layout,
    size: int,
    objects: int,
    channels: int,
    ease: float,
    anatomies: Collection[str],
) -> tuple[Tensor, Tensor]:
    """Draws, and draws again the few groups of which no structure shows in two members."""
    groups, members = layout.size.shape[0], layout.size.shape[2]
    image, mask, valid = _draw(random, layout, size, objects, channels, ease)
    for _ in range(ATTEMPTS):
        missing = (~valid).nonzero()[:, 0]
        if not len(missing):
            break
        layout = draw_layout(random, len(missing), members, gray=channels == 1, anatomies=anatomies)
        image[missing], mask[missing], valid[missing] = _draw(random, layout, size, objects, channels, ease)
    else:
        good = valid.nonzero()[:, 0]
        if not len(good):
            raise RuntimeError(f"no structure could be placed in {groups} groups after {ATTEMPTS + 1} attempts")
        missing = (~valid).nonzero()[:, 0]
        image[missing], mask[missing] = image[good[:1]], mask[good[:1]]
    return image, mask


def _draw(
    random: Random, layout: Layout, size: int, objects: int, channels: int, ease: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (G, M, C, h, w), masks (G, M, N, h, w), valid (G,): whether every mask shows in two members."""
    members = layout.size.shape[-1]
    groups = len(layout.kind)
    view = draw_view(random, groups, members, min(size, max(64, size // 3)))
    fields = evaluate(random, layout, view, size)
    _remove_some(random, layout, fields)
    seen = field_of_view(random, layout, members, size)
    owned = _visible(random, layout, fields, seen > 0)
    canvas, contrast = paint(random, layout, fields, channels)

    area = owned.sum((-2, -1), dtype=torch.float32) / size**2  # (G, S, M)
    shows = (area > LEAST_AREA) & (contrast > LEAST_CONTRAST)
    enough = shows.sum(-1) >= 2
    score = layout.weight.log() - random.uniform(*layout.weight.shape).clamp_min(1e-9).log().neg_().log_()
    score = score + ease * area.mean(-1).clamp_min(1e-4).log()
    order = torch.where(enough, score, -torch.inf).argsort(-1, descending=True)
    count = enough.sum(-1, keepdim=True).clamp_min(1)
    pick = order.gather(1, torch.arange(objects, device=random.device) % count)
    rows = torch.arange(groups, device=random.device)[:, None]
    mask = owned[rows, pick] & shows[rows, pick][..., None, None]

    faintest = torch.where(shows[rows, pick], contrast[rows, pick], 1.0).amin((1, 2))
    image = expose(random, layout, canvas, seen, faintest)
    return image.movedim(0, 2), mask.transpose(1, 2), enough.any(-1)


def _remove_some(random: Random, layout: Layout, fields: Tensor) -> None:
    """Takes structures, with what lies in them, out of some members, but leaves each in two at least.

    Threads that only start at a structure stay.
    """
    groups, slots, members = fields.shape[:3]
    rank = random.uniform(groups, slots, members).argsort(-1)
    gone = (random.uniform(groups, slots, members) < ABSENT * members / max(1, members - 2)) & (rank >= 2)
    for slot in range(1, slots):
        up = layout.parent[:, slot]
        above = gone.gather(1, up.clamp_min(0)[:, None, None].expand(-1, 1, members))[:, 0]
        gone[:, slot] |= above & ((up >= 0) & ~layout.thin[:, slot])[:, None]
    fields.view(-1, *fields.shape[3:]).index_fill_(0, gone.flatten().nonzero()[:, 0], -1.0)


def _visible(random: Random, layout: Layout, fields: Tensor, seen: Tensor) -> Tensor:
    """Masks (G, S, M, h, w) of what each structure shows, under the structures drawn after it."""
    inside = (fields > 0) & seen[:, None]
    nested = random.uniform(len(layout.kind), SLOTS) < NESTED
    whole = inside.clone()
    covered = torch.zeros_like(inside[:, 0])
    for slot in range(SLOTS - 1, -1, -1):
        whole[:, slot] &= ~covered
        covered |= inside[:, slot] & ~layout.see_through[:, slot, None, None, None]
        for child in CHILDREN[slot]:
            within = nested[:, child] & (layout.parent[:, child] == slot)
            whole[:, slot] |= whole[:, child] & inside[:, slot] & within[:, None, None, None]
    return whole
