"""Contextual Colorization Module (paper, section 3.2, eqs. 8 to 11): dual-reverse cross-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sine_position(height: int, width: int, dim: int, *, device: torch.device | str = "cpu") -> Tensor:
    """2-D sine position encoding, (height * width, dim), for dim in steps of 4; the first half is for rows.

    Positions are relative to the grid, so that grids of any resolution share one encoding.
    """
    if dim % 4:
        raise ValueError(f"sine position of {dim} channels: expected a multiple of 4")
    frequency = 10000 ** (-torch.arange(dim // 4, device=device, dtype=torch.float32) / (dim // 4))

    def encode(count: int) -> Tensor:
        position = (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count * 2 * torch.pi
        angle = position[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], 1)

    rows = encode(height)[:, None].expand(-1, width, -1)
    columns = encode(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)


class ReadAndRefine(nn.Module):
    """Add & Norm of a cross-attention, then Add & Norm of a feed-forward layer: one direction of a block."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, source: Tensor, position: Tensor) -> Tensor:
        """x reads from source; both (batch, positions, C), position (positions, C) on queries and keys."""
        read, _ = self.attention(x + position, source + position, source, need_weights=False)
        x = self.norm1(x + read)
        return self.norm2(x + self.feed_forward(x))


class ColorizationBlock(nn.Module):
    """Halve the positions of both, let the target read the context, then the context read the coloured target.

    The projection is a strided convolution over rows or over columns: it keeps the grid and fits any resolution.
    """

    def __init__(self, dim: int, *, over_rows: bool, heads: int) -> None:
        super().__init__()
        stride = (2, 1) if over_rows else (1, 2)
        self.project_target = nn.Conv2d(dim, dim, stride, stride)
        self.project_context = nn.Conv2d(dim, dim, stride, stride)
        self.colour = ReadAndRefine(dim, heads=heads)
        self.reverse = ReadAndRefine(dim, heads=heads)

    def forward(self, target: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """target, context: (batch, C, h, w) -> both (batch, C, h/2, w) or (batch, C, h, w/2)."""
        target, context = self.project_target(target), self.project_context(context)
        dim, grid = target.shape[1], target.shape[-2:]
        position = sine_position(*grid, dim, device=target.device).to(target.dtype)
        target, context = target.flatten(2).transpose(1, 2), context.flatten(2).transpose(1, 2)
        target = self.colour(target, context, position)
        context = self.reverse(context, target, position)
        return tuple(x.transpose(1, 2).unflatten(2, grid) for x in (target, context))


class ContextualColorization(nn.Module):
    """Four blocks: the context embedding becomes the proxy prompt, a sixteenth of the positions."""

    def __init__(self, dim: int, *, heads: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ColorizationBlock(dim, over_rows=i % 2 == 0, heads=heads) for i in range(4))

    def forward(self, target: Tensor, context: Tensor) -> Tensor:
        """target: (B, C, H, W). context: (B, N, C, H, W). Returns P: (B, N, H*W/16, C). H and W: multiples of 4."""
        batch, objects, _, height, width = context.shape
        if height % 4 or width % 4:
            raise ValueError(f"embedding grid {height} x {width}: expected multiples of 4 (image sides in steps of 64)")
        target = target[:, None].expand(-1, objects, -1, -1, -1).flatten(0, 1)
        context = context.flatten(0, 1)
        for block in self.blocks:
            target, context = block(target, context)
        return context.flatten(2).transpose(1, 2).unflatten(0, (batch, objects))
