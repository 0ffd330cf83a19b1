"""Boundaries for a small model: ``atto``'s masks, drawn again with the image's fine features beside them.

SAM's decoder spreads each position of a stride 16 grid over its own 16 x 16 pixels, and learns only late to bend that
to the image: masks made of blocks. Here the coarse part of a mask is interpolated between the positions of the grid,
and a few convolutions across their borders add the fine part, two cells to each side of a position. A first guess at
that resolution, such as that of the fine readout, goes in beside it, and clicks and boxes as they lie in the image: a
young decoder does not learn to read them out of SAM's tokens. Not part of SAM 2 or of the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOGIT_SCALE = 0.2  # brings mask logits to the size of features
GRID_CELL = 4  # side of a position of the stride 16 grid, at stride 4
CELLS = 2  # along each side of a position at stride 4
CLICK_RADIUS = 8.0  # pixels of the input
MARKS = 3


class MaskRefiner(nn.Module):
    """Residual dilated 3 x 3 convolutions at stride 4; until trained they add nothing to the interpolated coarse mask.

    masks: how many mask logits the decoder gives for each object (the first is the mask, the others are free to carry
    whatever helps here). fine, middle: channels of the encoder's maps at strides 4 and 8. dim: of the decoder's dense
    prompt.
    """

    def __init__(
        self, *, masks: int, fine: int, middle: int, dim: int, width: int = 32, dilations: tuple[int, ...] = (1, 2, 4)
    ) -> None:
        super().__init__()
        self.marks = nn.Conv2d(MARKS, dim, 1)
        self.guesses = masks + CELLS**2 + MARKS  # the first channels that enter; those of the encoder's maps follow
        self.enter = nn.Conv2d(self.guesses + fine + middle, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.leave = nn.Conv2d(width, CELLS**2, 1)
        self.evidence = nn.Linear(2 * width, 1)
        for last in (self.marks, self.leave, self.evidence):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.to(memory_format=torch.channels_last)

    def dense(self, marks: Tensor) -> Tensor:
        """What clicks and boxes add to the decoder's dense prompt. marks: (B*N, 3, S/4, S/4), as :func:`draw_marks`
        gives them. Returns (B*N, dim, S/16, S/16)."""
        return self.marks(F.avg_pool2d(marks, GRID_CELL))

    def enter_maps(self, fine: Tensor, middle: Tensor) -> Tensor:
        """The first convolution over the encoder's maps, which depends on no prompt.

        fine: (B, fine, S/4, S/4). middle: (B, middle, S/8, S/8). Returns (B, width, S/4, S/4).
        """
        middle = F.interpolate(middle, fine.shape[-2:], mode="bilinear", align_corners=False)
        maps = torch.cat([fine, middle.to(fine.dtype)], 1)
        return self._enter(maps, self.enter.weight[:, self.guesses :], self.enter.bias)

    def enter_guesses(self, guesses: Tensor) -> Tensor:
        """And over the rest. guesses: (B * N, guesses, S/4, S/4). Returns (B * N, width, S/4, S/4)."""
        return self._enter(guesses, self.enter.weight[:, : self.guesses])

    def _enter(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x.contiguous(memory_format=torch.channels_last), weight, bias, padding=self.enter.padding)

    def forward(
        self, logits: Tensor, entered: Tensor, marks: Tensor, prior: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """logits: (B*N, masks, S/4, S/4). entered: (B*N, width, S/4, S/4), from :meth:`enter_maps`. marks:
        (B*N, 3, S/4, S/4). prior: (B*N, 1, S/2, S/2) logits, zeros without it.

        Returns (B*N, 1, S/2, S/2), the first mask refined, and (B*N, 1), to be added to the logit of presence.
        """
        size = logits.shape[-2:]
        coarse = F.avg_pool2d(logits[:, :1], GRID_CELL)
        coarse = F.interpolate(coarse, [CELLS * side for side in size], mode="bilinear", align_corners=False)
        cells = logits.new_zeros(len(logits), CELLS**2, *size) if prior is None else F.pixel_unshuffle(prior, CELLS)
        guesses = torch.cat([logits, cells.to(logits.dtype)], 1).to(entered.dtype) * LOGIT_SCALE
        x = entered + self.enter_guesses(torch.cat([guesses, marks.to(entered.dtype)], 1))
        for block in self.blocks:
            x = x + block(F.relu(x))
        x = F.relu(x)
        refined = coarse + F.pixel_shuffle(self.leave(x), CELLS) / LOGIT_SCALE
        inside = F.avg_pool2d(refined.sigmoid(), CELLS)
        drawn = (x * inside).sum((-2, -1)) / (inside.sum((-2, -1)) + 1)
        return refined, self.evidence(torch.cat([drawn, x.amax((-2, -1))], 1).to(x.dtype))


def draw_marks(coords: Tensor, labels: Tensor, size: int) -> Tensor:
    """Clicks and boxes as pictures: (B*N, 3, size/4, size/4) in {0, 1}.

    coords: (B*N, P, 2) as (x, y) in pixels of the input. labels: (B*N, P), SAM's: 1 inside, 0 outside, 2 and 3 a box's
    corners, -1 nothing. Channels: discs around clicks inside, around clicks outside, the box.
    """
    centres = torch.arange(size // 4, device=coords.device) * 4 + 1.5
    x, y = coords[..., 0, None, None], coords[..., 1, None, None]  # (B*N, P, 1, 1)
    across, down = centres, centres[:, None]
    near = (across - x) ** 2 + (down - y) ** 2 < CLICK_RADIUS**2

    def marked(which: Tensor, label: int) -> Tensor:
        return (which & (labels == label)[..., None, None]).any(1)

    box = marked((across >= x) & (down >= y), 2) & marked((across <= x) & (down <= y), 3)
    return torch.stack([marked(near, 1), marked(near, 0), box], 1).to(coords.dtype)
