"""Contextual Colorization Module (paper, section 3.2, eqs. 8 to 11): dual-reverse cross-attention.

The paper names neither the projection that halves the positions, nor positions on queries and keys, heads, or the width
of the feed-forward layers; here they are a strided convolution, a sine encoding, 8 and 4C.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@cache
@torch.inference_mode(False)  # what is kept may be trained with
def sine_position(height: int, width: int, dim: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Sine encoding of the positions of a grid.

    Positions are relative to the grid, so that grids of any resolution share one encoding.

    Args:
        height: rows of the grid.
        width: its columns.
        dim: channels, a multiple of 4; the first half is for rows.
        device: of the result.

    Returns:
        (height * width, dim) float32; kept, so not to be changed.

    Raises:
        ValueError: when dim is no multiple of 4.
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


class CrossAttention(nn.Module):
    """Multi-head attention from one sequence to another; its parameters are those of ``nn.MultiheadAttention``.

    That module works along the length first, which turns its projections into one product for every position.

    Args:
        dim: channels C.
        heads: that share them.

    Raises:
        ValueError: when dim is no multiple of heads.
    """

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels in {heads} heads: expected a multiple of the heads")
        self.embed_dim, self.num_heads = dim, heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * dim, dim)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from query to key, and read value.

        Args:
            query: (batch, positions, C), contiguous.
            key: (batch, other positions, C), contiguous.
            value: as key, of the same positions.

        Returns:
            As query.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ReadAndRefine(nn.Module):
    """A cross-attention and a feed-forward layer, each added to what comes in: one direction of a block.

    Args:
        dim: channels C.
        heads: of the cross-attention.
        norm_first: normalise what each of the two reads and leave the sum alone, so that what comes in also comes out;
            False is the paper's Add & Norm (eqs. 8 to 11), in which a sum of many blocks is easily forgotten.
    """

    def __init__(self, dim: int, *, heads: int, norm_first: bool = False) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, heads=heads)
        self.norm1 = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.norm2 = nn.LayerNorm(dim)
        self.norm_source = nn.LayerNorm(dim) if norm_first else None

    def forward(self, x: Tensor, source: Tensor, position: Tensor) -> Tensor:
        """X reads from source (eqs. 8 and 9 for the target, 10 and 11 for the context).

        Args:
            x: (batch, positions, C).
            source: as x.
            position: (positions, C), added to queries and keys.

        Returns:
            As x.
        """
        if self.norm_source is None:
            x = self.norm1(x + self.attention(x + position, source + position, source))
            return self.norm2(x + self.feed_forward(x))
        source = self.norm_source(source)
        x = x + self.attention(self.norm1(x) + position, source + position, source)
        return x + self.feed_forward(self.norm2(x))


class ColorizationBlock(nn.Module):
    """Project both, let the target read the context, then the context read the colorized target.

    The projection is a strided convolution over rows or over columns: it keeps the grid and fits any resolution.

    Args:
        dim: channels C.
        stride: of the projection over rows and columns; (2, 1) and (1, 2) halve the positions, (1, 1) leaves them.
        heads: of the cross-attentions.
        norm_first: see :class:`ReadAndRefine`.
    """

    def __init__(self, dim: int, *, stride: tuple[int, int], heads: int, norm_first: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.project_target = nn.Conv2d(dim, dim, stride, stride)
        self.project_context = nn.Conv2d(dim, dim, stride, stride)
        self.colour = ReadAndRefine(dim, heads=heads, norm_first=norm_first)
        self.reverse = ReadAndRefine(dim, heads=heads, norm_first=norm_first)

    def forward(self, target: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """One block.

        Args:
            target: (B, C, h, w), or (B * N, C, h, w) after the first block.
            context: (B * N, C, h, w).

        Returns:
            Both, (B * N, C, h/2, w), (B * N, C, h, w/2), or (B * N, C, h, w).
        """
        dim, height, width = target.shape[1:]
        (rows, columns), grid = self.stride, (height // self.stride[0], width // self.stride[1])
        target, context = (
            _merge(x, projection, rows=rows, columns=columns)
            for x, projection in ((target, self.project_target), (context, self.project_context))
        )
        target = target[:, None].expand(-1, len(context) // len(target), -1, -1).flatten(0, 1)
        position = sine_position(*grid, dim, device=target.device).to(target.dtype)
        target = self.colour(target, context, position)
        context = self.reverse(context, target, position)
        return target.transpose(1, 2).unflatten(2, grid), context.transpose(1, 2).unflatten(2, grid)


def _merge(x: Tensor, projection: nn.Conv2d, *, rows: int, columns: int) -> Tensor:
    """A convolution whose stride is its kernel, as one matrix product: (B, C, h, w) to the tokens (B, h'w', C)."""
    x = x.permute(0, 2, 3, 1).unflatten(2, (-1, columns)).unflatten(1, (-1, rows))  # (B, h', rows, w', columns, C)
    weight = projection.weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(x.transpose(2, 3).flatten(3).flatten(1, 2), weight, projection.bias)


class ContextualColorization(nn.Module):
    """Four blocks: the context embedding becomes the proxy prompt P (paper, section 3.2).

    Args:
        dim: channels C.
        heads: of the cross-attentions.
        halvings: how many of the blocks, the first ones, halve the positions; the paper's four leave a sixteenth.
        norm_first: see :class:`ReadAndRefine`; the sum is then normalised once, at the end.
    """

    def __init__(self, dim: int, *, heads: int = 8, halvings: int = 4, norm_first: bool = False) -> None:
        super().__init__()
        if halvings not in (0, 2, 4):
            raise ValueError(f"{halvings} halvings of the positions: expected 0, 2 or 4, rows and columns alike")
        self.halvings = halvings
        strides = [((2, 1), (1, 2))[i % 2] if i < halvings else (1, 1) for i in range(4)]
        self.blocks = nn.ModuleList(
            ColorizationBlock(dim, stride=stride, heads=heads, norm_first=norm_first) for stride in strides
        )
        self.norm = nn.LayerNorm(dim) if norm_first else None

    def forward(self, target: Tensor, context: Tensor) -> Tensor:
        """Let target and context read each other in four blocks.

        Args:
            target: (B, C, H, W), H and W multiples of 4.
            context: (B, N, C, H, W), E_ctx.

        Returns:
            (B, N, H*W/2**halvings, C), P.

        Raises:
            ValueError: when a side of the grid is no multiple of 4.
        """
        batch, objects, _, height, width = context.shape
        if height % 4 or width % 4:
            raise ValueError(f"embedding grid {height} x {width}: expected multiples of 4 (image sides in steps of 64)")
        context = context.flatten(0, 1)
        for block in self.blocks:
            target, context = block(target, context)
        tokens = context.flatten(2).transpose(1, 2)
        return (tokens if self.norm is None else self.norm(tokens)).unflatten(0, (batch, objects))
