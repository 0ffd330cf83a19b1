"""The convolutional trunk of ``atto``: residual blocks of dense 3 x 3 convolutions instead of Hiera's attention.

On a CPU dense convolutions in channels-last order run at several times the arithmetic rate of windowed attention, and a
model that is trained on little learns faster with them. Everything behind the trunk is SAM 2's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_GROUPS = 8


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels)


class ResidualBlock(nn.Module):
    """x + two 3 x 3 convolutions, each after normalisation and ReLU; the first may halve the grid."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(in_channels), _norm(channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.relu(self.norm2(y)))


class ConvolutionalTrunk(nn.Module):
    """Four maps at strides 4, 8, 16 and 32, in place of SAM 2's Hiera.

    widths, depths: channels (multiples of 8) and blocks of the four stages, fine to coarse.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        widths, depths = list(widths), list(depths)
        if len(widths) != 4 or len(depths) != 4 or any(w % NORM_GROUPS for w in widths) or min(depths) < 1:
            raise ValueError(
                f"widths {widths} and depths {depths}: expected four of each, "
                f"widths in multiples of {NORM_GROUPS}, depths from 1"
            )
        self.channel_list = widths[::-1]  # coarse to fine, as the neck expects it
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0] // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[0] // 2, widths[0], 3, stride=2, padding=1),
        )
        stages, before = [], widths[0]
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = ResidualBlock(before, width, stride=2 if index else 1)
            stages.append(nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(depth - 1))))
            before = width
        self.stages = nn.ModuleList(stages)
        self.norms = nn.ModuleList(_norm(width) for width in widths)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (B, 3, S, S). Returns (B, width, S/stride, S/stride), fine to coarse."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            maps.append(norm(x))
        return maps
