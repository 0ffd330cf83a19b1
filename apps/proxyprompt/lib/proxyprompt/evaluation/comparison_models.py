"""Comparison models of the proxy prompt: the same foundation, adapters, episodes and gate, but prompted in another way.

- ``samed-like``: low-rank adapters and no prompt; what SAMed's default prompt embedding and output token of a class are
  to it, an embedding learned for each structure is here;
- ``autosam-like``: the foundation as it is; a second encoder makes the dense prompt of each structure from the image;
- ``medsa-like-box``, ``medsa-like-point``: low-rank adapters, and what a user would say of the target: the rectangle
  around the structure, or a pixel inside it. They are given where the structure is, in training and in use.

Configurations of this project's parts, not the published code: low-rank adapters for Med-SA's bottlenecks, Vision Mamba
for AutoSAM's convolutions. None of them takes supports: they know the structures that they were trained on, by name.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from proxyprompt.foundation import FOUNDATION_PREFIX, GENERATOR_PREFIX, build_foundation, foundation_entry, part_of
from proxyprompt.foundation.adapted import adapt
from proxyprompt.foundation.base import Decoded, Features, Foundation, Points, Prompts
from proxyprompt.foundation.checkpoints import load_strictly
from proxyprompt.predictor.adapters import AdapterError, AdapterHeader, AdapterStore
from proxyprompt.predictor.segmenter import PromptedFoundation
from proxyprompt.pretraining.prompts import boxes_of, draw_clicks
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding
from proxyprompt.prompt_generator.vision_mamba import VisionMamba
from proxyprompt.training.episode_model import EpisodeModel
from proxyprompt.training.episodes import Episodes, Sample

SAMED, AUTOSAM, BOX, POINT = "samed-like", "autosam-like", "medsa-like-box", "medsa-like-point"
COMPARISON_MODELS: Mapping[str, str] = {SAMED: "lora", AUTOSAM: "generator", BOX: "lora", POINT: "lora"}
"""Name -> what of it trains, as in :class:`proxyprompt.training.finetune_config.FinetuneConfig`."""
PROMPTED_BY_TRUTH = (BOX, POINT)
"""Those that must be given where the structure is."""
_SEED = 20260102  # a comparison model starts from the same weights everywhere


@dataclass(frozen=True)
class ComparisonConfig:
    """Attributes of a comparison model.

    Attributes:
        comparison_model: one of COMPARISON_MODELS.
        structures: names, in the order of their embeddings.
        dim: the foundation's C.
        grid: side of its embedding.
        width, depth: of the second encoder.
    """

    comparison_model: str
    structures: tuple[str, ...]
    dim: int
    grid: int
    width: int = 192
    depth: int = 24

    def __post_init__(self) -> None:
        if self.comparison_model not in COMPARISON_MODELS:
            expected = ", ".join(COMPARISON_MODELS)
            raise ValueError(f"unknown comparison model {self.comparison_model!r}; expected one of {expected}")

    @classmethod
    def suited(cls, name: str, structures: Sequence[str], foundation: Foundation) -> ComparisonConfig:
        """The second encoder as large as that of the foundation's generator: the paper's, or that of ``atto``."""
        generator = foundation_entry(foundation.name).generator
        size = {name: generator[name] for name in ("width", "depth") if name in generator}
        return cls(name, tuple(structures), foundation.dim, foundation.grid, **size)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


class Prompter(nn.Module):
    """In the place of the Proxy Prompt Generator. Until trained it adds nothing to the foundation's own prompt."""

    def __init__(self, config: ComparisonConfig) -> None:
        super().__init__()
        self.config, count = config, len(config.structures)
        if config.comparison_model not in PROMPTED_BY_TRUTH:
            self.embedding = nn.Parameter(torch.zeros(count, config.dim))
        if config.comparison_model == AUTOSAM:
            self.encoder = VisionMamba(width=config.width, depth=config.depth, grid=config.grid)
            self.project = nn.Conv2d(config.width, count * config.dim, 1)
            nn.init.zeros_(self.project.weight)
            nn.init.zeros_(self.project.bias)

    def forward(self, samples: Sequence[Sample], structures: Sequence[int], grid: int) -> Prompts:
        """samples: B of them, with the true masks of the N structures, indices into the config's."""
        masks = torch.stack([sample.masks for sample in samples])
        if self.config.comparison_model == BOX:
            return Prompts(boxes=boxes_of(masks))
        if self.config.comparison_model == POINT:
            return Prompts(points=_clicks(samples, masks))
        chosen = list(structures)
        dense = self.embedding[chosen][None, :, :, None, None].expand(len(samples), -1, -1, grid, grid)
        if self.config.comparison_model == AUTOSAM:
            images = torch.stack([sample.image for sample in samples])
            made = self.project(self.encoder(images, torch.zeros_like(images[:, 0])))
            dense = dense + made.unflatten(1, (-1, self.config.dim))[:, chosen]
        return Prompts(dense=dense)


