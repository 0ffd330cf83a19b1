"""What of a segmenter trains, and what of it is kept in a version."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from proxyprompt.foundation import FOUNDATION_PREFIX, GENERATOR_PREFIX
from proxyprompt.foundation.adapted import FROZEN, LORA, WHOLE, adapted_state
from proxyprompt.foundation.lora import add_lora, has_lora, lora_options, merge_lora, train_only_lora
from proxyprompt.predictor.adapters import AdapterHeader
from proxyprompt.predictor.segmenter import Segmenter

from .errors import TrainingError
from .finetune_config import FinetuneConfig


def make_trainable(segmenter: Segmenter, config: FinetuneConfig, parent: AdapterHeader | None) -> str:
    """Freezes and unfreezes in place, and puts low-rank adapters where the config wants them.

    Args:
        segmenter: the parent.
        config: says what trains.
        parent: the version that ``segmenter`` is, None for what is shipped. Where the parent changed every weight of
            the foundation, its children keep every weight as well.

    Returns:
        What will be kept of the foundation: "lora", "whole" or "frozen".

    Raises:
        TrainingError: where the parent cannot be trained so.
    """
    foundation = segmenter.foundation
    before = FROZEN if parent is None else str(parent.config["foundation"]["kind"])
    if before == LORA and not has_lora(foundation):
        raise TrainingError(f"the adapters of {segmenter.version} are merged; build it with merge=False to train it on")
    segmenter.requires_grad_(False)
    segmenter.generator.requires_grad_(True)
    if config.trainable == "all":
        merge_lora(foundation).requires_grad_(True)
        return WHOLE
    if config.trainable == "lora" and not has_lora(foundation):
        with torch.random.fork_rng(devices=[]):  # the same training starts from the same adapters
            torch.manual_seed(config.seed)
            add_lora(foundation, rank=config.rank, alpha=config.alpha, encoder=config.adapt_encoder)
    train_only_lora(foundation)
    if config.trainable == "generator":
        for name, parameter in foundation.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and "lora_" not in name)
        return before
    return WHOLE if before == WHOLE else LORA


def encoder_is_frozen(segmenter: Segmenter, config: FinetuneConfig) -> bool:
    """Whether image features stay what they are while this trains."""
    if config.trainable == "lora":
        return not lora_options(segmenter.foundation)["encoder"]
    return config.trainable == "generator"


def trainable_state(segmenter: Segmenter) -> dict[str, Tensor]:
    """A copy of all that trains, by name."""
    return {name: p.detach().clone() for name, p in segmenter.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trainable(segmenter: Segmenter, state: dict[str, Tensor]) -> None:
    """The reverse of :func:`trainable_state`. KeyError when something else trains now."""
    for name, parameter in segmenter.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(state[name])


def kept_state(segmenter: Segmenter, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors) of a version; adapters on a foundation that is kept as a whole are merged, in place."""
    if kind == WHOLE:
        merge_lora(segmenter.foundation)
    options, foundation = adapted_state(segmenter.foundation, kind)
    generator = {name: value.detach().cpu().clone() for name, value in segmenter.generator.state_dict().items()}
    state = {FOUNDATION_PREFIX + name: value for name, value in foundation.items()}
    state |= {GENERATOR_PREFIX + name: value for name, value in generator.items()}
    config = {
        "foundation": options,
        "generator": segmenter.options(),
        "image_size": segmenter.foundation.image_size,
    }
    return config, state
