"""The weights that train, as tensors to keep: in a checkpoint, in a version."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from proxyprompt.foundation import FOUNDATION_PREFIX, GENERATOR_PREFIX
from proxyprompt.foundation.adapted import WHOLE, adapted_state
from proxyprompt.foundation.lora import merge_lora
from proxyprompt.predictor.segmenter import PromptedFoundation


def trainable_state(segmenter: PromptedFoundation) -> dict[str, Tensor]:
    """A copy of all that trains, by name."""
    return {name: p.detach().clone() for name, p in segmenter.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trainable(segmenter: PromptedFoundation, state: dict[str, Tensor]) -> None:
    """The reverse of :func:`trainable_state`. KeyError when something else trains now."""
    for name, parameter in segmenter.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(state[name])


def kept_state(segmenter: PromptedFoundation, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
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
