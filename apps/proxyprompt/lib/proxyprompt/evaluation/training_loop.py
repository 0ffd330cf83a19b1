"""Does training pay on one's own data? The loop of a radiologist, played by a script with masks that experts drew.

On a running server without studies: upload images, label a few, measure; label more, measure (more supports alone help,
too); train, measure with the version that came of it. Targets are of other groups (patients, cases) than all that is
labelled, and are never labelled. On the way: a training is killed half way and goes on; the old version, asked for by
name, gives the old result bit for bit; and a training on wrong labels is refused.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from proxyprompt.datasets.collections import Collection, CollectionCase
from proxyprompt.io.errors import StudyError
from proxyprompt.io.label_files import WRITABLE_PLAIN_IMAGES
from proxyprompt.io.raster import suffix_of
from proxyprompt.metrics.segmentation import Interval, overlaps, paired_bootstrap

from .client import Client, ServerError

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class LoopPlan:
    """first: labelled at the start. more: labelled then. targets: of other groups than both."""

    first: tuple[CollectionCase, ...]
    more: tuple[CollectionCase, ...]
    targets: tuple[CollectionCase, ...]


def plan_of(collection: Collection, *, first: int, more: int, targets: int, seed: int = 0) -> LoopPlan:
    """A quarter of the groups, the largest, give the targets (more if they hold too few), the others what is labelled.

    Labelled are as many different groups as there are. StudyError when the collection is too small.
    """
    rng = random.Random(seed)
    groups = sorted(collection.groups().values(), key=lambda cases: (-len(cases), cases[0].group))
    held = max(1, round(len(groups) / 4))
    while sum(map(len, groups[:held])) < targets and held < len(groups):
        held += 1
    pool = [case for cases in groups[:held] for case in cases]
    rest = [rng.sample(cases, len(cases)) for cases in rng.sample(groups[held:], len(groups) - held)]
    turns = [
        case for turn in range(max(map(len, rest), default=0)) for cases in rest for case in cases[turn : turn + 1]
    ]
    if len(pool) < targets or len(turns) < first + more:
        raise StudyError(
            f"{collection.folder}: {len(collection.cases)} cases in {len(groups)} groups are too few for {targets} "
            f"targets and {first} + {more} labelled ones of other groups; ask for fewer"
        )
    chosen = sorted(rng.sample(pool, targets), key=lambda case: case.id)
    return LoopPlan(tuple(turns[:first]), tuple(turns[first : first + more]), tuple(chosen))


@dataclass(frozen=True)
class LoopResult:
    """One pass over the targets. dice: target -> structure -> Dice. results: target -> bytes of the label file."""

    version: str
    dice: Mapping[str, Mapping[str, float]]
    results: Mapping[str, bytes] = field(repr=False)

    def means(self) -> list[float]:
        """Mean over the structures, target by target."""
        return [float(np.mean(list(scores.values()))) for scores in self.dice.values()]

    def by_structure(self) -> dict[str, float]:
        names = {name for scores in self.dice.values() for name in scores}
        return {name: float(np.mean([s[name] for s in self.dice.values() if name in s])) for name in sorted(names)}


@dataclass(frozen=True)
class Report:
    """What came out. gain: of training, paired on the targets, all else being the same; gain_of_labels: of the labels
    that were added, before training. killed_at, resumed_from: steps; None where nothing was killed. untouched: whether
    the kill changed nothing that is served. rolled_back: whether the old version gave the old results, bit for bit.
    """

    few: LoopResult
    many: LoopResult
    trained: LoopResult
    training: Mapping[str, Any]
    gain_of_labels: Interval
    gain: Interval
    total_gain: Interval
    rolled_back: bool
    killed_at: int | None = None
    resumed_from: int | None = None
    untouched: bool | None = None
    wrong_labels: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        figures = {name: value for name, value in vars(self).items() if not isinstance(value, LoopResult | Interval)}
        for name in ("few", "many", "trained"):
            measured: LoopResult = getattr(self, name)
            figures[name] = {"version": measured.version, "mean": measured.by_structure(), "dice": measured.dice}
        for name in ("gain_of_labels", "gain", "total_gain"):
            figures[name] = getattr(self, name)._asdict()
        return figures


class TrainingLoop:
    """client: of a server without studies. folder: for temporary files. options: of the training. say: for progress."""

    def __init__(
        self,
        client: Client,
        collection: Collection,
        plan: LoopPlan,
        *,
        folder: Path,
        options: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._client, self._collection, self._plan = client, collection, plan
        self._folder, self._options, self._say = folder, dict(options), say

    def run(self, *, kill: bool = True, wrong_labels: bool = True) -> Report:
        """ServerError when the server holds studies already, or refuses something; StudyError for the collection."""
        if total := self._client.info()["datastore"]["total"]:
            raise ServerError(f"{self._client.url} serves {total} studies; start it on an empty folder for this")
        plan = self._plan
        for case in (*plan.first, *plan.more, *plan.targets):
            self._client.add_image(case.image_path, id=case.id, patient=case.group)
        self._label(plan.first)
        few = self._measure(f"{len(plan.first)} labelled")
        self._label(plan.more)
        many = self._measure(f"{len(plan.first) + len(plan.more)} labelled, not trained")
        killed = self._kill_half_way(many) if kill else {}
        training = self._train()
        if kill:
            killed["resumed_from"] = training.get("resumed_from")
        trained = self._measure(f"trained: {training['status']}")
        back = self._measure("rolled back", adapter=many.version)
        wrong = self._train_on_wrong_labels(training) if wrong_labels else None
        return Report(
            few=few,
            many=many,
            trained=trained,
            training=training,
            gain_of_labels=paired_bootstrap(many.means(), few.means()),
            gain=paired_bootstrap(trained.means(), many.means()),
            total_gain=paired_bootstrap(trained.means(), few.means()),
            rolled_back=back.results == many.results,
            wrong_labels=wrong,
            **killed,
        )

    def _label(self, cases: Sequence[CollectionCase]) -> None:
        for case in cases:
            self._client.submit(case.id, case.label_path, case.structures)

    def _measure(self, what: str, **options: Any) -> LoopResult:
        dice, results, versions = {}, {}, set()
        for case in self._plan.targets:
            content, suffix, answer = self._client.segment(case.id, agreement=False, **options)
            result = self._folder / f"{case.id}{suffix}"
            result.write_bytes(content)
            study, truth = self._collection.open(case)
            names = {name: (id,) for name, id in answer["label_names"].items()}
            found = overlaps(study.read_label(result), truth, names, truth_structures=case.structures)
            dice[case.id] = {name: overlap.dice for name, overlap in found.items()}
            results[case.id] = content
            versions.add(answer["adapter"])
        measured = LoopResult(", ".join(sorted(versions)), dice, results)
        means = ", ".join(f"{name} {mean:.3f}" for name, mean in measured.by_structure().items())
        self._say(f"{what}: Dice {np.mean(measured.means()):.3f} ({means}) with {measured.version}")
        return measured

    # training

    def _train(self) -> dict[str, Any]:
        """Trains to the end. ServerError, with the server's last words, when that fails."""
        self._client.train(**self._options)
        return self._follow(lambda stats: False)

    def _follow(self, enough: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        """The statistics when the training ends, or when they are ``enough``."""
        epoch = None
        while True:
            status, stats = self._client.training()
            if status["status"] in ("ERROR", "STOPPED"):
                raise ServerError("the training failed: " + "\n".join(status.get("details", ())))
            if status["status"] == "DONE" or (stats.get("status") == "running" and enough(stats)):
                return stats
            if stats.get("epoch") != epoch and stats.get("status") == "running":
                epoch = stats["epoch"]
                self._say(f"  epoch {epoch} of {stats['total_epochs']}, best validation Dice {stats['best_metric']}")
            time.sleep(POLL_SECONDS)

    def _kill_half_way(self, before: LoopResult) -> dict[str, Any]:
        self._client.train(**self._options)
        stats = self._follow(lambda stats: 2 * stats["epoch"] >= stats["total_epochs"])
        if "total_time" in stats:
            raise ServerError("the training ended before it could be killed; give it more epochs or minutes")
        self._client.kill_training()
        target = self._plan.targets[0].id
        content, _, answer = self._client.segment(target, agreement=False)
        untouched = content == before.results[target] and answer["adapter"] == before.version
        served = "unchanged" if untouched else "CHANGED"
        self._say(f"killed at step {stats['step']} of epoch {stats['epoch'] + 1}; what is served is {served}")
        return {"killed_at": stats["step"], "untouched": untouched}

    def _train_on_wrong_labels(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """Every label that trains is replaced by one that has nothing to do with its image; the held-out ones stay."""
        rng, held_out = np.random.default_rng(0), set(training["held_out"])
        for case in (*self._plan.first, *self._plan.more):
            if case.id in held_out:
                continue
            study, labels = self._collection.open(case)
            wrong = np.roll(labels, tuple(rng.integers(labels.shape[n] // 4, labels.shape[n]) for n in (1, 2)), (1, 2))
            suffix = suffix_of(case.label_path)
            suffix = suffix if suffix in WRITABLE_PLAIN_IMAGES else ".nii.gz"
            path = study.write_label(np.flip(wrong, axis=int(rng.integers(1, 3))), self._folder / f"wrong{suffix}")
            self._client.submit(case.id, path, case.structures)
        served = self._client.versions()
        stats = self._train()
        self._say(f"trained on wrong labels: {stats['status']}: {stats['message']}")
        kept = self._client.versions() == served
        return {"status": stats["status"], "reason": stats["message"], "served_unchanged": kept}
