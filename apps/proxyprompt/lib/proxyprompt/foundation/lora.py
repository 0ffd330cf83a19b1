"""Low-rank adapters on a frozen foundation, by ``peft``.

Adapted are the layers that a foundation names (``lora_encoder``, ``lora_decoder``): the attention of its encoder and of
its mask decoder, unless it says otherwise. Everything else of it stays frozen, except the heads that it lists in
``trainable_heads`` (SAM's presence head): they are no part of the published weights, so they train, are saved and are
loaded together with the adapters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor

from .base import Foundation


def lora_targets(foundation: Foundation, *, encoder: bool = True) -> str:
    """Which layers adapters sit on.

    Args:
        foundation: names them.
        encoder: False leaves out those of the image encoder.

    Returns:
        A pattern of the layers' full names.
    """
    both = f"({foundation.lora_encoder})|({foundation.lora_decoder})"
    return both if encoder else foundation.lora_decoder


def add_lora(foundation: Foundation, *, rank: int = 4, alpha: float | None = None, encoder: bool = True) -> Foundation:
    """Put adapters on a foundation, in place; all else but its trainable heads is frozen.

    Changes nothing until trained: the second factor of each adapter starts at zero.

    Args:
        foundation: gets them.
        rank: of the adapters.
        alpha: the update is scaled by alpha / rank; None for alpha = rank.
        encoder: False leaves the image encoder as it is, so that its features can be computed once.

    Returns:
        The foundation that was given.

    Raises:
        ValueError: for a rank below 1, or when there are adapters already.
    """
    if rank < 1:
        raise ValueError(f"rank of the adapters is {rank}; expected at least 1")
    if has_lora(foundation):
        raise ValueError(f"{foundation.name} has adapters already; merge_lora() first, or build the foundation anew")
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        lora_dropout=0.0,
        target_modules=lora_targets(foundation, encoder=encoder),
    )
    inject_adapter_in_model(config, foundation)
    return train_only_lora(foundation).eval()


def train_only_lora(foundation: Foundation) -> Foundation:
    """Let the adapters that are in place train, and the trainable heads; all else is frozen.

    Args:
        foundation: with adapters.

    Returns:
        The foundation that was given.
    """
    for name, parameter in foundation.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith(_head_prefixes(foundation)))
    return foundation


def has_lora(foundation: Foundation) -> bool:
    """Whether adapters are in place (and not merged).

    Args:
        foundation: may have some.

    Returns:
        True when it has.
    """
    return next(_adapted(foundation), None) is not None


def lora_options(foundation: Foundation) -> dict[str, float | bool]:
    """What :func:`add_lora` was called with.

    Args:
        foundation: with adapters.

    Returns:
        rank, alpha and encoder, by name.

    Raises:
        ValueError: when there are no adapters in place.
    """
    _require(foundation)
    config: LoraConfig = getattr(foundation, "peft_config")["default"]  # noqa: B009 (peft puts it there)
    return {"rank": config.r, "alpha": config.lora_alpha, "encoder": config.target_modules == lora_targets(foundation)}


def head_state_dict(foundation: Foundation) -> dict[str, Tensor]:
    """The weights of the trainable heads.

    Args:
        foundation: may have some.

    Returns:
        Tensors under their own names, detached and on the CPU; empty for a foundation without any.
    """
    heads = _head_prefixes(foundation)
    return {k: v.detach().cpu().clone() for k, v in foundation.state_dict().items() if k.startswith(heads)}


def lora_state_dict(foundation: Foundation) -> dict[str, Tensor]:
    """What training changed: the adapters and the trainable heads.

    Args:
        foundation: with adapters.

    Returns:
        Tensors, detached and on the CPU; those of the heads under their own names.

    Raises:
        ValueError: when there are no adapters in place.
    """
    _require(foundation)
    state = get_peft_model_state_dict(foundation, save_embedding_layers=False)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    return state | head_state_dict(foundation)


def load_lora(foundation: Foundation, state: Mapping[str, Tensor]) -> None:
    """The reverse of :func:`lora_state_dict`, strictly.

    Args:
        foundation: with adapters of the same rank.
        state: from :func:`lora_state_dict`.

    Raises:
        ValueError: when adapters are not in place, or when keys or shapes differ: the state of another foundation or
            of another rank.
    """
    _require(foundation)
    own = lora_state_dict(foundation)
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    parts = [f"{len(keys)} {kind} (first: {keys[0]})" for kind, keys in found.items() if keys]
    if parts:
        raise ValueError(
            f"the adapter does not fit {foundation.name}: {'; '.join(parts)}. "
            f"It was made for another foundation, or with another rank"
        )
    heads = {key: value for key, value in state.items() if key.startswith(_head_prefixes(foundation))}
    set_peft_model_state_dict(foundation, {key: value for key, value in state.items() if key not in heads})
    foundation.load_state_dict(heads, strict=False)


def merge_lora(foundation: Foundation) -> Foundation:
    """Add the adapters into the layers they sit on and take them off, in place; nothing trains any more.

    Gives the masks of the unmerged model to rounding, at the cost of the plain one. Without adapters nothing changes.

    Args:
        foundation: may have adapters.

    Returns:
        The foundation that was given.
    """
    for name, layer in list(_adapted(foundation)):
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(foundation.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(foundation, "peft_config"):
        del foundation.peft_config
    return foundation.requires_grad_(False).eval()


def _adapted(foundation: Foundation) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, module) for name, module in foundation.named_modules() if isinstance(module, LoraLayer))


def _head_prefixes(foundation: Foundation) -> tuple[str, ...]:
    return tuple(f"{head}." for head in foundation.trainable_heads)


def _require(foundation: Foundation) -> None:
    if not has_lora(foundation):
        raise ValueError(f"{foundation.name} has no adapters in place; call add_lora() with the adapter's rank first")
