"""Pretraining of ``atto`` on procedurally generated groups of images (no data, hence free of data licences).

Every member of a group is a target once, supported by one to all of the others: images are encoded once and serve in
both roles. Most steps train the proxy prompt alone, some the proxy with clicks, some clicks or boxes alone.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lib.foundation.base import Decoded, Features, Points, Prompts
from lib.foundation.sam2 import ATTO, build_atto
from lib.prompt.context import SupportMemory
from lib.prompt.generator import GeneratorConfig, ProxyPromptGenerator
from lib.segmenter import Segmenter
from lib.training.losses import SegmentationLoss, segmentation_loss
from lib.training.procedural import Groups, draw_groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """``steps`` optimiser steps at ``size`` pixels, ``groups`` groups of ``members`` images each."""

    size: int
    steps: int
    groups: int
    members: int = 4


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides a run; stored in the header of the weights."""

    stages: tuple[Stage, ...] = (Stage(256, 4000, 2),)
    objects: int = 2
    learning_rate: float = 8e-4
    weight_decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    ease: tuple[float, float] = (1.2, 0.3)  # at the first and the last step; see draw_groups
    with_clicks: float = 0.15
    without_proxy: float = 0.1
    foundation: dict = field(default_factory=lambda: dict(ATTO))
    generator: dict = field(default_factory=lambda: {"grid": 16, "width": 96, "depth": 4, "dense_proxy": True})

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage(self, step: int) -> Stage:
        """The stage that ``step`` (from 0) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise ValueError(f"step beyond the last of {self.steps}")


def build_model(config: PretrainConfig) -> Segmenter:
    """``atto`` with random weights, everything trainable."""
    torch.manual_seed(config.seed)
    foundation = build_atto(config.foundation, config.stages[-1].size)
    generator = ProxyPromptGenerator(GeneratorConfig(dim=foundation.dim, **config.generator))
    return Segmenter(foundation=foundation, generator=generator)


def draw_supports(groups: int, members: int, generator: torch.Generator) -> Tensor:
    """(groups, members, members) bool: for each target 1 to members - 1 of the others, never itself."""
    order = torch.rand(groups, members, members, generator=generator)
    order.diagonal(dim1=1, dim2=2).fill_(2.0)
    count = torch.randint(1, members, (groups, members, 1), generator=generator)
    return order.argsort(-1).argsort(-1) < count


def draw_clicks(masks: Tensor, generator: torch.Generator, *, most: int = 3) -> Points:
    """masks: (B, N, S, S) in [0, 1]. One inside click (where there is an inside), then random ones of either kind."""
    batch, objects, size = masks.shape[:3]
    inside = (masks.flatten(0, 1).flatten(1) > 0.5).float()
    has_inside = inside.any(1)
    coords, labels = [], []
    for index in range(int(torch.randint(1, most + 1, (1,), generator=generator))):
        want = torch.ones(len(inside), dtype=torch.bool)
        if index:
            want = torch.rand(len(inside), generator=generator) < 0.5
        want &= has_inside
        odds = torch.where(want[:, None], inside, 1 - inside) + 1e-9
        position = torch.multinomial(odds, 1, generator=generator)[:, 0]
        coords.append(torch.stack([position % size, position // size], 1).float())
        labels.append(want.int())
    shape = (batch, objects)
    return Points(torch.stack(coords, 1).unflatten(0, shape), torch.stack(labels, 1).unflatten(0, shape))


def boxes_of(masks: Tensor) -> Tensor:
    """(B, N, S, S) in [0, 1] -> (B, N, 4) as x0, y0, x1, y1; the whole image where the mask is empty."""
    size = masks.shape[-1]
    columns, rows = masks.amax(-2) > 0.5, masks.amax(-1) > 0.5
    edges = []
    for line in (columns, rows):
        first = line.float().argmax(-1)
        last = size - 1 - line.flip(-1).float().argmax(-1)
        empty = ~line.any(-1)
        edges.append((first.masked_fill(empty, 0), last.masked_fill(empty, size - 1)))
    (x0, x1), (y0, y1) = edges
    return torch.stack([x0, y0, x1, y1], -1).float()


class GroupModel(nn.Module):
    """A segmenter's forward pass over whole groups; what the moving average averages."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, data: Groups, supports: Tensor, *, proxy: bool = True, prompts: Prompts | None = None) -> Decoded:
        """supports: (G, M, M) bool. prompts: clicks or boxes of the G * M targets. Returns G * M decoded targets."""
        foundation, generator = self.segmenter.foundation, self.segmenter.generator
        groups, members = data.images.shape[:2]
        images = (data.images.flatten(0, 1) - foundation.mean) / foundation.std
        features: Features = foundation.encode(images)
        prompts = prompts or Prompts()
        if not proxy:
            return foundation.decode(features, prompts)
        masks = data.masks.flatten(0, 1).to(images.dtype)
        contexts = generator.encode_pair(images, masks).unflatten(0, (groups, members))
        declared = torch.ones(groups, members, masks.shape[1], dtype=torch.bool, device=masks.device)
        memory = generator.remember(features.embedding.unflatten(0, (groups, members)), contexts, declared)
        each = memory.valid.unflatten(2, (members, -1))[:, None]  # (G, 1, N, M, HW)
        valid = (each & supports[:, :, None, :, None]).flatten(3).flatten(0, 1)
        repeated = SupportMemory(
            memory.keys.repeat_interleave(members, 0), memory.values.repeat_interleave(members, 0), valid
        )
        made = generator(features.embedding, repeated)
        return foundation.decode(
            features, Prompts(proxy=made.tokens, dense=made.dense, points=prompts.points, boxes=prompts.boxes)
        )


