"""The foundation without the proxy prompt: asked by clicks and boxes, or shown the supports as it can be (paper,
section 6).

*point*, *clicks-5*, *box* and *everything* are told where the structure is on the target itself, and on which slices:
they say what a user's prompt would give, and cannot be compared with methods that see only supports. *persam* and
*memory* see only those.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from proxyprompt.extensions.refinement import refined
from proxyprompt.foundation.base import Features, Foundation, FrameMemory, Geometry, MemoryBank, Points, Prompts
from proxyprompt.metrics.segmentation import overlap
from proxyprompt.supports.selection import Selection

from .baselines import mean_looks
from .episodes import Slices
from .methods import Fitted, Method

EVERYTHING_SIDE = 16
"""Clicks along each side of the image for *everything*; SAM's own generator takes 32."""
CLICKS = 5
_AT_ONCE = 64  # of these clicks
_SURE = 10.0  # a mask as logits, the way SAM 2 takes one for its output


class FoundationMethod(Method):
    """Common to all: one slice at a time through one foundation."""

    def __init__(self, foundation: Foundation) -> None:
        self.foundation = foundation
        self.settings = {
            "foundation": foundation.name,
            "weights": foundation.weights_sha256,
            "image_size": foundation.image_size,
        }

    @property
    def device(self) -> torch.device:
        return next(self.foundation.parameters()).device

    def encode(self, image: np.ndarray) -> tuple[Features, Geometry]:
        """image: (3, h, w) in [0, 1]."""
        prepared, geometry = self.foundation.preprocess(torch.from_numpy(image)[None].to(self.device))
        return self.foundation.encode(prepared), geometry

    def mask(self, features: Features, geometry: Geometry, prompts: Prompts, *, refine: bool = False) -> Tensor:
        """(N, h, w) bool."""
        decode = partial(self.foundation.decode, features)
        decoded = refined(decode, prompts) if refine else decode(prompts)
        return self.foundation.postprocess(decoded.mask_logits, geometry)[0] > 0

    def clicks(self, places: np.ndarray, geometry: Geometry, labels: int | np.ndarray = 1) -> Points:
        """places: (N, P, 2) as (x, y) in pixels of the original image. labels: (N, P), 1 inside, 0 outside."""
        coords = self.foundation.to_input(torch.from_numpy(places).float().to(self.device), geometry)
        given = torch.as_tensor(labels, dtype=torch.int32, device=self.device)
        return Points(coords[None], given.expand(coords.shape[:2])[None])


class TruthPrompted(FoundationMethod):
    """The target's own truth as a prompt. ask: one of :data:`TRUTH_PROMPTS`."""

    def __init__(self, name: str, ask: Callable[..., np.ndarray], foundation: Foundation) -> None:
        super().__init__(foundation)
        self.name, self._ask = name, ask

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        @torch.inference_mode()
        def predict(slices: Slices, truth: np.ndarray) -> np.ndarray:
            masks = np.zeros_like(truth)
            for row in np.flatnonzero(truth.any(axis=(1, 2))):
                rng = np.random.default_rng([seed, zlib.crc32(slices.slice_hash(row).encode())])
                features, geometry = self.encode(slices.images([row])[0])
                masks[row] = self._ask(self, features, geometry, truth[row], rng)
            return masks

        return Fitted(predict, sees_truth=True)


