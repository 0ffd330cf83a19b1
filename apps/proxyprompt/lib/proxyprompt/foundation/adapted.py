"""What fine-tuning changed of a foundation, as tensors to keep, and the same put back on the published weights.

Kinds: ``lora``, low-rank adapters and trainable heads; ``whole``, every weight; ``frozen``, the trainable heads only
(a foundation that has none is left as it is).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .base import Foundation
from .checkpoints import load_strictly
from .lora import (
    add_lora,
    has_lora,
    head_state_dict,
    load_lora,
    lora_options,
    lora_state_dict,
    merge_lora,
)

LORA, WHOLE, FROZEN = "lora", "whole", "frozen"


def adapted_state(foundation: Foundation, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What fine-tuning changed of a foundation.

    Args:
        foundation: after fine-tuning.
        kind: LORA, WHOLE or FROZEN; WHOLE is for a foundation without adapters in place.

    Returns:
        (config, tensors on the CPU) for :func:`adapt`.

    Raises:
        ValueError: for adapters where none should be, or none where some should.
    """
    if kind == LORA:
        return {"kind": kind, **lora_options(foundation)}, lora_state_dict(foundation)
    if kind == FROZEN:
        return {"kind": kind}, head_state_dict(foundation)
    if has_lora(foundation):
        raise ValueError(f"{foundation.name} has adapters in place; merge_lora() before it is kept as a whole")
    return {"kind": WHOLE}, {name: value.detach().cpu().clone() for name, value in foundation.state_dict().items()}


def adapt(
    foundation: Foundation, config: Mapping[str, Any], state: Mapping[str, Tensor], *, source: str, merge: bool = True
) -> Foundation:
    """Put what :func:`adapted_state` gave on the same published weights, in place.

    Args:
        foundation: with the published weights.
        config: from :func:`adapted_state`.
        state: from :func:`adapted_state`.
        source: where they come from, for messages.
        merge: False leaves low-rank adapters in place, so that they can be trained on.

    Returns:
        The foundation that was given.

    Raises:
        CheckpointError: when the tensors do not fit.
        ValueError: the same of low-rank adapters, or for an unknown kind.
    """
    kind = config["kind"]
    if kind == WHOLE:
        load_strictly(foundation, state, source=source)
    elif kind == LORA:
        add_lora(foundation, rank=config["rank"], alpha=config["alpha"], encoder=config["encoder"])
        load_lora(foundation, state)
        if merge:
            merge_lora(foundation)
    elif kind == FROZEN:
        load_strictly(foundation, {**foundation.state_dict(), **state}, source=source)
    else:
        raise ValueError(f"{source}: unknown kind of adapter {kind!r}; expected {LORA}, {WHOLE} or {FROZEN}")
    return foundation
