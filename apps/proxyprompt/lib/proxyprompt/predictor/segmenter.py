"""Foundation and Proxy Prompt Generator as one model: encode a support set, segment by it.

The arrows end here: what lies above (studies, training, tasks) knows a :class:`Segmenter`; what lies below knows
nothing of files, servers or training.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from proxyprompt.extensions.refinement import refined
from proxyprompt.foundation import (
    FOUNDATION_PREFIX,
    GENERATOR_PREFIX,
    build_foundation,
    embedded_file,
    foundation_entry,
    load_embedded,
    part_of,
)
from proxyprompt.foundation.adapted import adapt
from proxyprompt.foundation.base import Decoded, Features, Foundation, MemoryBank, Points, Prompts
from proxyprompt.foundation.checkpoints import load_strictly
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding
from proxyprompt.prompt_generator.generator import GeneratorConfig, ProxyPromptGenerator

if TYPE_CHECKING:
    from .adapters import AdapterStore

logger = logging.getLogger(__name__)

UNTRAINED = "untrained"
_SEED = 20260101  # an untrained generator is the same one everywhere


class PromptedFoundation(nn.Module):
    """A foundation and what makes its prompts: what trains as one, and is kept as a version.

    Args:
        foundation: encodes images and decodes prompts.
        generator: makes the prompts. Its ``config`` has a ``to_dict``: what it must be built with again.
        version: what the weights are called.
        weights_sha256: hash over everything that decides the result; cached features, contexts and support encodings
            are bound to it.
        trained: False for a generator with random weights.
    """

    def __init__(
        self,
        *,
        foundation: Foundation,
        generator: nn.Module,
        version: str = UNTRAINED,
        weights_sha256: str = "",
        trained: bool = False,
    ) -> None:
        super().__init__()
        self.foundation, self.generator = foundation, generator
        self.version, self.weights_sha256, self.trained = version, weights_sha256, trained

    def options(self) -> Mapping[str, object]:
        """What the generator must be built with again."""
        return self.generator.config.to_dict()  # type: ignore[operator, union-attr]  # nn.Module knows no attributes

    def encode(self, images: Tensor) -> Features:
        """Encode images.

        Args:
            images: (B, 3, S, S), from ``foundation.preprocess``.

        Returns:
            Their features, without padding.
        """
        return self.foundation.encode(images)


class Segmenter(PromptedFoundation):
    """A foundation that is prompted by labelled studies. Never changed once it serves: any number of threads share it.

    Its generator is the Proxy Prompt Generator.
    """

    generator: ProxyPromptGenerator

    def encode_pair(self, images: Tensor, masks: Tensor) -> Tensor:
        """The context of support images with each of their masks (eq. 3).

        Args:
            images: (K, 3, S, S), from ``foundation.preprocess``.
            masks: (K, N, S, S) in [0, 1], from ``foundation.preprocess_masks``.

        Returns:
            (K, N, D, H, W), V.
        """
        return self.generator.encode_pair(images, masks)

    def encode_support(self, features: Features, contexts: Tensor, valid: Tensor) -> SupportEncoding:
        """One support set, as :meth:`segment` takes it.

        Args:
            features: of its K images.
            contexts: (K, N, D, H, W), from :meth:`encode_pair`.
            valid: (K, N) bool, which support declares which object.

        Returns:
            The encoding of N objects.

        Raises:
            ValueError: when an object is declared by no support.
        """
        padding = None if features.padding is None else features.padding[None]
        return self.generator.encode_support(features.embedding[None], contexts[None], valid[None], padding=padding)

    def segment(
        self,
        features: Features,
        support: SupportEncoding | None,
        points: Points | None = None,
        boxes: Tensor | None = None,
        *,
        bank: MemoryBank | None = None,
        refine: bool = False,
    ) -> Decoded:
        """Select what the supports say of each position, colorize it, decode.

        Args:
            features: of B images.
            support: of N objects; None where there is none: then the foundation segments by clicks and boxes alone.
            points: clicks beside the proxy.
            boxes: (B, N, 4) as x0, y0, x1, y1, beside them.
            bank: earlier slices.
            refine: whether clicks and boxes are decoded once more, see :mod:`proxyprompt.extensions.refinement`.

        Returns:
            The N objects in the B images.
        """
        proxy = None if support is None else self.generator(features.embedding, support).tokens
        prompts = Prompts(proxy=proxy, points=points, boxes=boxes)
        decode = partial(self.foundation.decode, features, memory=bank)
        return refined(decode, prompts) if refine else decode(prompts)


def available_versions(foundation: str, weights_dir: str | Path, adapters: AdapterStore | None = None) -> list[str]:
    """Versions that fit a foundation.

    Args:
        foundation: its name.
        weights_dir: folder of the weights.
        adapters: versions that fine-tuning made.

    Returns:
        Their names, the default first: published adapters (newest first), then what is shipped.

    Raises:
        ValueError: for an unknown foundation.
        CheckpointError: when embedded weights are missing.
    """
    own = embedded_file(foundation, weights_dir).stem if foundation_entry(foundation).embedded else UNTRAINED
    return [*(adapters.versions() if adapters is not None else ()), own]


def build_segmenter(
    *,
    foundation: str = "atto",
    weights_dir: str | Path,
    image_size: int | None = None,
    adapter: str | None = None,
    adapters: AdapterStore | None = None,
    generator: Mapping[str, object] | None = None,
    device: torch.device | str = "cpu",
    verify: bool = True,
    merge: bool = True,
) -> Segmenter:
    """A segmenter in eval mode, nothing of it trainable.

    Args:
        foundation: of :func:`proxyprompt.foundation.foundation_names`.
        weights_dir: folder of the weights.
        image_size: side S of the square input in pixels; None for what the weights were made for.
        adapter: any version in ``adapters``, or what is shipped; None for the first of :func:`available_versions`.
        adapters: versions that fine-tuning made.
        generator: other options of GeneratorConfig; the foundation is then as shipped and its generator untrained.
        device: where it runs.
        verify: refuse files that are not the published ones.
        merge: False leaves low-rank adapters in place, to train them on.

    Returns:
        The segmenter.

    Raises:
        ValueError: for unknown names.
        CheckpointError: for missing or unfit weights.
        AdapterError: for a version that is damaged or belongs to other weights.
    """
    versions = available_versions(foundation, weights_dir, adapters)
    version = adapter or versions[0 if generator is None else -1]
    store = adapters if adapters is not None and version != versions[-1] and adapters.path(version).is_file() else None
    if store is None and version != versions[-1]:
        raise ValueError(f"unknown adapter version {version!r} of {foundation}; there are: {', '.join(versions)}")
    options: dict[str, Any]
    state: dict[str, Tensor] | None
    if versions[-1] == UNTRAINED:
        model = build_foundation(foundation, image_size=image_size, weights_dir=weights_dir, verify=verify)
        options, state = dict(GeneratorConfig(dim=model.dim, grid=model.grid).to_dict()), None
    else:
        model, state, config = load_embedded(versions[-1], image_size=image_size, weights_dir=weights_dir)
        options = config["generator"]
    sha256 = ""
    if store is not None:
        header, tensors = store.load(version)
        adapt(model, header.config["foundation"], part_of(tensors, FOUNDATION_PREFIX), source=version, merge=merge)
        options, state, sha256 = header.config["generator"], part_of(tensors, GENERATOR_PREFIX), header.sha256
        if named := options.get("comparison_model", options.get("peer")):
            raise ValueError(
                f"{version} is a {named} comparison model, which takes no supports; evaluate.py measures it"
            )
    if generator is not None:
        if store is not None:
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
    decides = f"{model.weights_sha256}|{version}|{sha256}|{model.image_size}|{_SEED}"
    segmenter = Segmenter(
        foundation=model,
        generator=made,
        version=version,
        weights_sha256=hashlib.sha256(decides.encode()).hexdigest(),
        trained=state is not None,
    )
    return segmenter.to(device).eval().requires_grad_(False)
