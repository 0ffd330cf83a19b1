"""A second network in cascade: a U-Net that draws a mask again, seeing the image and what was made of it so far.

The supports decide what is segmented, the network only how it is drawn: what goes in is a mask, so one network serves
every structure that it was trained on ("nnU-Net", Isensee et al., 2021, calls such a pair a cascade). Nothing ships
with one; :mod:`lib.training.cascade_model` trains it on the studies of a site, in minutes on a CPU, while everything
before it stays as it is. Not part of the paper.

Axes: ``B`` images, ``K`` supports, ``N`` objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from lib.dice import hard_dice

SIZES = (96, 160, 256)
_LEVELS = 5
_SURE = 10.0  # a guess's logits go on and on
_MIXED = 3.0  # as sure as a guess may be against what the network draws: a speck of it must not outweigh that
_UNIT = 0.2  # brings them to the size of an image's values
_SHARE = 0.5  # of the guess, in what the network draws: it starts from there, and is free to leave it
_FEW = 4  # groups from which half of the mask is what the network draws
_KEPT = 0.95  # mean Dice of masks that were laid on the grid and back, for a grid that is fine enough
_MAY_LOSE = 0.06  # mean Dice on a few supports: where a network helps its targets by 0.1, it may seem to harm them
_MAY_LOSE_FLATTERED = 0.15  # where the supports themselves helped to make the guess that it is compared with


@dataclass(frozen=True)
class CascadeConfig:
    """size: pixels along each side of what the network sees. width: channels of its first level. share: of what the
    network draws, in the mask; the rest is the guess, which keeps one that saw few patients in check."""

    size: int = SIZES[0]
    width: int = 16
    share: float = 0.75

    @classmethod
    def suited(cls, masks: Iterable[Tensor], groups: int) -> CascadeConfig:
        """For structures such as those of ``masks``, see :func:`suited_size`, of so many patients or cases."""
        return cls(size=suited_size(masks), share=groups / (groups + _FEW))

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)


class Cascade(nn.Module):
    """MONAI's DynUNet on images with one more channel, the guess. Not used until it is :attr:`trained`."""

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__()
        self.config = config
        self.network = DynUNet(
            spatial_dims=2,
            in_channels=4,
            out_channels=1,
            kernel_size=[3] * _LEVELS,
            strides=[1] + [2] * (_LEVELS - 1),
            upsample_kernel_size=[2] * (_LEVELS - 1),
            filters=[config.width * 2**level for level in range(_LEVELS)],
            norm_name=("instance", {"affine": True}),
        )
        nn.init.zeros_(self._last.bias)
        self.to(memory_format=torch.channels_last)

    @property
    def _last(self) -> nn.Conv2d:
        return self.network.output_block.conv.conv

    @property
    def trained(self) -> bool:
        """Whether any step was made: the first one changes the last layer's bias, which starts at zero."""
        return bool(self._last.bias.any())

    def forward(self, pictures: Tensor, guesses: Tensor) -> Tensor:
        """pictures: (B, 3, h, w), of :func:`seen`, or parts. guesses: (B, 1, h, w) logits. Returns logits as these."""
        guesses = guesses.float().clamp(-_SURE, _SURE)
        both = torch.cat([pictures, guesses * _UNIT], 1)
        return self.network(both.contiguous(memory_format=torch.channels_last)) + _SHARE * guesses

    def redraw(self, pictures: Tensor, guesses: Tensor) -> Tensor:
        """pictures: (B, 3, h', w'). guesses: (B, N, h, w) logits, of any size. Returns logits as ``guesses``."""
        objects, guesses = guesses.shape[1], guesses.clamp(-_SURE, _SURE)
        pictures = seen(pictures, self.config.size).repeat_interleave(objects, 0)
        drawn = self(pictures, laid(guesses, self.config.size).flatten(0, 1)[:, None])
        drawn = drawn.unflatten(0, (-1, objects))[:, :, 0].to(guesses.dtype)
        drawn = F.interpolate(drawn, guesses.shape[-2:], mode="bilinear", align_corners=False)
        return torch.lerp(guesses.clamp(-_MIXED, _MIXED), drawn, self.config.share)

    def helps(self, pictures: Tensor, guesses: Tensor, masks: Tensor, *, compared: Tensor, honest: Tensor) -> Tensor:
        """For which objects the supports' own masks allow that it draws them again: (N,) bool.

        A version was judged before it serves, but not on what it was never trained for, where it draws something else
        and the supports show it: -0.1 to -0.7 of Dice on discs, cups, vessels and lesions after a training on heads and
        symphyses; on other patients' heads and symphyses -0.03 to +0.08.

        pictures: of the K supports. guesses: (K, N, h, w) logits. masks: (K, N, S, S) in [0, 1]. compared: (K, N) bool.
        honest: (N,) bool, False where the supports themselves went into the guesses, which flatters these.
        """
        if not self.trained or not compared.any():
            return torch.zeros_like(honest)
        truth = F.adaptive_avg_pool2d(masks.float(), guesses.shape[-2:]) > 0.5
        before, after = (hard_dice(drawn > 0, truth) for drawn in (guesses, self.redraw(pictures, guesses)))
        gain = ((after - before) * compared).sum(0) / compared.sum(0).clamp_min(1)
        return compared.any(0) & (gain > torch.where(honest, -_MAY_LOSE, -_MAY_LOSE_FLATTERED))


def seen(pictures: Tensor, size: int) -> Tensor:
    """What the network sees of (B, 3, h, w) on any scale: (B, 3, size, size), each channel of mean 0 and variance 1."""
    pictures = laid(pictures, size)
    pictures = pictures - pictures.mean((2, 3), keepdim=True)
    return pictures / (pictures.square().mean((2, 3), keepdim=True).sqrt() + 1e-3)


def laid(x: Tensor, size: int) -> Tensor:
    """(B, c, h, w) as (B, c, size, size) float32."""
    return F.interpolate(x.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)


def suited_size(masks: Iterable[Tensor]) -> int:
    """The smallest of SIZES on which structures keep their shape: vessels need a finer grid than organs.

    masks: (N, h, w) each, in [0, 1]; those that show nothing are not looked at.
    """
    shown = [mask[None, None].float() for masks_ in masks for mask in masks_ if (mask > 0.5).any()]
    for size in SIZES[:-1]:
        kept = []
        for mask in shown:
            back = F.interpolate(laid(mask, size), mask.shape[-2:], mode="bilinear", align_corners=False)
            kept.append(hard_dice(back > 0.5, mask > 0.5))
        if not kept or torch.cat(kept).mean() >= _KEPT:
            return size
    return SIZES[-1]
