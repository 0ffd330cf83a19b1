"""What the supports are worth as training data: the proxy prompt, fine-tuned on them before it is asked.

By the engine that makes versions, but with nothing held out, as for the U-Net from scratch: all K labels train, and all
of them are the supports afterwards.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Never

import torch

from proxyprompt.extensions import ALL, Extensions
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.supports.selection import Selection
from proxyprompt.training.cases import Case, LabelledSlice
from proxyprompt.training.episodes import EpisodeSource
from proxyprompt.training.finetune import trained_model
from proxyprompt.training.finetune_config import FinetuneConfig
from proxyprompt.training.run import Run
from proxyprompt.training.strategies import STRATEGIES
from proxyprompt.training.training_data import TrainingData
from proxyprompt.training.validation import Validation

from .methods import Fitted, Method, ProxyPromptMethod, weights_of

logger = logging.getLogger(__name__)


class FineTuned(Method):
    """A method that trains before it segments.

    Args:
        name: what tables call it.
        start: makes the segmenter that every draw starts from.
        config: of the training.
        extensions: what is used beyond the paper afterwards.
    """

    def __init__(
        self, name: str, start: Callable[[], Segmenter], config: FinetuneConfig, *, extensions: Extensions = ALL
    ) -> None:
        self.name, self._start, self._config, self._extensions = name, start, config, extensions
        self.settings = {**weights_of(start()), "training": config.to_dict(), **extensions._asdict()}

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        """Raises TrainingError where the supports give nothing to train on."""
        segmenter, config = self._start(), self._config.with_options(seed=seed)
        data = _training_data(supports, config)
        STRATEGIES[config.trainable].prepare(segmenter, config, None)
        model = trained_model(segmenter, config)
        with tempfile.TemporaryDirectory() as folder:
            run = Run(model, data, config, Path(folder), fingerprint="")
            dice: list[float] = []
            ended = run.train(lambda loss, value: dice.append(value) if value is not None else None, lambda: False)
        segmenter.eval().requires_grad_(False)
        notes = {"steps": run.state.step, "stopped": ended, "training_dice": _means(dice)}
        method = ProxyPromptMethod(segmenter, extensions=self._extensions)
        return Fitted(method.fit(supports, seed=seed).predict, notes=notes)


def _training_data(supports: Selection, config: FinetuneConfig) -> TrainingData:
    """The support slices, all of them to train on. Slices of one study are of one group."""
    slices = []
    for k, chosen in enumerate(supports.slices):
        structures = {name: (n + 1,) for n, name in enumerate(supports.structures) if supports.valid[k, n]}
        masks = torch.from_numpy(supports.masks[k])
        slices.append(
            LabelledSlice(
                case=Case(chosen.study_id, chosen.study_id, structures, chosen.image_key, _never_opened),
                index=chosen.index,
                image=torch.from_numpy(supports.images[k]),
                masks=255 * masks.byte(),
                declared=torch.from_numpy(supports.valid[k]),
                shown=masks.flatten(1).any(1),
            )
        )
    source = EpisodeSource.configured(slices, supports.structures, config)
    nothing_held_out = Validation([], slices, supports.structures, source.structures, supports=1, hash_of=str)
    return TrainingData(source, nothing_held_out, supports.structures, (), ())


def _never_opened() -> Never:
    raise RuntimeError("the slices of a support set are at hand; its studies are not opened again")


def _means(values: list[float], parts: int = 20) -> list[float]:
    """The course of a training in a few numbers."""
    return [round(float(chunk.mean()), 4) for chunk in torch.tensor(values).chunk(min(parts, max(1, len(values))))]
