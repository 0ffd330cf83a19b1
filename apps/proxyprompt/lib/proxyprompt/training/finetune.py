"""Fine-tuning on labelled studies: episodes, a gate, versions that never get worse."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from proxyprompt import __version__
from proxyprompt.io.cache import content_key
from proxyprompt.predictor.adapters import AdapterHeader, AdapterStore
from proxyprompt.predictor.segmenter import PromptedFoundation

from .cases import Cases
from .distributed import everywhere, rank, shared
from .episode_model import EpisodeModel, ProxyPromptEpisodeModel
from .errors import TrainingError, TrainingStopped
from .finetune_config import FinetuneConfig
from .gate import Decision, judge
from .groups import GroupSplit
from .run import Run
from .strategies import STRATEGIES
from .trainable import kept_state
from .training_data import TrainingData, prepare
from .validation import mean_scores

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

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
    segmenter: PromptedFoundation,
    store: AdapterStore,
    run_folder: str | Path,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    model: type[EpisodeModel] | None = None,
) -> Outcome:
    """Train ``segmenter`` (in place) on the cases and write what came of it as a new version.

    segmenter: the parent, from ``build_segmenter(..., merge=False)``. run_folder: checkpoint and TensorBoard;
    a training that was killed goes on from there when called again with the same parent, cases and options (it may take
    longer), else it starts anew. stop: asked before every step. model: how steps are answered; None for what
    ``config.trainable`` asks for.

    Raises TrainingError when there is nothing to train on, another training runs in this store, or the loss is not
    finite before the first epoch ends; TrainingStopped when ``stop`` said so (the checkpoint is written, nothing is
    published); AdapterError when the version cannot be written.
    """
    run_folder = Path(run_folder)
    if segmenter.foundation.weights_sha256 != store.foundation_sha256:
        raise TrainingError(
            f"{segmenter.foundation.name} does not have the weights of the versions in {store.folder} "
            f"({store.foundation}); give a store of its own"
        )
    with _only_training(store) if rank() == 0 else nullcontext():
        data = prepare(dataset, config, GroupSplit(store.folder), size=segmenter.foundation.image_size)
        for warning in data.warnings:
            logger.warning("%s", warning)
        parent = store.header(segmenter.version) if store.path(segmenter.version).is_file() else None
        untrained = not segmenter.trained
        kind = STRATEGIES[config.trainable].prepare(segmenter, config, parent)
        episode_model = trained_model(segmenter, config, model)
        fingerprint = content_key(config.deciding(), segmenter.weights_sha256, dataset.content)
        if everywhere(fingerprint != shared(fingerprint)):
            raise TrainingError("labels or versions changed while this training began; start it once more")
        run = Run(episode_model, data, config, run_folder, fingerprint=fingerprint)
        with _log(run_folder) as log:
            ended = run.train(lambda loss, dice: _tell(run, loss, dice, report, log), stop)
        decision = judge(run.state.parent, run.state.scores)
        options, state = kept_state(segmenter, kind)
        header = _header(
            store,
            segmenter,
            parent,
            data,
            run,
            decision,
            {**options, "training": config.to_dict(), "untrained": untrained},
        )
        path = store.path(header.name)
        if rank() == 0:
            store.save(header, state)
        run.forget()
    logger.info("%s: %s: %s", header.name, header.status, header.reason)
    return Outcome(
        header=header,
        path=path,
        decision=decision,
        parent=run.state.parent,
        child=run.state.scores,
        ended=ended,
        warnings=data.warnings,
    )


def trained_model(
    segmenter: PromptedFoundation, config: FinetuneConfig, model: type[EpisodeModel] | None = None
) -> EpisodeModel:
    """What a :class:`Run` trains of a segmenter that was made trainable. model: None for the proxy prompt's own."""
    model = model or ProxyPromptEpisodeModel
    frozen = STRATEGIES[config.trainable].encoder_is_frozen(segmenter)
    return model(segmenter, frozen_encoder=frozen, save_memory=config.save_memory)


@contextmanager
def _only_training(store: AdapterStore) -> Iterator[None]:
    """Two trainings from one parent would not know of each other; the lock goes with the process, however it ends."""
    store.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.folder / "training.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"another training writes its versions to {store.folder}; wait for it, or stop it first"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _log(folder: Path) -> Iterator[SummaryWriter | None]:
    """TensorBoard's; None for all processes but the first."""
    if rank() != 0:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    with SummaryWriter(str(folder)) as log:
        yield log


def _tell(
    run: Run, loss: float, dice: float | None, report: Callable[[Progress], None], log: SummaryWriter | None
) -> None:
    if log is None:
        return
    state = run.state
    progress = Progress(
        step=state.step,
        steps=run.steps,
        epoch=run.epoch,
        epochs=run.config.max_epochs,
        loss=loss,
        dice=dice,
        validation=mean_scores(state.latest) or None,
        best=state.best,
        seconds=state.seconds,
        learning_rate=run.learning_rate(),
    )
    log.add_scalar("train/loss", loss, state.step)
    log.add_scalar("train/learning_rate", progress.learning_rate, state.step)
    if dice is not None:
        log.add_scalar("train/dice", dice, state.step)
    if state.validated == state.step:
        for name, value in (progress.validation or {}).items():
            log.add_scalar(f"validation/{name}", value, state.step)
    report(progress)


def _header(
    store: AdapterStore,
    segmenter: PromptedFoundation,
    parent: AdapterHeader | None,
    data: TrainingData,
    run: Run,
    decision: Decision,
    config: Mapping[str, object],
) -> AdapterHeader:
    trained_before = () if parent is None else parent.training_groups
    return AdapterHeader(
        name=shared(store.new_name()),
        foundation=store.foundation,
        foundation_sha256=store.foundation_sha256,
        parent=segmenter.version,
        config=config,
        structures=data.structures,
        training_groups=tuple(sorted({*data.groups, *trained_before})),
        validation=run.state.scores,
        status=decision.status,
        reason=decision.reason,
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        app_version=__version__,
    )
