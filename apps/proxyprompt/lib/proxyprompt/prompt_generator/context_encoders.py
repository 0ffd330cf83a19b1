"""What may stand in the place of Vision Mamba in the first selection step (paper, table 13), and nothing at all.

All take a support image and one mask, from scratch, to a map on the foundation's grid, at stride 16.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vision_mamba import VisionMamba, embed_patches

VIM, VIT, RESNET, NONE = "vim", "vit", "resnet50", "none"
CONTEXTS = (VIM, VIT, RESNET, NONE)
PAPER_SIZES = {VIM: {"width": 192, "depth": 24}, VIT: {"width": 768, "depth": 12}}
"""The options of :class:`proxyprompt.prompt_generator.generator.GeneratorConfig` that make 7.9 and 89 million
parameters at 1024 pixels; ResNet-50 without its last stage has one size, 8.5 million."""


class ContextViT(nn.Module):
    """A plain Vision Transformer without a class token; normalisation first, as in ViT.

    Args:
        width: channels of its tokens.
        depth: blocks.
        patch: side of a patch in pixels.
        grid: side of the learned position embedding; others interpolate it.

    Attributes:
        width: channels of what it returns.
    """

    def __init__(self, *, width: int, depth: int, patch: int, grid: int) -> None:
        super().__init__()
        self.width, heads = width, max(1, width // 64)
        self.patch_embed = nn.Conv2d(4, width, patch, stride=patch)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, grid, grid), std=0.02))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Encode images, each with one mask.

        Args:
            images: (batch, 3, S, S), normalised.
            masks: (batch, S, S) in [0, 1].

        Returns:
            (batch, width, H, W).
        """
        x = embed_patches(_together(images, masks), self.patch_embed)
        position = F.interpolate(self.pos_embed, x.shape[-2:], mode="bicubic", align_corners=False)
        return self.blocks((x + position).flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[-2:])


class ContextResNet(nn.Module):
    """ResNet-50 without its last stage, so at stride 16; groups are normalised, since a step holds few images.

    Attributes:
        width: channels of what it returns.
    """

    width = 1024

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50  # slow to import, and only an ablation needs it

        whole = resnet50(weights=None, norm_layer=partial(nn.GroupNorm, 32))
        enter = nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False)
        self.stages = nn.Sequential(
            enter, whole.bn1, whole.relu, whole.maxpool, whole.layer1, whole.layer2, whole.layer3
        )

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """As :meth:`ContextViT.forward`.

        Args:
            images: (batch, 3, S, S), normalised.
            masks: (batch, S, S) in [0, 1].

        Returns:
            (batch, width, H, W).
        """
        return self.stages(_together(images, masks))


class MaskAlone(nn.Module):
    """No encoder: the share of each position that the mask covers, from -1 to 1.

    Args:
        patch: side of a position in pixels.

    Attributes:
        width: channels of what it returns.
    """

    width = 1

    def __init__(self, *, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """As :meth:`ContextViT.forward`.

        Args:
            images: (batch, 3, S, S), normalised.
            masks: (batch, S, S) in [0, 1].

        Returns:
            (batch, width, H, W).
        """
        return F.avg_pool2d(2 * masks[:, None].to(images.dtype) - 1, self.patch)


ContextEncoder = VisionMamba | ContextViT | ContextResNet | MaskAlone
"""All take (images, masks) and give (batch, width, H, W)."""


def build_context_encoder(
    name: str, *, width: int, depth: int, patch: int, grid: int, d_state: int = 16
) -> ContextEncoder:
    """An encoder of support pairs with random weights.

    Args:
        name: one of CONTEXTS.
        width: channels of its tokens, where it has any choice.
        depth: blocks, where it has any choice.
        patch: side of a patch in pixels.
        grid: side of the learned position embedding.
        d_state: numbers of the state of a channel, of Vision Mamba.

    Returns:
        The encoder; its ``width`` says how many channels it gives.

    Raises:
        ValueError: for another name.
    """
    if name == VIM:
        return VisionMamba(width=width, depth=depth, patch=patch, grid=grid, in_channels=4, d_state=d_state)
    if name == VIT:
        return ContextViT(width=width, depth=depth, patch=patch, grid=grid)
    if name == RESNET:
        return ContextResNet()
    if name == NONE:
        return MaskAlone(patch=patch)
    raise ValueError(f"unknown context encoder {name!r}; expected one of {', '.join(CONTEXTS)}")


def _together(images: Tensor, masks: Tensor) -> Tensor:
    return torch.cat([images, 2 * masks[:, None].to(images.dtype) - 1], 1)
