"""Where a target looks in its supports: selective maps as heat over support images (Fig. 5 and 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor
from torch.nn import functional as F

from proxyprompt.evaluation.drawing import COLOURS, outline, save, show
from proxyprompt.evaluation.scoring import image_difference
from proxyprompt.metrics.segmentation import overlap
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.prompt_generator.contextual_selection import selective_map
from proxyprompt.training.episodes import Sample, prepare


@dataclass(frozen=True, eq=False)
class Shown:
    """An image and one structure on it. image: (3, h, w) in [0, 1]. mask: (h, w) bool."""

    name: str
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class Looked:
    """What came of one support. heat: (h, w) on the support, 1 at its highest: how much the target's positions inside
    the structure take from there. drawn: (h, w) bool on the target. mse: see ``image_difference``.
    """

    support: Shown
    heat: np.ndarray
    drawn: np.ndarray
    dice: float
    mse: float


@torch.inference_mode()
def look(segmenter: Segmenter, target: Shown, support: Shown) -> Looked:
    """The target segmented from this support alone."""
    foundation = segmenter.foundation
    samples = [_sample(segmenter, shown) for shown in (support, target)]
    features = [segmenter.encode(sample.image[None]) for sample in samples]
    masks = samples[0].masks[None]
    memory = segmenter.encode_support(
        features[0],
        segmenter.encode_pair(samples[0].image[None], masks),
        torch.ones(1, 1, dtype=torch.bool, device=masks.device),
    )
    decoded = segmenter.segment(features[1], memory)
    logits = foundation.postprocess(decoded.mask_logits, samples[1].geometry)[0, 0]
    drawn = (logits > 0).cpu().numpy()
    grid = features[1].embedding.shape[-2:]
    inside = F.adaptive_max_pool2d(samples[1].masks[None], grid).flatten() > 0.5
    taken = selective_map(features[1].embedding.flatten(2), memory.keys, memory.valid[:, 0])[0, :, inside].mean(1)
    heat = _on_image(taken.unflatten(0, grid), segmenter, samples[0])
    return Looked(support, heat, drawn, overlap(drawn, target.mask).dice, image_difference(support.image, target.image))


def draw_maps(segmenter: Segmenter, target: Shown, supports: Sequence[Shown], path: Path) -> list[Looked]:
    """One column a support, after the target: the support with its mask, the heat on it, the target's result."""
    looked = [look(segmenter, target, support) for support in supports]
    size = (2.4 * (1 + len(looked)), 7.6)
    figure, axes = plt.subplots(3, 1 + len(looked), figsize=size, squeeze=False, layout="constrained")
    show(axes[0, 0], target.image)
    outline(axes[0, 0], target.mask, COLOURS[3])
    axes[0, 0].set_title(f"target {target.name}", fontsize=8)
    for axis in axes[1:, 0]:
        axis.set_axis_off()
    for column, found in zip(axes.T[1:], looked, strict=True):
        show(column[0], found.support.image)
        outline(column[0], found.support.mask, COLOURS[0])
        column[0].set_title(f"{found.support.name}, MSE {found.mse:.0f}", fontsize=8)
        show(column[1], found.support.image)
        column[1].imshow(found.heat, cmap="jet", alpha=0.5, vmin=0, vmax=1)
        column[1].set_title("selective map", fontsize=8)
        show(column[2], target.image)
        outline(column[2], target.mask, COLOURS[3])
        outline(column[2], found.drawn, COLOURS[1])
        column[2].set_title(f"result, Dice {found.dice:.2f}", fontsize=8)
    save(figure, path, dpi=90)
    return looked


def _sample(segmenter: Segmenter, shown: Shown) -> Sample:
    image, mask = torch.from_numpy(shown.image), torch.from_numpy(shown.mask)[None].float()
    return prepare(image, mask, segmenter.foundation, key=(shown.name, 0, 0))


def _on_image(grid: Tensor, segmenter: Segmenter, sample: Sample) -> np.ndarray:
    """(H, W) -> (h, w) of the sample's image, scaled to 1."""
    quarter = segmenter.foundation.image_size // 4
    fine = F.interpolate(grid[None, None].float(), (quarter, quarter), mode="bilinear", align_corners=False)
    fine = segmenter.foundation.postprocess(fine, sample.geometry)[0, 0].cpu().numpy()
    return fine / max(1e-12, float(fine.max()))
