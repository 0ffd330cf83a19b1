"""What a user might have said about a structure: clicks, boxes, corrections, sloppy support masks.

Axes: ``B`` images, ``N`` objects, ``S`` the side of the square input in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyprompt.foundation.base import Points


def draw_clicks(masks: Tensor, generator: torch.Generator, *, most: int = 3) -> Points:
    """masks: (B, N, S, S) in [0, 1]. One inside click (where there is an inside), then random ones of either kind."""
    inside = masks > 0.5
    count = int(torch.randint(1, most + 1, (1,), generator=generator))
    clicks = []
    for index in range(count):
        want = torch.ones(masks.shape[:2], dtype=torch.bool)
        if index:
            want = torch.rand(masks.shape[:2], generator=generator) < 0.5
        clicks.append(_click(inside, want, generator))
    return join(*clicks)


def draw_correction(logits: Tensor, masks: Tensor, generator: torch.Generator) -> Points:
    """One click in the larger error of a mask: positive where it misses, negative where it spills.

    logits: (B, N, S/4, S/4). masks: (B, N, S, S). Where nothing is wrong, a click inside the structure.
    """
    drawn = F.interpolate(logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False) > 0
    truth = masks > 0.5
    missed, spilled = truth & ~drawn, drawn & ~truth
    positive = missed.sum((-2, -1)) >= spilled.sum((-2, -1))
    wrong = torch.where(positive[..., None, None], missed, spilled)
    right = ~wrong.flatten(2).any(-1)
    region = torch.where(right[..., None, None], truth, wrong)
    return _sample(region, positive | right, generator, fallback=~truth)


def _click(inside: Tensor, want: Tensor, generator: torch.Generator) -> Points:
    want = want.to(inside.device) & inside.flatten(2).any(-1)
    return _sample(torch.where(want[..., None, None], inside, ~inside), want, generator)


def _sample(region: Tensor, positive: Tensor, generator: torch.Generator, fallback: Tensor | None = None) -> Points:
    """One position of each region (B, N, S, S), uniformly. An empty region takes a negative click in ``fallback``."""
    if fallback is not None:
        empty = ~region.flatten(2).any(-1)
        region, positive = torch.where(empty[..., None, None], fallback, region), positive & ~empty
    size = region.shape[-1]
    odds = region.flatten(0, 1).flatten(1).float().cpu() + 1e-9
    position = torch.multinomial(odds, 1, generator=generator)[:, 0].to(region.device)
    coords = torch.stack([position % size, position // size], 1).float().unflatten(0, region.shape[:2])
    return Points(coords[:, :, None], positive[:, :, None].int())


def join(*clicks: Points) -> Points:
    """Clicks one after the other."""
    return Points(torch.cat([c.coords for c in clicks], 2), torch.cat([c.labels for c in clicks], 2))


def boxes_of(masks: Tensor) -> Tensor:
    """(B, N, S, S) in [0, 1] -> (B, N, 4) as x0, y0, x1, y1; the whole image where the mask is empty."""
    size = masks.shape[-1]
    columns, rows = masks.amax(-2) > 0.5, masks.amax(-1) > 0.5
    edges = []
    for line in (columns, rows):
        first = line.float().argmax(-1)
        last = size - 1 - line.flip(-1).float().argmax(-1)
        empty = ~line.any(-1)
        edges.append((first.masked_fill(empty, 0), last.masked_fill(empty, size - 1)))
    (x0, x1), (y0, y1) = edges
    return torch.stack([x0, y0, x1, y1], -1).float()


def jitter_boxes(boxes: Tensor, size: int, generator: torch.Generator, *, share: float = 0.08) -> Tensor:
    """Moves every edge by a normal error of ``share`` of the box's side, within the image."""
    sides = (boxes[..., 2:] - boxes[..., :2]).repeat(*[1] * (boxes.ndim - 1), 2)
    noise = torch.randn(boxes.shape, generator=generator).to(boxes.device)
    return (boxes + noise * share * sides).clamp(0, size - 1)


def sloppy(masks: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Support masks as hasty annotators draw them: some too large, some too small. masks: (B, N, S, S) in {0, 1}.

    What would vanish stays as it is.
    """
    radius = 1 + int(torch.randint(0, max(1, masks.shape[-1] // 64), (1,), generator=generator))
    kind = torch.rand(masks.shape[:2], generator=generator).to(masks.device)
    window = {"kernel_size": 2 * radius + 1, "stride": 1, "padding": radius}
    result = masks.clone()
    larger, smaller = kind < share / 2, (kind >= share / 2) & (kind < share)
    if bool(larger.any()):
        result[larger] = F.max_pool2d(masks[larger][:, None], **window)[:, 0]
    if bool(smaller.any()):
        thinner = 1 - F.max_pool2d(1 - masks[smaller][:, None], **window)[:, 0]
        left = thinner.flatten(1).any(-1)[:, None, None]
        result[smaller] = torch.where(left, thinner, masks[smaller])
    return result


def rough_logits(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Mask prompts as an earlier, worse segmentation would give them: swollen or shrunk, shifted, blurred.

    masks: (B, N, S, S) in {0, 1}. Returns (B, N, S/4, S/4) logits.
    """
    size = masks.shape[-1]
    rough = sloppy(masks, 0.7, generator)
    shift = torch.randint(-(size // 40), size // 40 + 1, (2,), generator=generator).tolist()
    rough = F.avg_pool2d(torch.roll(rough, shift, (-2, -1)), 4)
    window = 2 * int(torch.randint(0, max(1, size // 64), (1,), generator=generator)) + 1
    rough = F.avg_pool2d(rough, window, 1, window // 2, count_include_pad=False)
    steepness = 2 + 8 * torch.rand(masks.shape[:2], generator=generator).to(masks.device)
    return (2 * rough - 1) * steepness[..., None, None]
