"""What a fine-tuning trains: one class for each way, by the name that ``FinetuneConfig.trainable`` holds.

To add one: subclass :class:`TrainingStrategy` here and decorate it (docs/how-to/add-a-training-strategy.md). The
options of requests and of the command line, and the checks of the configuration, take their choices from
:data:`STRATEGIES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from proxyprompt.foundation.adapted import FROZEN, LORA, WHOLE
from proxyprompt.foundation.lora import add_lora, has_lora, lora_options, merge_lora, train_only_lora

from .errors import TrainingError

if TYPE_CHECKING:
    from proxyprompt.predictor.adapters import AdapterHeader
    from proxyprompt.predictor.segmenter import PromptedFoundation


class AdapterOptions(Protocol):
    """What a strategy asks of a configuration; see ``FinetuneConfig``."""

    @property
    def rank(self) -> int:
        """Of the adapters."""

    @property
    def alpha(self) -> float | None:
        """What they are scaled by, over their rank; None for the rank."""

    @property
    def adapt_encoder(self) -> bool:
        """Whether they sit on the image encoder, too."""

    @property
    def seed(self) -> int:
        """Of their first factors."""


STRATEGIES: dict[str, TrainingStrategy] = {}


def register_strategy(strategy: type[TrainingStrategy]) -> type[TrainingStrategy]:
    """Class decorator: from then on the strategy can be asked for by its name."""
    STRATEGIES[strategy.name] = strategy()
    return strategy


class TrainingStrategy(ABC):
    """What of a segmenter trains, and what of its foundation is kept in the version that comes out.

    The data (episodes of the labelled studies), the loss (:mod:`proxyprompt.training.losses`) and the promotion check
    (:mod:`proxyprompt.training.gate`) are the same for all.

    Attributes:
        name: by which it is asked for.
        summary: a line for people who choose.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def prepare(self, segmenter: PromptedFoundation, config: AdapterOptions, parent: AdapterHeader | None) -> str:
        """Freeze and unfreeze, in place.

        Args:
            segmenter: the parent.
            config: options, such as the rank of adapters.
            parent: the version that ``segmenter`` is; None for what is shipped. Where it changed every weight of the
                foundation, its children keep every weight as well.

        Returns:
            What will be kept of the foundation: "lora", "whole" or "frozen".

        Raises:
            TrainingError: where the parent cannot be trained so.
        """
        before = FROZEN if parent is None else str(parent.config["foundation"]["kind"])
        if before == LORA and not has_lora(segmenter.foundation):
            raise TrainingError(
                f"the adapters of {segmenter.version} are merged; build it with merge=False to train it on"
            )
        segmenter.requires_grad_(False)
        segmenter.generator.requires_grad_(True)
        return self._prepare_foundation(segmenter, config, before)

    @abstractmethod
    def _prepare_foundation(self, segmenter: PromptedFoundation, config: AdapterOptions, before: str) -> str:
        """Unfreeze what trains of the foundation. before: what the parent keeps of it. Returns what is kept."""

    @abstractmethod
    def encoder_is_frozen(self, segmenter: PromptedFoundation) -> bool:
        """Whether image features stay what they are while this trains, so that they are computed once."""


@register_strategy
class Adapters(TrainingStrategy):
    """Low-rank adapters on the frozen foundation, and the generator (paper, sections 3 and 4.1)."""

    name = "lora"
    summary = "the paper's way: adapters on the frozen foundation, and the generator"

    def _prepare_foundation(self, segmenter: PromptedFoundation, config: AdapterOptions, before: str) -> str:
        foundation = segmenter.foundation
        if not has_lora(foundation):
            with torch.random.fork_rng(devices=[]):  # the same training starts from the same adapters
                torch.manual_seed(config.seed)
                add_lora(foundation, rank=config.rank, alpha=config.alpha, encoder=config.adapt_encoder)
        train_only_lora(foundation)
        return WHOLE if before == WHOLE else LORA

    def encoder_is_frozen(self, segmenter: PromptedFoundation) -> bool:
        """Unless adapters sit on the encoder."""
        return not lora_options(segmenter.foundation)["encoder"]


@register_strategy
class GeneratorOnly(TrainingStrategy):
    """The generator alone; of the foundation only heads that are no part of the published weights."""

    name = "generator"
    summary = "the generator alone; the foundation stays as it is"

    def _prepare_foundation(self, segmenter: PromptedFoundation, config: AdapterOptions, before: str) -> str:
        train_only_lora(segmenter.foundation)
        for name, parameter in segmenter.foundation.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and "lora_" not in name)
        return before

    def encoder_is_frozen(self, segmenter: PromptedFoundation) -> bool:
        """Always."""
        return True


@register_strategy
class Everything(TrainingStrategy):
    """All weights of foundation and generator."""

    name = "all"
    summary = "every weight of foundation and generator; the version is as large as both"

    def _prepare_foundation(self, segmenter: PromptedFoundation, config: AdapterOptions, before: str) -> str:
        merge_lora(segmenter.foundation).requires_grad_(True)
        return WHOLE

    def encoder_is_frozen(self, segmenter: PromptedFoundation) -> bool:
        """Never."""
        return False
