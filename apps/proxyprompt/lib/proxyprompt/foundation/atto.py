"""``atto``: a small SAM 2 on a frozen ImageNet trunk, the embedded default of the app.

Memory encoder, memory attention, prompt encoder and two-way mask decoder are the ``sam2`` package's own; the image
encoder is :class:`PretrainedTrunk` with a feature pyramid. What differs from SAM 2, and why:

- attention carries absolute positions (SAM's random Fourier features) on queries and keys, no rotary ones, and begins
  with equal query and key projections, so that from the first step on a token attends to where it lies. A decoder that
  is trained for hours and not for weeks would otherwise not learn to read tokens at all;
- memories are as wide as the embedding, so that a token of the proxy prompt stays one token;
- a token of the proxy prompt carries the position of its region, as SAM's points carry theirs;
- clicks and boxes are also drawn as dense click maps, as interactive networks do (RITM, nnInteractive);
- the decoder's four masks are the four sub-pixels of one mask, which so has half the side of the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from sam2.modeling.sam.transformer import Attention
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

from .base import Features, Prompts, size_of
from .click_maps import ClickMaps, draw_marks
from .pretrained_trunk import MEAN, STD, PretrainedTrunk
from .sam2 import Sam2, package_config

SUBPIXELS = 2  # along each side of a position at stride 4: SAM 2's decoder has four mask tokens


@dataclass(frozen=True)
class AttoConfig:
    """What decides the architecture; stored in the header of the weights.

    Attributes:
        trunk: timm's name of the frozen trunk.
        dim: channels C of the embedding and of memories, a multiple of 32.
        blocks: residual blocks of the pyramid at stride 16.
        memory_layers: of memory attention.
        memory_heads: of its attentions.
        feed_forward: width of the feed-forward layers of memory attention and decoder.
        query_gain: of the equal query and key projections at initialisation.
    """

    trunk: str = "tf_efficientnet_lite0"
    dim: int = 128
    blocks: int = 2
    memory_layers: int = 2
    memory_heads: int = 1
    feed_forward: int = 512
    query_gain: float = 1.3

    @classmethod
    def from_dict(cls, options: Mapping[str, object]) -> AttoConfig:
        """Of a header.

        Args:
            options: names and values of the fields; those that are left out take their defaults.

        Returns:
            The configuration.

        Raises:
            ValueError: for a name that is no field.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(options) - set(known)):
            raise ValueError(f"unknown atto options {unknown}; expected some of {', '.join(known)}")
        return cls(**options)  # type: ignore[arg-type]  # values as a header has them

    def to_dict(self) -> dict[str, object]:
        """As :meth:`from_dict` takes it."""
        return asdict(self)


class ConvBlock(nn.Module):
    """x + two 3 x 3 convolutions, each after group normalisation and ReLU.

    Args:
        channels: of the maps, a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: (B, channels, h, w).

        Returns:
            As x.
        """
        x2 = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(x2)))


