"""The one interface behind which every frozen promptable segmenter stands.

Axes: ``B`` target images, ``N`` objects, ``C`` embedding channels (:attr:`Foundation.dim`), ``S`` the side of the
square network input in pixels, ``H = W = S / 16`` the embedding grid. Coordinates are (x, y) in pixels of the S x S
input, with (0, 0) the centre of the top left pixel. Clicks, boxes, masks, volumes and video all fit this interface,
so that no caller ever asks which family of model it talks to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

_LEVEL = "high_res_"  # names of maps among tensors that are kept


def size_of(images: Tensor) -> tuple[int, int]:
    """Height and width of images.

    Args:
        images: (..., h, w).

    Returns:
        (h, w).
    """
    height, width = images.shape[-2:]
    return height, width


class Geometry(NamedTuple):
    """How an image lies in the square input.

    Attributes:
        original: (height, width) of the image in pixels.
        scaled: (height, width) of the resized image inside the square; what is below and to the right of it is padding.
            Models that stretch the image to the square have ``scaled == (size, size)``.
        size: side S of the square in pixels.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    size: int


@dataclass(frozen=True)
class Features:
    """What the image encoder makes of B images.

    Attributes:
        embedding: (B, C, H, W).
        high_res: empty, or SAM 2's projected maps at stride 4 and 8, ((B, C/8, 4H, 4W), (B, C/4, 2H, 2W)).
        padding: None, or (B, H, W) bool, True where a position holds nothing but padding: such positions leave the
            selective map's softmax and the pooling.
    """

    embedding: Tensor
    high_res: tuple[Tensor, ...] = ()
    padding: Tensor | None = None

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Features:
        """The features of some of the images.

        Args:
            index: what indexes the first axis and keeps it.

        Returns:
            Those of the chosen ones.
        """
        return Features.from_tensors({name: tensor[index] for name, tensor in self.to_tensors().items()})

    def to_tensors(self) -> dict[str, Tensor]:
        """By name, to be kept; :meth:`from_tensors` takes them back."""
        tensors = {"embedding": self.embedding}
        if self.padding is not None:
            tensors["padding"] = self.padding
        return tensors | {f"{_LEVEL}{n}": x for n, x in enumerate(self.high_res)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Features:
        """The reverse of :meth:`to_tensors`.

        However they were kept, the maps lie position by position, as convolutions leave and attention wants them.

        Args:
            tensors: by name.

        Returns:
            The features.
        """
        levels = [tensors[name] for name in sorted(tensors) if name.startswith(_LEVEL)]
        embedding, *high_res = (
            x.contiguous(memory_format=torch.channels_last) for x in (tensors["embedding"], *levels)
        )
        return cls(embedding, tuple(high_res), tensors.get("padding"))

    @classmethod
    def join(cls, parts: Sequence[Features], device: torch.device | str | None = None) -> Features:
        """The features of several images as one batch.

        Args:
            parts: at least one; all of one foundation.
            device: of the result; None for that of the first.

        Returns:
            The batch; a single part that lies there is returned as it is.
        """
        device = parts[0].embedding.device if device is None else device
        if len(parts) == 1 and parts[0].embedding.device == torch.device(device):
            return parts[0]
        padding = None
        if any(p.padding is not None for p in parts):
            none = [torch.zeros_like(p.embedding[:, 0], dtype=torch.bool) for p in parts]
            padding = torch.cat(
                [(n if p.padding is None else p.padding).to(device) for p, n in zip(parts, none, strict=True)]
            )
        return cls(
            torch.cat([p.embedding.to(device) for p in parts]),
            tuple(torch.cat([x.to(device) for x in level]) for level in zip(*(p.high_res for p in parts), strict=True)),
            padding,
        )


class Points(NamedTuple):
    """Clicks.

    Attributes:
        coords: (B, N, P, 2) float, (x, y) in pixels.
        labels: (B, N, P) int, 1 inside, 0 outside, -1 not a point.
    """

    coords: Tensor
    labels: Tensor


def no_clicks(batch: int, objects: int, device: torch.device | str = "cpu") -> Points:
    """The prompt that says nothing: what a frame is tracked with.

    Args:
        batch: B.
        objects: N.
        device: of the result.

    Returns:
        One that is not a point for each object.
    """
    labels = torch.full((batch, objects, 1), -1, dtype=torch.int32, device=device)
    return Points(torch.zeros(batch, objects, 1, 2, device=device), labels)


@dataclass(frozen=True)
class Prompts:
    """Everything a request can say about N objects in B images; all fields may stand together.

    Attributes:
        proxy: (B, N, T, C) tokens of the proxy prompt.
        dense: (B, N, C, H, W), added to the no-mask embedding, for comparison models.
        points: see :class:`Points`; in pixels of the S x S input.
        boxes: (B, N, 4) as x0, y0, x1, y1, in pixels of the S x S input.
        masks: (B, N, s, s) logits, resized to the S/4 that decoders take.
    """

    proxy: Tensor | None = None
    dense: Tensor | None = None
    points: Points | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def batch(self) -> tuple[int, int]:
        """How many images and objects are prompted.

        Returns:
            (B, N) of whatever was given.

        Raises:
            ValueError: when nothing was, or when the parts disagree.
        """
        given = {
            "proxy": self.proxy,
            "dense": self.dense,
            "points": None if self.points is None else self.points.coords,
            "boxes": self.boxes,
            "masks": self.masks,
        }
        shapes = {name: tuple(t.shape[:2]) for name, t in given.items() if t is not None}
        if not shapes:
            raise ValueError(f"no prompt given: expected at least one of {', '.join(given)}")
        if len(set(shapes.values())) > 1:
            raise ValueError(f"prompts disagree on (images, objects): {shapes}; give every prompt for the same B and N")
        images, objects = next(iter(shapes.values()))
        return images, objects


@dataclass(frozen=True)
class Decoded:
    """What the mask decoder says of N objects in B images.

    Attributes:
        mask_logits: (B, N, s, s), never gated by presence; s is S/4, ``atto``'s S/2.
        presence_logit: (B, N), positive where the object is in the image.
        iou: (B, N), the mask's expected intersection over union.
        object_pointer: (B, N, C), the object as a token.
    """

    mask_logits: Tensor
    presence_logit: Tensor
    iou: Tensor
    object_pointer: Tensor


@dataclass(frozen=True)
class FrameMemory:
    """What SAM 2 keeps of one segmented frame, for B sequences of N objects.

    Attributes:
        maps: (B, N, mem_dim, H, W).
        positions: (B, N, mem_dim, H, W), their position encoding.
        pointer: (B, N, C), the object as a token.
    """

    maps: Tensor
    positions: Tensor
    pointer: Tensor


@dataclass(frozen=True)
class MemoryBank:
    """Remembered frames of a volume or video, as seen from the frame that is being segmented.

    Attributes:
        frames: what is kept of each.
        distances: how many frames back each lies (negative: ahead).
        conditioning: which of them were prompted or corrected by the user; the others are the model's own.
    """

    frames: tuple[FrameMemory, ...] = field(default=())
    distances: tuple[int, ...] = field(default=())
    conditioning: tuple[bool, ...] = field(default=())


class Foundation(nn.Module):
    """A promptable segmenter.

    Subclasses: :class:`proxyprompt.foundation.sam.Sam`, :class:`proxyprompt.foundation.sam2.Sam2`.

    Attributes:
        name: as in the registry; an embedded one with the number of its file.
        image_size: S.
        dim: C.
        stride: of the embedding.
        weights_sha256: hash of the weights that were loaded; "" for random ones.
        remembers: whether :meth:`remember_frame` works.
        looks_at_pieces: whether fine structures are looked at piece by piece (:mod:`proxyprompt.extensions.pieces`),
            which costs up to 16 encodings a slice.
        refines: whether clicks and boxes are decoded once more (:mod:`proxyprompt.extensions.refinement`).
        lora_encoder: pattern of the full names of the encoder's layers that adapters sit on. It is anchored on their
            parents: a bare ``proj`` would also catch the patch embedding and Hiera's shortcuts.
        lora_decoder: the same for the mask decoder; SAM 2's memory attention has projections of the same names.
        trainable_heads: what is no part of the published weights and trains with the adapters.
        model: that of the published package.
    """

    name: str
    image_size: int
    dim: int
    stride: int = 16
    weights_sha256: str = ""
    remembers: bool = False
    looks_at_pieces: bool = False
    refines: bool = False
    lora_encoder: str = r"(.*\.)?image_encoder\..*\.attn\.(qkv|proj)"
    lora_decoder: str = r"(.*\.)?(sam_)?mask_decoder\.transformer\..*\.(q_proj|k_proj|v_proj|out_proj)"
    trainable_heads: tuple[str, ...] = ()
    model: nn.Module

    @property
    def grid(self) -> int:
        """Side of the embedding grid, H = W."""
        return self.image_size // self.stride

    def geometry(self, original: tuple[int, int]) -> Geometry:
        """How :meth:`preprocess` lays images: stretched to the square, unless a model says otherwise.

        Args:
            original: (height, width) of the images in pixels.

        Returns:
            Where they lie in the square.
        """
        return Geometry(original, (self.image_size, self.image_size), self.image_size)

    def preprocess(self, images: Tensor) -> tuple[Tensor, Geometry]:
        """Resize and normalise images as the model was trained.

        Args:
            images: (B, 3, h, w) float in [0, 1].

        Returns:
            (B, 3, S, S), and how they lie in it.
        """
        raise NotImplementedError

    def preprocess_masks(self, masks: Tensor, geometry: Geometry) -> Tensor:
        """Lay masks as the images are.

        Args:
            masks: (B, N, h, w) bool or in [0, 1].
            geometry: of the images.

        Returns:
            (B, N, S, S) float in [0, 1].
        """
        raise NotImplementedError

    def postprocess(self, mask_logits: Tensor, geometry: Geometry) -> Tensor:
        """Bring mask logits to the original pixels.

        Args:
            mask_logits: (B, N, s, s).
            geometry: of the images.

        Returns:
            (B, N, h, w) logits.
        """
        raise NotImplementedError

    def to_input(self, coords: Tensor, geometry: Geometry) -> Tensor:
        """Bring clicks to pixels of the S x S input.

        Args:
            coords: (..., 2) as (x, y), in pixels of the original image.
            geometry: of the image.

        Returns:
            (..., 2) as (x, y).
        """
        (height, width), (scaled_height, scaled_width) = geometry.original, geometry.scaled
        return coords * coords.new_tensor([scaled_width / width, scaled_height / height])

    def padding(self, geometry: Geometry, batch: int, device: torch.device | str = "cpu") -> Tensor | None:
        """Which positions of the embedding hold only padding.

        Args:
            geometry: of the images.
            batch: B.
            device: of the result.

        Returns:
            (B, H, W) bool, True for padding; None where the image fills the square.
        """
        return None

    def encode(self, images: Tensor) -> Features:
        """Encode images.

        Args:
            images: (B, 3, S, S) as :meth:`preprocess` gives them.

        Returns:
            Their features, without padding.
        """
        raise NotImplementedError

    def decode(self, features: Features, prompts: Prompts, memory: MemoryBank | None = None) -> Decoded:
        """Masks of prompted objects (paper, section 3.3). With a proxy: single mask, no stability fallback.

        Args:
            features: of B images.
            prompts: of N objects in each.
            memory: earlier frames; None or an empty one for none.

        Returns:
            The N objects in the B images.

        Raises:
            ValueError: for prompts that do not fit the features or each other.
        """
        raise NotImplementedError

    def remember_frame(self, features: Features, mask_logits: Tensor, decoded: Decoded) -> FrameMemory:
        """What later frames may attend to.

        Args:
            features: of B frames.
            mask_logits: (B, N, s, s), the masks to remember.
            decoded: what the decoder said of them.

        Returns:
            One frame of a memory bank.

        Raises:
            NotImplementedError: when :attr:`remembers` is False.
        """
        raise NotImplementedError(
            f"{self.name} keeps no memory of frames; use a SAM 2 foundation for volumes and video"
        )
