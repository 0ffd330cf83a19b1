"""Every option of a fine-tuning."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from proxyprompt.foundation import foundation_entry

from .precision import computes_in_bfloat16
from .strategies import STRATEGIES

OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True)
class FinetuneConfig:
    """The defaults suit ``atto``; :meth:`defaults` knows each foundation's, :meth:`paper` is the paper's setting.

    ValueError for a value that cannot be, naming it and what was expected.

    trainable: one of :data:`proxyprompt.training.strategies.STRATEGIES`. rank, alpha: of new adapters;
    a version that has some keeps its own. adapt_encoder: False puts adapters behind the image encoder only, so that
    image features stay what they are and are computed once.

    optimiser, learning_rate (None: what suits ``trainable``, see :attr:`rate`), weight_decay, momentum (SGD), clip
    (norm of the gradients; 0 for none). schedule: after ``warmup`` steps, ``cosine`` falls to a hundredth at the end of
    the epochs or of the minutes, whichever comes first. pixel_weight, presence_weight, iou_weight: of the terms beside
    the Dice loss.

    steps_per_epoch: studies are drawn, so an epoch is a number of steps. max_epochs; max_minutes: None for no limit;
    counted over interruptions. patience: epochs without a better validation after which training stops; 0: never.
    mixed_precision: bfloat16 where autocast thinks it safe; None: where the machine computes in it, but for SGD.

    members: images of a step, each of them target once. supports: most supports of a target, drawn from 1; None for
    all others of the step. objects: most structures asked for at once. absent: share of targets drawn from slices
    without the structure, where a study has such. augment: whether images are varied. views: None for a new variation
    each time, else so many of each slice, so that what is frozen is computed once.

    validation: whether some groups are held out; without them nothing is known about the version. validation_supports:
    support slices when scoring. validation_slices: most slices of a study that are scored.
    """

    trainable: str = "lora"
    rank: int = 4
    alpha: float | None = None
    adapt_encoder: bool = True
    optimiser: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 0.01
    momentum: float = 0.9
    clip: float = 1.0
    schedule: str = "cosine"
    warmup: int = 20
    pixel_weight: float = 1.0
    presence_weight: float = 0.2
    iou_weight: float = 0.1
    steps_per_epoch: int = 25
    max_epochs: int = 40
    max_minutes: float | None = None
    patience: int = 12
    mixed_precision: bool | None = None
    members: int = 5
    supports: int | None = 4
    objects: int = 3
    absent: float = 0.2
    augment: bool = True
    views: int | None = None
    save_memory: bool = False
    validation: bool = True
    validation_supports: int = 4
    validation_slices: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, valid in (("trainable", STRATEGIES), ("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(valid)}")
        least = {"rank": 1, "learning_rate": 0, "weight_decay": 0, "momentum": 0, "clip": 0, "warmup": 0}
        least |= {"pixel_weight": 0, "presence_weight": 0, "iou_weight": 0}
        least |= {"steps_per_epoch": 1, "max_epochs": 1, "max_minutes": 0}
        least |= {"patience": 0, "members": 2, "supports": 1, "objects": 1, "absent": 0, "views": 1}
        least |= {"validation_supports": 1, "validation_slices": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ValueError(f"{name} is {value}; expected at least {low}")
        if not self.absent <= 1:
            raise ValueError(f"absent is {self.absent}; expected a share from 0 to 1")

    @property
    def rate(self) -> float:
        """The learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 3e-4 if self.trainable == "all" else 1e-3

    def in_bfloat16(self, device: torch.device) -> bool:
        """Whether to compute in bfloat16 where that is safe."""
        if self.mixed_precision is not None:
            return self.mixed_precision
        return self.optimiser == "adamw" and computes_in_bfloat16(device)

    @classmethod
    def defaults(cls, foundation: str, **given: Any) -> FinetuneConfig:
        """What suits the foundation: adapters and generator; for an official model by the paper's optimiser.

        given: options that were chosen. ValueError for one that does not exist.
        """
        entry = foundation_entry(foundation)
        config = cls() if entry.embedded else cls._official()
        return config.with_options(**{**entry.finetuning, **given})

    @classmethod
    def paper(cls, **given: Any) -> FinetuneConfig:
        """The paper's setting: adapters and generator, SGD with a constant rate, Dice loss, all others as support.

        The presence term stays, because the paper's model cannot say that a structure is absent; so do the share of
        ``absent`` targets and the clipping of gradients. Norms and biases do not decay.
        """
        paper = replace(cls._official(), schedule="constant", warmup=0, pixel_weight=0.0, iou_weight=0.0, augment=False)
        return replace(paper, members=16, supports=None).with_options(**given)

    def with_options(self, **given: Any) -> FinetuneConfig:
        """A copy with other values; ValueError that lists the options for a name that is none."""
        known = [f.name for f in fields(self)]
        if unknown := sorted(given.keys() - set(known)):
            raise ValueError(f"unknown training option {', '.join(unknown)}; the options are: {', '.join(known)}")
        return replace(self, **given)

    def deciding(self) -> dict[str, Any]:
        """The options that an interrupted training must share with the one that goes on: all but how long it takes."""
        return {k: v for k, v in asdict(self).items() if k not in ("max_epochs", "max_minutes", "patience")}

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    @classmethod
    def _official(cls) -> FinetuneConfig:
        return cls(trainable="lora", optimiser="sgd", learning_rate=0.01, weight_decay=0.0005, save_memory=True)
