"""The evaluation itself: every method on the same targets from the same supports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from proxyprompt.datasets.collections import Collection
from proxyprompt.io.cache import content_key
from proxyprompt.io.errors import StudyError
from proxyprompt.predictor.masks import searched
from proxyprompt.supports.selection import Selection, SupportError

from .episodes import EpisodeConfig, EvalEpisodes
from .methods import Method
from .record import Record, Unit
from .scoring import image_difference, score


class LeakError(ValueError):
    """A target belongs to a group that the method has learnt from; its score would mean nothing."""


@dataclass(frozen=True)
class EvalConfig:
    """counts: the numbers of supports, K. seeds: draws of supports for each K. unseen: leave out, for all methods, the
    targets of groups that any of them was trained on; without it such a target is an error.
    """

    collections: tuple[Collection, ...]
    episodes: EpisodeConfig
    counts: tuple[int, ...]
    seeds: int
    unseen: bool = False

    def __post_init__(self) -> None:
        if not self.collections or not self.counts or min(self.counts) < 1 or self.seeds < 1:
            raise ValueError("nothing to measure: give at least one collection, one support and one seed")
        names = [collection.name for collection in self.collections]
        if len(set(names)) < len(names):
            raise ValueError(f"two collections have the same name: {', '.join(sorted(names))}; rename a folder")

    def to_json(self) -> dict[str, object]:
        """All of it, the collections by name."""
        names = [collection.name for collection in self.collections]
        return {"collections": names, "counts": self.counts, "seeds": self.seeds, "unseen": self.unseen} | asdict(
            self.episodes
        )


@dataclass(frozen=True)
class Work:
    """One unit to be measured."""

    episodes: EvalEpisodes
    structure: str
    count: int
    seed: int
    method: Method

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        return self.episodes.collection.name, self.structure, self.method.name, self.count, self.seed

    @property
    def supports(self) -> Selection:
        return self.episodes.supports(self.structure, self.count, self.seed)

    @property
    def drawn(self) -> list[str]:
        return [f"{chosen.study_id}:{chosen.index}" for chosen in self.supports.slices]

    @property
    def decides(self) -> str:
        """The targets count by name, the supports by content: label files are taken to stay as they are."""
        targets = [
            [case.id, case.group, *case.structures[self.structure]] for case in self.episodes.targets_of(self.structure)
        ]
        images = [chosen.image_key for chosen in self.supports.slices]
        slices = self.episodes.config.target_slices
        slice_presence = [slice_presence.shown for slice_presence in self.supports.slice_presence.values()]
        return content_key(self.method.identity, targets, slices, images, *self.supports.masks, *slice_presence)[:16]


@dataclass(frozen=True)
class EvalRun:
    """units: of the whole plan, also those that a former run measured. skipped: what could not be, and why."""

    units: list[Unit]
    skipped: dict[str, str]


def evaluate(
    plan: EvalConfig,
    methods: Sequence[Method],
    record: Record,
    *,
    report: Callable[[Work, int, int], None] = lambda work, done, total: None,
) -> EvalRun:
    """Measures what ``record`` does not hold yet; on the way, and when interrupted, the record is saved.

    report(work, done, total): called before each unit. StudyError for files that cannot be read, and when there was
    nothing to measure; LeakError.
    """
    skipped: dict[str, str] = {}
    keys, total = [], len(methods) * plan.seeds * len(plan.counts) * sum(len(c.structures) for c in plan.collections)
    try:
        for collection in plan.collections:
            for item in _list_work(episodes_of(plan, collection, methods), plan, methods, skipped):
                report(item, len(keys), total)
                keys.append(item.key)
                if not record.has(item.key, item.decides):
                    try:
                        record.add(measure(item))
                    except SupportError as error:  # the method knows no such structure
                        skipped[f"{collection.name} {item.structure} {item.method.name}"] = str(error)
                        keys.pop()
    finally:
        record.save()
    if not keys:
        raise StudyError(f"nothing could be measured: {'; '.join(skipped.values())}")
    return EvalRun(record.units(keys), skipped)


def episodes_of(plan: EvalConfig, collection: Collection, methods: Sequence[Method]) -> EvalEpisodes:
    """The episodes of one of the plan's collections, the same for all the methods."""

    def trained_on(group: str) -> bool:
        return plan.unseen and any(method.has_seen(collection.name, group) for method in methods)

    return EvalEpisodes(collection, plan.episodes, leave_out=trained_on)


def measure(work: Work) -> Unit:
    """One unit.

    What labelled volumes say of the place of a slice (:mod:`proxyprompt.supports.slice_positions`) counts for every
    method that is not told the truth. With one support the notes hold ``support_mse``, how much it differs from the
    slice of each target that shows most.

    Raises:
        LeakError: before anything is learnt.
    """
    episodes, start = work.episodes, time.perf_counter()
    cases = episodes.targets_of(work.structure)
    _keep_apart(work, {case.group for case in cases})
    fitted = work.method.fit(work.supports, seed=work.seed)
    scores, differences = [], []
    for case in cases:
        slices, truth = episodes.target(case, work.structure)
        whole = len(slices) == len(slices.study) and slices.study.spacing_known
        spacing = (slices.study.slice_spacing, *slices.study.pixel_spacing) if whole else None
        masks = fitted.segment(slices, truth)
        if not fitted.sees_truth:
            masks = masks & searched(slices.study, work.supports, slices.indices)[:, :, None]
        scores.append(score(masks, truth, spacing))
        if work.count == 1:
            largest = int(truth.sum(axis=(1, 2)).argmax())
            differences.append(round(image_difference(work.supports.images[0], slices.images([largest])[0]), 1))
    return Unit(
        *work.key,
        decides=work.decides,
        drawn=work.drawn,
        cases=[case.id for case in cases],
        groups=[case.group for case in cases],
        scores=scores,
        seconds=round(time.perf_counter() - start, 3),
        notes={**fitted.notes, **({"support_mse": differences} if differences else {})},
    )


def _list_work(
    episodes: EvalEpisodes, plan: EvalConfig, methods: Sequence[Method], skipped: dict[str, str]
) -> Iterator[Work]:
    collection = episodes.collection
    for structure in collection.structures:
        if not episodes.targets_of(structure):
            skipped[f"{collection.name} {structure}"] = f"{collection.name}: no target declares {structure!r}"
            continue
        for count in plan.counts:
            try:
                episodes.supports(structure, count, 0)
            except SupportError as error:
                skipped[f"{collection.name} {structure} K={count}"] = str(error)
                continue
            for seed in range(plan.seeds):
                for method in methods:
                    yield Work(episodes, structure, count, seed, method)


def _keep_apart(work: Work, groups: Iterable[str]) -> None:
    collection = work.episodes.collection
    of_case: Mapping[str, str] = {case.id: case.group for case in collection.cases}
    supporting = {of_case[chosen.study_id] for chosen in work.supports.slices}
    for group in groups:
        if group in supporting:
            raise LeakError(f"{collection.name}: group {group!r} is among the supports and the targets")
        if work.method.has_seen(collection.name, group):
            raise LeakError(
                f"{collection.name}: {work.method.name} was trained on group {group!r}; leave it out (--unseen)"
            )
