"""SAM 2 behind :class:`proxyprompt.foundation.base.Foundation`.

The published package's own modules do the work. Its predictors are not used: they run without gradients, hold state,
and skip memory attention on the first frame, where the proxy prompt must enter (paper, section 3.3). How a token that
is C wide enters a memory that is narrower, the paper does not say: it is split, as SAM 2 does with object pointers.
"""

from __future__ import annotations

from importlib.resources import files

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

from .base import Decoded, Features, Foundation, FrameMemory, Geometry, MemoryBank, Points, Prompts, size_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEP = 64  # four halvings of a stride 16 grid, and whole attention windows


class Sam2(Foundation):
    """SAM 2: clicks, boxes, masks, proxy and memory.

    Args:
        name: for messages and provenance.
        model: a SAM2Base of the ``sam2`` package.
        image_size: side S of the square input in pixels, a multiple of 64.

    Raises:
        ValueError: for another size.

    Attributes:
        mem_dim: channels of memories.
    """

    remembers = True
    model: SAM2Base
    mean: Tensor
    std: Tensor

    def __init__(self, *, name: str, model: SAM2Base, image_size: int) -> None:
        super().__init__()
        if image_size < STEP or image_size % STEP:
            raise ValueError(f"{name}: image_size {image_size}; expected a positive multiple of {STEP}")
        self.name, self.image_size, self.model = name, image_size, model
        self.dim, self.mem_dim = model.hidden_dim, model.mem_dim
        self.stride = model.backbone_stride
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Sam2:
        """Always evaluation mode: memory attention has dropout, and what is frozen must not change meanwhile.

        Args:
            mode: not heeded.

        Returns:
            The module itself.
        """
        return super().train(False)

    def preprocess(self, images: Tensor) -> tuple[Tensor, Geometry]:
        """As every foundation: stretched to the square.

        Args:
            images: (B, 3, h, w) float in [0, 1].

        Returns:
            (B, 3, S, S), and how they lie in it.
        """
        geometry = self.geometry(size_of(images))
        return (self._resize(images, geometry.scaled) - self.mean) / self.std, geometry

    def preprocess_masks(self, masks: Tensor, geometry: Geometry) -> Tensor:
        """As every foundation: stretched to the square.

        Args:
            masks: (B, N, h, w) bool or in [0, 1].
            geometry: of the images.

        Returns:
            (B, N, S, S) float in [0, 1].
        """
        return self._resize(masks.float(), (geometry.size, geometry.size)).clamp(0, 1)

    def postprocess(self, mask_logits: Tensor, geometry: Geometry) -> Tensor:
        """As every foundation, in one step.

        Args:
            mask_logits: (B, N, s, s).
            geometry: of the images.

        Returns:
            (B, N, h, w) logits.
        """
        return self._resize(mask_logits.float(), geometry.original)

    @staticmethod
    def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(x.shape[-2:]) == tuple(size):
            return x
        return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)

    def encode(self, images: Tensor) -> Features:
        """As every foundation, with maps at stride 4 and 8.

        Args:
            images: (B, 3, S, S) as :meth:`preprocess` gives them.

        Returns:
            Embedding and high-resolution maps.
        """
        maps = self.model.forward_image(images)["backbone_fpn"]
        return Features(embedding=maps[-1], high_res=tuple(maps[:-1]))

    def decode(self, features: Features, prompts: Prompts, memory: MemoryBank | None = None) -> Decoded:
        """As every foundation; the proxy enters through memory attention (paper, section 3.3).

        Args:
            features: of B images.
            prompts: of N objects in each.
            memory: earlier frames; None or an empty one for none.

        Returns:
            The N objects in the B images.
        """
        batch, objects = prompts.batch()
        if prompts.proxy is None and (memory is None or not memory.frames):
            embedding = _per_object(features.embedding + self.model.no_mem_embed.view(1, -1, 1, 1), objects)
        else:
            embedding = self._attend(features, objects, prompts.proxy, memory)
        coords, labels = _clicks_and_corners(prompts, embedding)
        sparse, dense = self._embed_prompts(prompts, coords, labels, embedding)
        high_res = [_per_object(x, objects) for x in features.high_res]
        decoder = self.model.sam_mask_decoder
        dense = self._dense_prompt(coords, labels, prompts, dense)
        masks, iou, tokens, presence = decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.model.sam_prompt_encoder.pe_layer(tuple(embedding.shape[-2:]))[None].to(embedding.dtype),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=high_res,
        )
        masks = self._masks(masks)
        if decoder.dynamic_multimask_via_stability and prompts.proxy is None and prompts.dense is None:
            masks, iou = decoder._dynamic_multimask_via_stability(masks, iou)
        pointer = self._point_to_object(tokens[:, 0], presence)
        return Decoded(
            mask_logits=masks[:, 0].unflatten(0, (batch, objects)),
            presence_logit=presence[:, 0].unflatten(0, (batch, objects)),
            iou=iou[:, 0].unflatten(0, (batch, objects)),
            object_pointer=pointer.unflatten(0, (batch, objects)),
        )

    def remember_frame(self, features: Features, mask_logits: Tensor, decoded: Decoded) -> FrameMemory:
        """What SAM 2's memory encoder makes of a frame and its masks; absent objects are remembered as absent.

        Args:
            features: of B frames.
            mask_logits: (B, N, s, s), the masks to remember.
            decoded: what the decoder said of them.

        Returns:
            One frame of a memory bank.
        """
        batch, objects = mask_logits.shape[:2]
        presence = decoded.presence_logit.flatten()[:, None]
        masks = torch.where(presence[..., None, None] > 0, mask_logits.flatten(0, 1)[:, None].float(), NO_OBJ_SCORE)
        masks = F.interpolate(masks, (self.image_size, self.image_size), mode="bilinear", align_corners=False)
        embedding = _per_object(features.embedding, objects)
        maps, positions = self.model._encode_new_memory(
            current_vision_feats=[embedding.flatten(2).permute(2, 0, 1)],
            feat_sizes=[tuple(embedding.shape[-2:])],
            pred_masks_high_res=masks,
            object_score_logits=presence,
            is_mask_from_pts=False,
        )
        return FrameMemory(
            maps=maps.unflatten(0, (batch, objects)),
            positions=positions[-1].unflatten(0, (batch, objects)),
            pointer=decoded.object_pointer,
        )

    def _attend(self, features: Features, objects: int, proxy: Tensor | None, bank: MemoryBank | None) -> Tensor:
        """Memory attention over remembered frames, then object pointers, then the proxy tokens, in this order.

        The first self-attention sees nothing but the image, so all its objects share it.
        Pointers and proxy are counted in ``num_obj_ptr_tokens``: they have no place on the grid, so RoPE must leave
        them alone. proxy: (B, N, T, C). Returns (B * N, C, H, W).
        """
        model, dim, embedding = self.model, self.dim, features.embedding
        sequences = len(embedding) * objects
        maps, map_positions, tokens, token_positions = [], [], [], []
        bank = bank or MemoryBank()
        for frame, distance, conditioning in zip(bank.frames, bank.distances, bank.conditioning, strict=True):
            recency = model.num_maskmem - 1 if conditioning else min(abs(distance), model.num_maskmem - 1) - 1
            maps.append(_as_tokens(frame.maps))
            map_positions.append(_as_tokens(frame.positions) + model.maskmem_tpos_enc[recency])
        if bank.frames:
            pointers = torch.stack([f.pointer.flatten(0, 1) for f in bank.frames])  # (frames, B*N, C)
            times = torch.tensor(bank.distances, device=embedding.device, dtype=torch.float32)
            times = get_1d_sine_pe(times / (model.max_obj_ptrs_in_encoder - 1), dim=dim)
            times = model.obj_ptr_tpos_proj(times.to(pointers.dtype))[:, None].expand(-1, sequences, -1)
            tokens.append(self._split(pointers))
            token_positions.append(times.repeat_interleave(dim // self.mem_dim, 0))
        if proxy is not None:
            tokens.append(self._split(proxy.flatten(0, 1).transpose(0, 1)))
            places, position = torch.zeros_like(tokens[-1]), self._proxy_position(proxy.shape[2])
            token_positions.append(places if position is None else places + position.to(places)[:, None])
        memory, memory_position = (
            torch.cat(x).transpose(0, 1) for x in (maps + tokens, map_positions + token_positions)
        )
        attention, x = model.memory_attention, embedding.flatten(2).mT
        position = model.image_encoder.neck.position_encoding(embedding[:1]).flatten(2).mT  # (1, HW, C)
        rotary = isinstance(attention.layers[0].cross_attn_image, RoPEAttention)
        without_place = sum(len(t) for t in tokens) if rotary else 0
        if attention.pos_enc_at_input:
            x = x + 0.1 * position
        first, *others = attention.layers
        x = _per_object(first._forward_sa(x, position), objects)
        x = first._forward_ca(x, memory, position, memory_position, without_place)
        x = x + first.linear2(first.activation(first.linear1(first.norm3(x))))
        for layer in others:
            x = layer(x, memory, memory_position, position, without_place)
        return attention.norm(x).mT.unflatten(2, embedding.shape[-2:])

    def _proxy_position(self, tokens: int) -> Tensor | None:
        """(tokens, mem_dim), the places of the proxy prompt's tokens; None where they have none, as in the paper."""
        return None

    def _dense_prompt(self, coords: Tensor, labels: Tensor, prompts: Prompts, dense: Tensor) -> Tensor:
        """What else a foundation makes of clicks, boxes and masks, on top of SAM's dense prompt (B*N, C, H, W)."""
        return dense

    def _masks(self, masks: Tensor) -> Tensor:
        """The decoder's mask logits (B*N, 4, 4H, 4W), of which the first is taken."""
        return masks

    def _split(self, tokens: Tensor) -> Tensor:
        """(T, B*N, C) -> (T * C / mem_dim, B*N, mem_dim), as SAM 2 does with its object pointers."""
        tokens = tokens.unflatten(2, (-1, self.mem_dim))
        return tokens.permute(0, 2, 1, 3).flatten(0, 1)

    def _embed_prompts(
        self, prompts: Prompts, coords: Tensor, labels: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sparse (B*N, P, C) and dense (B*N, C, H, W) prompt embeddings."""
        encoder = self.model.sam_prompt_encoder
        built_for = torch.tensor(encoder.input_image_size[::-1], device=coords.device, dtype=coords.dtype)
        coords = (coords + 0.5) * (built_for / self.image_size) - 0.5
        masks = prompts.masks
        if masks is not None:
            quarter = self.image_size // 4
            masks = self._resize(masks.flatten(0, 1)[:, None].float(), (quarter, quarter))
        sparse, dense = encoder(points=(coords, labels), boxes=None, masks=masks)
        if masks is None:  # of this request's size, not the one the encoder was built for
            dense = encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand_as(embedding)
        if prompts.dense is not None:
            dense = dense + prompts.dense.flatten(0, 1).to(dense.dtype)
        return sparse.to(embedding.dtype), dense

    def _point_to_object(self, token: Tensor, presence: Tensor) -> Tensor:
        """Object pointers (B*N, C), replaced by the learned "no object" where the object is absent."""
        model = self.model
        pointer, appears = model.obj_ptr_proj(token), (presence > 0).to(token.dtype)
        if model.fixed_no_obj_ptr:
            pointer = appears * pointer
        return pointer + (1 - appears) * model.no_obj_ptr


def _per_object(x: Tensor, objects: int) -> Tensor:
    """(B, ...) -> (B * N, ...), each image repeated for its N objects."""
    return x if objects == 1 else x[:, None].expand(-1, objects, *x.shape[1:]).flatten(0, 1)


def _as_tokens(maps: Tensor) -> Tensor:
    """(B, N, mem_dim, H, W) -> (H * W, B * N, mem_dim)."""
    return maps.flatten(0, 1).flatten(2).permute(2, 0, 1)


def _clicks_and_corners(prompts: Prompts, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Points (B*N, P, 2) and labels (B*N, P): box corners (2, 3), then clicks; one non-point when there is none."""
    coords, labels = [], []
    if prompts.boxes is not None:
        corners = prompts.boxes.flatten(0, 1).unflatten(1, (2, 2)).float()
        coords.append(corners)
        labels.append(torch.tensor([2, 3], device=corners.device, dtype=torch.int32).expand(len(corners), 2))
    if prompts.points is not None:
        points: Points = prompts.points
        coords.append(points.coords.flatten(0, 1).float())
        labels.append(points.labels.flatten(0, 1).to(torch.int32))
    if not coords:
        coords.append(torch.zeros(len(embedding), 1, 2, device=embedding.device))
        labels.append(torch.full((len(embedding), 1), -1, device=embedding.device, dtype=torch.int32))
    return torch.cat(coords, 1), torch.cat(labels, 1)


def package_config(config: str = "sam2.1_hiera_t.yaml") -> DictConfig:
    """The model's part of one of the configurations of SAM 2.1 in the package.

    Args:
        config: its file name; the smallest model by default.

    Returns:
        The configuration.
    """
    return OmegaConf.load(str(files("sam2") / "configs" / "sam2.1" / config)).model


def build_sam2_model(config: str = "sam2.1_hiera_t.yaml", image_size: int = 1024) -> SAM2Base:
    """An architecture of the package with random weights, ready for the official checkpoint's keys.

    Args:
        config: file name of the package's configuration.
        image_size: side S of the square input in pixels.

    Returns:
        The model, in evaluation mode.
    """
    model = package_config(config)
    grid = image_size // 16
    model.image_size = image_size
    model.memory_attention.layer.self_attention.feat_sizes = [grid, grid]
    model.memory_attention.layer.cross_attention.feat_sizes = [grid, grid]
    model.sam_mask_decoder_extra_args = {  # what the package's predictors are built with
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    return _instantiate(model)


def _instantiate(config: DictConfig) -> SAM2Base:
    from hydra.utils import instantiate  # resolves `_target_` entries; needs none of hydra's global state

    model = instantiate(config, _recursive_=True)
    return model.eval()
