"""What the supports are worth to a network that knows nothing else: MONAI's DynUNet, from scratch on K images.

Trained with MONAI's augmentation until its loss no longer falls, or for so many minutes; with a handful of labels
there is none to spare for a validation set.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
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
from torch import Tensor
from torch.nn import functional as F

from lib.evaluation.episodes import Slices
from lib.evaluation.methods import Learned, Method
from lib.studies.selection import Selection


@dataclass(frozen=True)
class UNetConfig:
    """size: side of the square input in pixels. filters: width of each level; each halves the grid.

    Training ends after ``minutes`` or ``most_steps``, or when the mean loss of the last ``window`` steps is no longer a
    hundredth below the lowest such mean before, ``patience`` windows in a row. The learning rate falls to a tenth at
    the last but one.
    """

    size: int = 256
    filters: tuple[int, ...] = (32, 64, 128, 256, 320)
    batch: int = 4
    learning_rate: float = 1e-3
    minutes: float = 10.0
    most_steps: int = 20_000
    window: int = 25
    patience: int = 4


class DynUNetFromScratch(Method):
    """notes: ``curve`` (mean loss of each window), ``steps``, ``stopped`` ("plateau", "minutes" or "steps")."""

    name = "dynunet"

    def __init__(self, config: UNetConfig, *, device: torch.device | str = "cpu") -> None:
        self.config, self._device = config, torch.device(device)

    @property
    def settings(self) -> Mapping[str, object]:
        return asdict(self.config)

    def learn(self, supports: Selection, *, seed: int) -> Learned:
        set_determinism(seed)
        try:
            images = torch.stack([self._squared(torch.from_numpy(image)) for image in supports.images])
            masks = torch.stack([self._squared(torch.from_numpy(mask).float()) for mask in supports.masks])
            network = self._network().to(self._device)
            notes = self._train(network, images, (masks > 0.5).float(), seed)
        finally:
            set_determinism(None)
        network.eval()

        @torch.inference_mode()
        def predict(slices: Slices) -> np.ndarray:
            found = []
            for row in range(len(slices)):
                image = self._squared(torch.from_numpy(slices.images([row])[0]))
                logits = network(image[None].to(self._device))
                fine = F.interpolate(logits.float(), slices.slice_shape, mode="bilinear", align_corners=False)
                found.append((fine[0, 0] > 0).cpu().numpy())
            return np.stack(found)

        return Learned(predict, notes)

    def _network(self) -> DynUNet:
        levels = len(self.config.filters)
        return DynUNet(
            spatial_dims=2,
            in_channels=3,
            out_channels=1,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(self.config.filters),
            res_block=True,
        )

    def _train(self, network: DynUNet, images: Tensor, masks: Tensor, seed: int) -> dict[str, object]:
        """images: (K, 3, S, S). masks: (K, 1, S, S), 0 or 1."""
        config, start = self.config, time.monotonic()
        augment = augmentation(config.size).set_random_state(seed)
        rng = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=1e-4)
        criterion = DiceCELoss(sigmoid=True, batch=True)
        curve: list[float] = []
        losses: list[float] = []
        idle, steps, stopped = 0, 0, "steps"
        network.train()
        while steps < config.most_steps:
            drawn = [
                augment({"image": images[k], "mask": masks[k]}) for k in rng.integers(0, len(images), config.batch)
            ]
            batch, truth = (torch.stack([d[name] for d in drawn]).to(self._device) for name in ("image", "mask"))
            loss = criterion(network(batch), truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
            optimizer.step()
            losses.append(loss.item())
            steps += 1
            if time.monotonic() - start > 60 * config.minutes:
                stopped = "minutes"
                break
            if len(losses) < config.window:
                continue
            mean, lowest = float(np.mean(losses)), min(curve, default=np.inf)
            curve.append(round(mean, 5))
            losses = []
            idle = 0 if mean < 0.99 * lowest else idle + 1
            if idle == config.patience - 1:
                optimizer.param_groups[0]["lr"] = config.learning_rate / 10
            if idle >= config.patience:
                stopped = "plateau"
                break
        return {"curve": curve, "window": config.window, "steps": steps, "stopped": stopped}

    def _squared(self, picture: Tensor) -> Tensor:
        """(c, h, w) -> (c, S, S)."""
        size = (self.config.size, self.config.size)
        return F.interpolate(picture[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


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
