"""Everything that decides a pretraining run; stored in the header of the weights that come out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lib.foundation.sam2 import ATTO

STAGES = ("foundation", "proxy")


@dataclass(frozen=True)
class Phase:
    """``steps`` optimiser steps at ``size`` pixels, ``groups`` groups of ``members`` images each.

    stage: "foundation" trains the promptable segmenter (points, boxes, masks, corrections, clips), "proxy" the Proxy
    Prompt Generator on top of it.
    """

    stage: str
    size: int
    steps: int
    groups: int
    members: int = 4

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage {self.stage!r}; expected one of {', '.join(STAGES)}")


@dataclass(frozen=True)
class PretrainConfig:
    """ease: how much large structures are preferred, at the first and at the last step; see ``draw_groups``.

    foundation_kinds, proxy_kinds: how often each kind of step is drawn in a stage; see
    ``lib.training.pretraining.tasks``. Rough masks to refine are many at first: a young decoder learns to draw from
    them, long before it can read a structure out of a box or a point.
    sloppy: share of support masks that are drawn too large or too small. blunt: share of episodes in which the fine
    readout does without many of its features: drawn images are easier for it than real ones, and a decoder that sees
    nothing but good guesses learns to copy them. context_weight: of the losses on the
    selected context and on the fine readout themselves. frozen_foundation: the second stage trains the
    generator alone, as the paper does (with LoRA on the foundation, which is left to fine-tuning).
    """

    phases: tuple[Phase, ...] = (Phase("foundation", 256, 1500, 4), Phase("proxy", 256, 4000, 3))
    objects: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.99
    seed: int = 0
    ease: tuple[float, float] = (1.0, 0.3)
    sloppy: float = 0.1
    blunt: float = 0.5
    context_weight: float = 1.0
    frozen_foundation: bool = False
    mixed_precision: bool = False
    foundation_kinds: dict[str, float] = field(
        default_factory=lambda: {"mask": 0.45, "box": 0.25, "points": 0.1, "correction": 0.1, "clip": 0.1}
    )
    proxy_kinds: dict[str, float] = field(
        default_factory=lambda: {
            "proxy": 0.56,
            "proxy_points": 0.16,
            "proxy_clip": 0.02,
            "mask": 0.05,
            "box": 0.08,
            "points": 0.05,
            "correction": 0.05,
            "clip": 0.03,
        }
    )
    foundation: dict = field(default_factory=lambda: dict(ATTO))
    generator: dict = field(
        default_factory=lambda: {"grid": 16, "width": 96, "depth": 4, "dense_proxy": True, "readout": True}
    )

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def span(self, stage: str) -> tuple[int, int]:
        """First step and step after the last of a stage; both the same where the run has no such stage."""
        start = 0
        for phase in self.phases:
            if phase.stage == stage:
                break
            start += phase.steps
        return start, start + sum(phase.steps for phase in self.phases if phase.stage == stage)

    def phase(self, step: int) -> Phase:
        """The phase that ``step`` (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        raise ValueError(f"step beyond the last of {self.steps}")
