"""A model's forward pass over the episodes of one step, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from cachetools import LRUCache
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from proxyprompt.foundation.base import Decoded, Features
from proxyprompt.predictor.segmenter import PromptedFoundation, Segmenter
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding

from .episodes import Episodes, EpisodeSource, Sample
from .finetune_config import FinetuneConfig
from .losses import SegmentationLoss, segmentation_loss

CACHE_BYTES = 4 << 30


class EpisodeModel(nn.Module):
    """A prompted foundation on episodes; what does not depend on how it is prompted.

    Args:
        segmenter: that trains.
        frozen_encoder: image features do not change while this trains: they are computed once for each slice and
            variation, and kept as far as ``CACHE_BYTES`` goes.
        save_memory: activations of the image encoder are computed again for the gradient instead of kept.
    """

    def __init__(
        self, segmenter: PromptedFoundation, *, frozen_encoder: bool = False, save_memory: bool = False
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self._frozen, self._save_memory = frozen_encoder, save_memory
        self._kept: LRUCache = LRUCache(CACHE_BYTES, getsizeof=_nbytes)

    def source(self, episodes: EpisodeSource, config: FinetuneConfig) -> EpisodeSource:
        """What steps are drawn from."""
        return episodes

    def criterion(self, config: FinetuneConfig) -> nn.Module:
        """From what was drawn to a SegmentationLoss."""
        weights = {name: getattr(config, name) for name in ("pixel_weight", "presence_weight", "iou_weight")}
        return EpisodeLoss(self, **weights)

    def context(self, sample: Sample) -> Tensor | None:
        """What a sample's image and masks are as a support, (N, ...); None for models that take no supports."""
        return None

    def serve(
        self, samples: Sequence[Sample], features: Features, contexts: Sequence[Tensor | None], declared: Tensor
    ) -> SupportEncoding | None:
        """A support set as requests have it; None for models that take no supports.

        Args:
            samples: K of them.
            features: of the samples.
            contexts: of each, from :meth:`context`, for the N structures of ``declared``.
            declared: (K, N) bool.
        """
        return None

    def segment(
        self, features: Features, memory: SupportEncoding | None, samples: Sequence[Sample], structures: Sequence[int]
    ) -> Decoded:
        """Segment N structures in B images.

        Args:
            features: of the images.
            memory: of the supports, from :meth:`serve`.
            samples: the images, for models that are given where structures are; see
                :mod:`proxyprompt.evaluation.comparison_models`.
            structures: for models that know structures by name.

        Returns:
            The N objects in the B images.
        """
        raise NotImplementedError

    def features(self, samples: Sequence[Sample]) -> Features:
        """Of all samples, with their padding."""
        padding = None
        if any(p.padding is not None for p in samples):
            grid = self.segmenter.foundation.grid
            whole = torch.zeros(grid, grid, dtype=torch.bool, device=samples[0].image.device)
            padding = torch.stack([whole if p.padding is None else p.padding for p in samples])
        if self._frozen:
            made = [self._once(p) for p in samples]
        elif self._save_memory and torch.is_grad_enabled():
            made = [checkpoint(self.segmenter.encode, p.image[None], use_reentrant=False) for p in samples]
        else:
            made = [self.segmenter.encode(torch.stack([p.image for p in samples]))]
        return replace(Features.join(made), padding=padding)

    def _once(self, sample: Sample) -> Features:
        if sample.key not in self._kept:
            with torch.no_grad():
                made = self.segmenter.encode(sample.image[None])
            if _nbytes(made) > self._kept.maxsize:
                return made
            self._kept[sample.key] = made
        return self._kept[sample.key]


class ProxyPromptEpisodeModel(EpisodeModel):
    """The proxy prompt on episodes: each image is prompted by its supports (section 4.3 of the paper)."""

    segmenter: Segmenter

    def context(self, sample: Sample) -> Tensor:
        """As :meth:`Segmenter.encode_pair`, of one image: (N, D, H, W)."""
        return self.segmenter.encode_pair(sample.image[None], sample.masks[None])[0]

    def serve(
        self, samples: Sequence[Sample], features: Features, contexts: Sequence[Tensor | None], declared: Tensor
    ) -> SupportEncoding:
        """As :meth:`Segmenter.encode_support`."""
        known = torch.stack([context for context in contexts if context is not None])
        return self.segmenter.encode_support(features, known, declared)

    def forward(self, episodes: Episodes) -> Decoded:
        """The structures asked for in each of the M images, prompted by its supports."""
        features = self.features(episodes.samples)
        device = features.embedding.device
        declared, supports = episodes.declared.to(device), episodes.supports.to(device)
        memory = self.encode_support(episodes.samples, features, declared)
        each = memory.valid.unflatten(2, (len(supports), -1))  # (1, N, M, HW)
        valid = (each & supports[:, None, :, None]).flatten(2)  # (M, N, M * HW)
        # what no support declares is not asked for; but a softmax over nothing would spoil the whole step
        valid = valid | ~valid.any(-1, keepdim=True)
        members = len(supports)
        chosen = replace(memory.repeated(members), valid=valid)
        return self.segment(features, chosen, episodes.samples, episodes.structures)

    def segment(
        self, features: Features, memory: SupportEncoding | None, samples: Sequence[Sample], structures: Sequence[int]
    ) -> Decoded:
        """By what the supports show; neither the samples nor the structures are looked at."""
        return self.segmenter.segment(features, memory)

    def encode_support(self, samples: Sequence[Sample], features: Features, declared: Tensor) -> SupportEncoding:
        """All samples as one support set. declared: (M, N) bool, no column without a True."""
        images, masks = torch.stack([p.image for p in samples]), torch.stack([p.masks for p in samples])
        contexts = self.segmenter.encode_pair(images, masks)
        return self.segmenter.encode_support(features, contexts, declared)


class EpisodeLoss(nn.Module):
    """Model and loss as one: several processes that average gradients must see no output that the loss does not use.

    pixel_weight, presence_weight, iou_weight: see :func:`proxyprompt.training.losses.segmentation_loss`.
    """

    def __init__(
        self, model: EpisodeModel, *, pixel_weight: float, presence_weight: float, iou_weight: float = 0.1
    ) -> None:
        super().__init__()
        self.model = model
        self._weights = {"pixel_weight": pixel_weight, "presence_weight": presence_weight, "iou_weight": iou_weight}

    def forward(self, episodes: Episodes) -> SegmentationLoss:
        """The loss of some episodes."""
        masks = torch.stack([p.masks for p in episodes.samples])
        inside = torch.stack([p.inside for p in episodes.samples])
        asked = episodes.asked.to(masks.device)
        return segmentation_loss(self.model(episodes), masks, asked=asked, inside=inside, **self._weights)


def _nbytes(features: Features) -> int:
    return sum(tensor.nbytes for tensor in features.to_tensors().values())
