"""A segmenter with random weights, drawn studies and their supports: what a request needs, without a server."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from PIL import Image

from proxyprompt.foundation import foundation_entry
from proxyprompt.foundation.base import Prompts
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import Study, read_study
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.masks import Masks
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.prompt_generator.generator import GeneratorConfig, ProxyPromptGenerator
from proxyprompt.supports.selection import Selection, SupportSlice
from proxyprompt.training.losses import segmentation_loss


def random_segmenter(name: str, image_size: int | None, device: torch.device) -> Segmenter:
    """Random weights suffice for speed. image_size: None for the model's own (SAM has no other)."""
    torch.manual_seed(0)
    entry = foundation_entry(name)
    foundation = entry.build(entry.size(image_size), {})
    config = GeneratorConfig(**{"dim": foundation.dim, "grid": foundation.grid, **entry.generator})
    segmenter = Segmenter(foundation=foundation, generator=ProxyPromptGenerator(config))
    segmenter.weights_sha256 = f"random {name}"
    return segmenter.to(device).eval().requires_grad_(False)


class Scene:
    """One target with its supports, and a cache in memory, which scenes of one segmenter may share.

    The target has ``slices`` slices, its ``pairs`` support slices show ``objects`` structures; ``colour`` is of a
    single slice, volumes are gray.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        folder: Path,
        *,
        pairs: int,
        objects: int,
        slices: int = 1,
        cache: ContentCache | None = None,
        colour: bool = False,
    ) -> None:
        self.segmenter, self.foundation = segmenter, segmenter.foundation
        self.objects, self.slices, self.colour = objects, slices, colour
        self.device = next(segmenter.parameters()).device
        self.cache = cache or ContentCache(None, memory_bytes=4 * 2**30, disk_bytes=0)
        rng = np.random.default_rng(0)
        self.study = self._draw_study(folder, rng)
        size = self.foundation.image_size
        chosen, images, masks = [], [], []
        for k in range(pairs):
            chosen.append(SupportSlice(f"support {k}", 0, 1.0, False, f"image {k}", frozenset({f"support {k}"})))
            images.append(rng.random((3, size, size), dtype=np.float32))
            masks.append(np.stack([_disc(size, (n + 1) / (objects + 1)) for n in range(objects)]))
        names = tuple(f"structure {n}" for n in range(objects))
        self.selection = Selection(tuple(chosen), names, images, masks, np.ones((pairs, objects), bool))

    def _draw_study(self, folder: Path, rng: np.random.Generator) -> Study:
        size = self.foundation.image_size
        if self.slices == 1:
            path = Path(folder) / f"target-{size}-{'colour' if self.colour else 'gray'}.png"
            pixels = (size, size, 3) if self.colour else (size, size)
            Image.fromarray(rng.integers(0, 255, pixels, dtype=np.uint8)).save(path)
            return read_study(path)
        path = Path(folder) / f"target-{size}-{self.slices}.nii.gz"
        voxels = rng.integers(0, 1000, (size, size, self.slices)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 5.0, 1.0])), path)
        return read_study(path, modality="MR")

    def request(self, *, agreement: bool = False) -> Masks:
        """The whole request; the target's features are never cached beforehand, the supports are after the first."""
        self.cache.purge(self.study.content_hash)
        return Pipeline(self.segmenter, self.cache, Latencies()).run(self.study, self.selection, agreement=agreement)

    def prepare(self) -> None:
        """Everything of the supports from nothing, for a target that is known already."""
        for chosen in self.selection.slices:
            for tag in chosen.tags:
                self.cache.purge(tag)
        Pipeline(self.segmenter, self.cache, Latencies()).prepare(self.selection)

    @torch.inference_mode()
    def floor(self) -> None:
        """What the foundation itself must do for one slice.

        That is the encoder; for SAM 2 memory attention and decoder too, for all objects, over as many memory tokens as
        the proxy prompt has.
        """
        size, grid, dim = self.foundation.image_size, self.foundation.grid, self.foundation.dim
        features = self.segmenter.encode(torch.zeros(1, 3, size, size, device=self.device))
        if self.foundation.remembers:
            proxy = torch.zeros(1, self.objects, grid**2 // 16, dim, device=self.device)
            self.foundation.decode(features, Prompts(proxy=proxy))

    def train_step(self) -> None:
        """Forward and backward of the generator and through the decoder, for one target; the encoder frozen."""
        size, pairs = self.foundation.image_size, len(self.selection)
        images = torch.from_numpy(np.stack(self.selection.images)).to(self.device)
        masks = torch.from_numpy(np.stack(self.selection.masks)).float().to(self.device)
        prepared, geometry = self.foundation.preprocess(images)
        with torch.no_grad():
            features = self.segmenter.encode(prepared)
        self.segmenter.generator.requires_grad_(True)
        try:
            masks = self.foundation.preprocess_masks(masks, geometry)
            contexts = self.segmenter.encode_pair(prepared, masks)
            valid = torch.ones(pairs, self.objects, dtype=torch.bool, device=self.device)
            memory = self.segmenter.encode_support(features, contexts, valid)
            decoded = self.segmenter.segment(features[:1], memory)
            segmentation_loss(decoded, masks[:1, :, :size, :size]).total.backward()
        finally:
            self.segmenter.generator.zero_grad(set_to_none=True)
            self.segmenter.generator.requires_grad_(False)


def _disc(size: int, place: float) -> np.ndarray:
    rows, columns = np.ogrid[:size, :size]
    return (rows - size / 2) ** 2 + (columns - size * place) ** 2 < (size / 8) ** 2
