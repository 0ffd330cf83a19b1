"""The labelled studies of a training, read and divided: what it draws episodes from, and what it is judged by."""

from __future__ import annotations

from dataclasses import dataclass

from lib.cascade import CascadeConfig
from lib.studies.ranking import evenly
from lib.training.cases import Cases, read_slices
from lib.training.distributed import rank, shared
from lib.training.episodes import EpisodeSource
from lib.training.finetune_config import CASCADE, FinetuneConfig
from lib.training.groups import GroupSplit
from lib.training.validation import Validation

SLICES = 64
"""Most slices of a study that train."""
_LOOKED_AT = 32


@dataclass(frozen=True)
class Material:
    """structures: names of those that train. groups: salted hashes of those that do. warnings: for the user.
    cascade: what suits them."""

    source: EpisodeSource
    validation: Validation
    structures: tuple[str, ...]
    groups: tuple[str, ...]
    warnings: tuple[str, ...]
    cascade: CascadeConfig


def prepare(cases: Cases, config: FinetuneConfig, split: GroupSplit, *, size: int) -> Material:
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
        enough=1 if config.trainable == CASCADE else config.validation_supports,
        hash_of=split.hash_of,
    )
    return Material(
        source=source,
        validation=validation,
        structures=tuple(names[n] for n in source.structures),
        groups=tuple(sorted(split.hash_of(group) for group in groups - held)),
        warnings=tuple(warnings),
        cascade=cascade_for(source),
    )


def cascade_for(source: EpisodeSource) -> CascadeConfig:
    """What suits the structures and the number of groups of a training."""
    slices = [s for some in source.by_key.values() for s in some]
    masks = (s.masks[source.structures].float() / 255 for s in evenly(slices, _LOOKED_AT))
    return CascadeConfig.suited(masks, len(source.by_key))
