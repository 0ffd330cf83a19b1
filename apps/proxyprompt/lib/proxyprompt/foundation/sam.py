"""SAM and MedSAM behind the foundation interface, composed from the modules of the ``segment_anything`` package.

The package's own mask decoder takes one image at a time and always makes four masks. Here its parts (prompt encoder,
two-way transformer, upscaling, hypernetwork, quality head) decode N objects in each of B images at once, and only the
first mask: the one its predictor returns with ``multimask_output=False``, whatever the prompt. The proxy prompt enters
as sparse prompt tokens beside the clicks (paper, section 3.3, eq. 12), the dense prompt is the no-mask embedding.
Clicks beside the proxy prompt, and a logit that says whether the object is there at all, are not the paper's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segment_anything.build_sam import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import Sam as SamModel
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from .base import Decoded, Features, Foundation, Geometry, MemoryBank, Prompts, size_of
from .sam_attention import attend_by_rows

_BUILDERS = {
    "sam_vit_b": build_sam_vit_b,
    "sam_vit_l": build_sam_vit_l,
    "sam_vit_h": build_sam_vit_h,
    "medsam_vit_b": build_sam_vit_b,
}

# Logit that the presence head starts with: sigmoid(4) = 0.98, "present" as SAM itself assumes, and not yet saturated.
_PRESENT = 4.0


def build_sam_model(name: str) -> SamModel:
    """A model of the package with random weights; its state dict has the official layout.

    Args:
        name: of the foundation.

    Returns:
        The package's model.

    Raises:
        ValueError: for another name.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown SAM model {name!r}; valid: {', '.join(_BUILDERS)}")
    return _BUILDERS[name]()


