"""Everything that decides a pretraining run; stored in the header of the weights that come out of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from proxyprompt.foundation import foundation_entry


@dataclass(frozen=True)
class PoolConfig:
    """How groups of images are made; see :mod:`proxyprompt.pretraining.pool`.

    Attributes:
        members: images M of a group.
        structures: most structures of a group, real and pseudo ones.
        slots: groups on disk; workers replace the oldest.
        kinds: how often a group is of each kind: ``real`` (different images of a task), ``views`` (one image, moved
            and deformed, as frames of a clip) or ``drawn``.
        zoom: share of the real groups that are cut out around a structure, so that small ones are learnt from.
    """

    members: int = 8
    structures: int = 5
    slots: int = 600
    kinds: dict[str, float] = field(default_factory=lambda: {"real": 0.6, "views": 0.2, "drawn": 0.2})
    zoom: float = 0.4


@dataclass(frozen=True)
class PretrainConfig:
    """Attributes of a run.

    Attributes:
        image_size: side S in pixels.
        shapes: (groups, members, objects) of a step, one drawn each time.
        learning_rate: of AdamW, after ``warmup`` steps constant, over the last ``decay`` share of ``steps`` linearly
            to nothing.
        weight_decay: of matrices.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, which are what is exported.
        self_support: chance that a target is among its own supports, at the first and at ``self_support_steps``.
        prompts: how often each kind of the foundation's own prompts is drawn, one a step.
        prompt_weight: of their loss, beside that of the mask drawn from the proxy prompt alone.
        probe_weight: of the losses on linear probes of E_ctx and of each token of P, and on the mask that the
            selective map carries over; none of them is part of the model.
        held_back: every n-th task, sorted by name, is left out of training and measured on; 0 for none.
        foundation, generator: options of ``AttoConfig`` and ``GeneratorConfig``.
    """

    image_size: int = 384
    shapes: tuple[tuple[int, int, int], ...] = ((2, 6, 1), (3, 4, 1), (1, 6, 2), (1, 8, 1), (2, 3, 2))
    steps: int = 20_000
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.25
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.998
    self_support: tuple[float, float] = (0.5, 0.03)
    self_support_steps: int = 1500
    prompts: dict[str, float] = field(
        default_factory=lambda: {
            "box": 0.15,
            "points": 0.15,
            "correction": 0.15,
            "mask": 0.05,
            "clip": 0.1,
            "proxy_points": 0.15,
            "proxy_box": 0.1,
            "proxy_mask": 0.15,
        }
    )
    prompt_weight: float = 0.75
    probe_weight: float = 0.4
    held_back: int = 5
    seed: int = 0
    pool: PoolConfig = field(default_factory=PoolConfig)
    foundation: dict = field(default_factory=dict)
    generator: dict = field(default_factory=lambda: dict(foundation_entry("atto").generator))

    def to_dict(self) -> dict[str, object]:
        """For the header of the weights."""
        return asdict(self)
