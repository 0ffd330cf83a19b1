"""What the supports are worth to a network that knows nothing else: MONAI's DynUNet, from scratch on K images.

The same with a pretrained encoder, that of ``atto``, in the place of its first half.

Trained with MONAI's augmentation until its loss no longer falls, or for so many minutes; with a handful of labels
there is none to spare for a validation set.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from monai.networks.nets.basic_unet import UpCat
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
)
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn import functional as F

from proxyprompt.foundation.pretrained_trunk import PretrainedTrunk
from proxyprompt.io.cache import content_key
from proxyprompt.supports.selection import Selection

from .episodes import Slices
from .methods import Fitted, Method


@dataclass(frozen=True)
class UNetConfig:
    """size: side of the square input in pixels. filters: channels of each level; each halves the grid.

    Training ends after ``minutes`` or ``most_steps``, or when the mean loss of the last ``window`` steps is no longer a
    hundredth below the lowest such mean before, ``patience`` windows in a row. The learning rate falls to a tenth at
    the last but one. mixed_precision: convolutions in bfloat16. pretrained: the encoder is the frozen trunk of
    ``atto`` with its ImageNet weights, and ``filters`` are those of the decoder, coarse to fine.
    """

    size: int = 256
    filters: tuple[int, ...] = (32, 64, 128, 256, 320)
    batch: int = 4
    learning_rate: float = 1e-3
    minutes: float = 10.0
    most_steps: int = 20_000
    window: int = 25
    patience: int = 4
    mixed_precision: bool = False
    pretrained: bool = False

    @classmethod
    def of_width(cls, width: int, **options: float) -> UNetConfig:
        """Five levels; ``width`` channels on the first, 32 in nnU-Net."""
        return cls(filters=tuple(width * n for n in (1, 2, 4, 8, 10)), **options)


class DynUNetFromScratch(Method):
    """notes: ``curve``, the mean loss of each window of steps (the last may be short); ``steps``; ``stopped``:
    "plateau", "minutes" or "steps".

    after: the same network for fewer minutes: where that was just trained on the same supports, training goes on from
    there instead of from the start; what comes out is the same.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        name: str = "dynunet",
        after: DynUNetFromScratch | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name, self.config, self._after, self._device = name, config, after, torch.device(device)
        self._last: tuple[str, _Training] | None = None

    @property
    def settings(self) -> Mapping[str, object]:
        return asdict(self.config)

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        training = self._begun(supports, seed)
        training.go_on(self.config)
        network = deepcopy(training.network).eval()

        @torch.inference_mode()
        def predict(slices: Slices) -> np.ndarray:
            found = []
            for row in range(len(slices)):
                image = self._squared(torch.from_numpy(slices.images([row])[0]))
                with training.precision():
                    logits = network(image[None].to(self._device))
                fine = F.interpolate(logits.float(), slices.slice_shape, mode="bilinear", align_corners=False)
                found.append((fine[0, 0] > 0).cpu().numpy())
            return np.stack(found)

        return Fitted(predict, training.notes)

    def _begun(self, supports: Selection, seed: int) -> _Training:
        """A training of these supports, as far as it has come."""
        key = content_key(seed, *supports.images, *supports.masks)
        if self._after is not None and self._after._last is not None and self._after._last[0] == key:
            training = self._after._last[1]
        else:
            images = torch.stack([self._squared(torch.from_numpy(image)) for image in supports.images])
            masks = torch.stack([self._squared(torch.from_numpy(mask).float()) for mask in supports.masks])
            training = _Training(self.config, images, (masks > 0.5).float(), seed, self._device)
        self._last = key, training
        return training

    def _squared(self, image: Tensor) -> Tensor:
        """(c, h, w) -> (c, S, S)."""
        size = (self.config.size, self.config.size)
        return F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


