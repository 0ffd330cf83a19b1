"""What a pixel looks like without any learning: smoothed values, edges, ridges and texture at several scales.

The filters of interactive pixel classification (ilastik: Berg et al., 2019), with the eigenvalues that tell vessels
(Frangi et al., "Multiscale vessel enhancement filtering", 1998). A small encoder trained on drawn images never learnt
to see thin vessels or the colour of a tissue; here they are plain. Not part of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from monai.networks.layers import gaussian_1d
from torch import Tensor

SCALES = (1.0, 2.0, 4.0, 8.0)  # standard deviations, in pixels of the picture
CONTRAST = 16.0  # of the neighbourhood that brightness is compared with
_NOISE = 0.1  # deviations of the picture: what the neighbourhood varies anyway
_GRAY = 0.01  # deviations: channels that differ by less are one
_FULL = 2.0  # larger standard deviations are those of a smaller picture
_BY_SCALE = 5
_COLOURS = 2 * len(SCALES)
OF_CHANNEL = 2 + _BY_SCALE * len(SCALES)
CHANNELS = 3 * OF_CHANNEL + _COLOURS
_LEAST = 0.02  # of a picture's own spread: what varies less is noise


def filter_responses(pictures: Tensor) -> Tensor:
    """pictures: (B, 3, h, w), on any scale. Returns (B, CHANNELS, h, w) float32, each of mean 0 and variance 1 or less
    over its picture, so that brightness and contrast of an image count for nothing.

    Of red, green and blue: the value, and the value compared with its surroundings; at each of SCALES the mean,
    gradient magnitude, both eigenvalues of the Hessian, standard deviation. Of two opponent colours: the means.
    """
    gray, chunks = distinct_responses(pictures)
    return all_channels(torch.cat(list(chunks), 1), gray)


def distinct_responses(pictures: Tensor) -> tuple[bool, Iterator[Tensor]]:
    """As :func:`filter_responses`, some channels (B, c, h, w) at a time: all of them never lie in memory together.

    Whether the pictures are gray: then the channels are those of red alone, :data:`OF_CHANNEL`.
    """
    x = _standardised(pictures.float(), 1e-3)
    gray = bool((x - x[:, :1]).abs().amax() < _GRAY)
    return gray, _chunks(x, gray)


def all_channels(distinct: Tensor, gray: bool) -> Tensor:
    """(B, CHANNELS, h, w) of what :func:`distinct_responses` gives, or of some of its pixels."""
    if not gray:
        return distinct
    nothing = distinct.new_zeros(len(distinct), _COLOURS, *distinct.shape[-2:])
    return torch.cat([distinct, distinct, distinct, nothing], 1)


def distinct_weights(weights: Tensor, gray: bool) -> Tensor:
    """Weights of :func:`filter_responses`, (..., CHANNELS), as those of :func:`distinct_responses`."""
    if not gray:
        return weights
    return sum(weights[..., : 3 * OF_CHANNEL].split(OF_CHANNEL, -1))


def _chunks(x: Tensor, gray: bool) -> Iterator[Tensor]:
    red, green, blue = x.split(1, 1)
    for channel in (red,) if gray else (red, green, blue):
        yield _standardised(_compared(channel))
        for scale in SCALES:
            yield _standardised(_at_scale(channel, scale))
    if not gray:
        opponents = torch.cat([red - green, (red + green) / 2 - blue], 1)
        for scale in SCALES:
            yield _standardised(blur(opponents, scale))


def _compared(x: Tensor) -> Tensor:
    """x: (B, 1, h, w). It, and how it compares with its surroundings: (B, 2, h, w)."""
    near = blur(torch.cat([x, x.square()], 1), CONTRAST)
    deviation = (near[:, 1:] - near[:, :1].square()).clamp_min(0).sqrt()
    return torch.cat([x, (x - near[:, :1]) / (deviation + _NOISE)], 1)


def _at_scale(x: Tensor, scale: float) -> Tensor:
    """x: (B, 1, h, w). _BY_SCALE responses, (B, _BY_SCALE, h, w), normalised for the scale."""
    size, (factor, scale) = x.shape[-2:], _grid(x.shape[-2:], scale)
    x = _shrunk(x, factor)
    mean = _blurred(x, scale)
    wide = _blurred(torch.cat([x, x.square()], 1), 2 * scale)
    deviation = (wide[:, 1:] - wide[:, :1].square()).clamp_min(0).sqrt()
    return enlarge(torch.cat([mean, _structure(mean, scale), deviation], 1), size)


def _structure(mean: Tensor, scale: float) -> Tensor:
    """Gradient magnitude and both eigenvalues of the Hessian, (B, 3, h, w), of a smoothed (B, 1, h, w)."""
    across, down = _slopes(mean)
    xx, xy = _slopes(across)
    _, yy = _slopes(down)
    middle, half = (xx + yy) / 2, ((xx - yy).square() / 4 + xy.square()).sqrt()
    steep = (across.square() + down.square()).sqrt()
    return torch.cat([scale * steep, scale**2 * (middle + half), scale**2 * (middle - half)], 1)


def blur(x: Tensor, scale: float) -> Tensor:
    """Gaussian mean of standard deviation ``scale``, (B, c, h, w) as x; wide ones on a smaller grid."""
    factor, scale = _grid(x.shape[-2:], scale)
    return enlarge(_blurred(_shrunk(x, factor), scale), x.shape[-2:])


def _blurred(x: Tensor, scale: float) -> Tensor:
    down, across = (_smoothing(side, scale, x.device) for side in x.shape[-2:])
    return down @ x @ across.mT


@cache
@torch.inference_mode(False)  # what is kept may be trained with
def _smoothing(side: int, scale: float, device: torch.device) -> Tensor:
    """(side, side), the Gaussian mean of rows or columns as a matrix, the border repeated: one product with it is
    faster than a convolution of so few channels."""
    kernel = gaussian_1d(torch.tensor(scale), truncated=3.0)
    reach = len(kernel) // 2
    each = F.pad(torch.eye(side)[:, None], (reach, reach), mode="replicate")
    return F.conv1d(each, kernel[None, None])[:, 0].mT.contiguous().to(device)


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences across and down; at the border as if it went on."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2, (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2


def _grid(size: torch.Size, scale: float) -> tuple[int, float]:
    """How many pixels of pictures of ``size`` become one, so that ``scale`` is about _FULL; and what it is there."""
    factor = min(2 ** max(0, math.floor(math.log2(scale / _FULL))), *size)
    return factor, scale / factor


def _shrunk(x: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(x, factor) if factor > 1 else x


def enlarge(x: Tensor, size: torch.Size) -> Tensor:
    """x, (B, c, h, w), interpolated to ``size``, (H, W)."""
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


def _standardised(x: Tensor, least: float = _LEAST) -> Tensor:
    x = x - x.mean((2, 3), keepdim=True)
    deviation = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True) / math.sqrt(x[0, 0].numel())
    return x / (deviation + least)