class FeaturePyramid(nn.Module):
    """The trunk's maps to SAM 2's three: the embedding at stride 16, and those at strides 8 and 4.

    Args:
        channels: of the maps at strides 2, 4, 8, 16 and 32.
        dim: channels C of the embedding.
        blocks: residual blocks at stride 16.

    Attributes:
        d_model: C, by the name under which SAM2Base asks for it.
    """

    def __init__(self, channels: tuple[int, ...], dim: int, *, blocks: int) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = channels
        self.d_model, fine, middle = dim, dim // 8, dim // 4
        self.lateral32, self.lateral16 = nn.Conv2d(c32, dim, 1), nn.Conv2d(c16, dim, 1)
        self.body = nn.Sequential(*(ConvBlock(dim) for _ in range(blocks)))
        self.norm = LayerNorm2d(dim)
        self.lateral8, self.down8 = nn.Conv2d(c8, middle, 1), nn.Conv2d(dim, middle, 1)
        self.body8 = ConvBlock(middle)
        width = 2 * fine
        self.lateral4, self.down4 = nn.Conv2d(c4 + 4 * c2, width, 1), nn.Conv2d(middle, width, 1)
        self.body4 = ConvBlock(width)
        self.out4 = nn.Conv2d(width, fine, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Fuse the maps, coarse to fine.

        Args:
            maps: (B, channels, S/stride, S/stride) at strides 2, 4, 8, 16 and 32.

        Returns:
            (B, C/8, S/4, S/4), (B, C/4, S/8, S/8) and (B, C, S/16, S/16).
        """
        x2, x4, x8, x16, x32 = maps
        x16 = self.body(self.lateral16(x16) + _twice(self.lateral32(x32)))
        x8 = self.body8(self.lateral8(x8) + _twice(self.down8(x16)))
        x4 = torch.cat([x4, F.pixel_unshuffle(x2, 2)], 1).contiguous(memory_format=torch.channels_last)
        x4 = self.body4(self.lateral4(x4) + _twice(self.down4(x8)))
        return [self.out4(x4), x8, self.norm(x16)]


class ImageEncoder(nn.Module):
    """Trunk and pyramid, under the names that SAM2Base expects.

    Args:
        trunk: images to five maps.
        neck: these to three.
    """

    def __init__(self, trunk: PretrainedTrunk, neck: FeaturePyramid) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, neck


class FourierPosition(nn.Module):
    """SAM's random Fourier features of a grid's positions, where SAM 2 has a sine encoding.

    Args:
        layer: the prompt encoder's own.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = [layer]  # it belongs to the prompt encoder

    def forward(self, x: Tensor) -> Tensor:
        """Encode positions.

        Args:
            x: (B, C, h, w), of which only the shape counts.

        Returns:
            (B, C, h, w), the same for all.
        """
        return self._layer[0](tuple(x.shape[-2:]))[None].expand(len(x), -1, -1, -1).to(x.dtype)


class Atto(Sam2):
    """The foundation; see the module.

    Args:
        config: the architecture.
        image_size: side S of the square input in pixels, a multiple of 64.

    Attributes:
        config: what it was built from.
    """

    looks_at_pieces = True
    refines = True
    lora_encoder = r"(.*\.)?image_encoder\.neck\.body.*\.conv[12]"  # it has no attention there

    def __init__(self, config: AttoConfig, *, image_size: int) -> None:
        super().__init__(name="atto", model=_build_model(config, image_size), image_size=image_size)
        self.config = config
        self.click_maps = ClickMaps(config.dim)
        for target, values in (("mean", MEAN), ("std", STD)):
            getattr(self, target).copy_(torch.tensor(values).view(3, 1, 1))

    def trunk_maps(self, images: Tensor) -> list[Tensor]:
        """What the frozen trunk makes of images; can be kept, since no training changes it.

        Args:
            images: (B, 3, S, S) as :meth:`preprocess` gives them.

        Returns:
            Five maps, (B, channels, S/stride, S/stride).
        """
        return self.model.image_encoder.trunk(images)

    def encode_maps(self, maps: list[Tensor]) -> Features:
        """Features of what :meth:`trunk_maps` gave.

        Args:
            maps: five, at strides 2, 4, 8, 16 and 32.

        Returns:
            Embedding and high-resolution maps.
        """
        fine, middle, embedding = self.model.image_encoder.neck(maps)
        return Features(embedding=embedding, high_res=(fine, middle))

    def encode(self, images: Tensor) -> Features:
        """As of every foundation.

        Args:
            images: (B, 3, S, S) as :meth:`preprocess` gives them.

        Returns:
            What the B images are to the decoder.
        """
        return self.encode_maps(self.trunk_maps(images))

    def _dense_prompt(self, coords: Tensor, labels: Tensor, prompts: Prompts, dense: Tensor) -> Tensor:
        marks, masks = draw_marks(coords, labels, self.image_size).to(dense.dtype), None
        if prompts.masks is not None:
            masks = self._resize(prompts.masks.flatten(0, 1)[:, None].float(), size_of(marks))
        return dense + self.click_maps(marks, masks)

    def _masks(self, masks: Tensor) -> Tensor:
        return F.pixel_shuffle(masks, SUBPIXELS)

    def _proxy_position(self, tokens: int) -> Tensor | None:
        side = round(tokens**0.5)
        return self._grid_position((side, side))

    def _grid_position(self, grid: tuple[int, int]) -> Tensor:
        return self.model.sam_prompt_encoder.pe_layer(tuple(grid)).flatten(1).mT


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _align(attention: Attention, gain: float) -> None:
    """Equal orthogonal projections of queries and keys: what is alike, position included, attends to each other."""
    nn.init.orthogonal_(attention.q_proj.weight, gain)
    with torch.no_grad():
        attention.k_proj.weight.copy_(attention.q_proj.weight)
    nn.init.zeros_(attention.q_proj.bias)
    nn.init.zeros_(attention.k_proj.bias)


def _build_model(c: AttoConfig, image_size: int) -> SAM2Base:
    """SAM2Base from the package's configuration, cut down."""
    from hydra.utils import instantiate
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    if c.dim % 32 or c.dim % c.memory_heads:
        raise ValueError(f"dim is {c.dim}, memory_heads {c.memory_heads}: expected a multiple of 32 and of the heads")
    base = package_config()
    attention = {
        "_target_": "sam2.modeling.sam.transformer.Attention",
        "embedding_dim": c.dim,
        "num_heads": c.memory_heads,
    }
    base.memory_attention = OmegaConf.merge(
        base.memory_attention, {"d_model": c.dim, "num_layers": c.memory_layers, "pos_enc_at_input": False}
    )
    base.memory_attention.layer = OmegaConf.merge(
        base.memory_attention.layer,
        {
            "d_model": c.dim,
            "dim_feedforward": c.feed_forward,
            "pos_enc_at_attn": True,
            "pos_enc_at_cross_attn_queries": True,
            "dropout": 0.0,
        },
    )
    base.memory_attention.layer.self_attention = attention
    base.memory_attention.layer.cross_attention = {**attention, "kv_in_dim": c.dim}
    base.memory_encoder = OmegaConf.merge(
        base.memory_encoder,
        {
            "in_dim": c.dim,
            "out_dim": c.dim,
            "mask_downsampler": {"embed_dim": c.dim},
            "fuser": {"layer": {"dim": c.dim, "kernel_size": 3, "padding": 1, "layer_scale_init_value": 0.1}},
        },
    )
    base.image_size = image_size
    options = {str(key): value for key, value in base.items() if key not in ("_target_", "image_encoder")}
    parts = {key: instantiate(options.pop(key)) for key in ("memory_attention", "memory_encoder")}
    trunk = PretrainedTrunk(c.trunk)
    model = SAM2Base(ImageEncoder(trunk, FeaturePyramid(trunk.channels, c.dim, blocks=c.blocks)), **parts, **options)
    transformer = TwoWayTransformer(depth=2, embedding_dim=c.dim, mlp_dim=c.feed_forward, num_heads=8)
    decoder = MaskDecoder(
        num_multimask_outputs=SUBPIXELS**2 - 1,
        transformer=transformer,
        transformer_dim=c.dim,
        iou_head_depth=3,
        iou_head_hidden_dim=c.dim,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
    )
    decoder.conv_s0 = decoder.conv_s1 = nn.Identity()  # the pyramid's maps have the width that is wanted
    model.sam_mask_decoder = decoder
    position = FourierPosition(model.sam_prompt_encoder.pe_layer)
    model.image_encoder.neck.position_encoding = position
    model.memory_encoder.position_encoding = position
    for module in model.modules():
        if isinstance(module, Attention):
            _align(module, c.query_gain)
    for embedding in model.sam_prompt_encoder.point_embeddings:
        nn.init.normal_(embedding.weight, std=0.3)
    return model.eval()


def build_atto(config: Mapping[str, object] | None = None, *, image_size: int = 384) -> Atto:
    """``atto`` with random weights behind its pretrained trunk.

    Args:
        config: options of :class:`AttoConfig`.
        image_size: side S of the square input in pixels, a multiple of 64.

    Returns:
        The foundation, in evaluation mode.

    Raises:
        ValueError: for unknown options or an impossible size.
        CheckpointError: when the trunk's package is missing or another version.
    """
    return Atto(AttoConfig.from_dict(config or {}), image_size=image_size).eval()
