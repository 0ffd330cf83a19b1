"""The Proxy Prompt Generator (paper, section 3): support pairs and a target's features to a proxy prompt.

Pure torch; knows no files and no server. Axes: ``B`` targets, ``E`` support sets (1, or B), ``K`` support pairs,
``N`` objects, ``C`` channels of the foundation, ``D`` channels of the context encoder, ``S`` pixels, ``H = W = S/16``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from .context_encoders import NONE, PAPER_SIZES, VIM, build_context_encoder
from .contextual_colorization import ContextualColorization
from .contextual_selection import BridgeUnit, SupportEncoding, mean_context, select_context


@dataclass(frozen=True)
class GeneratorConfig:
    """What decides the architecture.

    The defaults are the paper's; ``atto`` has a narrower and shallower context encoder. ``context``, ``selection`` and
    ``colorization`` are for ablations; :data:`WITHOUT` names the paper's.

    Attributes:
        dim: the foundation's C.
        grid: side of the learned position embedding of Vision Mamba (others interpolate it).
        patch: side of a position in pixels.
        width: channels of the context encoder.
        depth: its blocks.
        heads: of the cross-attentions of the colorization.
        context: the encoder of support pairs, see :mod:`proxyprompt.prompt_generator.context_encoders`.
        selection: False takes the mean of all support positions in the place of the selective map.
        colorization: False makes the prompt of the selected context alone, each token the mean of 4 x 4 positions.
        d_state: of Vision Mamba.
        halvings: see :class:`ContextualColorization`; 4 is the paper's.
        norm_first: see :class:`ContextualColorization`; False is the paper's.
    """

    dim: int = 256
    grid: int = 64
    patch: int = 16
    width: int = 192
    depth: int = 24
    heads: int = 8
    context: str = VIM
    selection: bool = True
    colorization: bool = True
    d_state: int = 16
    halvings: int = 4
    norm_first: bool = False

    def to_dict(self) -> dict[str, int | bool | str]:
        """The fields by name."""
        return asdict(self)


WITHOUT: Mapping[str, Mapping[str, object]] = {
    "csm": {"context": NONE, "selection": False},
    "ccm": {"colorization": False},
}
"""Part that is left out in an ablation -> options of :class:`GeneratorConfig`; how, the paper does not say."""


def ablation(without: Iterable[str] = (), context: str | None = None, *, full_size: bool = False) -> dict[str, object]:
    """Options of :class:`GeneratorConfig` for an ablation (paper, tables 4, 5, 12 and 13).

    Args:
        without: keys of WITHOUT.
        context: another encoder of support pairs.
        full_size: whether that one has the paper's size.

    Returns:
        Name -> value of the options that differ.

    Raises:
        ValueError: for a part that does not exist, and for an encoder of the csm that is left out.
    """
    parts = list(without)
    if unknown := sorted(set(parts) - set(WITHOUT)):
        raise ValueError(f"unknown part {', '.join(unknown)}; expected some of {', '.join(WITHOUT)}")
    if context and "csm" in parts:
        raise ValueError(f"context encoder {context} is part of the csm that is left out; choose one of the two")
    options = {name: value for part in parts for name, value in WITHOUT[part].items()}
    if context:
        options |= {"context": context, **(PAPER_SIZES.get(context, {}) if full_size else {})}
    return options


class ProxyPrompt(NamedTuple):
    """What the foundation is prompted with.

    Attributes:
        tokens: (B, N, T, C), the paper's P; T is H*W/16 with four halvings.
        context: (B, N, C, H, W), the selected context E_ctx that they are made of.
    """

    tokens: Tensor
    context: Tensor


class ProxyPromptGenerator(nn.Module):
    """Contextual Selective Module and Contextual Colorization Module (paper, sections 3.1 and 3.2).

    Args:
        config: what decides the architecture.

    Raises:
        ValueError: for an unknown context encoder.

    Example:
        >>> generator = ProxyPromptGenerator(GeneratorConfig())
        >>> contexts = generator.encode_pair(support_images, support_masks)
        >>> support = generator.encode_support(support_features[None], contexts[None], declared[None])
        >>> tokens = generator(target_features, support).tokens
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        encoder = build_context_encoder(
            config.context,
            width=config.width,
            depth=config.depth,
            patch=config.patch,
            grid=config.grid,
            d_state=config.d_state,
        )
        self.vision_mamba, self.context_width = encoder, encoder.width  # whichever it is: weights files call it so
        self.bridge = BridgeUnit(dim=config.dim, context_dim=encoder.width)
        self.colorization = None
        if config.colorization:
            self.colorization = ContextualColorization(
                config.dim, heads=config.heads, halvings=config.halvings, norm_first=config.norm_first
            )

    def encode_pair(self, images: Tensor, masks: Tensor) -> Tensor:
        """The context of support images with each of their masks (eq. 3).

        Args:
            images: (P, 3, S, S), preprocessed.
            masks: (P, N, S, S) in [0, 1].

        Returns:
            (P, N, D, H, W), V.
        """
        pairs, objects = masks.shape[:2]
        repeated = images[:, None].expand(-1, objects, -1, -1, -1).flatten(0, 1)
        return self.vision_mamba(repeated, masks.flatten(0, 1)).unflatten(0, (pairs, objects))

    def encode_support(
        self, features: Tensor, contexts: Tensor, valid: Tensor, *, padding: Tensor | None = None
    ) -> SupportEncoding:
        """Everything that depends only on the support: keys of the selective map, and A_agg (eqs. 4 and 5).

        Args:
            features: (E, K, C, H, W), F_sup.
            contexts: (E, K, N, D, H, W), V, from :meth:`encode_pair`.
            valid: (E, K, N) bool, which support declares which object.
            padding: (E, K, H, W) bool, or None.

        Returns:
            The encoding of E support sets.

        Raises:
            ValueError: when a set declares some object in none of its supports.
        """
        sets, pairs, objects = valid.shape
        expected = (sets, pairs, objects, self.context_width, *features.shape[-2:])
        if contexts.shape != expected:
            raise ValueError(f"contexts {tuple(contexts.shape)} do not fit features and valid: expected {expected}")
        counts = valid[..., None, None].expand(-1, -1, -1, *features.shape[-2:])
        if padding is not None:
            counts = counts & ~padding[:, :, None]
        missing = (~counts.flatten(3).any(-1).any(1)).nonzero().tolist()
        if missing:
            raise ValueError(f"no support declares (set, object) {missing}; every object needs at least one support")
        values = self.bridge(features.flatten(0, 1), contexts.flatten(0, 1), counts.flatten(0, 1))
        values = values.unflatten(0, (sets, pairs))  # (E, K, N, C, H, W)
        return SupportEncoding(
            keys=features.permute(0, 1, 3, 4, 2).flatten(1, 3),
            values=values.permute(0, 2, 1, 4, 5, 3).flatten(2, 4),
            valid=counts.transpose(1, 2).flatten(2),
        )

    def forward(self, target: Tensor, support: SupportEncoding) -> ProxyPrompt:
        """Select what the supports say of each position (CSM), then colorize it (CCM).

        Args:
            target: (B, C, H, W), F_x, the foundation's embedding.
            support: one set for all targets, or one for each.

        Returns:
            The proxy prompt.
        """
        context = self.select(target, support)
        return ProxyPrompt(self.colorize(target, context), context)

    def select(self, target: Tensor, support: SupportEncoding) -> Tensor:
        """What the supports say of each position (eqs. 6 and 7).

        Args:
            target: as for :meth:`forward`.
            support: as for :meth:`forward`.

        Returns:
            (B, N, C, H, W), E_ctx, as :func:`select_context`.

        Raises:
            ValueError: when the target has other channels than the generator, or the supports are of another number.
        """
        if target.shape[1] != self.config.dim:
            raise ValueError(f"target has {target.shape[1]} channels, the generator was built for {self.config.dim}")
        return select_context(target, support) if self.config.selection else mean_context(target, support)

    def colorize(self, target: Tensor, context: Tensor) -> Tensor:
        """The prompt of what :meth:`select` found (eqs. 8 to 11).

        Args:
            target: as for :meth:`forward`.
            context: (B, N, C, H, W), E_ctx.

        Returns:
            (B, N, T, C), P.
        """
        context = context.to(target.dtype)
        if self.colorization is not None:
            return self.colorization(target, context)
        pooled = F.avg_pool2d(context.flatten(0, 1), 2 ** (self.config.halvings // 2))
        return pooled.flatten(2).transpose(1, 2).unflatten(0, context.shape[:2])
