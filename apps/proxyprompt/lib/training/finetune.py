"""Fine-tuning on labelled studies: episodes, a gate, versions that never get worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.segmenter import Segmenter
from lib.training.adapters import AdapterHeader, AdapterStore
from lib.training.cases import Cases
from lib.training.errors import TrainingError, TrainingStopped
from lib.training.finetune_config import FinetuneConfig
from lib.training.gate import Decision

__all__ = ["FinetuneConfig", "Outcome", "Progress", "TrainingError", "TrainingStopped", "finetune"]


@dataclass(frozen=True)
class Progress:
    """Where a training stands; reported after every step.

    step: done, of all epochs. epoch: done (whole ones). loss, dice: of this step; dice is None where no structure was
    in any target. validation: structure -> mean Dice over the held-out groups at the last whole epoch, None before it
    and without such groups. best: highest mean of them so far. seconds: spent, over interruptions. learning_rate.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    dice: float | None
    validation: Mapping[str, float] | None
    best: float | None
    seconds: float
    learning_rate: float


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    header: of the version that was written to ``path``. decision: the gate's. parent, child: structure -> salted hash
    of the group -> Dice on the held-out groups. ended: "epochs", "minutes", "patience" or "nan", why it ended.
    warnings: about the data, for the user.
    """

    header: AdapterHeader
    path: Path
    decision: Decision
    parent: Mapping[str, Mapping[str, float]]
    child: Mapping[str, Mapping[str, float]]
    ended: str
    warnings: tuple[str, ...]


def finetune(
    dataset: Cases,
    config: FinetuneConfig,
    *,
    segmenter: Segmenter,
    store: AdapterStore,
    run_folder: str | Path,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train ``segmenter`` (in place) on the cases and write what came of it as a new version.

    segmenter: the parent, from ``build_segmenter(..., merge=False)``. run_folder: checkpoint and TensorBoard;
    a training that was killed goes on from there when called again with the same config, parent and cases, else it starts anew.
    stop: asked after every step.

    Raises TrainingError when there is nothing to train on, another training runs in this store, or the loss is not
    finite before the first epoch ends; TrainingStopped when ``stop`` said so (the checkpoint is written, nothing is
    published); AdapterError when the version cannot be written.
    """
    raise NotImplementedError
