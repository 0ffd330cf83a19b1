"""Foundation and Proxy Prompt Generator as one model: remember a support set, segment by it.

The arrows end here: what lies above (studies, training, tasks) knows a :class:`Segmenter`; what lies below knows
nothing of files, servers or training.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lib.cascade import Cascade, CascadeConfig
from lib.foundation import (
    CASCADE_PREFIX,
    FOUNDATION_ALONE,
    FOUNDATION_PREFIX,
    GENERATOR_PREFIX,
    atto_file,
    build_foundation,
    load_atto,
    part_of,
)
from lib.foundation.adapted import adapt
from lib.foundation.base import Decoded, Features, Foundation, MemoryBank, Points, Prompts
from lib.foundation.checkpoints import load_strictly
from lib.prompt.context import SupportMemory
from lib.prompt.filters import enlarge
from lib.prompt.generator import GeneratorConfig, ProxyPrompt, ProxyPromptGenerator
from lib.prompt.readout import Pyramid
from lib.second_look import Learned, enlarged, learn, look_again

if TYPE_CHECKING:
    from lib.training.adapters import AdapterStore

logger = logging.getLogger(__name__)

UNTRAINED = "untrained"
_SEED = 20260101  # an untrained generator is the same one everywhere


class Segmenter(nn.Module):
    """A foundation that is prompted by a labelled study. Never changed once it serves: any number of threads share it.

    version: what the weights are called. weights_sha256: hash over everything that decides the result; cached
    features, contexts and memories are bound to it. trained: False for a generator with random weights. tuned: whether
    labels like the supports trained it, see :func:`lib.second_look.learn`. cascade: a network that draws masks again,
    of versions that were trained with one.
    """

    def __init__(
        self,
        *,
        foundation: Foundation,
        generator: ProxyPromptGenerator,
        version: str = UNTRAINED,
        weights_sha256: str = "",
        trained: bool = False,
        tuned: bool = False,
        cascade: Cascade | None = None,
    ) -> None:
        super().__init__()
        self.foundation, self.generator, self.cascade = foundation, generator, cascade
        self.version, self.weights_sha256, self.trained = version, weights_sha256, trained
        self.tuned = tuned

    @property
    def dense_proxy(self) -> bool:
        return self.generator.dense is not None

    def options(self) -> dict[str, object]:
        """What the generator must be built with again."""
        return self.generator.config.to_dict() | {"dense_proxy": self.dense_proxy}

    def encode(self, images: Tensor) -> Features:
        """images: (B, 3, S, S), from ``foundation.preprocess``."""
        return self.foundation.encode(images)

    def encode_pair(self, images: Tensor, masks: Tensor) -> Tensor:
        """V (eq. 3). images: (K, 3, S, S). masks: (K, N, S, S) in [0, 1]. Returns (K, N, D, H, W)."""
        return self.generator.encode_pair(images, masks)

    def remember(
        self,
        features: Features,
        contexts: Tensor,
        valid: Tensor,
        masks: Tensor,
        *,
        solved: bool = True,
        thin: int = 1,
    ) -> SupportMemory:
        """One support set. features: of its K images. contexts: (K, N, D, H, W). valid: (K, N) bool. masks:
        (K, N, S, S) in [0, 1], those that the contexts were made of. solved: False keeps what the solution for any
        choice of the supports can be made of, as training asks for; there is no second look then. thin: see
        ``FineReadout.moments``.

        Raises ValueError when an object is declared by no support.
        """
        if self.generator.readout is None or not solved:
            return self._summed(features, contexts, valid, masks, thin)
        memory, learned = self.remember_without_cascade(features, contexts, valid, masks)
        return self.with_cascade(memory, learned, features, valid, masks)

    def remember_without_cascade(
        self, features: Features, contexts: Tensor, valid: Tensor, masks: Tensor
    ) -> tuple[SupportMemory, Learned]:
        """As :meth:`remember`, for a generator with a fine readout, up to what a cascade in training cannot change."""
        readout, maps = self.generator.readout, pyramid(features)
        sample = readout.sample(maps)
        memory = self._summed(features, contexts, valid, masks, sample=sample)
        learned = learn(self._guesses, readout, maps, features, memory, valid, masks, tuned=self.tuned, sample=sample)
        solution = readout.solve(memory.declared_moments())
        return replace(memory, moments=None, solution=solution, second=learned.solution), learned

    def with_cascade(
        self, memory: SupportMemory, learned: Learned, features: Features, valid: Tensor, masks: Tensor
    ) -> SupportMemory:
        """What :meth:`remember_without_cascade` gave, and which objects the cascade draws again."""
        if self.cascade is None:
            return memory
        return replace(memory, redrawn=self._redrawn(features, memory, learned, valid, masks)[None])

    def _summed(
        self,
        features: Features,
        contexts: Tensor,
        valid: Tensor,
        masks: Tensor,
        thin: int = 1,
        sample: Tensor | None = None,
    ) -> SupportMemory:
        moments, readout = None, self.generator.readout
        if readout is not None:
            moments = readout.moments(pyramid(features), masks, features.padding, thin=thin, sample=sample)[None]
        padding = None if features.padding is None else features.padding[None]
        return self.generator.remember(
            features.embedding[None], contexts[None], valid[None], padding=padding, moments=moments
        )

    def _redrawn(
        self, features: Features, memory: SupportMemory, learned: Learned, valid: Tensor, masks: Tensor
    ) -> Tensor:
        """(N,) bool, which objects the cascade draws again: what is made of each support without it, from the others
        where there are enough, is compared with what it makes of that."""
        shown = valid & (masks > 0.5).flatten(2).any(-1)
        honest = learned.known.any(0)
        guesses = None
        if not honest.all():
            guesses = self.segment(features, memory).mask_logits
        if honest.any():
            readout = self.generator.readout
            of_image = readout(pyramid(features), learned.solution[..., : readout.width])
            left_out = look_again(readout, learned.first, learned.drawn, of_image, learned.solution)
            guesses = left_out if guesses is None else torch.where(honest[:, None, None], left_out, guesses)
        compared = torch.where(honest, learned.known, shown)
        return self.cascade.helps(features.picture, guesses, masks, compared=compared, honest=honest)

    def _guesses(self, features: Features, memory: SupportMemory) -> tuple[Decoded, Tensor]:
        """What the decoder draws, and what the fine readout does."""
        proxy = self._proxy(features, memory)
        return self.foundation.decode(features, as_prompts(proxy)), proxy.prior

    def _proxy(self, features: Features, memory: SupportMemory) -> ProxyPrompt:
        maps = None if self.generator.readout is None else pyramid(features)
        return self.generator(features.embedding, memory, maps)

    def segment(
        self,
        features: Features,
        memory: SupportMemory | None,
        points: Points | None = None,
        *,
        bank: MemoryBank | None = None,
    ) -> Decoded:
        """Select what the supports say of each position, colorize it, decode; then what the paper does not have.

        Args:
            features: Of B images.
            memory: Of N objects; None where there is no support: then the foundation segments by the clicks alone.
            points: Clicks beside the proxy.
            bank: Earlier slices.

        Returns:
            The N objects in the B images.
        """
        if memory is None:
            return self.foundation.decode(features, Prompts(points=points), bank)
        proxy = self._proxy(features, memory)
        decoded = self.foundation.decode(features, as_prompts(proxy, points), bank)
        if memory.second is None:
            return decoded
        unclicked = decoded if points is None else self.foundation.decode(features, as_prompts(proxy), bank)
        drawn = enlarged(unclicked.mask_logits, proxy.prior)
        mask_logits = look_again(self.generator.readout, proxy.prior, drawn, proxy.second, memory.second)
        if memory.redrawn is not None and memory.redrawn.any():
            redrawn = self.cascade.redraw(features.picture, mask_logits)
            mask_logits = torch.where(memory.redrawn[..., None, None], redrawn, mask_logits)
        if points is not None:  # clicks change what they change in the decoder's mask
            change = decoded.mask_logits - unclicked.mask_logits
            mask_logits = mask_logits + enlarge(change, mask_logits.shape[-2:])
        return replace(decoded, mask_logits=mask_logits)


def pyramid(features: Features) -> Pyramid:
    """What the fine readout looks at."""
    return Pyramid(features.picture, *features.high_res, features.embedding)


def as_prompts(proxy: ProxyPrompt, points: Points | None = None) -> Prompts:
    """A proxy prompt in the foundation's terms, with clicks beside it."""
    return Prompts(proxy=proxy.tokens, dense=proxy.dense, prior=proxy.prior, points=points)


