"""One training: its steps, its best weights so far, its checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from .attention import trainable_attention
from .distributed import everywhere, rank, shared, wrapped
from .episode_model import EpisodeModel
from .errors import TrainingError, TrainingStopped
from .finetune_config import FinetuneConfig
from .losses import SegmentationLoss
from .trainable import load_trainable, trainable_state
from .training_data import TrainingData
from .validation import mean_scores

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
SAVE_SECONDS = 60.0


@dataclass
class State:
    """What a checkpoint holds beside weights and optimiser.

    ``scores`` are those of the weights that are the best so far, in the layout of Validation.scores; ``parent`` those
    of the weights that the training started from.
    """

    step: int = 0
    seconds: float = 0.0
    parent: dict[str, dict[str, float]] = field(default_factory=dict)
    latest: dict[str, dict[str, float]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    best: float | None = None
    validated: int = 0  # step at which the weights were last looked at
    waited: int = 0  # epochs since the best


class Run:
    """``fingerprint``: a checkpoint with another one is of another training, and is not gone on from."""

    def __init__(
        self, model: EpisodeModel, data: TrainingData, config: FinetuneConfig, folder: Path, *, fingerprint: str
    ) -> None:
        self.config, self.state = config, State()
        self._model, self._training_data, self._fingerprint = model, data, fingerprint
        self._path = folder / CHECKPOINT
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimiser = _optimiser(self._parameters, config)
        self._best: dict[str, Tensor] | None = None
        self._source = model.source(data.source, config)
        self._loss = wrapped(model.criterion(config))

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.config.max_epochs * self.config.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.state.step // self.config.steps_per_epoch

    def train(self, report: Callable[[float, float | None], None], stop: Callable[[], bool]) -> str:
        """Train until the end, and leave the best weights in the model. Returns why it ended: see Outcome.

        report: called after each step with its loss and Dice. Raises TrainingStopped when ``stop`` says so, and
        TrainingError when the loss is not finite before any epoch was whole.
        """
        state, config = self.state, self.config
        began = saved = time.monotonic()
        if not self._resume():
            state.parent = self._scores()
        spent, ended = state.seconds, "epochs"
        while state.step < self.steps:
            if self._patience_is_over():
                ended = "patience"
                break
            state.seconds = shared(spent + time.monotonic() - began)
            if state.step and config.max_minutes is not None and state.seconds > 60 * config.max_minutes:
                ended = "minutes"
                break
            if shared(stop()):
                kept = "it goes on from there" if self._save() else "and the checkpoint could not be written"
                raise TrainingStopped(f"stopped at step {state.step} of {self.steps}; {kept}")
            done = self._step()
            if done is None:
                ended = "nan"
                break
            if state.step % config.steps_per_epoch == 0:
                self._validate()
            report(*done)
            if state.validated == state.step or time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        if ended != "nan" and state.validated < state.step:
            self._validate()
        if self._best is None:
            raise TrainingError(
                f"the loss was not finite at step {state.step}, before the first epoch was whole; nothing was saved. "
                f"Lower the learning rate ({config.rate}), or look for broken images"
            )
        if ended == "nan":
            logger.warning("the loss was not finite at step %d; the last good weights are kept", state.step)
        self._save()
        load_trainable(self._model.segmenter, self._best)
        return ended

    def learning_rate(self) -> float:
        """Linear warm-up, then constant, or half a cosine down to a hundredth."""
        config, state = self.config, self.state
        if state.step < config.warmup:
            return config.rate * (state.step + 1) / config.warmup
        if config.schedule == "constant":
            return config.rate
        done = (state.step - config.warmup) / max(1, self.steps - config.warmup)
        if config.max_minutes:
            done = max(done, state.seconds / (60 * config.max_minutes))
        return config.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def forget(self) -> None:
        """The training came to its end: there is nothing to go on from any more."""
        if rank() == 0:
            self._path.unlink(missing_ok=True)

    # inside

    def _step(self) -> tuple[float, float | None] | None:
        """(loss, mean Dice) of one optimiser step; None, with the weights as they were, when it is not finite."""
        drawn = self._source.draw(self.state.step, self._model.segmenter.foundation, rank=rank())
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate()
        device = self._parameters[0].device
        with trainable_attention(device):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.config.in_bfloat16(device)):
                loss: SegmentationLoss = self._loss(drawn)
            self._optimiser.zero_grad(set_to_none=True)
            loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, self.config.clip or math.inf)
        if everywhere(not bool(torch.isfinite(loss.total) & torch.isfinite(norm))):
            return None
        self._optimiser.step()
        self.state.step += 1
        dice = loss.dice[~loss.dice.isnan()]
        return loss.total.item(), dice.mean().item() if len(dice) else None

    def _scores(self) -> dict[str, dict[str, float]]:
        return shared(self._training_data.validation.scores(self._model) if rank() == 0 else {})

    def _validate(self) -> None:
        """Keeps the weights when they are the best so far; the latest ones where nothing can tell."""
        state = self.state
        state.latest, state.validated = self._scores(), state.step
        mean = fmean(mean_scores(state.latest).values()) if state.latest else None
        state.waited += 1
        if mean is None or state.best is None or mean > state.best:
            state.best, state.scores, state.waited = mean, state.latest, 0
            self._best = trainable_state(self._model.segmenter)

    def _patience_is_over(self) -> bool:
        return 0 < self.config.patience <= self.state.waited

    def _save(self) -> bool:
        """Beside, then renamed. A disk that is full does not end a training: False, and the log says so."""
        if rank() != 0:
            return True
        content = {
            "fingerprint": self._fingerprint,
            "state": asdict(self.state),
            "weights": trainable_state(self._model.segmenter),
            "best": self._best,
            "optimiser": self._optimiser.state_dict(),
        }
        beside = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, beside)
            beside.replace(self._path)
        except (OSError, RuntimeError) as error:
            beside.unlink(missing_ok=True)
            logger.warning("the checkpoint %s could not be written (%s); training goes on", self._path, error)
            return False
        return True

    def _resume(self) -> bool:
        if not self._path.exists():
            return False
        try:
            content = torch.load(self._path, map_location=self._parameters[0].device, weights_only=True)
        except Exception as error:  # torch trips over damaged bytes in every way there is
            logger.warning("the checkpoint %s cannot be read (%s); training starts anew", self._path, error)
            return False
        if content.get("fingerprint") != self._fingerprint:
            logger.info("%s is of another training (options, version or studies changed); starting anew", self._path)
            return False
        self.state.__dict__.update(content["state"])
        load_trainable(self._model.segmenter, content["weights"])
        self._best = content["best"]
        self._optimiser.load_state_dict(content["optimiser"])
        logger.info("going on at step %d of %d", self.state.step, self.steps)
        return True


def _optimiser(parameters: list[nn.Parameter], config: FinetuneConfig) -> torch.optim.Optimizer:
    """No decay for norms, biases and the like."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.rate)
