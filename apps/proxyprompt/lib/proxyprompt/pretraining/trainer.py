"""A pretraining run: its steps, its checkpoints, the weights it writes."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from proxyprompt.foundation import FOUNDATION_PREFIX, GENERATOR_PREFIX, part_of
from proxyprompt.foundation.atto import Atto, build_atto
from proxyprompt.foundation.base import Decoded, Prompts
from proxyprompt.foundation.checkpoints import load_safetensors, load_strictly
from proxyprompt.io.files import replacing
from proxyprompt.metrics.segmentation import overlap_of_tensors
from proxyprompt.prompt_generator.generator import GeneratorConfig, ProxyPromptGenerator
from proxyprompt.training.attention import trainable_attention
from proxyprompt.training.losses import grid_loss, segmentation_loss
from proxyprompt.training.precision import computes_in_bfloat16

from .config import PretrainConfig
from .episode import BESIDE_PROXY, Episode, Probes, Proxied, begin, beside_proxy, draw_supports, generate, prompted
from .pool import VIEWS, Group, GroupPool

PROBED = 4  # supports from which the probes are measured


class Model(nn.Module):
    """Foundation, generator and the probes of training."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.foundation: Atto = build_atto(config.foundation, image_size=config.image_size)
        options = GeneratorConfig(dim=self.foundation.dim, **config.generator)
        self.generator = ProxyPromptGenerator(options)
        self.probes = Probes(self.foundation.dim, 2 ** (options.halvings // 2))


class Pretrainer:
    """Runs, resumes and exports a pretraining.

    Args:
        config: what decides the run.
        folder: holds its checkpoint and log.
        pool: where groups are drawn from.
        device: to train on.
    """

    def __init__(
        self, config: PretrainConfig, folder: str | Path, pool: GroupPool, *, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.folder, self.pool, self.device = config, Path(folder), pool, torch.device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = Model(config).to(self.device)
        self.average = AveragedModel(self.model, multi_avg_fn=self._average)
        learned = list(self.model.parameters())
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in learned if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        self.random = torch.Generator().manual_seed(config.seed)
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """What :meth:`resume` goes on from."""
        return self.folder / "checkpoint.pt"

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        decay = min(self.config.ema, (1 + count.item()) / (10 + count.item()))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def learning_rate(self) -> float:
        """Of the present step: linear warm-up, constant, linear decay."""
        c = self.config
        start = c.steps * (1 - c.decay)
        left = 1.0 if self.step < start else max(0.02, (c.steps - self.step) / max(1.0, c.steps - start))
        return c.learning_rate * min(1.0, (self.step + 1) / c.warmup) * left

    def self_support(self) -> float:
        """Chance that a target supports itself, at the present step."""
        first, last = self.config.self_support
        return first + (last - first) * min(1.0, self.step / self.config.self_support_steps)

    def train_step(self) -> dict[str, float]:
        """One optimiser step.

        Returns:
            Figures for the log, by name.

        Raises:
            FloatingPointError: for a loss that is not finite, before it does harm.
        """
        c, random = self.config, self.random
        groups, members, objects = c.shapes[int(torch.randint(len(c.shapes), (), generator=random))]
        kinds = list(c.prompts)
        kind = kinds[int(torch.multinomial(torch.tensor([c.prompts[k] for k in kinds]), 1, generator=random))]
        data = self.pool.draw(groups, random, VIEWS if kind == "clip" else "*")
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        with trainable_attention(self.device):
            figures, norm = self._descend(data, members, objects, kind)
        self.average.update_parameters(self.model)
        self.step += 1
        return figures | {"norm": norm}

    def _autocast(self) -> torch.autocast:
        enabled = computes_in_bfloat16(self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _descend(self, data: list[Group], members: int, objects: int, kind: str) -> tuple[dict[str, float], float]:
        """(figures, norm of the gradient) of one step of the optimiser."""
        c = self.config
        with self._autocast():
            loss, figures = self._loss(self.model, data, members, objects, kind)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {self.step}; resume from the last checkpoint")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), c.clip)
        self.optimiser.step()
        return figures | {"loss": loss.item()}, norm.item()

    def _loss(
        self, model: Model, data: list[Group], members: int, objects: int, kind: str
    ) -> tuple[Tensor, dict[str, float]]:
        c = self.config
        episode = begin(model.foundation, data, members, objects, self.random)
        supports = draw_supports(episode, self.self_support(), self.random)
        proxied = generate(model.generator, episode, supports)
        decoded = decode_proxy(model, episode, proxied)
        own = segmentation_loss(decoded, episode.masks)
        of_context, of_tokens = model.probes(proxied.context, proxied.tokens)
        carried = proxied.carried.float().clamp(1e-3, 1 - 1e-3).logit()
        probes = {"context": of_context.float(), "tokens": of_tokens.float(), "map": carried}
        losses = {name: grid_loss(logits, episode.masks) for name, logits in probes.items()}
        if kind in BESIDE_PROXY:
            answers = [beside_proxy(model.foundation, episode, kind, self.random, proxied, decoded)]
        else:
            answers = prompted(model.foundation, episode, kind, self.random)
        others = [segmentation_loss(answer, masks) for answer, masks in answers]
        prompt_loss = torch.stack([other.total for other in others]).mean()
        total = own.total + c.probe_weight * sum(losses.values()) + c.prompt_weight * prompt_loss
        figures = {f"probe_{name}": value.item() for name, value in losses.items()}
        figures |= {"p": own.dice.nanmean().item(), kind: others[-1].dice.nanmean().item()}
        figures["presence"] = own.parts["presence"]
        figures["share"] = request_share(proxied.tokens)
        return total, figures

    @torch.inference_mode()
    def validate(
        self, groups: list[Group], *, kinds: tuple[str, ...] = ("box", "points", "correction", "clip")
    ) -> dict[str, float]:
        """Mean Dice of the averaged weights on given groups.

        Args:
            groups: of tasks that training does not see.
            kinds: of the foundation's own prompts.

        Returns:
            By name: P alone from 1, 4 and all other members, its probes, what is asked for beside it, and the kinds.
        """
        model, random = self.average.module, torch.Generator().manual_seed(1)
        sums = defaultdict(list)
        for group in groups:
            with self._autocast():
                episode = begin(model.foundation, [group], len(group.images), 1, random)
                members = episode.members
                for count in dict.fromkeys((1, min(PROBED, members - 1), members - 1)):
                    proxied = generate(model.generator, episode, next_ones(members, count))
                    decoded = decode_proxy(model, episode, proxied)
                    sums[f"p{count}"].append(_dice(decoded.mask_logits, episode.masks))
                    if count == min(PROBED, members - 1):
                        of_context, of_tokens = model.probes(proxied.context, proxied.tokens)
                        readings = {"context": of_context, "tokens": of_tokens, "map": proxied.carried - 0.5}
                        for name, logits in readings.items():
                            sums[f"{name}{count}"].append(_dice(logits, episode.masks))
                        for kind in BESIDE_PROXY:
                            answer, masks = beside_proxy(model.foundation, episode, kind, random, proxied, decoded)
                            sums[kind].append(_dice(answer.mask_logits, masks))
                for kind in kinds:
                    answer, masks = prompted(model.foundation, episode, kind, random)[-1]
                    sums[kind].append(_dice(answer.mask_logits, masks))
        return {name: torch.cat(values).nanmean().item() for name, values in sums.items()}

    def save(self, path: Path | None = None) -> None:
        """Write the checkpoint beside, then rename it."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": self.random.get_state(),
        }
        with replacing(path or self.checkpoint) as beside:
            torch.save(state, beside)

    def resume(self, path: Path | None = None) -> bool:
        """Go on from a checkpoint, if there is one. The schedule may have changed, the architecture not."""
        path = path or self.checkpoint
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.random.set_state(state["random"].cpu())
        self.step = state["step"]
        return True

    def start_from(self, path: str | Path) -> None:
        """Take the weights of a file that :meth:`export` wrote; the optimiser starts anew.

        Args:
            path: of the file.

        Raises:
            CheckpointError: when it cannot be read or does not fit.
        """
        state = load_safetensors(Path(path))[0]
        for module in (self.model, self.average.module):
            load_strictly(module.foundation, part_of(state, FOUNDATION_PREFIX), source=str(path))
            load_strictly(module.generator, part_of(state, GENERATOR_PREFIX), source=str(path))

    def export(self, path: str | Path, *, tasks: list[str], scores: dict[str, float] | None = None) -> Path:
        """The averaged weights in half precision, with their configuration in the header.

        Args:
            path: of the file.
            tasks: names of the real tasks that trained it.
            scores: on tasks that were held back.

        Returns:
            The path.
        """
        module, path = self.average.module, Path(path)
        parts = ((FOUNDATION_PREFIX, module.foundation), (GENERATOR_PREFIX, module.generator))
        state = {prefix + key: value for prefix, part in parts for key, value in part.state_dict().items()}
        half = {key: value.detach().half().contiguous().cpu() for key, value in state.items()}
        header = {
            "foundation": module.foundation.config.to_dict(),
            "generator": module.generator.config.to_dict(),
            "image_size": self.config.image_size,
            "training": self.config.to_dict(),
            "tasks": tasks,
            "step": self.step,
            "held_back_dice": scores or {},
            "licence": "Apache-2.0",
        }
        with replacing(path) as beside:
            save_file(half, beside, metadata={"config": json.dumps(header)})
            beside.chmod(0o644)
        return path

    def run(
        self, *, minutes: float, report: Callable[[int, dict[str, float]], None], save_every: float = 180.0
    ) -> None:
        """Train until the last step, or for ``minutes``; saves as it goes, before the decay begins, and at the end."""
        start = saved = time.monotonic()
        stable = int(self.config.steps * (1 - self.config.decay))
        while self.step < self.config.steps and time.monotonic() - start < 60 * minutes:
            report(self.step, self.train_step())
            if self.step == stable:
                self.save(self.folder / "before_decay.pt")
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()


def decode_proxy(model: Model, episode: Episode, proxied: Proxied) -> Decoded:
    """The masks that P alone leads to."""
    return model.foundation.decode(episode.features, Prompts(proxy=proxied.tokens))


def next_ones(members: int, count: int) -> Tensor:
    """(1, M, M) bool: each member is supported by the ``count`` ones after it."""
    distance = (torch.arange(members)[None] - torch.arange(members)[:, None]) % members
    return ((distance > 0) & (distance <= count))[None]


def request_share(tokens: Tensor) -> float:
    """Share of P's variance that depends on the request. tokens: (R, N, T, C)."""
    tokens = tokens.detach().float().flatten(0, 1)
    total = tokens.var((0, 1), correction=0).mean()
    return (tokens.var(0, correction=0).mean() / total.clamp_min(1e-12)).item()


def _dice(logits: Tensor, masks: Tensor) -> Tensor:
    """(R, N) hard Dice at the masks' size; NaN where the structure is absent."""
    logits = nn.functional.interpolate(logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False)
    truth = masks > 0.5
    dice, _ = overlap_of_tensors(logits > 0, truth)
    return dice.masked_fill(~truth.flatten(2).any(-1), torch.nan)
