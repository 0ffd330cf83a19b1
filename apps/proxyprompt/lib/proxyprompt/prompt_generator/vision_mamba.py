"""First selection step (paper, section 3.1): the Vision Mamba encoder of a support image and one mask.

Vim in its "v2" form: the tokens of an image are scanned forwards and backwards, the two directions share their input
and output projections, and their results are averaged. There is no class token: the result is the dense map. Masks are
concatenated with the images as -1 outside and 1 inside, the range of normalised images.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops.causal_conv import causal_conv_silu
from .ops.selective_scan import selective_scan


class DirectionalScan(nn.Module):
    """One direction of a block: causal depthwise convolution, then the selective scan with input-made dt, B and C.

    Args:
        channels: of the tokens.
        d_state: numbers of the state of a channel.
        d_conv: taps of the convolution.
        dt_rank: rank of the projection that makes dt.
    """

    def __init__(self, channels: int, *, d_state: int, d_conv: int, dt_rank: int) -> None:
        super().__init__()
        self.d_state, self.dt_rank = d_state, dt_rank
        self.conv = nn.Conv1d(channels, channels, d_conv, padding=d_conv - 1, groups=channels)
        self.x_proj = nn.Linear(channels, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, channels)
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self._reset_dt(minimum=1e-3, maximum=1e-1)

    def _reset_dt(self, *, minimum: float, maximum: float) -> None:
        """Mamba's initialisation: softplus(dt_proj.bias) is log-uniform between ``minimum`` and ``maximum``."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        dt = torch.exp(torch.rand(self.dt_proj.out_features) * math.log(maximum / minimum) + math.log(minimum))
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor, *, reverse: bool = False) -> Tensor:
        """Scan a sequence (paper, eqs. 1 and 2).

        Args:
            x: (batch, length, channels).
            reverse: from the last token to the first.

        Returns:
            As x.
        """
        x = causal_conv_silu(x, self.conv.weight, self.conv.bias, reverse=reverse)
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        return selective_scan(x, dt, -torch.exp(self.A_log), B, C, self.D, reverse=reverse)


class VisionMambaBlock(nn.Module):
    """x + out_proj(mean of both directions, gated), on RMS-normalised tokens.

    Args:
        width: channels of the tokens.
        d_state: numbers of the state of a channel.
        expand: the scans have so many times the channels.
        d_conv: taps of the convolutions.
        dt_rank: rank of the projections that make dt.
    """

    def __init__(self, width: int, *, d_state: int, expand: int, d_conv: int, dt_rank: int) -> None:
        super().__init__()
        channels = expand * width
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.in_proj = nn.Linear(width, 2 * channels, bias=False)
        self.scan = DirectionalScan(channels, d_state=d_state, d_conv=d_conv, dt_rank=dt_rank)
        self.scan_backward = DirectionalScan(channels, d_state=d_state, d_conv=d_conv, dt_rank=dt_rank)
        self.out_proj = nn.Linear(channels, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply the block.

        Args:
            tokens: (batch, length, width).

        Returns:
            As tokens.
        """
        x, gate = self.in_proj(self.norm(tokens)).chunk(2, dim=-1)
        x = x.contiguous()
        both = self.scan(x) + self.scan_backward(x, reverse=True)
        return tokens + self.out_proj(0.5 * both * F.silu(gate))


def embed_patches(images: Tensor, projection: nn.Conv2d) -> Tensor:
    """A convolution whose stride is its kernel, as one matrix product.

    oneDNN's bfloat16 convolution of 4 channels with a 16 x 16 kernel and stride gives other numbers on processors with
    AMX (seen with PyTorch 2.11); the product is right everywhere.

    Args:
        images: (batch, channels, S, S).
        projection: with equal kernel and stride, without padding.

    Returns:
        (batch, width, S / stride, S / stride).
    """
    rows, columns = projection.kernel_size
    x = images.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # (batch, channels, H, rows, W, columns)
    x = x.permute(0, 2, 4, 1, 3, 5).flatten(3)
    return F.linear(x, projection.weight.flatten(1), projection.bias).movedim(3, 1)


class VisionMamba(nn.Module):
    """Image and mask to a dense map on the foundation's grid.

    The defaults are Vim-Ti: 7,752,576 parameters for 1024 pixels and 4 channels.

    Args:
        width: channels of the tokens.
        depth: blocks.
        patch: side of a patch in pixels.
        grid: side of the learned position embedding; another grid interpolates it.
        in_channels: of image and mask together.
        d_state: numbers of the state of a channel.
        expand: the scans have so many times the channels.
        d_conv: taps of the convolutions.
        dt_rank: rank of the projections that make dt; None for a sixteenth of the width.
    """

    def __init__(
        self,
        *,
        width: int = 192,
        depth: int = 24,
        patch: int = 16,
        grid: int = 64,
        in_channels: int = 4,
        d_state: int = 16,
        expand: int = 2,
        d_conv: int = 4,
        dt_rank: int | None = None,
    ) -> None:
        super().__init__()
        dt_rank = dt_rank or math.ceil(width / 16)
        self.width, self.patch = width, patch
        self.patch_embed = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, grid, grid), std=0.02))
        blocks = [
            VisionMambaBlock(width, d_state=d_state, expand=expand, d_conv=d_conv, dt_rank=dt_rank)
            for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        for block in blocks:  # the residual stream sums one such output per block
            nn.init.normal_(block.in_proj.weight, std=0.02)
            nn.init.normal_(block.out_proj.weight, std=0.02 / math.sqrt(depth))

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Encode images, each with one mask (eq. 3).

        Args:
            images: (batch, 3, S, S), normalised.
            masks: (batch, S, S) in [0, 1].

        Returns:
            (batch, width, H, W), V.

        Raises:
            ValueError: when there is not one mask of its size for each image.
        """
        if images.shape[0] != masks.shape[0] or images.shape[-2:] != masks.shape[-2:]:
            raise ValueError(
                f"images {tuple(images.shape)} and masks {tuple(masks.shape)}: expected one mask of its size an image"
            )
        x = embed_patches(torch.cat([images, 2 * masks[:, None].to(images.dtype) - 1], 1), self.patch_embed)
        height, width = x.shape[-2:]
        position: Tensor = self.pos_embed
        if position.shape[-2:] != (height, width):
            position = F.interpolate(position, (height, width), mode="bicubic", align_corners=False)
        tokens = (x + position).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens).transpose(1, 2).unflatten(2, (height, width))
