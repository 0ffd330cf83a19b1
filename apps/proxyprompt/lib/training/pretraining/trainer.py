"""A pretraining run: its steps, its checkpoints, the weights it writes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lib.files import replacing
from lib.foundation import FOUNDATION_PREFIX
from lib.foundation.sam2 import build_atto
from lib.prompt.generator import GeneratorConfig, ProxyPromptGenerator
from lib.segmenter import Segmenter
from lib.training.losses import SegmentationLoss, grid_loss, segmentation_loss
from lib.training.pretraining import tasks
from lib.training.pretraining.config import PretrainConfig
from lib.training.procedural import draw_groups
from lib.training.procedural.catalogue import ANATOMIES

HELD_BACK = ("layers",)  # anatomies that only validation sees
SHOWN = tuple(name for name in ANATOMIES if name not in HELD_BACK)


def build_model(config: PretrainConfig) -> Segmenter:
    """``atto`` with random weights, everything trainable."""
    torch.manual_seed(config.seed)
    foundation = build_atto(config.foundation, config.phases[-1].size)
    generator = ProxyPromptGenerator(GeneratorConfig(dim=foundation.dim, **config.generator))
    return Segmenter(foundation=foundation, generator=generator)


@torch.no_grad()
def _moving_average(decay: float, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
    """Exponential moving average whose memory grows with the number of steps, so that it is of use from the start."""
    decay = min(decay, (1 + count.item()) / (10 + count.item()))
    torch._foreach_lerp_(averaged, current, 1 - decay)


class Pretrainer:
    """Runs, resumes and exports a pretraining; ``folder`` holds its checkpoint, logs and stage-1 weights."""

    def __init__(self, config: PretrainConfig, folder: str | Path, *, device: torch.device | str = "cpu") -> None:
        self.config, self.folder, self.device = config, Path(folder), torch.device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = build_model(config).to(self.device)
        self.reader = nn.Conv2d(self.model.foundation.dim, 1, 1).to(self.device)
        self.average = AveragedModel(self.model, multi_avg_fn=partial(_moving_average, config.ema))
        learned = [*self.model.parameters(), *self.reader.parameters()]
        decay = [p for p in learned if p.ndim > 1]
        rest = [p for p in learned if p.ndim <= 1]
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

    @property
    def foundation_file(self) -> Path:
        """The averaged weights of the foundation alone, written when its stage ends."""
        return self.folder / "foundation.safetensors"

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.mixed_precision)

    def progress(self) -> float:
        """How much of the present stage is done, from 0 to 1."""
        first, end = self.config.span(self.config.phase(self.step).stage)
        return (self.step - first) / max(1, end - first)

    def learning_rate(self) -> float:
        """In each stage: linear warm-up, then half a cosine down to a hundredth."""
        config = self.config
        first, end = config.span(config.phase(self.step).stage)
        since = self.step - first
        if since < config.warmup:
            return config.learning_rate * (since + 1) / config.warmup
        done = (since - config.warmup) / max(1, end - first - config.warmup)
        return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    def _kind(self, odds: dict[str, float]) -> str:
        pick = torch.multinomial(torch.tensor(list(odds.values())), 1, generator=self.choices)
        return list(odds)[int(pick)]

    def _grade(self, kind: str, episode: tasks.Episode) -> SegmentationLoss:
        """The mean loss of everything that this kind of step decodes; Dice is that of the last.

        With a proxy also that of a linear reading of E_ctx and of the fine readout ("deep supervision"): the generator
        then learns what to select from a short gradient, long before a young decoder can draw it. The reader is not
        part of the model.
        """
        with self._precision():
            graded = tasks.KINDS[kind](episode)
        losses = [segmentation_loss(decoded, masks) for decoded, masks in graded.answers]
        total = torch.stack([loss.total for loss in losses]).mean()
        if graded.proxy is not None:
            context, prior = graded.proxy.context, graded.proxy.prior
            read = self.reader(context.float().flatten(0, 1)).unflatten(0, context.shape[:2])[:, :, 0]
            for name, coarse in (("context", read), ("prior", prior)):
                if coarse is not None:
                    term = grid_loss(coarse, episode.masks)
                    total = total + self.config.context_weight * term
                    losses[-1].parts[name] = term.item()
        return SegmentationLoss(total, losses[-1].dice, losses[-1].parts)

    def train_step(self) -> tuple[str, SegmentationLoss]:
        """One optimiser step; returns its kind and loss.

        Raises FloatingPointError for a loss that is not finite, before it does harm.
        """
        config, phase = self.config, self.config.phase(self.step)
        data = draw_groups(
            phase.groups,
            phase.members,
            phase.size,
            objects=config.objects,
            generator=self.random,
            device=self.device,
            ease=config.ease[0] + (config.ease[1] - config.ease[0]) * self.progress(),
            anatomies=SHOWN,
        )
        kind = self._kind(config.foundation_kinds if phase.stage == "foundation" else config.proxy_kinds)
        self.model.foundation.image_size = phase.size
        self.model.foundation.requires_grad_(phase.stage == "foundation" or not config.frozen_foundation)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        with self._precision():
            episode = tasks.begin(self.model, data, self.choices, sloppy=config.sloppy, blunt=config.blunt)
        loss = self._grade(kind, episode)
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
        if self.step == config.span("foundation")[1] > 0:
            self.export_foundation(self.foundation_file)
        return kind, loss

    @torch.inference_mode()
    def validate(self, *, size: int, groups: int = 8, seed: int = 10_001) -> dict[str, float]:
        """Mean Dice of the averaged weights on groups of a seed that training never uses.

        By kind of prompt, and for the proxy by number of supports, also on anatomies that training never draws
        (``held_back_3``); ``prior_3`` is that of the fine readout by itself; ``presence`` is the share of structures
        that are rightly said to be there or not.
        """
        self.average.module.foundation.image_size = size
        draw = partial(self._held_back_episode, size=size, groups=groups, seed=seed)

        def mean_dice(kind: str, given: tasks.Episode) -> float:
            return self._grade(kind, given).dice.nanmean().item()

        kinds = ["mask", "box", "points", "correction", "clip"]
        proxied = self.step > self.config.span("proxy")[0]
        if proxied:
            kinds += ["proxy_points", "proxy_clip"]
        scores = {kind: mean_dice(kind, draw(SHOWN)[0]) for kind in kinds}
        if proxied:
            scores["proxy_1"] = mean_dice("proxy", draw(SHOWN, supports=1)[0])
            given, present = draw(SHOWN)
            with self._precision():
                graded = tasks.proxy(given)
            ((decoded, masks),) = graded.answers
            scores["proxy_3"] = segmentation_loss(decoded, masks).dice.nanmean().item()
            if graded.proxy.prior is not None:
                prior = replace(decoded, mask_logits=graded.proxy.prior)
                scores["prior_3"] = segmentation_loss(prior, masks).dice.nanmean().item()
            scores["presence"] = ((decoded.presence_logit > 0) == present).float().mean().item()
            scores["held_back_3"] = mean_dice("proxy", draw(HELD_BACK)[0])
        return scores

    def _held_back_episode(
        self, anatomies: tuple[str, ...], *, size: int, groups: int, seed: int, supports: int = 3, members: int = 4
    ) -> tuple[tasks.Episode, Tensor]:
        """Encoded groups in which each member is supported by the next ones, and where each structure is present."""
        random = torch.Generator(device=self.device).manual_seed(seed)
        data = draw_groups(
            groups,
            members,
            size,
            objects=self.config.objects,
            generator=random,
            device=self.device,
            ease=0.5,
            anatomies=anatomies,
        )
        order = torch.stack([torch.roll(torch.arange(members), -1 - i) for i in range(members)])[:, :supports]
        chosen = torch.zeros(groups, members, members, dtype=torch.bool).scatter_(2, order.expand(groups, -1, -1), 1)
        choices = torch.Generator().manual_seed(seed)
        with self._precision():
            episode = tasks.begin(self.average.module, data, choices, supports=chosen)
        return episode, data.present.flatten(0, 1)

    def save(self) -> None:
        """Write the checkpoint beside, then rename it."""
        state = {
            "step": self.step,
            "config": json.dumps(asdict(self.config)),
            "model": self.model.state_dict(),
            "reader": self.reader.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": self.random.get_state(),
            "choices": self.choices.get_state(),
        }
        with replacing(self.checkpoint) as beside:
            torch.save(state, beside)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one. The schedule may have changed, the architecture not."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.reader.load_state_dict(state["reader"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.random.set_state(state["random"].cpu())
        self.choices.set_state(state["choices"].cpu())
        self.step = state["step"]
        return True

    def export(self, path: str | Path, *, scores: dict[str, float] | None = None) -> Path:
        """The averaged weights in half precision with their configuration in the header."""
        segmenter = self.average.module
        return self._write(path, segmenter.state_dict(), segmenter.generator.config.to_dict(), scores)

    def export_foundation(self, path: str | Path, *, scores: dict[str, float] | None = None) -> Path:
        """As :meth:`export`, the foundation alone."""
        state = self.average.module.state_dict()
        state = {key: value for key, value in state.items() if key.startswith(FOUNDATION_PREFIX)}
        return self._write(path, state, None, scores)

    def _write(
        self, path: str | Path, state: dict[str, Tensor], generator: dict | None, scores: dict[str, float] | None
    ) -> Path:
        path = Path(path)
        half = {k: v.detach().half().contiguous().cpu() for k, v in state.items() if v.is_floating_point()}
        header = {
            "foundation": self.config.foundation,
            "generator": generator,
            "image_size": self.config.phases[-1].size,
            "training": asdict(self.config),
            "step": self.step,
            "synthetic_dice": scores or {},
            "licence": "Apache-2.0",
        }
        with replacing(path) as beside:
            save_file(half, beside, metadata={"config": json.dumps(header)})
            beside.chmod(0o644)  # safetensors writes for the owner only
        return path

    def run(
        self,
        *,
        minutes: float | None = None,
        report: Callable[[int, str, SegmentationLoss, float], None] = lambda step, kind, loss, seconds: None,
        save_every: float = 120.0,
    ) -> None:
        """Train until the last step, or for ``minutes``; saves as it goes, and at the end. ``report`` is per step."""
        start = saved = time.monotonic()
        while self.step < self.config.steps and (minutes is None or time.monotonic() - start < 60 * minutes):
            began = time.monotonic()
            kind, loss = self.train_step()
            report(self.step, kind, loss, time.monotonic() - began)
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()