def point(
    method: FoundationMethod, features: Features, geometry: Geometry, truth: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One click on any pixel of the structure: its centre may lie outside."""
    rows, columns = np.nonzero(truth)
    chosen = rng.integers(len(rows))
    clicks = method.clicks(np.array([[[columns[chosen], rows[chosen]]]]), geometry)
    return method.mask(features, geometry, Prompts(points=clicks))[0].cpu().numpy()


def largest_error(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int, int] | None:
    """Where a reader clicks who corrects.

    Args:
        mask: (h, w) bool, so far.
        truth: (h, w) bool.

    Returns:
        (x, y) of the middle of what is missing, or of what is too much, whichever is more, and SAM's label of the
        click; None where nothing is wrong.
    """
    missed, spilled = truth & ~mask, mask & ~truth
    if not (missed | spilled).any():
        return None
    inside = missed.sum() >= spilled.sum()
    depth = distance_transform_edt(np.pad(missed if inside else spilled, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(column), int(row), int(inside)


def five_clicks(
    method: FoundationMethod, features: Features, geometry: Geometry, truth: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A reader who corrects: each click goes to the middle of the largest error, with the mask so far as a prompt.

    The first goes to the middle of the structure, as is usual for interactive segmentation.
    """
    places, labels, logits = [], [], None
    mask = np.zeros_like(truth)
    for _ in range(CLICKS):
        wrong = largest_error(mask, truth)
        if wrong is None:
            break
        places.append(wrong[:2])
        labels.append(wrong[2])
        points = method.clicks(np.array([places]), geometry, np.array([labels]))
        decoded = method.foundation.decode(features, Prompts(points=points, masks=logits))
        logits = decoded.mask_logits
        mask = (method.foundation.postprocess(logits, geometry)[0, 0] > 0).cpu().numpy()
    return mask


def box(
    method: FoundationMethod,
    features: Features,
    geometry: Geometry,
    truth: np.ndarray,
    rng: np.random.Generator,
    *,
    refine: bool = False,
) -> np.ndarray:
    """The smallest rectangle around the structure; as :mod:`proxyprompt.extensions.refinement` has it, or once only."""
    rows, columns = np.nonzero(truth)
    pixels = torch.tensor([[columns.min(), rows.min()], [columns.max(), rows.max()]]).float()
    corners = method.foundation.to_input(pixels.to(method.device), geometry)
    prompts = Prompts(boxes=corners.flatten()[None, None])
    return method.mask(features, geometry, prompts, refine=refine)[0].cpu().numpy()


def everything(
    method: FoundationMethod, features: Features, geometry: Geometry, truth: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Clicks on a grid over the whole image; of all their masks the one that fits the truth best."""
    steps = (np.arange(EVERYTHING_SIDE) + 0.5) / EVERYTHING_SIDE
    rows, columns = (steps * length - 0.5 for length in truth.shape)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 1, 2)
    masks = [
        mask
        for start in range(0, len(grid), _AT_ONCE)
        for mask in method.mask(
            features, geometry, Prompts(points=method.clicks(grid[start : start + _AT_ONCE], geometry))
        )
    ]
    return max((mask.cpu().numpy() for mask in masks), key=lambda mask: overlap(mask, truth).dice)


class PerSam(FoundationMethod):
    """Training-free, after PerSAM: clicks where the target looks most and least like the structure, then its own mask
    and the box around it as prompts. Without PerSAM's changes inside the decoder.
    """

    name = "persam"

    @torch.inference_mode()
    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        images = [torch.from_numpy(image).to(self.device) for image in supports.images]
        masks = [torch.from_numpy(mask).to(self.device) for mask in supports.masks]
        look = mean_looks(self.foundation, images, masks)[0][0]  # (C,)

        @torch.inference_mode()
        def predict(slices: Slices) -> np.ndarray:
            return np.stack([self._segment(look, slices.images([row])[0]) for row in range(len(slices))])

        return Fitted(predict)

    def _segment(self, look: Tensor, image: np.ndarray) -> np.ndarray:
        features, geometry = self.encode(image)
        similarity = torch.einsum("c,chw->hw", look, F.normalize(features.embedding[0].float(), dim=0))
        quarter = self.foundation.image_size // 4
        fine = F.interpolate(similarity[None, None], (quarter, quarter), mode="bilinear", align_corners=False)
        fine = self.foundation.postprocess(fine, geometry)[0, 0]
        flat = torch.stack([fine.argmax(), fine.argmin()]).cpu().numpy()
        places = np.stack([flat % fine.shape[1], flat // fine.shape[1]], axis=-1)
        clicks = self.clicks(places[None], geometry, np.array([[1, 0]]))
        decoded = self.foundation.decode(features, Prompts(points=clicks))
        mask = self.foundation.postprocess(decoded.mask_logits, geometry)[0, 0] > 0
        if not mask.any():
            return mask.cpu().numpy()
        rows, columns = torch.nonzero(mask, as_tuple=True)
        corners = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()]).float()
        corners = self.foundation.to_input(corners.unflatten(0, (2, 2)), geometry).flatten()
        again = Prompts(points=clicks, boxes=corners[None, None], masks=decoded.mask_logits)
        return self.mask(features, geometry, again)[0].cpu().numpy()


class Memory(FoundationMethod):
    """The supports as frames of a video whose masks were given, the target as the next frame: plain SAM 2, the way that
    MedSAM2 and SAM2-SGP build on. ValueError for a foundation without a memory.
    """

    name = "memory"

    def __init__(self, foundation: Foundation) -> None:
        super().__init__(foundation)
        if not foundation.remembers:
            raise ValueError(f"{foundation.name} keeps no memory of frames; ask for 'memory' with a SAM 2 or atto")

    @torch.inference_mode()
    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        frames = [self._frame(image, mask) for image, mask in zip(supports.images, supports.masks, strict=True)]
        distances = tuple(range(len(frames), 0, -1))
        bank = MemoryBank(tuple(frames), distances, (True,) * len(frames))

        @torch.inference_mode()
        def predict(slices: Slices) -> np.ndarray:
            return np.stack([self._segment(bank, slices.images([row])[0]) for row in range(len(slices))])

        return Fitted(predict)

    def _frame(self, image: np.ndarray, mask: np.ndarray) -> FrameMemory:
        features, geometry = self.encode(image)
        laid = self.foundation.preprocess_masks(torch.from_numpy(mask)[None].to(self.device), geometry)
        quarter = self.foundation.image_size // 4
        logits = (2 * F.interpolate(laid, (quarter, quarter), mode="area") - 1) * _SURE
        decoded = self.foundation.decode(features, Prompts(masks=logits))
        sure = replace(decoded, presence_logit=torch.full_like(decoded.presence_logit, _SURE))
        return self.foundation.remember_frame(features, logits, sure)

    def _segment(self, bank: MemoryBank, image: np.ndarray) -> np.ndarray:
        features, geometry = self.encode(image)
        nothing = self.clicks(np.zeros((1, 1, 2)), geometry, -1)
        decoded = self.foundation.decode(features, Prompts(points=nothing), bank)
        mask = self.foundation.postprocess(decoded.mask_logits, geometry)[0, 0] > 0
        return (mask & (decoded.presence_logit[0, 0] >= 0)).cpu().numpy()


TRUTH_PROMPTS = {
    "point": point,
    "clicks-5": five_clicks,
    "box": box,
    "box-refined": partial(box, refine=True),
    "everything": everything,
}
