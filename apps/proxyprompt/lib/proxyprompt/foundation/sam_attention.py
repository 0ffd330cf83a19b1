"""Attention of SAM's image encoder on a CPU: a few rows of the map at a time.

The ``segment_anything`` package makes the whole map, several times over: at 64 x 64 positions of ViT-B 800 MB each
time, which the system must clear first. That took longer than all of the encoder's arithmetic.
"""

from __future__ import annotations

import torch
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn

_AT_ONCE = 1 << 22  # numbers of the map, at least a row: the memory of one block serves the next


class RowsOfAttention(Attention):
    """The package's attention with relative positions (weights and results are the same)."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend within a map.

        Args:
            x: (B, H, W, C).

        Returns:
            As x.
        """
        if not self.use_rel_pos or x.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(x)
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).unflatten(3, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)
        query, keys, values = qkv.flatten(1, 2).contiguous()  # (B * heads, H, W, c) each
        keys, values = keys.flatten(1, 2).mT, values.flatten(1, 2)
        of_rows = torch.einsum("bhwc,hkc->bhwk", query, get_rel_pos(height, height, self.rel_pos_h))
        of_columns = torch.einsum("bhwc,wkc->bhwk", query, get_rel_pos(width, width, self.rel_pos_w))
        rows = max(1, _AT_ONCE // (len(query) * width * height * width))
        made = []
        for some in (slice(first, first + rows) for first in range(0, height, rows)):
            bias = of_rows[:, some, :, :, None] + of_columns[:, some, :, None, :]
            scores = torch.baddbmm(bias.flatten(3).flatten(1, 2), query[:, some].flatten(1, 2), keys, alpha=self.scale)
            made.append(scores.softmax(2) @ values)
        found = torch.cat(made, 1).unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)
        return self.proj(found.unflatten(1, (height, width)))


def attend_by_rows(encoder: nn.Module) -> None:
    """Let all attention of an image encoder of the package run by :class:`RowsOfAttention`.

    Args:
        encoder: is changed in place.
    """
    for module in encoder.modules():
        if type(module) is Attention:
            module.__class__ = RowsOfAttention
