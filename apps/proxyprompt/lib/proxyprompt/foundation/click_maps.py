"""Clicks, boxes and mask prompts as they lie in the image, beside SAM's tokens.

Interactive networks (RITM, nnInteractive) draw clicks as discs. A mask decoder that is trained for hours and not for
weeks learns to heed such maps long before it reads positions out of tokens.
"""

from __future__ import annotations

import torch
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

CLICK_RADIUS = 8.0  # pixels of the input
LOGIT_SCALE = 0.1  # of mask prompts


class ClickMaps(nn.Module):
    """Clicks and boxes as they lie in the image, added to the decoder's dense prompt.

    Args:
        dim: channels C of the dense prompt.
        width: channels between.
    """

    def __init__(self, dim: int, *, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, width, 2, stride=2),
            LayerNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width, 2, stride=2),
            LayerNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, dim, 3, padding=1),
        )

    def forward(self, marks: Tensor, masks: Tensor | None) -> Tensor:
        """Encode marks.

        Args:
            marks: (B*N, 3, S/4, S/4), from ``draw_marks``: inside, outside, box.
            masks: (B*N, 1, S/4, S/4) logits of a mask prompt, or None.

        Returns:
            (B*N, C, S/16, S/16).
        """
        last = torch.zeros_like(marks[:, :1]) if masks is None else LOGIT_SCALE * masks.to(marks.dtype)
        return self.layers(torch.cat([marks, last], 1))


def draw_marks(coords: Tensor, labels: Tensor, size: int) -> Tensor:
    """Draw clicks and boxes.

    Args:
        coords: (B*N, P, 2) as (x, y) in pixels of the input.
        labels: (B*N, P), SAM's: 1 inside, 0 outside, 2 and 3 a box's corners, -1 nothing.
        size: side S of the input in pixels.

    Returns:
        (B*N, 3, S/4, S/4) in {0, 1}: discs around clicks inside, around clicks outside, the box.
    """
    centres = torch.arange(size // 4, device=coords.device) * 4 + 1.5
    x, y = coords[..., 0, None, None], coords[..., 1, None, None]  # (B*N, P, 1, 1)
    across, down = centres, centres[:, None]
    near = (across - x) ** 2 + (down - y) ** 2 < CLICK_RADIUS**2

    def marked(which: Tensor, label: int) -> Tensor:
        return (which & (labels == label)[..., None, None]).any(1)

    box = marked((across >= x) & (down >= y), 2) & marked((across <= x) & (down <= y), 3)
    return torch.stack([marked(near, 1), marked(near, 0), box], 1).to(coords.dtype)
