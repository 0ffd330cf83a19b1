"""SiLU of a causal depthwise convolution along a sequence, channels last: the first half of a Mamba direction."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, *, reverse: bool = False) -> Tensor:
    """silu(conv(x)), every position seeing itself and the positions before it (after it, with ``reverse``).

    It runs as a convolution of an image of one row, whose channels lie side by side in memory as those of x do: torch's
    one-dimensional convolution would transpose it twice.

    Args:
        x: (batch, length, channels).
        weight: (channels, 1, taps), the position itself last, as in ``nn.Conv1d``.
        bias: (channels,), or None.
        reverse: from the end to the start.

    Returns:
        (batch, length, channels).
    """
    around = weight.shape[2] - 1
    x = F.pad(x, (0, 0, 0, around) if reverse else (0, 0, around, 0))
    kernel = weight.flip(2) if reverse else weight
    image = x.mT[:, :, None]  # (batch, channels, 1, length)
    return F.silu(F.conv2d(image, kernel[:, :, None], bias, groups=x.shape[2])[:, :, 0].mT)
