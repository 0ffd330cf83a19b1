"""The train task ``proxyprompt``: a better version out of the labelled studies of the datastore.

MONAI Label runs it in a process of its own, which builds the app again and may be killed at any moment. So nothing is
shared with the server but files that are there whole or not at all: the versions, of which the server serves the newest
published one from its next request on, and the progress.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelError
from monailabel.interfaces.tasks.train import TrainTask

from proxyprompt.errors import as_monailabel, in_task_process, refuse
from proxyprompt.foundation import CheckpointError
from proxyprompt.infers.models import Models
from proxyprompt.io.errors import StudyError
from proxyprompt.predictor.adapters import PUBLISHED, UNPROVEN, AdapterHeader, AdapterStore
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.supports.support import SupportLibrary
from proxyprompt.training.cases import Cases
from proxyprompt.training.distributed import size
from proxyprompt.training.errors import TrainingError, TrainingStopped
from proxyprompt.training.finetune import Outcome, Progress, finetune
from proxyprompt.training.finetune_config import FinetuneConfig
from proxyprompt.training.groups import GroupSplit

from .options import TrainOptions, parse_train_options, train_drop_downs
from .processes import automatic, joins, most, several
from .state import FAILED, TrainingState

logger = logging.getLogger(__name__)

_NICENESS = 5


class ProxyPromptTrain(TrainTask):
    """Episodic fine-tuning. name: of this task. models: those served. store: where versions go (asked when needed).

    build: makes the segmenter of a version, to be trained. folder: for progress and what can be resumed. defaults: what
    suits the foundation. device: that ``build`` builds on.
    """

    def __init__(
        self,
        *,
        name: str,
        models: Models,
        store: Callable[[], AdapterStore],
        build: Callable[[str], Segmenter],
        library: SupportLibrary,
        folder: str | Path,
        defaults: FinetuneConfig,
        device: str = "cpu",
    ) -> None:
        super().__init__("Trains on the labelled studies; a version that is worse than its parent is never served")
        self._name, self._models, self._store, self._build = name, models, store, build
        self._library, self._defaults, self._device = library, defaults, device
        self._state = TrainingState(folder)

    def config(self) -> dict[str, Any]:
        """The options with their drop-downs, as the datastore stands at this moment. Never fails over the weights."""
        try:
            parents, unproven = self._models.versions(), self._unproven()
        except CheckpointError as error:
            logger.error("no version can be offered to train on: %s", error)
            parents, unproven = [], []
        structures = self._library.structures()
        return train_drop_downs(self._defaults, structures=structures, parents=parents, unproven=unproven)

    def stats(self) -> dict[str, Any]:
        """Progress of the training that runs, or how the last one ended; see :class:`TrainingState`."""
        return self._state.stats()

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train, or publish a version that was kept. Returns what came of it, for the answer and the log.

        Raises MONAILabelException, always with a message for the user; nothing that is served has changed then.
        """
        refusals = (StudyError, TrainingError, TrainingStopped)
        with as_monailabel("training", *refusals, failure=MONAILabelError.APP_TRAIN_FAILED):
            options = self.parse(request)
            if options.publish:
                header = self._store().publish(options.publish)
                return {"version": header.name, "status": header.status, "reason": header.reason}
            if in_task_process():
                os.nice(0 if joins() else _NICENESS)  # the server answers while this computes; others inherit it
                torch.set_flush_denormal(True)  # numbers next to zero cost a CPU many times more
            if joins():
                with several(1, self._device):
                    return self._join(options)
            with self._state.exclusive(), several(self._processes(options), self._device, logs=self._state.folder):
                return self._train(options)

    def parse(self, request: Mapping[str, Any]) -> TrainOptions:
        """MONAILabelException (bad input) for options that cannot be; asked before a process is started for them."""
        options = parse_train_options(
            request,
            task=self._name,
            defaults=self._defaults,
            parents=self._models.versions(),
            unproven=self._unproven(),
        )
        if options.processes and options.processes > most(self._device):
            raise refuse(
                f"{options.processes} processes to train in; on {self._device} there can be at most "
                f"{most(self._device)}, one for each of its {'cores' if self._device == 'cpu' else 'GPUs'}"
            )
        return options

    def _unproven(self) -> list[str]:
        return [header.name for header in self._store().all() if header.status == UNPROVEN]

    def _train(self, options: TrainOptions) -> dict[str, Any]:
        self._state.start(epochs=options.config.max_epochs)
        epoch = 0

        def report(progress: Progress) -> None:
            nonlocal epoch
            if progress.epoch > epoch:
                epoch = progress.epoch
                logger.info("%s", _line(progress))
            self._state.progress(progress, minutes=options.config.max_minutes)

        try:
            cases, warnings = self._cases(options)
            outcome = self._finetune(cases, options, report=report, stop=_starter_is_gone())
            header = outcome.header
            if header.status == UNPROVEN and options.publish_unproven:
                header = self._store().publish(header.name)
        except TrainingStopped:
            raise
        except Exception as error:
            self._state.finish(FAILED, f"{error}")
            raise
        return self._told(header, outcome, cases, [*warnings, *outcome.warnings])

    def _join(self, options: TrainOptions) -> dict[str, Any]:
        """As :meth:`_train`, in the processes beside the first one, which alone tells what becomes of it."""
        self._finetune(self._cases(options)[0], options)
        return {}

    def _finetune(self, cases: Cases, options: TrainOptions, **hooks: Any) -> Outcome:
        return finetune(
            cases,
            options.config,
            segmenter=self._build(options.parent or self._models.versions()[0]),
            store=self._store(),
            run_folder=self._state.run_folder,
            **hooks,
        )

    def _processes(self, options: TrainOptions) -> int:
        if not in_task_process():
            return 1
        return options.processes or automatic(self._device)

    def _cases(self, options: TrainOptions) -> tuple[Cases, list[str]]:
        """What to train on, and what is to be said about it. StudyError for an unknown structure."""
        self._library.refresh()
        catalogue = self._library.catalogue
        studies = self._library.studies()
        unchanged = [s.id for s in studies.values() if s.accepted_unchanged and not options.train_unchanged]
        warnings = [f"labelled study {name} cannot be used: {why}" for name, why in catalogue.problems().items()]
        if unchanged:
            warnings.append(
                f"{len(unchanged)} of {len(studies)} labels were accepted as they had been proposed and do not train; "
                "the option train_unchanged uses them all the same"
            )
        for text in warnings:
            logger.warning("%s", text)
        cases = Cases.from_catalogue(catalogue, without=unchanged)
        if options.structures is None:
            return cases, warnings
        registry = catalogue.registry
        return _only(cases, [registry.name_of(registry.id_of(name)) for name in options.structures]), warnings

    def _told(self, header: AdapterHeader, outcome: Outcome, cases: Cases, warnings: Sequence[str]) -> dict[str, Any]:
        """The statistics of the end, and what the caller gets."""
        before, after = _means(outcome.parent), _means(outcome.child)
        serving = after if header.status == PUBLISHED else before
        statistics = {
            "version": header.name,
            "parent": header.parent,
            "gain": outcome.decision.gain,
            "validation_groups": outcome.decision.groups,
            "held_out": self._held_out(cases),
            "dice_before": before,
            "dice_after": after,
            "ended_by": outcome.ended,
            "processes": size(),
            "warnings": list(warnings),
        }
        best = round(float(np.mean(list(serving.values()))), 4) if serving else 0.0
        stats = self._state.finish(header.status, header.reason, best_metric=best, **statistics)
        self._state.put_away(header.name)
        logger.info("%s is %s: %s", header.name, header.status, header.reason)
        return {**statistics, "status": header.status, "reason": header.reason, "total_time": stats["total_time"]}

    def _held_out(self, cases: Cases) -> list[str]:
        """The studies that never train, for those who own them; the version itself names none."""
        split = GroupSplit(self._store().folder)
        return [case.id for case in cases if split.hash_of(case.group) in split.validation]


def _only(cases: Cases, names: Sequence[str]) -> Cases:
    """Those that declare one of the structures, and nothing else of them."""
    chosen = []
    for case in cases:
        structures = {name: values for name, values in case.structures.items() if name in names}
        if structures:
            chosen.append(replace(case, structures=structures))
    return Cases(chosen)


def _means(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean(list(groups.values()))), 4) for name, groups in scores.items() if groups}


def _line(progress: Progress) -> str:
    dice = ", ".join(f"{name} {value:.3f}" for name, value in (progress.validation or {}).items()) or "none held out"
    return f"epoch {progress.epoch} of {progress.epochs}: loss {progress.loss:.3f}, validation Dice: {dice}"


def _starter_is_gone() -> Callable[[], bool]:
    """In a process that was started for this training: whether who started it has ended. Nobody could stop it then."""
    if not in_task_process():
        return lambda: False
    starter = os.getppid()
    return lambda: os.getppid() != starter