class ComparisonModel(PromptedFoundation):
    """A foundation that is prompted by the structure's name, by the image, or by the truth. Takes no supports."""

    generator: Prompter

    def answer(self, features: Features, samples: Sequence[Sample], structures: Sequence[int]) -> Decoded:
        """The N structures in B images, of which ``features`` are."""
        return self.foundation.decode(features, self.generator(samples, structures, features.embedding.shape[-1]))


class ComparisonEpisodeModel(EpisodeModel):
    """As EpisodeModel, for a :class:`ComparisonModel`: what supports an episode's targets is not looked at."""

    segmenter: ComparisonModel

    def forward(self, episodes: Episodes) -> Decoded:
        """The structures asked for in each of the M images."""
        return self.segment(self.features(episodes.samples), None, episodes.samples, episodes.structures)

    def segment(
        self, features: Features, memory: SupportEncoding | None, samples: Sequence[Sample], structures: Sequence[int]
    ) -> Decoded:
        """By name, image or truth; there is no memory of supports."""
        return self.segmenter.answer(features, samples, structures)


def build_comparison_model(name: str, structures: Sequence[str], foundation: Foundation) -> ComparisonModel:
    """An untrained one on ``foundation``, in place, ready to be trained. structures: all names of the training."""
    return _build(foundation, ComparisonConfig.suited(name, structures, foundation), version=foundation.name)


def load_comparison_model(
    name: str,
    store: AdapterStore,
    *,
    weights_dir: str | Path,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
    verify: bool = True,
) -> tuple[ComparisonModel, AdapterHeader]:
    """A version that :func:`proxyprompt.training.finetune.finetune` made of one, in eval mode, nothing of it trainable.

    image_size: None for what it was trained at. AdapterError when it is none, damaged, or made for other weights.
    """
    header, tensors = store.load(name)
    options = header.config["generator"]
    options = {"comparison_model" if key == "peer" else key: value for key, value in options.items()}  # as once written
    if "comparison_model" not in options:
        raise AdapterError(f"{store.path(name)} is a version of the proxy prompt: give it as --adapter")
    size = image_size or header.config["image_size"]
    model = build_foundation(store.foundation, image_size=size, weights_dir=weights_dir, verify=verify)
    adapt(model, header.config["foundation"], part_of(tensors, FOUNDATION_PREFIX), source=name)
    config = ComparisonConfig(**{**options, "structures": tuple(options["structures"])})
    built = _build(model, config, version=name, sha256=header.sha256)
    load_strictly(built.generator, part_of(tensors, GENERATOR_PREFIX), source=name)
    return built.to(device).eval().requires_grad_(False), header


def _build(foundation: Foundation, config: ComparisonConfig, *, version: str, sha256: str = "") -> ComparisonModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        prompter = Prompter(config)
    decides = f"{foundation.weights_sha256}|{version}|{sha256}|{foundation.image_size}|{config}|{_SEED}"
    return ComparisonModel(
        foundation=foundation,
        generator=prompter.to(next(foundation.parameters()).device),
        version=version,
        weights_sha256=hashlib.sha256(decides.encode()).hexdigest(),
        trained=bool(sha256),
    )


def _clicks(samples: Sequence[Sample], masks: Tensor) -> Points:
    """A pixel inside each structure, the same one for the same variation of a slice, so that a training that goes on
    after it was killed sees what it would have seen.
    """
    drawn = []
    for sample, of_sample in zip(samples, masks, strict=True):
        generator = torch.Generator().manual_seed(zlib.crc32(repr(sample.key).encode()))
        drawn.append(draw_clicks(of_sample[None], generator, most=1))
    return Points(*(torch.cat(part) for part in zip(*drawn, strict=True)))
