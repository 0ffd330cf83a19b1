"""Episodes drawn from labelled slices: every image of a step is a target once, supported by some of the others.

Images are encoded once and serve in both roles. Axes: ``M`` images of a step, ``N`` structures asked for, ``S`` pixels,
``H = W = S/16``. What is drawn depends on the seed and the step alone, so a training that goes on after it was killed
draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from proxyprompt.foundation.base import Foundation, Geometry

from .augmentation import augment
from .cases import LabelledSlice
from .errors import TrainingError
from .finetune_config import FinetuneConfig


@dataclass(frozen=True)
class Sample:
    """A slice as the network takes it.

    Attributes:
        image: (3, S, S).
        masks: (N, S, S) in [0, 1].
        geometry: how it lies in the square.
        padding: (H, W) bool or None.
        key: tells that slice and variation are the same.
    """

    image: Tensor
    masks: Tensor
    geometry: Geometry
    padding: Tensor | None
    key: tuple[str, int, int]

    @property
    def inside(self) -> Tensor:
        """(S, S) bool, False where there is nothing but padding."""
        height, width = self.geometry.scaled
        inside = torch.zeros_like(self.image[0], dtype=torch.bool)
        inside[:height, :width] = True
        return inside


@dataclass(frozen=True)
class Episodes:
    """M targets. samples: their M images, masks of the structures asked for only: ``structures``, their N indices.

    declared: (M, N) bool, by the images' studies. supports: (M, M) bool, row: target; never on the diagonal. asked:
    (M, N) bool, whether the target's study declares the structure and one of its supports shows it.
    """

    samples: tuple[Sample, ...]
    structures: tuple[int, ...]
    declared: Tensor
    supports: Tensor
    asked: Tensor


class EpisodeSource:
    """Draws steps from the slices of the training cases.

    slices: of all cases. names: of the N structures of their masks. members, supports, objects, absent, augmented,
    views: see FinetuneConfig. Supports and targets are of different groups; of different studies where all are of one
    group; two variations of the same study where there is only one. ``structures``: the indices of those that can be
    asked for; ``warnings``: what the user should know; ``by_key``: slices that must not support
    each other, together.

    Raises TrainingError when nothing can be asked for.
    """

    def __init__(
        self,
        slices: Sequence[LabelledSlice],
        names: Sequence[str],
        *,
        members: int = 5,
        supports: int | None = None,
        objects: int = 3,
        absent: float = 0.2,
        augmented: bool = True,
        views: int | None = None,
        seed: int = 0,
    ) -> None:
        if not slices:
            raise TrainingError("no labelled study to train on; label and submit at least two studies")
        self._names = list(names)
        self._members, self._supports, self._objects, self._absent = members, supports, objects, absent
        self._seed = seed
        self.warnings: list[str] = []
        self.by_key = self._split(slices)
        alone = len(self.by_key) == 1
        if alone:
            self.warnings.append(
                f"there is only one labelled study to train on ({slices[0].case.id}): it supports itself, in another "
                "variation; label more studies"
            )
        self._augmented = augmented or alone
        self._views = views
        self._alone = alone
        showing = [sum(any(s.shown[n] for s in some) for some in self.by_key.values()) for n in range(len(names))]
        self.structures = [n for n, count in enumerate(showing) if count >= (1 if alone else 2)]
        for n, count in enumerate(showing):
            if n not in self.structures and count:
                self.warnings.append(
                    f"{names[n]!r} is labelled in one of the {self._unit} only, so it is not trained: label another one"
                )
        if not any(showing):
            raise TrainingError(
                f"all masks of the {len({s.case.id for s in slices})} labelled studies to train on are empty; paint "
                f"{', '.join(names) or 'a structure'} in at least two studies"
            )
        if not self.structures:
            raise TrainingError(
                f"none of {', '.join(names)} is labelled in two of the {len(self.by_key)} {self._unit} to train on; "
                "label the same structure in another one"
            )

    @classmethod
    def configured(cls, slices: Sequence[LabelledSlice], names: Sequence[str], config: FinetuneConfig) -> EpisodeSource:
        """As the options of a fine-tuning say."""
        return cls(
            slices,
            names,
            members=config.members,
            supports=config.supports,
            objects=config.objects,
            absent=config.absent,
            augmented=config.augment,
            views=config.views,
            seed=config.seed,
        )

    def _split(self, slices: Sequence[LabelledSlice]) -> dict[str, list[LabelledSlice]]:
        """Slices that must not support each other, under one key."""
        grouped = len({s.case.group for s in slices}) > 1
        self._unit = "patients or cases" if grouped else "studies"
        by_key: dict[str, list[LabelledSlice]] = {}
        for s in slices:
            by_key.setdefault(s.case.group if grouped else s.case.id, []).append(s)
        return by_key

    def draw(self, step: int, foundation: Foundation, *, rank: int = 0) -> Episodes:
        """The episodes of a step; rank: of this process, where several train together."""
        rng = np.random.default_rng([self._seed, step, rank])
        slices, keys, structures = self._choose(rng)
        views = rng.integers(self._views or 2**31, size=len(slices)) if self._augmented else [0] * len(slices)
        samples = tuple(
            self._sample(one, int(view), structures, foundation) for one, view in zip(slices, views, strict=True)
        )
        declared = torch.stack([one.declared[structures] for one in slices])
        held = torch.stack([p.masks.flatten(1).amax(1) > 0.5 for p in samples]).cpu() & declared
        supports = self._choose_supports(rng, keys, held[:, 0].numpy())
        asked = declared & (supports.float() @ held.float() > 0)
        return Episodes(samples, tuple(structures), declared, supports, asked)

    def _choose(self, rng: np.random.Generator) -> tuple[list[LabelledSlice], list[str], list[int]]:
        """Slices, their keys, and structures.

        The first two slices, of different keys, show the first structure, and studies of the others declare it.
        """
        first = int(rng.choice(self.structures))
        keys = list(self.by_key)
        showing = [k for k in keys if any(s.shown[first] for s in self.by_key[k])]
        if self._alone:
            chosen = showing * self._members
        else:
            pair = [str(k) for k in rng.permutation(showing)[:2]]
            known = [k for k in keys if any(s.declared[first] for s in self.by_key[k])]
            others = [str(k) for k in rng.permutation([k for k in known if k not in pair])]
            spare = [str(k) for k in rng.choice(known, self._members)]
            chosen = [*pair, *others, *spare]
        chosen = chosen[: self._members]
        slices = [self._slice(rng, key, first, sure=place < 2) for place, key in enumerate(chosen)]
        others = [n for n in self.structures if n != first and any(s.shown[n] for s in slices)]
        more = rng.permutation(others)[: int(rng.integers(0, self._objects))]
        if self._alone:
            chosen = [f"{key}/{place}" for place, key in enumerate(chosen)]  # variations may support each other
        return slices, chosen, [first, *map(int, more)]

    def _slice(self, rng: np.random.Generator, key: str, structure: int, *, sure: bool) -> LabelledSlice:
        """A slice that shows the structure, or (unless ``sure``) sometimes one that does not."""
        some = self.by_key[key]
        full = [s for s in some if s.shown[structure]]
        blank = [s for s in some if not s.shown[structure]]
        absent = blank and not sure and (not full or rng.random() < self._absent)
        pool = blank if absent else full
        return pool[int(rng.integers(len(pool)))]

    def _choose_supports(self, rng: np.random.Generator, keys: Sequence[str], held: np.ndarray) -> Tensor:
        """(M, M) bool: for each target some of the images of other keys, one of which shows the first structure."""
        supports = torch.zeros(len(keys), len(keys), dtype=torch.bool)
        for target, key in enumerate(keys):
            others = [n for n in rng.permutation(len(keys)) if keys[n] != key]
            others.sort(key=lambda n: not held[n])  # stable: one that shows it comes first
            first, rest = others[:1], rng.permutation(others[1:])
            count = len(others)
            if self._supports is not None:
                count = int(rng.integers(1, min(self._supports, count) + 1))
            supports[target, [int(n) for n in (*first, *rest)][:count]] = True
        return supports

    def _sample(self, labelled: LabelledSlice, view: int, structures: list[int], foundation: Foundation) -> Sample:
        image, masks = labelled.image.float(), labelled.masks[structures].float() / 255
        if self._augmented:
            seed = np.random.SeedSequence([self._seed, view, labelled.index, int(labelled.case.content[:8], 16)])
            image, masks = augment(image, masks, seed=int(seed.generate_state(1)[0]))
        return prepare(image, masks, foundation, key=(labelled.case.content, labelled.index, view))


def prepare(image: Tensor, masks: Tensor, foundation: Foundation, *, key: tuple[str, int, int]) -> Sample:
    """image: (3, h, w) in [0, 1]; masks: (N, h, w) in [0, 1]; laid out as the foundation takes them, on its device."""
    device = next(foundation.parameters()).device
    prepared, geometry = foundation.preprocess(image[None].to(device))
    padding = foundation.padding(geometry, 1, device)
    return Sample(
        image=prepared[0],
        masks=foundation.preprocess_masks(masks[None].to(device), geometry)[0],
        geometry=geometry,
        padding=None if padding is None else padding[0],
        key=key,
    )