class _Training:
    """images: (K, 3, S, S). masks: (K, 1, S, S), 0 or 1."""

    def __init__(self, config: UNetConfig, images: Tensor, masks: Tensor, seed: int, device: torch.device) -> None:
        self._images, self._masks, self._device = images, masks, device
        set_determinism(seed)
        try:
            self.network = _network(config).to(device)
        finally:
            set_determinism(None)
        self._augment = augmentation(config.size).set_random_state(seed)
        self._rng = np.random.default_rng(seed)
        self._optimizer = torch.optim.AdamW(self.network.parameters(), config.learning_rate, weight_decay=1e-4)
        self._criterion = DiceCELoss(sigmoid=True, batch=True)
        self._mixed, self._window = config.mixed_precision, config.window
        self._curve: list[float] = []
        self._losses: list[float] = []  # since the last whole window
        self._idle = self._steps = 0
        self._seconds, self._stopped = 0.0, "steps"

    @property
    def notes(self) -> dict[str, object]:
        short = [round(float(np.mean(self._losses)), 5)] if self._losses else []
        return {
            "curve": self._curve + short,
            "window": self._window,
            "steps": self._steps,
            "stopped": self._stopped,
            "training_seconds": round(self._seconds, 1),
        }

    def precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed)

    def go_on(self, config: UNetConfig) -> None:
        """Until the end that ``config`` sets; an end that was reached before stays one, unless it was the minutes."""
        if self._stopped == "plateau":
            return
        began, before = time.monotonic(), self._seconds
        self._stopped = "steps"
        self.network.train()
        while self._steps < config.most_steps:
            self._losses.append(self._step(config.batch))
            self._steps += 1
            self._seconds = before + time.monotonic() - began
            if self._seconds > 60 * config.minutes:
                self._stopped = "minutes"
                return
            if len(self._losses) == config.window and self._is_at_plateau(config):
                self._stopped = "plateau"
                return

    def _step(self, batch: int) -> float:
        chosen = self._rng.integers(0, len(self._images), batch)
        drawn = [self._augment({"image": self._images[k], "mask": self._masks[k]}) for k in chosen]
        images, truth = (torch.stack([d[name] for d in drawn]).to(self._device) for name in ("image", "mask"))
        with self.precision():
            logits = self.network(images)
        loss = self._criterion(logits.float(), truth)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12.0)
        self._optimizer.step()
        return loss.item()

    def _is_at_plateau(self, config: UNetConfig) -> bool:
        """Closes a window of steps."""
        mean, lowest = float(np.mean(self._losses)), min(self._curve, default=np.inf)
        self._curve.append(round(mean, 5))
        self._losses = []
        self._idle = 0 if mean < 0.99 * lowest else self._idle + 1
        if self._idle == config.patience - 1:
            self._optimizer.param_groups[0]["lr"] = config.learning_rate / 10
        return self._idle >= config.patience


class UNetOnTrunk(nn.Module):
    """A U-Net whose encoder is a frozen, pretrained trunk.

    Args:
        filters: channels of the decoder at strides 16, 8, 4, 2 and 1.
    """

    def __init__(self, filters: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = PretrainedTrunk()
        skips = (*self.trunk.channels[-2::-1], 3)  # strides 16, 8, 4, 2 and the image itself
        widths = (self.trunk.channels[-1], *filters)
        self.blocks = nn.ModuleList(
            UpCat(
                2,
                below,
                skip,
                here,
                act="LEAKYRELU",
                norm="INSTANCE",
                bias=True,
                dropout=0.0,
                upsample="nontrainable",
                halves=False,
            )
            for below, skip, here in zip(widths, skips, filters, strict=False)
        )
        self.head = nn.Conv2d(filters[-1], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, S, S) in [0, 1], S a multiple of 32. Returns (B, 1, S, S) logits."""
        images = 2 * images - 1
        *maps, x = self.trunk(images)
        for block, skip in zip(self.blocks, (*maps[::-1], images), strict=True):
            x = block(x, skip.to(x.dtype))
        return self.head(x)


def _network(config: UNetConfig) -> nn.Module:
    if config.pretrained:
        return UNetOnTrunk(config.filters)
    levels = len(config.filters)
    return DynUNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=1,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=list(config.filters),
        res_block=True,
    )


def augmentation(size: int) -> Compose:
    """On dictionaries with ``image`` (3, S, S) in [0, 1] and ``mask`` (1, S, S): nnU-Net's kinds, by MONAI."""
    both, modes = ["image", "mask"], ("bilinear", "nearest")
    spatial = {"mode": modes, "padding_mode": "zeros"}
    return Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandAffined(
                both,
                prob=0.8,
                rotate_range=0.5,
                scale_range=(0.25, 0.25),
                shear_range=(0.1, 0.1),
                translate_range=(0.1 * size, 0.1 * size),
                **spatial,
            ),
            Rand2DElasticd(both, prob=0.2, spacing=(size / 8, size / 8), magnitude_range=(1, 3), **spatial),
            RandGaussianNoised("image", prob=0.2, std=0.05),
            RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)),
            RandScaleIntensityd("image", prob=0.3, factors=0.25),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
        ],
    )
