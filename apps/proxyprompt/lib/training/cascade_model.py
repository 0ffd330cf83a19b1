"""Training of the second stage alone: see :mod:`lib.cascade`.

Each labelled slice is segmented from others, as a request would be, by everything that stays as it is: once for each of
a few choices of supports, when it is first asked for. The network then learns to make the mask of image and guess,
both varied alike; a step costs what a step of a small U-Net does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.cascade import Cascade, laid, seen
from lib.dice import hard_dice
from lib.foundation.base import Features, Foundation
from lib.prompt.context import SupportMemory
from lib.second_look import Learned
from lib.segmenter import Segmenter
from lib.studies.ranking import evenly
from lib.training.augmentation import augment
from lib.training.cases import LabelledSlice
from lib.training.episode_model import EpisodeModel
from lib.training.episodes import EpisodeSource, Picture, prepare
from lib.training.finetune_config import FinetuneConfig
from lib.training.losses import SegmentationLoss, soft_dice
from lib.training.validation import UNVARIED, choose_supports

SUPPORTS = (4, 12, 2, 8)  # of the guesses of one round and the next
FOLDS = 4  # parts that the studies are divided into; each is segmented from the others
STEPS = 100  # with the guesses of one round
PART = 128  # pixels along each side of a sample: fine structures show in a part of the image
SLICES = 128  # of all studies together; each is segmented once in a round
_UNIONS = 0.2  # share of samples that are two structures taken as one
_SURE = 10.0


@dataclass(frozen=True)
class Sample:
    """B slices or parts of them, each for one object. images: (B, 3, s, s), as :func:`lib.cascade.seen`. guesses:
    (B, 1, s, s) logits. masks: (B, 1, s, s) in [0, 1]."""

    images: Tensor
    guesses: Tensor
    masks: Tensor


class CascadeModel(EpisodeModel):
    """What trains where only the cascade does. Support sets of the validation are remembered once: nothing of them
    changes but what the cascade makes of them."""

    trains_decoder = False

    def __init__(self, segmenter: Segmenter, *, frozen_encoder: bool = True, save_memory: bool = False) -> None:
        super().__init__(segmenter, frozen_encoder=frozen_encoder, save_memory=save_memory)
        self._remembered: dict[tuple, tuple[SupportMemory, Learned]] = {}

    def source(self, episodes: EpisodeSource, config: FinetuneConfig) -> SampleSource:
        return SampleSource(self, episodes, config)

    def criterion(self, config: FinetuneConfig) -> CascadeLoss:
        return CascadeLoss(self.segmenter.cascade, pixel_weight=config.pixel_weight)

    def serve(
        self, pictures: Sequence[Picture], features: Features, contexts: Tensor, declared: Tensor
    ) -> SupportMemory:
        masks = torch.stack([p.masks for p in pictures])
        shown = masks.sum((2, 3)).cpu().numpy()  # tells structures of the same pictures apart
        key = (tuple(p.key for p in pictures), declared.cpu().numpy().tobytes(), shown.tobytes())
        if key not in self._remembered:
            self._remembered[key] = self.segmenter.remember_without_cascade(features, contexts, declared, masks)
        return self.segmenter.with_cascade(*self._remembered[key], features, declared, masks)


class CascadeLoss(nn.Module):
    """Dice and pixel-wise cross-entropy, as for episodes; where there is nothing to draw, cross-entropy alone."""

    def __init__(self, cascade: Cascade, *, pixel_weight: float) -> None:
        super().__init__()
        self.cascade, self._pixel_weight = cascade, pixel_weight

    def forward(self, sample: Sample) -> SegmentationLoss:
        logits = self.cascade(sample.images, sample.guesses)[:, 0].float()
        masks = sample.masks[:, 0]
        present = masks.flatten(1).amax(1) > 0.5
        dice_term = ((1 - soft_dice(logits, masks)) * present).sum() / present.sum().clamp_min(1)
        pixel_term = F.binary_cross_entropy_with_logits(logits, masks)
        with torch.no_grad():
            dice = hard_dice(logits > 0, masks > 0.5).masked_fill(~present, torch.nan)
        parts = {"soft_dice": dice_term.item(), "pixel": pixel_term.item()}
        return SegmentationLoss(dice_term + self._pixel_weight * pixel_term, dice[:, None], parts)


class SampleSource:
    """Draws steps. What is drawn depends on the seed and the step alone, as for episodes."""

    def __init__(self, model: CascadeModel, episodes: EpisodeSource, config: FinetuneConfig) -> None:
        self._model, self._config, self._structures = model, config, episodes.structures
        most = max(2, SLICES // len(episodes.by_key))
        self._by_key = {key: evenly(some, most) for key, some in episodes.by_key.items()}
        self._size = model.segmenter.cascade.config.size
        self._sets: dict[tuple[int, int], tuple[list[int], SupportMemory | None]] = {}
        self._guesses: dict[tuple, Tensor] = {}

    def draw(self, step: int, foundation: Foundation, *, rank: int = 0) -> Sample:
        """The samples of a step; rank: of this process, where several train together."""
        rng = np.random.default_rng([self._config.seed, step, rank])
        chosen = [self._one(rng, step // STEPS) for _ in range(self._config.batch)]
        device = next(foundation.parameters()).device
        return Sample(*(torch.stack(part).to(device) for part in zip(*chosen, strict=True)))

    def _one(self, rng: np.random.Generator, turn: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image (3, s, s), guess and mask (1, s, s)."""
        first = int(rng.choice(self._structures))
        key = str(rng.choice([k for k, some in self._by_key.items() if any(s.declared[first] for s in some)]))
        full, blank = ([s for s in self._by_key[key] if bool(s.shown[first]) is shown] for shown in (True, False))
        absent = not full or (blank and rng.random() < self._config.absent)
        pool = blank if absent else full
        labelled = pool[int(rng.integers(len(pool)))]
        structures = [first]
        others = [n for n in self._structures if n != first and labelled.declared[n]]
        if others and rng.random() < _UNIONS:
            structures.append(int(rng.choice(others)))
        guess = self._guess(turn % len(SUPPORTS), key, labelled)[structures].amax(0, keepdim=True)
        mask = labelled.masks[structures].amax(0, keepdim=True).float() / 255
        image, mask = laid(labelled.image[None], self._size)[0], laid(mask[None], self._size)[0]
        if self._config.augment:
            both = torch.cat([mask, guess / (2 * _SURE) + 0.5])
            image, (mask, guess) = augment(image.clamp(0, 1), both.clamp(0, 1), seed=int(rng.integers(2**31)))
            mask, guess = mask[None], (guess[None] - 0.5) * (2 * _SURE)
        return self._part(rng, seen(image[None], self._size)[0], guess, mask)

    def _part(self, rng: np.random.Generator, *pictures: Tensor) -> tuple[Tensor, ...]:
        """The same part of each, where the whole is larger than a step needs."""
        side = min(PART, self._size)
        top, left = (int(rng.integers(self._size - side + 1)) for _ in range(2))
        return tuple(p[:, top : top + side, left : left + side] for p in pictures)

    @torch.no_grad()
    def _guess(self, turn: int, key: str, labelled: LabelledSlice) -> Tensor:
        """(N, s, s) logits of all structures; where no other study shows one, nothing is known about it."""
        found = (turn, labelled.case.content, labelled.index)
        if found not in self._guesses:
            structures, memory = self._set(turn, key)
            guess = torch.full((len(labelled.declared), self._size, self._size), -_SURE)
            if memory is not None:
                features = self._model.features([self._picture(labelled, structures)])
                drawn = self._model.segmenter.segment(features, memory).mask_logits
                guess[structures] = laid(drawn, self._size)[0].clamp(-_SURE, _SURE).cpu()
            self._guesses[found] = guess.half()
        return self._guesses[found].float()

    def _set(self, turn: int, key: str) -> tuple[list[int], SupportMemory | None]:
        """Supports for the slices of ``key``, without any of them, as far as possible: the structures that they show,
        and what is remembered of them."""
        by_key = self._by_key
        rng = np.random.default_rng([self._config.seed, turn])
        order = [list(by_key)[i] for i in rng.permutation(len(by_key))]
        folds = min(FOLDS, len(order))
        fold = order.index(key) % folds
        if (turn, fold) not in self._sets:
            others = [k for i, k in enumerate(order) if i % folds != fold] or order
            pool = [s for k in others for s in by_key[k]]
            pool = [pool[i] for i in rng.permutation(len(pool))]
            picked = [pool[i] for i in choose_supports(pool, self._structures, SUPPORTS[turn])]
            structures = [n for n in self._structures if any(s.shown[n] for s in picked)]
            self._sets[turn, fold] = structures, self._remember(picked, structures) if structures else None
        return self._sets[turn, fold]

    def _remember(self, slices: Sequence[LabelledSlice], structures: list[int]) -> SupportMemory:
        segmenter = self._model.segmenter
        pictures = [self._picture(s, structures) for s in slices]
        features = self._model.features(pictures)
        masks = torch.stack([p.masks for p in pictures])
        contexts = segmenter.encode_pair(torch.stack([p.image for p in pictures]), masks)
        declared = torch.stack([s.declared[structures] for s in slices]).to(masks.device)
        return segmenter.remember_without_cascade(features, contexts, declared, masks)[0]

    def _picture(self, labelled: LabelledSlice, structures: list[int]) -> Picture:
        masks = labelled.masks[structures].float() / 255
        key = (labelled.case.content, labelled.index, UNVARIED)
        return prepare(labelled.image.float(), masks, self._model.segmenter.foundation, key=key)