class PresenceHead(nn.Module):
    """Says from the mask token whether the object is in the image at all; says "present" until it is trained.

    SAM has no such output, so this is ours: never part of a published checkpoint, always part of an adapter.

    Args:
        dim: channels C of the token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, _PRESENT)

    def forward(self, token: Tensor) -> Tensor:
        """Judge mask tokens.

        Args:
            token: (..., C).

        Returns:
            (...) logits, positive for present.
        """
        return self.out(F.gelu(self.hidden(token))).squeeze(-1)


class Sam(Foundation):
    """SAM: the long side is resized to S, the rest padded on the right and at the bottom.

    The model is frozen and stays in eval mode whatever ``train()`` says; ``trainable_heads`` names what is not SAM's
    and trains with the adapters.

    Args:
        name: for messages and provenance.
        model: a Sam of the ``segment_anything`` package; its size is the only one it runs at, because the image
            encoder's position embedding has it.
    """

    trainable_heads = ("presence_head",)
    model: SamModel

    def __init__(self, *, name: str, model: SamModel) -> None:
        super().__init__()
        self.name = name
        self.model = model.requires_grad_(False)
        attend_by_rows(model.image_encoder)
        self.image_size = model.image_encoder.img_size
        self.dim = model.prompt_encoder.embed_dim
        self.stride = self.image_size // model.prompt_encoder.image_embedding_size[0]
        self.presence_head = PresenceHead(self.dim)
        self.eval()

    def train(self, mode: bool = True) -> Sam:
        """Frozen modules have nothing to switch: everything stays in eval mode.

        Args:
            mode: not heeded.

        Returns:
            The module itself.
        """
        return super().train(False)

    def geometry(self, original: tuple[int, int]) -> Geometry:
        """The longer side fills the square, the rest is padding.

        Args:
            original: (height, width) of the images in pixels.

        Returns:
            Where they lie in the square.
        """
        height, width = ResizeLongestSide.get_preprocess_shape(*original, self.image_size)
        return Geometry(original, (max(height, 1), max(width, 1)), self.image_size)

    def preprocess(self, images: Tensor) -> tuple[Tensor, Geometry]:
        """As every foundation; zero (the mean colour) in the padding.

        Args:
            images: (B, 3, h, w) float in [0, 1].

        Returns:
            (B, 3, S, S), and how they lie in it.

        Raises:
            ValueError: for another shape or type.
        """
        images = _image_batch(images)
        geometry = self.geometry(size_of(images))
        resized = _resize(images, geometry.scaled)
        return self.model.preprocess(resized * 255.0), geometry

    def preprocess_masks(self, masks: Tensor, geometry: Geometry) -> Tensor:
        """As every foundation; zero in the padding.

        Args:
            masks: (B, N, h, w) bool or in [0, 1].
            geometry: of the images.

        Returns:
            (B, N, S, S) float in [0, 1].

        Raises:
            ValueError: for another shape than that of the images.
        """
        if masks.ndim != 4 or tuple(masks.shape[-2:]) != geometry.original:
            raise ValueError(f"masks are {tuple(masks.shape)}; expected (B, N, {geometry.original})")
        resized = _resize(masks.float(), geometry.scaled).clamp(0.0, 1.0)
        height, width = geometry.scaled
        return F.pad(resized, (0, geometry.size - width, 0, geometry.size - height))

    def postprocess(self, mask_logits: Tensor, geometry: Geometry) -> Tensor:
        """As every foundation: up to S, the padding cut off, then to the original pixels.

        Args:
            mask_logits: (B, N, S/4, S/4).
            geometry: of the images.

        Returns:
            (B, N, h, w) logits.
        """
        return self.model.postprocess_masks(mask_logits.float(), geometry.scaled, geometry.original)

    def padding(self, geometry: Geometry, batch: int, device: torch.device | str = "cpu") -> Tensor | None:
        """As every foundation.

        Args:
            geometry: of the images.
            batch: B.
            device: of the result.

        Returns:
            (B, H, W) bool, True for grid positions that hold only padding; None where there is no such position.
        """
        starts = torch.arange(self.grid, device=device) * self.stride
        height, width = geometry.scaled
        mask = (starts >= height)[:, None] | (starts >= width)[None, :]
        return mask.expand(batch, -1, -1) if bool(mask.any()) else None

    def encode(self, images: Tensor) -> Features:
        """Encode images.

        Args:
            images: (B, 3, S, S) as :meth:`preprocess` gives them.

        Returns:
            The embedding (B, C, S/16, S/16) alone.

        Raises:
            ValueError: for another shape.
        """
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"{self.name} encodes (B, {', '.join(map(str, expected))}) only, not {tuple(images.shape)}: "
                f"pass images through preprocess() first"
            )
        return Features(self.model.image_encoder(images))

    def decode(self, features: Features, prompts: Prompts, memory: MemoryBank | None = None) -> Decoded:
        """One mask for each of N objects in B images (paper, eq. 12): SAM's first mask, also for a single click.

        The tokens of the proxy and SAM's own prompts stand side by side; a mask prompt replaces the no-mask embedding,
        ``prompts.dense`` is added to either.

        Args:
            features: of B images.
            prompts: of N objects in each.
            memory: none or an empty one: SAM keeps none.

        Returns:
            The N objects in the B images; object_pointer is the mask token.

        Raises:
            ValueError: when the prompts are for another number of images, or of another size, or when a memory is
                given.
        """
        if memory is not None and memory.frames:
            raise ValueError(f"{self.name} keeps no memory of frames; use a SAM 2 foundation for volumes and video")
        images, objects = prompts.batch()
        if images != features.embedding.shape[0]:
            raise ValueError(f"prompts are for {images} images, features for {features.embedding.shape[0]}")
        sparse, dense = self._embed(prompts, images, objects)
        decoder = self.model.mask_decoder
        output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output.expand(images * objects, -1, -1), sparse], dim=1)
        image = features.embedding.repeat_interleave(objects, dim=0) + dense
        position = self.model.prompt_encoder.get_dense_pe().expand_as(image)

        tokens, image = decoder.transformer(image, position, tokens)
        quality = decoder.iou_prediction_head(tokens[:, 0])[:, 0]
        mask_token = tokens[:, 1]
        upscaled = decoder.output_upscaling(image.transpose(1, 2).unflatten(2, (self.grid, self.grid)))
        weights = decoder.output_hypernetworks_mlps[0](mask_token)
        logits = torch.einsum("bc,bchw->bhw", weights, upscaled)
        return Decoded(
            mask_logits=logits.unflatten(0, (images, objects)),
            presence_logit=self.presence_head(mask_token).unflatten(0, (images, objects)),
            iou=quality.unflatten(0, (images, objects)),
            object_pointer=mask_token.unflatten(0, (images, objects)),
        )

    def _embed(self, prompts: Prompts, images: int, objects: int) -> tuple[Tensor, Tensor]:
        """Sparse tokens (B*N, T, C); dense prompt (B*N, C, H, W), or (1, C, H, W) where it is the same for all."""
        self._check(prompts, images, objects)
        flat = images * objects
        points = None if prompts.points is None else tuple(part.flatten(0, 1) for part in prompts.points)
        boxes = None if prompts.boxes is None else prompts.boxes.flatten(0, 1)
        masks = None if prompts.masks is None else prompts.masks.flatten(0, 1)[:, None]
        sparse, dense = self.model.prompt_encoder(points=points, boxes=boxes, masks=masks)
        sparse = sparse.expand(flat, -1, -1)
        if prompts.proxy is not None:
            sparse = torch.cat([prompts.proxy.flatten(0, 1), sparse], dim=1)
        if prompts.dense is not None:
            dense = dense + prompts.dense.flatten(0, 1)
        return sparse, dense

    def _check(self, prompts: Prompts, images: int, objects: int) -> None:
        """ValueError for a prompt whose shape the decoder would only stumble over later, or silently broadcast."""
        quarter = 4 * self.grid
        coords, labels = (None, None) if prompts.points is None else prompts.points
        expected = {
            "proxy": (prompts.proxy, ("T", self.dim)),
            "dense": (prompts.dense, (self.dim, self.grid, self.grid)),
            "boxes": (prompts.boxes, (4,)),
            "masks": (prompts.masks, (quarter, quarter)),
            "points.coords": (coords, ("P", 2)),
            "points.labels": (labels, ("P",) if coords is None else (coords.shape[2],)),
        }
        for name, (given, shape) in expected.items():
            if given is None:
                continue
            wanted = [
                size if isinstance(free, str) else free for free, size in zip(shape, given.shape[2:], strict=False)
            ]
            if tuple(given.shape) != (images, objects, *wanted) or given.ndim != 2 + len(shape):
                sizes = ", ".join(map(str, (images, objects, *shape)))
                raise ValueError(f"{name} is {tuple(given.shape)}; expected ({sizes})")


class MedSam(Sam):
    """MedSAM: SAM's ViT-B on images stretched to the square and scaled to [0, 1] each, with no mean or deviation."""

    def geometry(self, original: tuple[int, int]) -> Geometry:
        """As :class:`Foundation`: stretched to the square.

        Args:
            original: (height, width) of the images in pixels.

        Returns:
            Where they lie in the square.
        """
        return Foundation.geometry(self, original)

    def preprocess(self, images: Tensor) -> tuple[Tensor, Geometry]:
        """As every foundation, scaled to [0, 1]; a constant image becomes zero.

        Args:
            images: (B, 3, h, w) float.

        Returns:
            (B, 3, S, S) in [0, 1], and how they lie in it.

        Raises:
            ValueError: for another shape or type.
        """
        images = _image_batch(images)
        geometry = self.geometry(size_of(images))
        resized = F.interpolate(images, geometry.scaled, mode="bicubic", align_corners=False, antialias=True)
        low, high = resized.amin((1, 2, 3), keepdim=True), resized.amax((1, 2, 3), keepdim=True)
        return (resized - low) / (high - low).clamp_min(1e-8), geometry

    def postprocess(self, mask_logits: Tensor, geometry: Geometry) -> Tensor:
        """As every foundation, in one step: nothing is padding.

        Args:
            mask_logits: (B, N, S/4, S/4).
            geometry: of the images.

        Returns:
            (B, N, h, w) logits.
        """
        return F.interpolate(mask_logits.float(), geometry.original, mode="bilinear", align_corners=False)


def _image_batch(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images are {tuple(images.shape)} {images.dtype}; expected (B, 3, h, w), float in [0, 1]")
    return images


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with antialiasing, as SAM's predictor resizes (by Pillow, which also rounds to 8 bits)."""
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
