"""The labelled studies of a training, read and divided: what it draws episodes from, and what it is judged by."""

from __future__ import annotations

from dataclasses import dataclass

from .cases import Cases, read_slices
from .distributed import rank, shared
from .episodes import EpisodeSource
from .finetune_config import FinetuneConfig
from .groups import GroupSplit
from .validation import Validation

SLICES = 64
"""Most slices of a study that train."""


@dataclass(frozen=True)
class TrainingData:
    """structures: names of those that train. groups: salted hashes of those that do. warnings: for the user."""

    source: EpisodeSource
    validation: Validation
    structures: tuple[str, ...]
    groups: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare(cases: Cases, config: FinetuneConfig, split: GroupSplit, *, size: int) -> TrainingData:
    """Reads the studies and decides which groups are held out. size: pixels of the network's input.

    Raises TrainingError when there is nothing to train on, StudyError for a study that cannot be read.
    """
    names = cases.structures
    groups = {case.group for case in cases}
    held = shared(split.held_out(groups, hold_out=config.validation) if rank() == 0 else None)
    slices = [
        labelled
        for case in cases
        if case.group not in held
        for labelled in read_slices(case, names, most=SLICES, size=size)
    ]
    source = EpisodeSource.configured(slices, names, config)
    warnings = list(source.warnings)
    if config.validation and not held:
        warnings.append(
            f"with {len(groups)} patients or cases none could be held out, so nothing will be known about the new "
            "version; label more studies"
        )
    validation = Validation(
        [
            labelled
            for case in cases
            if case.group in held
            for labelled in read_slices(case, names, most=config.validation_slices)
        ],
        slices,
        names,
        source.structures,
        supports=config.validation_supports,
        hash_of=split.hash_of,
    )
    return TrainingData(
        source=source,
        validation=validation,
        structures=tuple(names[n] for n in source.structures),
        groups=tuple(sorted(split.hash_of(group) for group in groups - held)),
        warnings=tuple(warnings),
    )
