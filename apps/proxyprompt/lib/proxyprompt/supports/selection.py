"""The support slices chosen for a target, with their images and masks, and what the answer says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyprompt.io.errors import StudyError

from .slice_positions import SlicePresence


class SupportError(StudyError):
    """No support can be had as asked; the message says what there is."""


class NoSupport(SupportError):
    """Nobody named a support, and no labelled study shows what was asked for."""


@dataclass(frozen=True)
class SupportSlice:
    """One of the slices that serve as support.

    Attributes:
        study_id: of its study.
        index: in its study.
        similarity: how probably it is of the target's kind, 0 to 1 (:func:`proxyprompt.supports.fit.calibrated`).
        same_group: whether it is of the same patient or case as the target.
        image_key: the slice's hash (``Study.slice_hash``), for caching what is computed from its pixels.
        tags: under which that is cached.
    """

    study_id: str
    index: int
    similarity: float
    same_group: bool
    image_key: str
    tags: frozenset[str]


@dataclass(frozen=True)
class Selection:
    """K support slices for N structures.

    Attributes:
        slices: the K of them.
        structures: names of the N.
        images: K arrays (3, h, w), float32 in [0, 1]; sizes differ between slices.
        masks: K arrays (N, h, w), bool.
        valid: (K, N) bool, whether the slice's study declares the structure: declared but not on that slice is an empty
            mask that counts.
        slice_presence: by study, where along each support that is a volume the structures lie.
        skipped: labelled studies that could not be used, and why.
        unlike: structure -> why no support that shows it fits the target. Those among ``structures`` were asked for by
            name, themselves or their supports; the others are left out.
        left_out: labelled study -> why a person has left it out.
        indexing: how many studies were left out because the background index had not reached them yet.
    """

    slices: tuple[SupportSlice, ...]
    structures: tuple[str, ...]
    images: list[NDArray[np.float32]]
    masks: list[NDArray[np.bool_]]
    valid: NDArray[np.bool_]
    slice_presence: Mapping[str, SlicePresence] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    unlike: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    indexing: int = 0

    @classmethod
    def empty(cls, structures: Sequence[str]) -> Selection:
        """No support at all.

        Args:
            structures: names of the N.

        Returns:
            A selection with K = 0.
        """
        return cls((), tuple(structures), [], [], np.zeros((0, len(structures)), bool))

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def fits(self) -> bool:
        """Whether all that is drawn rests on studies that fit the target."""
        return not set(self.structures) & set(self.unlike)

    def held(self) -> NDArray[np.bool_]:
        """(K, N) bool, whether the slice shows at least a pixel of the structure."""
        shown = [[mask.any() for mask in masks] for masks in self.masks]
        return np.array(shown, bool).reshape(self.valid.shape) & self.valid

    def of(self, structures: Sequence[int]) -> Selection:
        """All the supports, for some of the structures.

        Args:
            structures: which of the N.

        Returns:
            A selection of the same K; this one, where it is all of them in their order.
        """
        chosen = list(structures)
        if chosen == list(range(len(self.structures))):
            return self
        return replace(
            self,
            structures=tuple(self.structures[n] for n in chosen),
            masks=[masks[chosen] for masks in self.masks],
            valid=self.valid[:, chosen],
        )

    def only(self, support: int, structures: Sequence[int]) -> Selection:
        """One of the supports, as the whole selection for some of the structures.

        Args:
            support: which of the K.
            structures: which of the N.

        Returns:
            A selection with K = 1.
        """
        chosen = list(structures)
        return Selection(
            (self.slices[support],),
            tuple(self.structures[n] for n in chosen),
            [self.images[support]],
            [self.masks[support][chosen]],
            self.valid[[support]][:, chosen],
        )

    @property
    def tags(self) -> frozenset[str]:
        """What is computed from the whole set is cached under these."""
        return frozenset().union(*(s.tags for s in self.slices))

    def report(self) -> dict[str, Any]:
        """For the JSON part of the answer: which supports were used, for what, and how similar they are."""
        used = []
        for k, chosen in enumerate(self.slices):
            names = [n for i, n in enumerate(self.structures) if self.masks[k][i].any()]
            used.append(
                {
                    "id": chosen.study_id,
                    "slice": chosen.index,
                    "similarity": round(chosen.similarity, 4),
                    "same_group": chosen.same_group,
                    "structures": names,
                }
            )
        return {
            "supports": used,
            "skipped": dict(self.skipped),
            "not_drawn": {name: why for name, why in self.unlike.items() if name not in self.structures},
            "left_out": dict(self.left_out),
            "still_indexing": self.indexing,
        }
