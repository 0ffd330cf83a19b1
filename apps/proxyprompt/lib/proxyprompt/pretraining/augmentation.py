"""Variations of a group: as another task would look (all members alike), and as another patient would (each)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tvf

from .randomness import chance, uniform

_BILINEAR = InterpolationMode.BILINEAR
_MEMBER = v2.Compose(
    [
        v2.RandomApply([v2.ElasticTransform(alpha=60.0, sigma=9.0)], p=0.15),
        v2.RandomAffine(10, translate=(0.06, 0.06), scale=(0.88, 1.14), shear=6, interpolation=_BILINEAR),
    ]
)
_FRAME = v2.RandomAffine(6, translate=(0.06, 0.06), scale=(0.92, 1.08), shear=4, interpolation=_BILINEAR)
_TASK = v2.Compose(
    [
        v2.RandomHorizontalFlip(0.5),
        v2.RandomVerticalFlip(0.3),
        v2.RandomApply([v2.RandomAffine(30, scale=(0.8, 1.3), interpolation=_BILINEAR)], p=0.4),
    ]
)
_TASK_COLOUR = v2.Compose(
    [
        v2.RandomGrayscale(0.15),
        v2.RandomInvert(0.12),
        v2.RandomApply([v2.ColorJitter(0.3, 0.3, 0.4, 0.25)], p=0.6),
        v2.RandomApply([v2.GaussianBlur(7, (0.5, 2.0))], p=0.15),
        v2.RandomEqualize(0.06),
        v2.RandomSolarize(128, 0.04),
    ]
)
_MEMBER_COLOUR = v2.Compose(
    [
        v2.RandomApply([v2.ColorJitter(0.15, 0.15, 0.1, 0.02)], p=0.7),
        v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.2))], p=0.15),
    ]
)


def augment_group(images: Tensor, labels: Tensor, *, clip: bool = False) -> tuple[Tensor, Tensor]:
    """One variation of a group; draws from torch's global random numbers.

    Args:
        images: (M, 3, S, S) uint8.
        labels: (M, L, S, S) uint8, any number of maps of small integers that move with the images.
        clip: members are frames of one clip: small movements only.

    Returns:
        Both, varied. Outside of the image both are 0.
    """
    moved = _FRAME if clip else _MEMBER
    pairs = [moved(image, tv_tensors.Mask(label)) for image, label in zip(images, labels, strict=True)]
    images, labels = torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])
    images, labels = _TASK(images, tv_tensors.Mask(labels))
    if chance(0.3):
        turns = int(uniform(0, 4))
        images, labels = images.rot90(turns, (-2, -1)), labels.rot90(turns, (-2, -1))
    images = _TASK_COLOUR(images)
    images = torch.stack([_vary(image) for image in images])
    return images, labels.as_subclass(Tensor)


def zoom(images: Tensor, labels: Tensor, focus: Tensor) -> tuple[Tensor, Tensor]:
    """Cut each member around a point of its structure, all to windows of the same share of the image.

    Args:
        images: (M, 3, S, S) uint8.
        labels: (M, L, S, S) uint8.
        focus: (M, S, S) bool, the structure; a member without it is cut anywhere.

    Returns:
        Both, S x S again.
    """
    size = images.shape[-1]
    side = int(size * uniform(0.35, 0.85))
    cut = []
    for image, label, inside in zip(images, labels, focus, strict=True):
        places = inside.nonzero()
        centre = places[int(uniform(0, len(places)))] if len(places) else torch.randint(0, size, (2,))
        top, left = (min(max(0, int(c) - int(side * uniform(0.25, 0.75))), size - side) for c in centre)
        window = (top, left, side, side, [size, size])
        cut.append(
            (
                tvf.resized_crop(image, *window, interpolation=_BILINEAR, antialias=True),
                tvf.resized_crop(tv_tensors.Mask(label), *window),
            )
        )
    return torch.stack([a for a, _ in cut]), torch.stack([b.as_subclass(Tensor) for _, b in cut])


def _vary(image: Tensor) -> Tensor:
    """Intensities of one member."""
    image = _MEMBER_COLOUR(image).float() / 255
    if chance(0.5):
        image = image.clamp_min(1e-3) ** uniform(0.75, 1.35)
    if chance(0.25):
        image = image + torch.randn_like(image[:1]) * uniform(0.01, 0.07)
    if chance(0.2):  # a bias field
        field = torch.nn.functional.interpolate(
            1 + 0.3 * torch.randn(1, 1, 3, 3), image.shape[-2:], mode="bicubic", align_corners=True
        )[0]
        image = image * field
    return (image * 255).round().clamp(0, 255).to(torch.uint8)
