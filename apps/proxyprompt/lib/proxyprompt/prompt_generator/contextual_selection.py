"""Contextual Selective Module, second and third selection step (paper, section 3.1, eqs. 4 to 7).

Axes: ``E`` episodes (1, or one for each target), ``K`` support pairs, ``N`` objects, ``M = K * H * W`` support
positions. The first step is :mod:`proxyprompt.prompt_generator.vision_mamba`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SupportEncoding:
    """What is kept of a support set; depends on nothing of the target.

    Attributes:
        keys: (E, M, C), the support features.
        values: (E, N, M, C), A_agg.
        valid: (E, N, M) bool, False where a position is padding or its support does not declare the object.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor

    def only(self, index: int) -> SupportEncoding:
        """That of one object; from here on, objects know nothing of each other.

        Args:
            index: which of the N objects.

        Returns:
            The encoding with N = 1.
        """
        one = slice(index, index + 1)
        return SupportEncoding(self.keys, self.values[:, one], self.valid[:, one])

    def repeated(self, times: int) -> SupportEncoding:
        """Each set several times, one for each target; a set that stands alone is not copied.

        Args:
            times: how often.

        Returns:
            The encoding of E * times sets.
        """

        def repeat(x: Tensor) -> Tensor:
            return x.expand(times, *x.shape[1:]) if len(x) == 1 else x.repeat_interleave(times, 0)

        return SupportEncoding(*(repeat(getattr(self, part.name)) for part in fields(self)))


class ResBlock(nn.Module):
    """x + two 3 x 3 convolutions, activation first; a 1 x 1 convolution matches the channels where they differ.

    As in STCN, without the batch normalisation of the paper's source: a step holds few images.

    Args:
        in_channels: of what comes in.
        out_channels: of what comes out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: (batch, in_channels, h, w).

        Returns:
            (batch, out_channels, h, w).
        """
        return self.skip(x) + self.conv2(F.relu(self.conv1(F.relu(x))))


class ObjectCBAM(nn.Module):
    """Convolutional block attention whose channel descriptors are pooled over the objects too.

    Mean and maximum run over the positions of every declared object of one support image, so that objects exchange
    information for any N: our reading of the paper's "implicit inter-target communication", of which it says no more.
    With one object it is plain CBAM.

    Args:
        channels: of the maps.
        reduction: the channel descriptors pass through 1 / reduction of the channels, at least 8.
        kernel: side of the spatial attention's convolution, odd.
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.channel = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Weigh channels, then positions.

        Args:
            x: (P, N, C, H, W) for P support images.
            counts: (P, N, H, W) bool, the positions that may be pooled.

        Returns:
            As x.
        """
        weight = counts[:, :, None].to(x.dtype)
        mean = (x * weight).sum((1, 3, 4)) / weight.sum((1, 3, 4)).clamp_min(1)
        highest = x.masked_fill(~counts[:, :, None], -torch.inf).amax((1, 3, 4))
        highest = highest.masked_fill(~counts.flatten(1).any(1)[:, None], 0)
        gate = torch.sigmoid(self.channel(mean) + self.channel(highest))
        x = x * gate[:, None, :, None, None]
        pooled = torch.stack([x.mean(2), x.amax(2)], 2)
        return x * torch.sigmoid(self.spatial(pooled.flatten(0, 1))).unflatten(0, x.shape[:2])


class BridgeUnit(nn.Module):
    """Support features and context of every object to A_agg (eqs. 4 and 5).

    Eq. 5 hands the second block what CBAM returns; here, as in STCN's feature fusion, this is added to what CBAM read.

    Args:
        dim: channels C of the foundation.
        context_dim: channels D of the context encoder.
    """

    def __init__(self, *, dim: int, context_dim: int) -> None:
        super().__init__()
        self.block1 = ResBlock(dim + context_dim, dim)
        self.attention = ObjectCBAM(dim)
        self.block2 = ResBlock(dim, dim)

    def forward(self, features: Tensor, contexts: Tensor, counts: Tensor) -> Tensor:
        """Mix features and contexts, for P support images.

        Args:
            features: (P, C, H, W), F_sup.
            contexts: (P, N, D, H, W), V.
            counts: (P, N, H, W) bool, the positions that may be pooled.

        Returns:
            (P, N, C, H, W), A_agg.
        """
        pairs, objects = contexts.shape[:2]
        repeated = features[:, None].expand(-1, objects, -1, -1, -1)
        x = self.block1(torch.cat([repeated, contexts], 2).flatten(0, 1))
        attended = self.attention(x.unflatten(0, (pairs, objects)), counts).flatten(0, 1)
        return self.block2(x + attended).unflatten(0, (pairs, objects))


def selective_map(target: Tensor, keys: Tensor, valid: Tensor | None = None) -> Tensor:
    """The selective map itself, softmax over the support axis (eq. 6); for figures and as the reference.

    Args:
        target: (B, C, HW).
        keys: (E, M, C), E = 1 or B.
        valid: (E, M) bool, the positions that may be read from (the paper knows no padding, and no support
            that lacks an object); None for everywhere.

    Returns:
        (B, M, HW), columns that sum to 1.
    """
    scores = 2 * keys @ target - keys.square().sum(2)[..., None]
    scores = scores / math.sqrt(keys.shape[2])
    if valid is not None:
        scores = scores.masked_fill(~valid[..., None], -torch.inf)
    return scores.softmax(1)


def select_context(target: Tensor, memory: SupportEncoding) -> Tensor:
    """E_ctx = A_agg softmax(S) (eq. 7) as attention, without ever holding the map.

    The squares of the keys are a bias of the logits, and so is what no object may be read from. All is computed in
    float32 whatever autocast says: the logits are differences of large squares.

    Args:
        target: (B, C, H, W).
        memory: one support set, or one for each target.

    Returns:
        (B, N, C, H, W).

    Raises:
        ValueError: there are neither one support set nor as many as targets.
    """
    batch, dim, height, width = target.shape
    episodes, objects = memory.valid.shape[:2]
    if episodes not in (1, batch):
        raise ValueError(f"{batch} targets and {episodes} support sets: expected one set, or one for each target")
    with torch.autocast(target.device.type, enabled=False):
        keys, values, scale = memory.keys.float(), memory.values.float(), 1 / math.sqrt(dim)
        query = (target.float() * (2 * scale)).flatten(2).mT.contiguous()  # (B, HW, C)
        if episodes == 1:  # one support set for all targets: their positions are just more queries
            query = query.flatten(0, 1)[None]
        bias = (keys.square().sum(2) * -scale)[:, None, None].masked_fill(~memory.valid[:, :, None], -torch.inf)
        query, keys = (x[:, None].expand(-1, objects, -1, -1) for x in (query, keys))  # an object is a head
        context = F.scaled_dot_product_attention(query, keys, values, bias, scale=1.0)
    context = context.unflatten(2, (-1, height, width)).transpose(1, 2)  # (1, B, N, H, W, C) or (B, 1, N, H, W, C)
    return context.flatten(0, 1).permute(0, 1, 4, 2, 3)


def mean_context(target: Tensor, memory: SupportEncoding) -> Tensor:
    """E_ctx without a selection: the mean of A_agg over the valid positions, the same everywhere.

    Args:
        target: (B, C, H, W).
        memory: one support set, or one for each target.

    Returns:
        (B, N, C, H, W).
    """
    weight = memory.valid[..., None].to(memory.values.dtype)  # (E, N, M, 1)
    mean = (memory.values * weight).sum(2) / weight.sum(2)
    return mean[..., None, None].expand(len(target), -1, -1, *target.shape[-2:])
