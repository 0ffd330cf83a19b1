"""Which cases are segmented, and from which supports: the same for every method.

Groups are split once into a support pool and targets, so that no target ever shares a group with a support. The K
supports of a draw are slices of the pool that show the structure, from as many groups and cases as there are; the
first K of a longer draw are the draw of K, so that a curve over K is paired.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TypeVar

import numpy as np
from cachetools import LRUCache, cachedmethod

from proxyprompt.datasets.collections import Collection, CollectionCase
from proxyprompt.io.errors import StudyError
from proxyprompt.io.study import Study
from proxyprompt.supports.selection import Selection, SupportError, SupportSlice
from proxyprompt.supports.slice_positions import SlicePresence

T = TypeVar("T")

WORTH_SHOWING = 0.1
"""A slice of a volume supports a structure only when it shows this share of the largest area in that volume."""
_OPEN_BYTES = 2**30


@dataclass(frozen=True)
class EpisodeConfig:
    """supports_share: of the groups that go into the support pool. split_seed: which ones, and in which order.

    limit_targets: None for every case of the other groups, else so many, from as many groups as possible.
    target_slices: None for all slices of a volume, else so many, evenly from end to end. shots: None for supports from
    the whole pool, else from its first cases, those that ``scripts/train.py --shots`` trains on. everywhere: supports
    do not tell where along a volume the structure lies.
    """

    supports_share: float = 0.4
    split_seed: int = 0
    limit_targets: int | None = None
    target_slices: int | None = None
    shots: int | None = None
    everywhere: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.supports_share < 1:
            raise ValueError(f"the support pool is {self.supports_share} of the groups; expected between 0 and 1")
        for name in ("limit_targets", "target_slices", "shots"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1, or none for all")


class Slices:
    """Some slices of a study, in the study's own terms: what a method gets to segment."""

    def __init__(self, study: Study, indices: Sequence[int]) -> None:
        self.study, self.indices = study, list(indices)
        self.slice_shape = study.slice_shape

    def __len__(self) -> int:
        return len(self.indices)

    def images(self, rows: Iterable[int]) -> np.ndarray:
        """(n, 3, h, w) float32 in [0, 1]."""
        return self.study.images(self.indices[row] for row in rows)

    def slice_hash(self, row: int) -> str:
        return self.study.slice_hash(self.indices[row])


class EvalEpisodes:
    """The split of one collection, its targets, and support draws for each structure.

    leave_out: groups that are no targets. StudyError when the collection has fewer than two groups, or no target is
    left.
    """

    def __init__(
        self, collection: Collection, config: EpisodeConfig, *, leave_out: Callable[[str], bool] = lambda group: False
    ) -> None:
        self.collection, self.config = collection, config
        self._opened = LRUCache(_OPEN_BYTES, getsizeof=lambda opened: 16 * opened[1].nbytes)
        self._drawn = LRUCache(1)
        self._areas: dict[tuple[str, str], np.ndarray] = {}
        groups = list(collection.groups().values())
        if len(groups) < 2:
            raise StudyError(
                f"{collection.folder}: all {len(collection.cases)} cases belong to one group; supports and targets "
                "must come from different ones: add cases, or a groups.csv that tells them apart"
            )
        rng = self._rng("split")
        order = [groups[i] for i in rng.permutation(len(groups))]
        count = min(max(1, round(config.supports_share * len(groups))), len(groups) - 1)
        self.pool = [[cases[i] for i in rng.permutation(len(cases))] for cases in order[:count]]
        if config.shots is not None:
            chosen = {case.id for case in interleave(self.pool)[: config.shots]}
            kept = ([case for case in cases if case.id in chosen] for cases in self.pool)
            self.pool = [cases for cases in kept if cases]
        left = [cases for cases in order[count:] if not leave_out(cases[0].group)]
        if not left:
            raise StudyError(f"{collection.folder}: no target is left; every group outside the pool was trained on")
        targets = interleave([cases[i] for i in rng.permutation(len(cases))] for cases in left)
        self.targets = sorted(targets[: config.limit_targets], key=lambda case: case.id)

    @cachedmethod(lambda self: self._opened, key=lambda self, case: case.id)
    def open(self, case: CollectionCase) -> tuple[Study, np.ndarray]:
        """As ``Collection.open``; the last ones stay open."""
        return self.collection.open(case)

    @cachedmethod(lambda self: self._drawn)
    def supports(self, structure: str, count: int, seed: int) -> Selection:
        """``count`` slices that show the structure. SupportError when the pool has not so many."""
        order = self._order(structure, seed)
        if len(order) < count:
            raise SupportError(
                f"{self.collection.name}: the support pool shows {structure!r} on {len(order)} slices, {count} are "
                "asked for; ask for fewer, or enlarge the pool"
            )
        chosen, images, masks, slice_presence = [], [], [], {}
        for case, index in order[:count]:
            study, labels = self.open(case)
            chosen.append(
                SupportSlice(case.id, index, 0.0, False, study.slice_hash(index), frozenset({study.content_hash}))
            )
            images.append(study.image(index))
            masks.append(self.collection.mask(case, labels[index], structure)[None])
            if study.kind == "volume" and case.id not in slice_presence and not self.config.everywhere:
                shown = self.collection.mask(case, labels, structure).any(axis=(1, 2))[:, None]
                slice_presence[case.id] = SlicePresence(shown, np.ones(1, dtype=bool), study.length)
        return Selection(tuple(chosen), (structure,), images, masks, np.ones((count, 1), dtype=bool), slice_presence)

    def target(self, case: CollectionCase, structure: str) -> tuple[Slices, np.ndarray]:
        """The slices to segment, and (Z, h, w) bool, where the structure is on them."""
        study, labels = self.open(case)
        count = min(self.config.target_slices or len(study), len(study))
        indices = np.linspace(0, len(study) - 1, count).round().astype(int).tolist()
        return Slices(study, indices), self.collection.mask(case, labels[indices], structure)

    def targets_of(self, structure: str) -> list[CollectionCase]:
        """The targets whose labels declare the structure: only of them it is known where it is not."""
        return [case for case in self.targets if structure in case.structures]

    def _order(self, structure: str, seed: int) -> list[tuple[CollectionCase, int]]:
        """Slices that show the structure: another group each time, then another case, as long as there is one."""
        rng = self._rng(structure, seed)
        by_group = []
        for group in rng.permutation(len(self.pool)):
            cases = [self.pool[group][i] for i in rng.permutation(len(self.pool[group]))]
            by_group.append(interleave(self._slices_of(case, structure, rng) for case in cases))
        return interleave(by_group)

    def _slices_of(
        self, case: CollectionCase, structure: str, rng: np.random.Generator
    ) -> list[tuple[CollectionCase, int]]:
        """Those that show enough of the structure, in any order."""
        key = (case.id, structure)
        if key not in self._areas:
            _, labels = self.open(case)
            self._areas[key] = self.collection.mask(case, labels, structure).sum(axis=(1, 2))
        areas = self._areas[key]
        shown = np.flatnonzero((areas > 0) & (areas >= WORTH_SHOWING * areas.max()))
        return [(case, int(index)) for index in rng.permutation(shown)]

    def _rng(self, *parts: object) -> np.random.Generator:
        text = "/".join(map(str, (self.collection.name, *parts)))
        return np.random.default_rng([self.config.split_seed, zlib.crc32(text.encode())])


def interleave(lists: Iterable[Sequence[T]]) -> list[T]:
    """The first of each list, then the second of each, ... until all are empty."""
    nothing = object()
    return [item for item in chain.from_iterable(zip_longest(*lists, fillvalue=nothing)) if item is not nothing]
