"""Medical variations of a labelled slice, by MONAI: as another patient, machine or hand would show it."""

from __future__ import annotations

import math

import torch
from monai.transforms import (
    Compose,
    OneOf,
    Rand2DElastic,
    RandAdjustContrast,
    RandAffine,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)
from monai.utils import convert_to_tensor
from torch import Tensor

AFFINE = {"rotate_range": math.radians(15), "shear_range": (0.1, 0.1), "scale_range": (0.2, 0.2)}
SHIFT = 0.08  # of the image's sides
BENDING = (0.0, 0.02)  # of the shorter side, how far the control points move
CONTROL_POINTS = 4  # along the shorter side
ELASTIC_SHARE = 0.3  # bending costs three times as much as the affine part alone

INTENSITY = Compose(
    [
        RandBiasField(prob=0.2, coeff_range=(0.0, 0.3)),
        RandAdjustContrast(prob=0.5, gamma=(0.6, 1.6)),
        RandScaleIntensity(0.2, prob=0.5),
        RandShiftIntensity(0.1, prob=0.5),
        RandGaussianSmooth(prob=0.2, sigma_x=(0.25, 1.0), sigma_y=(0.25, 1.0)),
        RandGaussianNoise(prob=0.3, std=0.04),
    ]
)


def augment(image: Tensor, masks: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """One variation: the same deformation for both, then intensities of the image. The same seed gives the same one.

    image: (3, h, w) in [0, 1]; gray stays gray. masks: (N, h, w) in [0, 1], soft at the edges afterwards; both are zero
    where the deformation looks outside. No flips: left and right mean something in medicine.
    """
    channels = 1 if bool((image == image[:1]).all()) else 3
    both = torch.cat([image[:channels], masks.to(image.dtype)])
    deform = _deformation(*both.shape[-2:]).set_random_state(seed)
    both = convert_to_tensor(deform(both), track_meta=False)
    changed = convert_to_tensor(INTENSITY.set_random_state(seed)(both[:channels]), track_meta=False)
    return changed.to(image.dtype).clamp(0, 1).expand(3, -1, -1), both[channels:].clamp(0, 1)


def _deformation(height: int, width: int) -> OneOf:
    """MONAI's ranges are pixels, so they depend on the size."""
    side = min(height, width)
    options = {**AFFINE, "translate_range": (SHIFT * height, SHIFT * width), "padding_mode": "zeros", "prob": 0.95}
    bend = {"spacing": max(1.0, side / CONTROL_POINTS), "magnitude_range": tuple(share * side for share in BENDING)}
    return OneOf(
        [RandAffine(mode="bilinear", **options), Rand2DElastic(mode="bilinear", **bend, **options)],
        weights=[1 - ELASTIC_SHARE, ELASTIC_SHARE],
    )