def available_versions(foundation: str, weights_dir: str | Path, adapters: AdapterStore | None = None) -> list[str]:
    """Versions that fit ``foundation``, the default first: published adapters (newest first), then what is shipped."""
    shipped = foundation.startswith("atto") and not foundation.endswith(FOUNDATION_ALONE)
    own = atto_file(foundation, weights_dir).stem if shipped else UNTRAINED
    return [*(adapters.versions() if adapters is not None else ()), own]


def build_segmenter(
    *,
    foundation: str = "atto",
    weights_dir: str | Path,
    image_size: int | None = None,
    adapter: str | None = None,
    adapters: AdapterStore | None = None,
    dense_proxy: bool | None = None,
    generator: Mapping[str, object] | None = None,
    device: torch.device | str = "cpu",
    verify: bool = True,
    merge: bool = True,
) -> Segmenter:
    """A segmenter in eval mode, nothing of it trainable.

    foundation: one of :data:`lib.foundation.FOUNDATIONS`. image_size: None for what the weights were made for.
    adapter: any version in ``adapters``, or what is shipped; None for the first of :func:`available_versions`.
    dense_proxy: None for what the weights were trained with (official foundations: off). generator: other options of
    GeneratorConfig; the foundation is then as shipped and its generator untrained. merge: False leaves low-rank
    adapters in place, to train them on.

    Raises ValueError for unknown names, CheckpointError for missing or unfit weights, AdapterError for a version that
    is damaged or belongs to other weights.
    """
    versions = available_versions(foundation, weights_dir, adapters)
    version = adapter or versions[0 if generator is None else -1]
    stored = adapters is not None and version != versions[-1] and adapters.path(version).is_file()
    if not stored and version != versions[-1]:
        raise ValueError(f"unknown adapter version {version!r} of {foundation}; there are: {', '.join(versions)}")
    if versions[-1] == UNTRAINED:
        model = build_foundation(foundation, image_size=image_size, weights_dir=weights_dir, verify=verify)
        options, state = GeneratorConfig(dim=model.dim, grid=model.grid, dense_proxy=bool(dense_proxy)).to_dict(), None
    else:
        model, state, config = load_atto(versions[-1], image_size=image_size, weights_dir=weights_dir)
        options = config["generator"]
    sha256, tuned, cascade = "", False, None
    if stored:
        header, tensors = adapters.load(version)
        adapt(model, header.config["foundation"], part_of(tensors, FOUNDATION_PREFIX), source=version, merge=merge)
        options, state, sha256 = header.config["generator"], part_of(tensors, GENERATOR_PREFIX), header.sha256
        tuned = header.config.get("tuned", True)
        if header.config.get("cascade"):
            cascade = Cascade(CascadeConfig(**header.config["cascade"]))
            load_strictly(cascade, part_of(tensors, CASCADE_PREFIX), source=version)
        if "peer" in options:
            raise ValueError(f"{version} is a {options['peer']} peer, which takes no supports; evaluate.py measures it")
    if generator is not None:
        if stored:
            raise ValueError(
                f"{version} has its own generator; another one starts from the foundation as it is shipped"
            )
        options, state, sha256 = {**options, **generator}, None, json.dumps(dict(generator), sort_keys=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        made = ProxyPromptGenerator(GeneratorConfig(**options))
    if state is None:
        logger.warning(
            "the Proxy Prompt Generator of %s is untrained: masks mean nothing before fine-tuning on labelled studies",
            foundation,
        )
    else:
        load_strictly(made, state, source=version)
    if dense_proxy is False:
        made.dense = None
    decides = f"{model.weights_sha256}|{version}|{sha256}|{model.image_size}|{made.dense is not None}|{_SEED}"
    segmenter = Segmenter(
        foundation=model,
        generator=made,
        version=version,
        weights_sha256=hashlib.sha256(decides.encode()).hexdigest(),
        trained=state is not None,
        tuned=tuned,
        cascade=cascade,
    )
    return segmenter.to(device).eval().requires_grad_(False)
