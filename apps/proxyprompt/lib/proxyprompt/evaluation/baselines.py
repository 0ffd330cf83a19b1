"""Three ways to use a labelled support without any learning: what the method has to beat.

Axes: ``B`` targets, ``K`` supports, ``N`` objects, ``H x W`` the foundation's embedding grid. Support images may differ
in size from each other and from the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from proxyprompt.foundation.base import Foundation


def copy_support_mask(masks: Sequence[Tensor], size: tuple[int, int], *, valid: Tensor | None = None) -> Tensor:
    """The support's mask laid on the target as it is: (N, h, w) bool for targets of ``size`` (h, w).

    masks: K tensors (N, h_k, w_k), bool or in [0, 1]; each is stretched to ``size`` by nearest neighbour. A pixel is
    inside where more than half of the supports that declare the object have it inside. valid: (K, N) bool, which
    support declares which object; all of them without it. An object that no support declares comes back empty.
    """
    valid = _checked_valid(masks, valid)
    stretched = [F.interpolate(mask[None].float(), size=size, mode="nearest-exact")[0] > 0.5 for mask in masks]
    declared = valid.to(stretched[0].device)[:, :, None, None]
    votes = (torch.stack(stretched) & declared).sum(0)
    return 2 * votes > declared.sum(0)


@torch.inference_mode()
def nearest_feature(
    foundation: Foundation,
    targets: Tensor,
    images: Sequence[Tensor],
    masks: Sequence[Tensor],
    *,
    valid: Tensor | None = None,
    neighbours: int = 1,
) -> Tensor:
    """Every target position takes the label of the support position that looks most like it: (B, N, h, w) bool.

    Looks are the foundation's image embeddings, similarity is their cosine. targets: (B, 3, h, w) and images: K tensors
    (3, h_k, w_k), float in [0, 1]; masks: K tensors (N, h_k, w_k), bool or in [0, 1]; valid: (K, N) bool, as for
    :func:`copy_support_mask`. The label of a support position is the share of it that the mask covers; with more
    ``neighbours`` the mean over that many positions. The shares are interpolated from H x W to the target's pixels and
    cut at one half. Positions that hold nothing but padding are never chosen.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}, expected at least 1")
    keys, shares, usable = _embed_supports(foundation, images, masks, valid)

    def label(features: Tensor) -> Tensor:
        similarity = features.T @ keys
        labels = []
        for share, allowed in zip(shares, usable, strict=True):
            count = min(neighbours, int(allowed.sum()))
            if count == 0:
                labels.append(share.new_zeros(len(similarity)))
                continue
            found = similarity[:, allowed].topk(count, dim=1).indices
            labels.append(share[allowed][found].mean(1))
        return torch.stack(labels)

    return torch.cat([_label_target(foundation, target[None], label, cut=0.5) for target in targets])


@torch.inference_mode()
def prototype(
    foundation: Foundation,
    targets: Tensor,
    images: Sequence[Tensor],
    masks: Sequence[Tensor],
    *,
    valid: Tensor | None = None,
) -> Tensor:
    """Every target position goes to the nearer of two mean looks, the structure's and the rest's: (B, N, h, w) bool.

    The looks are means of the supports' unit embeddings, weighted by the share of each position that the mask covers
    and leaves over (masked average pooling); nearness is their cosine, compared at the target's pixels. Arguments as
    for :func:`nearest_feature`.
    """
    inside, outside = mean_looks(foundation, images, masks, valid=valid)
    undeclared = ~_checked_valid(masks, valid).any(0).to(inside.device)

    def label(features: Tensor) -> Tensor:
        return ((inside - outside) @ features).masked_fill(undeclared[:, None], -1)

    return torch.cat([_label_target(foundation, target[None], label, cut=0.0) for target in targets])


@torch.inference_mode()
def mean_looks(
    foundation: Foundation, images: Sequence[Tensor], masks: Sequence[Tensor], *, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean unit embedding of each structure and of the rest, (N, C) both and of unit length; zeros where there is
    nothing to look at. Arguments as for :func:`nearest_feature`.
    """
    keys, shares, usable = _embed_supports(foundation, images, masks, valid)
    return F.normalize((shares * usable) @ keys.T, dim=1), F.normalize(((1 - shares) * usable) @ keys.T, dim=1)


def _embed_supports(
    foundation: Foundation, images: Sequence[Tensor], masks: Sequence[Tensor], valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of all supports, M positions together: unit features (C, M); covered shares and usable positions (N, M)."""
    valid = _checked_valid(masks, valid)
    if len(images) != len(masks):
        raise ValueError(f"{len(images)} support images but {len(masks)} masks; give one mask tensor for each image")
    keys, shares, usable = [], [], []
    for image, mask, declared in zip(images, masks, valid, strict=True):
        features, share, holds_image = _embed_support(foundation, image, mask)
        keys.append(features)
        shares.append(share)
        usable.append(holds_image[None] & declared.to(holds_image.device)[:, None])
    return torch.cat(keys, dim=1), torch.cat(shares, dim=1), torch.cat(usable, dim=1)


def _embed_support(foundation: Foundation, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit features (C, H*W), covered shares (N, H*W), and which positions hold image (H*W,) of one support."""
    prepared, geometry = foundation.preprocess(image[None])
    embedding = foundation.encode(prepared).embedding[0]
    laid = foundation.preprocess_masks(mask[None].float(), geometry)[0]
    share = F.adaptive_avg_pool2d(laid, embedding.shape[-2:])
    padding = foundation.padding(geometry, 1, embedding.device)
    holds_image = torch.ones(embedding[0].shape, dtype=torch.bool, device=embedding.device)
    if padding is not None:
        holds_image = ~padding[0]
    return F.normalize(embedding.flatten(1).float(), dim=0), share.flatten(1), holds_image.flatten()


def _label_target(foundation: Foundation, target: Tensor, label: Callable[[Tensor], Tensor], *, cut: float) -> Tensor:
    """(1, N, h, w) bool for one target (1, 3, h, w). label: unit (C, H*W) -> (N, H*W), inside above ``cut``."""
    prepared, geometry = foundation.preprocess(target)
    embedding = foundation.encode(prepared).embedding[0]
    coarse = label(F.normalize(embedding.flatten(1).float(), dim=0)).unflatten(1, embedding.shape[-2:])
    quarter = foundation.image_size // 4
    fine = F.interpolate(coarse[None], size=(quarter, quarter), mode="bilinear", align_corners=False)
    return foundation.postprocess(fine - cut, geometry) > 0


def _checked_valid(masks: Sequence[Tensor], valid: Tensor | None) -> Tensor:
    """(K, N) bool; ValueError when there is no support or the counts disagree."""
    if not masks:
        raise ValueError("no support given: a baseline needs at least one labelled support")
    objects = {int(mask.shape[0]) for mask in masks}
    if len(objects) > 1 or any(mask.ndim != 3 for mask in masks):
        raise ValueError(f"support masks are {[tuple(m.shape) for m in masks]}; expected (N, h, w) with one N for all")
    expected = (len(masks), objects.pop())
    if valid is None:
        return torch.ones(expected, dtype=torch.bool)
    if tuple(valid.shape) != expected:
        raise ValueError(f"valid has shape {tuple(valid.shape)}, expected (supports, objects) = {expected}")
    return valid.bool()
