"""What it is worth to choose which study to label next: a reader who labels one proposal after the other, simulated.

Everything is the app's own: datastore, support library, scoring method and strategies. Only the reader is not: the
collection's truth is submitted for whatever is proposed. After each label, studies of other groups are segmented from
the labels there are, by supports that ``auto`` chooses.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from monailabel.interfaces.datastore import DefaultLabelTag

from proxyprompt.activelearning.disagreement import SupportDisagreement
from proxyprompt.activelearning.strategies import MostDisagreement, RandomUnlabelled
from proxyprompt.datasets.collections import Collection, CollectionCase
from proxyprompt.datastores.folder import StudyFolder
from proxyprompt.foundation.base import Foundation
from proxyprompt.infers.models import Models
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.labels import StructureRegistry
from proxyprompt.io.raster import suffix_of
from proxyprompt.io.study import Study
from proxyprompt.metrics.segmentation import overlap
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.requests.defaults import IMAGE_PATTERNS
from proxyprompt.supports.descriptors import DescriptorIndex
from proxyprompt.supports.support import SupportLibrary

logger = logging.getLogger(__name__)

STRATEGIES = ("disagreement", "random")


@dataclass(frozen=True)
class LabellingConfig:
    """first, last: labels at the beginning and at the end. supports: K. targets: at most so many held-out cases.
    pool: at most so many cases to label. held_out: share of the groups that is only segmented. split: which split.
    """

    first: int = 2
    last: int = 16
    supports: int = 4
    targets: int = 40
    pool: int = 100
    held_out: float = 0.4
    split: int = 0


@dataclass(frozen=True)
class LabellingRun:
    """One reader. order: ids as labelled. dice: mean over structures and targets, for each number of labels."""

    strategy: str
    seed: int
    order: tuple[str, ...]
    dice: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


class Simulation:
    """Readers of one collection. cache and descriptors are shared, so that every image is encoded once.

    Raises ValueError when the collection has too few cases for the plan.
    """

    def __init__(
        self,
        collection: Collection,
        segmenter: Segmenter,
        describer: Foundation,
        plan: LabellingConfig,
        cache: ContentCache,
    ) -> None:
        self._collection, self._segmenter, self._plan, self._cache = collection, segmenter, plan, cache
        self._descriptors = DescriptorIndex(describer, cache)
        pool, targets = _split(collection, plan)
        if len(pool) < plan.last or not targets:
            raise ValueError(
                f"{collection.name}: {len(pool)} cases to label and {len(targets)} held out; expected at least "
                f"{plan.last} and 1: ask for fewer labels, or another share"
            )
        self._pool = {case.id: case for case in pool}
        self._targets: list[tuple[Study, CollectionCase, np.ndarray]] = []
        for case in targets:
            study, labels = collection.open(case)
            self._targets.append((study, case, labels))

    def run(
        self, strategy: str, seed: int, *, progress: Callable[[int, float], None] = lambda n, dice: None
    ) -> LabellingRun:
        """One reader; the first labels depend on the seed alone. progress: gets (labels, mean Dice) after each."""
        with tempfile.TemporaryDirectory(prefix="labelling-") as folder:
            dice = []
            reader = _Reader(self, Path(folder), strategy, seed)
            for count in range(self._plan.first, self._plan.last + 1):
                if count > self._plan.first:
                    reader.label_next()
                dice.append(round(self._evaluate(reader.library), 5))
                progress(count, dice[-1])
            return LabellingRun(strategy, seed, tuple(reader.order), tuple(dice))

    def _evaluate(self, library: SupportLibrary) -> float:
        pipeline = Pipeline(self._segmenter, self._cache, Latencies())
        on_offer = library.structures()
        found = []
        for study, case, labels in self._targets:
            names = [name for name in case.structures if name in on_offer]
            selection = library.choose(study, "", names, count=self._plan.supports)
            masks = pipeline.run(study, selection, agreement=False)
            for name in case.structures:  # one that no label shows yet cannot be segmented
                n = selection.structures.index(name) if name in selection.structures else None
                drawn = masks.gated(n) > 0 if n is not None else np.zeros(labels.shape, bool)
                found.append(overlap(drawn, self._collection.mask(case, labels, name)).dice)
        return float(np.mean(found))


class _Reader:
    """A folder that fills with labels, and the strategy that says which comes next."""

    def __init__(self, simulation: Simulation, folder: Path, strategy: str, seed: int) -> None:
        plan, collection = simulation._plan, simulation._collection
        self._pool = simulation._pool
        for case in self._pool.values():
            (folder / f"{case.id}{suffix_of(case.image_path)}").symlink_to(case.image_path.resolve())
        self._store = StudyFolder(str(folder), extensions=IMAGE_PATTERNS)
        self.library = SupportLibrary(
            self._store,
            StructureRegistry(folder / "structures.json"),
            descriptors=simulation._descriptors,
            cache=simulation._cache,
            intensity=collection.intensity,
            conf_labels={name: list(values) for name, values in collection.structures.items()},
        )
        segmenter = simulation._segmenter
        models = Models(lambda version: segmenter, lambda: [segmenter.version])
        self._score = SupportDisagreement(
            models=models, library=self.library, cache=simulation._cache, supports=plan.supports
        )
        self._strategy = {"disagreement": MostDisagreement(self.library), "random": RandomUnlabelled()}[strategy]
        self._scores = strategy == "disagreement"
        self.order: list[str] = []
        random.seed(seed)  # the strategies' own
        for case_id in _first(list(self._pool.values()), plan.first, seed):
            self._label(case_id)

    def label_next(self) -> None:
        if self._scores:
            self._score({"seconds": float("inf")}, self._store)
        self._label(self._strategy({"strategy": "random"}, self._store)["id"])

    def _label(self, case_id: str) -> None:
        self._store.save_label(case_id, str(self._pool[case_id].label_path), DefaultLabelTag.FINAL.value, {})
        self.library.refresh()
        self.order.append(case_id)


def compare(runs: list[LabellingRun], plan: LabellingConfig) -> dict[str, object]:
    """Mean Dice after each number of labels by strategy, and what ``disagreement`` gains, seed by seed."""
    labels = list(range(plan.first, plan.last + 1))
    dice = {name: np.array([run.dice for run in _by_seed(runs, name)]) for name in STRATEGIES}
    found: dict[str, object] = {"labels": labels}
    for name, values in dice.items():
        if len(values):
            found[name] = {"mean": _rounded(values.mean(axis=0)), "std": _rounded(values.std(axis=0))}
    seeds = [{run.seed for run in _by_seed(runs, name)} for name in STRATEGIES]
    paired = sorted(seeds[0] & seeds[1])
    if paired:
        ours, theirs = (
            np.array([run.dice for run in _by_seed(runs, name) if run.seed in paired]) for name in STRATEGIES
        )
        gain = (ours - theirs).mean(axis=0)
        found["gain"] = {"mean": _rounded(gain), "seeds": paired, "never_below": bool((gain >= 0).all())}
    return found


def _by_seed(runs: list[LabellingRun], strategy: str) -> Iterator[LabellingRun]:
    return iter(sorted((run for run in runs if run.strategy == strategy), key=lambda run: run.seed))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]


def _split(collection: Collection, plan: LabellingConfig) -> tuple[list[CollectionCase], list[CollectionCase]]:
    """(cases to label, held-out cases), of different groups; what is too many is left out at random."""
    rng = np.random.default_rng(plan.split)
    groups = list(collection.groups().values())
    order = [groups[n] for n in rng.permutation(len(groups))]
    held_out = max(1, round(plan.held_out * len(order)))
    parts = []
    for some, at_most in ((order[held_out:], plan.pool), (order[:held_out], plan.targets)):
        cases = [case for group in some for case in group]
        parts.append([cases[n] for n in sorted(rng.permutation(len(cases))[:at_most])])
    return parts[0], parts[1]


def _first(pool: list[CollectionCase], count: int, seed: int) -> list[str]:
    """The labels to begin with: of different groups where there are so many, with every structure among them."""
    rng = np.random.default_rng(seed)
    order = [pool[n] for n in rng.permutation(len(pool))]
    chosen: list[CollectionCase] = []
    for fresh in (True, False):
        for case in order:
            known = {one.group for one in chosen}
            if len(chosen) < count and case not in chosen and (case.group not in known or not fresh):
                chosen.append(case)
    return [case.id for case in chosen]
