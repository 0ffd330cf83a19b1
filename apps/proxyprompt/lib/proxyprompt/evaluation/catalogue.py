"""The methods by name, built on shared weights and shared encoded images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from proxyprompt.extensions import ALL, PAPER
from proxyprompt.foundation import build_foundation, weights_identity
from proxyprompt.foundation.base import Foundation
from proxyprompt.io.cache import ContentCache
from proxyprompt.predictor.adapters import AdapterHeader, AdapterStore
from proxyprompt.predictor.segmenter import Segmenter, build_segmenter
from proxyprompt.settings import AUTO, MODES, SLICE_BY_SLICE
from proxyprompt.training.groups import FILE as GROUPS_FILE
from proxyprompt.training.groups import GroupSplit

from .baselines import nearest_feature, prototype
from .correcting import Correcting
from .episodes import EvalEpisodes
from .methods import Copy, EncodeOnce, FeatureMethod, Method, ProxyPromptMethod
from .prompting import TRUTH_PROMPTS, Memory, PerSam, TruthPrompted
from .proxy_prompting import PROMPTED, ProxyPrompted
from .quality import with_inverted_masks, with_masks_of, with_supports_of
from .removal import REMOVALS, Removal
from .tracking import FRAME_0, FrameZero, MemoryVideo

FINETUNED = ("finetuned", "finetuned_paper")
PRETRAINED_FILTERS = (128, 96, 64, 32, 16)
"""Of the decoder of ``unet_pretrained``, coarse to fine."""
UNETS = ("unet_pretrained", "dynunet", "dynunet_plateau")
CORRECTING = {
    f"proxyprompt:{way}-{count}": (count, way == "corrected")
    for way in ("replaced", "corrected")
    for count in (1, 2, 4)
}
"""Name -> how many slices are painted, and whether they support the others."""
IN_MODE = {f"proxyprompt:{mode.replace(' ', '-')}": mode for mode in MODES[1:]}
"""Name -> what is done about neighbouring slices."""
CORRECTING_IN_MODE = {
    f"{way}:{name.split(':')[1]}": (mode, *what) for way, mode in IN_MODE.items() for name, what in CORRECTING.items()
}
"""Name -> the same, and what is painted."""
WITHOUT = {"proxyprompt:without-pieces": ALL._replace(pieces=False)}
"""Name -> what is left of the extensions."""
OURS = ("proxyprompt", *WITHOUT, *REMOVALS, *IN_MODE, *CORRECTING, *CORRECTING_IN_MODE, *PROMPTED)
_OTHERS = ("copy", "nearest", "prototype", "memory", "memory:video", "persam", *FRAME_0, *TRUTH_PROMPTS)
METHODS = (*OURS, *_OTHERS, *FINETUNED, *UNETS)


@dataclass(frozen=True)
class MethodOptions:
    """weights: the folder of the foundation's weights, or one atto file. adapter: the file of a fine-tuned version;
    comparison_models: files of fine-tuned ones, which become methods of their own.

    image_size: None for what the weights are for. paper: proxyprompt without extensions. other: an atto file whose
    foundation the methods without a generator use, whose names then tell it, and finetuned_paper. mask_quality,
    inverted: proxyprompt once more with each of these support masks, see :mod:`proxyprompt.evaluation.quality`;
    unrelated: and with supports from there. train_minutes: for each draw of a fine-tuned method. unet_*: see
    :class:`proxyprompt.evaluation.unet.UNetConfig`; plateau_minutes: at most, until its loss no longer falls.
    mixed_precision: of fine-tuning and of the U-Net. cache_bytes, cache: memory, and a folder or None, for encoded
    images.
    """

    names: tuple[str, ...]
    foundation: str = "atto"
    weights: Path = Path()
    adapter: Path | None = None
    comparison_models: tuple[Path, ...] = ()
    image_size: int | None = None
    paper: bool = False
    other: Path | None = None
    mask_quality: tuple[float, ...] = ()
    inverted: bool = False
    unrelated: EvalEpisodes | None = None
    train_minutes: float = 10.0
    unet_minutes: float = 10.0
    plateau_minutes: float = 60.0
    unet_size: int = 256
    unet_width: int = 32
    mixed_precision: bool = False
    device: str = "cpu"
    cache_bytes: int = 2**31
    cache: Path | None = None


_LABELS = {"nearest": nearest_feature, "prototype": prototype}
ENDLESS = 1_000_000  # epochs, where minutes decide
_DISK_BYTES = 50 * 2**30


def build_methods(options: MethodOptions) -> list[Method]:
    """The methods, in the order of METHODS, then the comparison models.

    Args:
        options: which, and how.

    Returns:
        The methods.

    Raises:
        ValueError: for an unknown name, and for a version of which nobody can tell what trained it.
        CheckpointError, AdapterError: when weights cannot be read or do not fit.
    """
    if unknown := sorted(set(options.names) - set(METHODS)):
        raise ValueError(f"unknown method {', '.join(unknown)}; valid: {', '.join(METHODS)}")
    cache = ContentCache(options.cache, memory_bytes=options.cache_bytes, disk_bytes=_DISK_BYTES)
    methods: list[Method] = []
    foundation: Foundation | None = None
    removals = [name for name in REMOVALS if name in options.names]
    without = [name for name in WITHOUT if name in options.names]
    ways = {n: mode for n, mode in IN_MODE.items() if n in options.names}
    painting = {n: (AUTO, *what) for n, what in CORRECTING.items()} | CORRECTING_IN_MODE
    correcting = [what for name, what in painting.items() if name in options.names]
    prompted = [name for name in PROMPTED if name in options.names]
    if "proxyprompt" in options.names or without or removals or ways or correcting or prompted:
        segmenter, seen, header = _segmenter(options)
        weights = segmenter.weights_sha256 if options.adapter else ""
        segmenter.foundation = foundation = EncodeOnce(segmenter.foundation, cache, weights=weights)
        ours = ProxyPromptMethod(
            segmenter,
            seen=seen,
            extensions=PAPER if options.paper else ALL,
            mode=SLICE_BY_SLICE if options.paper else AUTO,
        )
        if header is not None:
            ours.settings |= {name: header.config[name] for name in ("training", "untrained") if name in header.config}
        if "proxyprompt" in options.names:
            methods = [ours, *(with_masks_of(ours, quality) for quality in options.mask_quality)]
            methods += [with_inverted_masks(ours)] * options.inverted
            methods += [with_supports_of(ours, options.unrelated)] if options.unrelated else []
        methods += [ProxyPromptMethod(segmenter, seen=seen, extensions=WITHOUT[name], name=name) for name in without]
        methods += [Removal(name, segmenter) for name in removals]
        methods += [ours.in_mode(mode) for mode in ways.values()]
        methods += [
            Correcting(ours if mode == AUTO else ours.in_mode(mode), count, support=support)
            for mode, count, support in correcting
        ]
        methods += [ProxyPrompted(name, segmenter) for name in prompted]
    apart = (*OURS, *UNETS)
    others = [name for name in METHODS if name in options.names and name not in apart]
    if set(others) - {"copy", *FINETUNED} and (foundation is None or options.other or options.adapter):
        name, weights = ("atto", options.other) if options.other else (options.foundation, options.weights)
        built = build_foundation(name, weights_dir=weights, image_size=options.image_size)
        foundation = EncodeOnce(built.to(options.device).requires_grad_(False), cache)
    for name in others:
        method = _make(name, options, foundation)
        if options.other and name not in FINETUNED and isinstance(method.settings.get("foundation"), str):
            method.name = f"{name}:{options.other.stem}"
        methods.append(method)
    methods += _unets(options)
    return methods + [_comparison_model(path, options, cache) for path in options.comparison_models]


def _comparison_model(path: Path, options: MethodOptions, cache: ContentCache) -> Method:
    from .comparison_methods import ComparisonMethod
    from .comparison_models import load_comparison_model

    store = _store(path, options)
    model, header = load_comparison_model(
        path.stem, store, weights_dir=options.weights, image_size=options.image_size, device=options.device
    )
    model.foundation = EncodeOnce(model.foundation, cache, weights=model.weights_sha256)
    return ComparisonMethod(model, seen=_has_trained(path, header))


def _store(path: Path, options: MethodOptions) -> AdapterStore:
    """The folder of a version, for the weights that are measured."""
    name, sha256 = weights_identity(options.foundation, options.weights)
    return AdapterStore(path.parent, foundation=name, foundation_sha256=sha256)


def _has_trained(path: Path, header: AdapterHeader) -> Callable[[str], bool]:
    """Whether a group trained the version; ValueError when nobody can tell."""
    if header.training_groups and not (path.parent / GROUPS_FILE).is_file():
        raise ValueError(
            f"{path.parent / GROUPS_FILE} is missing: without it nobody can tell which groups trained {path.stem}, "
            "and a score on those would mean nothing; put it back beside the version"
        )
    split, trained = GroupSplit(path.parent), frozenset(header.training_groups)
    return lambda group: split.hash_of(group) in trained


def _segmenter(options: MethodOptions) -> tuple[Segmenter, Callable[[str], bool], AdapterHeader | None]:
    """The model, whether it was trained on a group, and what is known of a fine-tuned version."""
    store, header, seen = None, None, lambda group: False
    if options.adapter is not None:
        store = _store(options.adapter, options)
        header = store.header(options.adapter.stem)
        seen = _has_trained(options.adapter, header)
    segmenter = build_segmenter(
        foundation=options.foundation,
        weights_dir=options.weights,
        image_size=options.image_size,
        adapter=options.adapter and options.adapter.stem,
        adapters=store,
        device=options.device,
    )
    return segmenter, seen, header


def _finetuned(name: str, options: MethodOptions) -> Method:
    from proxyprompt.training.finetune_config import FinetuneConfig

    from .finetuned import FineTuned

    limits = {"max_epochs": ENDLESS, "max_minutes": options.train_minutes}
    if options.mixed_precision:
        limits["mixed_precision"] = True
    foundation, weights = options.foundation, options.weights
    config, generator = FinetuneConfig.defaults(foundation, **limits), None
    if name == "finetuned_paper":
        config, generator = FinetuneConfig.paper(**limits), {}  # none that was trained
        if options.other:  # the foundation before any generator was trained with it
            foundation, weights = options.other.stem, options.other

    def start() -> Segmenter:
        return build_segmenter(
            foundation=foundation,
            weights_dir=weights,
            image_size=options.image_size,
            generator=generator,
            device=options.device,
            merge=False,
        )

    return FineTuned(name, start, config, extensions=PAPER if name == "finetuned_paper" or options.paper else ALL)


def _unets(options: MethodOptions) -> list[Method]:
    """``dynunet_plateau`` goes on where ``dynunet`` stopped."""
    names = [name for name in UNETS if name in options.names]
    if not names:
        return []
    from .unet import DynUNetFromScratch, UNetConfig  # MONAI takes seconds to import

    made: list[DynUNetFromScratch] = []
    for name in names:
        config = UNetConfig.of_width(
            options.unet_width,
            minutes=options.plateau_minutes if name == "dynunet_plateau" else options.unet_minutes,
            size=options.unet_size,
            mixed_precision=options.mixed_precision,
        )
        if name == "unet_pretrained":
            config = replace(config, pretrained=True, filters=PRETRAINED_FILTERS)
        before = made[-1] if made and not made[-1].config.pretrained else None
        made.append(DynUNetFromScratch(config, name=name, after=before, device=options.device))
    return [*made]


def _make(name: str, options: MethodOptions, foundation: Foundation | None) -> Method:
    if name == "copy":
        return Copy()
    if name in FINETUNED:
        return _finetuned(name, options)
    assert foundation is not None, name  # built for all that are named below
    if name in TRUTH_PROMPTS:
        return TruthPrompted(name, TRUTH_PROMPTS[name], foundation)
    if name in _LABELS:
        return FeatureMethod(name, _LABELS[name], foundation)
    if name in FRAME_0:
        return FrameZero(cast("Foundation", foundation), name.split(":")[1])
    return {"memory": Memory, "memory:video": MemoryVideo, "persam": PerSam}[name](foundation)