@torch.no_grad()
def _moving_average(decay: float, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
    """Exponential moving average whose memory grows with the number of steps, so that it is of use from the start."""
    decay = min(decay, (1 + count.item()) / (10 + count.item()))
    torch._foreach_lerp_(averaged, current, 1 - decay)


class Pretrainer:
    """Runs, resumes and exports a pretraining; ``folder`` holds its checkpoint, logs and weights."""

    def __init__(self, config: PretrainConfig, folder: str | Path, *, device: torch.device | str = "cpu") -> None:
        self.config, self.folder, self.device = config, Path(folder), torch.device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = GroupModel(build_model(config)).to(self.device)
        self.average = AveragedModel(self.model, multi_avg_fn=partial(_moving_average, config.ema))
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        self.random = torch.Generator(device=self.device).manual_seed(config.seed)
        self.choices = torch.Generator().manual_seed(config.seed)
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine down to a hundredth."""
        config = self.config
        if self.step < config.warmup:
            return config.learning_rate * (self.step + 1) / config.warmup
        done = (self.step - config.warmup) / max(1, config.steps - config.warmup)
        return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + torch.tensor(done * torch.pi).cos().item()))

    def train_step(self) -> SegmentationLoss:
        """One optimiser step; raises FloatingPointError for a loss that is not finite, before it does harm."""
        config = self.config
        stage = config.stage(self.step)
        data = draw_groups(
            stage.groups,
            stage.members,
            stage.size,
            objects=config.objects,
            generator=self.random,
            device=self.device,
            ease=config.ease[0] + (config.ease[1] - config.ease[0]) * self.step / config.steps,
        )
        masks = data.masks.flatten(0, 1).float()
        supports = draw_supports(stage.groups, stage.members, self.choices).to(self.device)
        kind = torch.rand(1, generator=self.choices).item()
        proxy, prompts = kind >= config.without_proxy, None
        if not proxy and torch.rand(1, generator=self.choices).item() < 0.5:
            prompts = Prompts(boxes=boxes_of(masks))
        elif kind < config.without_proxy + config.with_clicks:
            prompts = Prompts(points=Points(*(t.to(self.device) for t in draw_clicks(masks.cpu(), self.choices))))
        self.model.segmenter.foundation.image_size = stage.size
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        loss = segmentation_loss(self.model(data, supports, proxy=proxy, prompts=prompts), masks)
        if not torch.isfinite(loss.total):
            raise FloatingPointError(
                f"loss is {loss.total.item()} at step {self.step}; resume from the last checkpoint"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimiser.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return loss

    @torch.inference_mode()
    def validate(self, *, size: int, groups: int = 16, seed: int = 10_001) -> dict[str, float]:
        """Mean Dice of the averaged weights on groups of a seed that training never uses, by number of supports."""
        random = torch.Generator(device=self.device).manual_seed(seed)
        self.average.module.segmenter.foundation.image_size = size
        scores: dict[str, list[Tensor]] = {"1": [], "3": [], "presence": []}
        for _ in range(max(1, groups // 8)):
            data = draw_groups(8, 4, size, objects=self.config.objects, generator=random, device=self.device, ease=0.5)
            masks = data.masks.flatten(0, 1).float()
            for count in (1, 3):
                order = torch.stack([torch.roll(torch.arange(4), -1 - i) for i in range(4)])[:, :count]
                supports = torch.zeros(8, 4, 4, dtype=torch.bool)
                supports.scatter_(2, order[None].expand(8, -1, -1), True)
                decoded = self.average.module(data, supports.to(self.device))
                loss = segmentation_loss(decoded, masks)
                scores[str(count)].append(loss.dice[~loss.dice.isnan()])
            right = (decoded.presence_logit > 0) == data.present.flatten(0, 1)
            scores["presence"].append(right.float().flatten())
        return {f"dice_{k}" if k != "presence" else k: torch.cat(v).mean().item() for k, v in scores.items()}

    def save(self) -> None:
        """Write the checkpoint beside, then rename it."""
        state = {
            "step": self.step,
            "config": json.dumps(asdict(self.config)),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": self.random.get_state(),
            "choices": self.choices.get_state(),
        }
        beside = self.checkpoint.with_suffix(".part")
        torch.save(state, beside)
        os.replace(beside, self.checkpoint)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one. The schedule may have changed, the architecture not."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.random.set_state(state["random"].cpu())
        self.choices.set_state(state["choices"].cpu())
        self.step = state["step"]
        return True

    def export(self, path: str | Path, *, scores: dict[str, float] | None = None) -> Path:
        """The averaged weights in half precision with their configuration in the header."""
        path = Path(path)
        segmenter = self.average.module.segmenter
        state = {
            key: value.detach().half().contiguous().cpu()
            for key, value in segmenter.state_dict().items()
            if value.is_floating_point()
        }
        header = {
            "foundation": self.config.foundation,
            "generator": segmenter.generator.config.to_dict(),
            "image_size": self.config.stages[-1].size,
            "training": asdict(self.config),
            "step": self.step,
            "synthetic_dice": scores or {},
            "licence": "Apache-2.0",
        }
        beside = path.with_name(path.name + ".part")
        save_file(state, beside, metadata={"config": json.dumps(header)})
        beside.chmod(0o644)  # safetensors writes for the owner only
        os.replace(beside, path)
        return path

    def run(
        self,
        *,
        minutes: float | None = None,
        report: Callable[[int, SegmentationLoss, float], None] = lambda step, loss, seconds: None,
        save_every: float = 120.0,
    ) -> None:
        """Train until the last step, or for ``minutes``; saves as it goes, and at the end. ``report`` is per step."""
        start = saved = time.monotonic()
        while self.step < self.config.steps and (minutes is None or time.monotonic() - start < 60 * minutes):
            began = time.monotonic()
            loss = self.train_step()
            report(self.step, loss, time.monotonic() - began)
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()
