"""From a target and its supports to masks on the target's slices. Knows no server and no files.

Everything that is computed from pixels and weights goes through the content cache: the features of a slice (a target
today is a support tomorrow), the context of each support image with each mask, the memory of a whole support set, and
what the decoder said of each target. Another structure or another support then costs only the decoding, a click only
that of the clicked slice, and the same request again nothing.

Axes: ``Z`` target slices of (h, w), ``K`` support slices, ``N`` structures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxyprompt.extensions.pixel_classifier import (
    PixelClassifier,
    best_mixture,
    can_classify,
    dice_of_mixtures,
    fit,
    moments,
)
from proxyprompt.foundation.base import Features, Points, size_of
from proxyprompt.io.cache import ContentCache, content_key
from proxyprompt.io.study import Study
from proxyprompt.metrics.segmentation import overlap
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding
from proxyprompt.supports.corrections import Corrections, with_corrections
from proxyprompt.supports.selection import Selection, SupportSlice
from proxyprompt.supports.slice_positions import likely

from .latency import Latencies
from .progress import advance
from .segmenter import Segmenter

PRESENT = 0.5
"""A structure is drawn on a slice when the probability that it is there reaches this."""
PLACED = 0.5
"""And when the place of the slice in its volume is at least so good, compared with the best one."""
_WORK = 32 * 32
"""Objects times grid positions that are decoded at once on a CPU: more leave its caches and take longer each."""
_GPU_FACTOR = 64
SURE = 10.0
"""Logit of a pixel that a person painted."""
TRIED = 8
"""So many supports are segmented from the others, to find how much of the pixel classifier is mixed in."""


@dataclass(frozen=True)
class Masks:
    """What the model says of every slice.

    Attributes:
        logits: (Z, N, h, w) float16 (a volume's are many), not gated.
        presence: (Z, N), probabilities.
        placed: (Z, N), from 0 to 1, what labelled volumes say of the place of the slice.
        agreement: N, None where fewer than two supports hold the structure.
        classifier: N, the share of the pixel classifier in the logits, from 0 to 1; none where it is left out.
    """

    logits: NDArray[np.float16]
    presence: NDArray[np.float32]
    placed: NDArray[np.float64]
    agreement: tuple[float | None, ...]
    classifier: tuple[float, ...] = ()

    def searched(self) -> NDArray[np.bool_]:
        """(Z, N) bool, whether the slice lies where the structure can be."""
        return self.placed >= PLACED

    def present(self) -> NDArray[np.bool_]:
        """(Z, N) bool, whether the structure is drawn on the slice."""
        return (self.presence >= PRESENT) & self.searched()

    def gated(self, structure: int) -> NDArray[np.float16]:
        """The logits of one structure, minus infinity on every slice where it is absent.

        Args:
            structure: which of the N.

        Returns:
            (Z, h, w).
        """
        return np.where(self.present()[:, structure, None, None], self.logits[:, structure], np.float16(-np.inf))

    def keep(self, corrections: Corrections, structures: Sequence[str], indices: Sequence[int]) -> Masks:
        """Corrected slices as a person left them, whatever the model says of them.

        Args:
            corrections: of slices of the study.
            structures: names of the N.
            indices: of the Z slices in the study.

        Returns:
            Masks that say on these slices what the corrections say; ``logits`` are changed in place.
        """
        presence, where = self.presence.copy(), self.placed.copy()
        for row, index in enumerate(indices):
            for name, mask in corrections.get(index, {}).items():
                if name in structures:
                    n = structures.index(name)
                    self.logits[row, n] = np.where(mask, SURE, -SURE)
                    presence[row, n], where[row, n] = float(mask.any()), 1.0
        return replace(self, presence=presence, placed=where)


class Alone(NamedTuple):
    """What one support by itself says of one structure, on n slices.

    Attributes:
        structure: which of the N.
        masks: (n, s, s) bool, gated.
        presence: (n,), the model's probability.
    """

    structure: int
    masks: NDArray[np.bool_]
    presence: NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """All that depends on the supports only.

    Attributes:
        encoding: what the proxy prompt is made of.
        classifier: what is mixed into its masks, if anything.
    """

    encoding: SupportEncoding
    classifier: PixelClassifier | None

    def only(self, structure: int) -> Prepared:
        """That of one of the structures.

        Args:
            structure: which of the N.

        Returns:
            The same with N = 1.
        """
        classifier = None if self.classifier is None else self.classifier.only(structure)
        return Prepared(self.encoding.only(structure), classifier)


class Pipeline:
    """One request's way through one segmenter.

    Args:
        segmenter: foundation and generator.
        cache: what was computed before.
        latencies: where the time goes.
        classify: whether the pixel classifier is mixed in, where the foundation has maps for it.
    """

    def __init__(
        self, segmenter: Segmenter, cache: ContentCache, latencies: Latencies, *, classify: bool = True
    ) -> None:
        self._segmenter, self._cache, self._latencies = segmenter, cache, latencies
        self._foundation, self._classify = segmenter.foundation, classify
        self._device = next(segmenter.parameters()).device

    @torch.inference_mode()
    def run(
        self,
        study: Study,
        selection: Selection,
        *,
        indices: Sequence[int] | None = None,
        agreement: bool = True,
        everywhere: bool = False,
        corrections: Corrections = MappingProxyType({}),
    ) -> Masks:
        """Segment a study as the supports show; nothing where there is no support.

        Args:
            study: the target.
            selection: the supports.
            indices: of the slices; None for all.
            agreement: whether to compare what each support says by itself, on the slice that shows most.
            everywhere: also where labelled volumes do not show the structure.
            corrections: slices of the study that a person painted. They support the others, and stay as they are.

        Returns:
            What the model says of these slices.

        Raises:
            StudyError: for input that cannot be used.
        """
        structures, others = len(selection.structures), selection
        selection = with_corrections(selection, study, corrections)
        indices = list(range(len(study)) if indices is None else indices)
        logits = np.zeros((len(indices), structures, *study.slice_shape), np.float16)
        if not len(selection):
            nowhere = np.zeros((len(indices), structures), np.float32)
            return Masks(logits, nowhere, nowhere + 1, (None,) * structures)
        remembered = self.memory_key(selection)
        prepared = self.prepare(selection, remembered)
        key = self._key("decoded", study.content_hash, remembered, indices, self._classify)
        entry = self._cache.get(key)
        if entry is None:
            made = self._decode(study, indices, prepared)
            entry = self._cache.put(key, made, tags=selection.tags.union({study.content_hash}))
        with self._latencies.of("decode"):
            geometry = self._foundation.geometry(study.slice_shape)
            for z, small in enumerate(entry.tensors["logits"]):
                logits[z] = self._foundation.postprocess(small[None].to(self._device), geometry)[0].half().cpu().numpy()
        presence = entry.tensors["presence"].numpy()
        where = np.ones_like(presence) if everywhere else placed(study, selection, indices)
        shares = () if prepared.classifier is None else tuple(prepared.classifier.share.tolist())
        masks = Masks(logits, presence, where, (None,) * structures, shares)
        masks = masks.keep(corrections, selection.structures, indices)
        if not agreement or not len(others):
            return masks
        shown = indices[most_shown(masks)]
        return replace(masks, agreement=self._agreement(study, others, shown))

    @torch.inference_mode()
    def click(
        self,
        study: Study,
        selection: Selection,
        index: int,
        structure: int,
        points: Points | None,
        box: Tensor | None = None,
    ) -> NDArray[np.float16]:
        """One structure on one slice, prompted by its supports and by clicks or a box; without supports by these alone.

        Args:
            study: the target.
            selection: the supports.
            index: of the slice.
            structure: which of the N.
            points: coords (1, 1, P, 2) as (x, y) in pixels of the slice.
            box: (1, 1, 4) as x0, y0, x1, y1 in pixels of the slice.

        Returns:
            (h, w) logits, not gated.
        """
        remembered = self.memory_key(selection)
        prepared = self.prepare(selection, remembered).only(structure) if len(selection) else None
        target = self._target(study, [index])

        def compute() -> dict[str, Tensor]:
            clicks, corners = None, None
            if points is not None:
                coords = self._foundation.to_input(points.coords.to(self._device), geometry)
                clicks = Points(coords, points.labels.to(self._device))
            if box is not None:
                corners = self._foundation.to_input(box.to(self._device).unflatten(2, (2, 2)), geometry).flatten(2)
            encoding = None if prepared is None else prepared.encoding
            decoded = self._segmenter.segment(target, encoding, clicks, corners)
            return {"logits": self._mix(decoded.mask_logits, target, prepared)[0]}

        with self._latencies.of("click"):
            geometry = self._foundation.geometry(study.slice_shape)
            said = (study.slice_hash(index), structure, *(points or ()), *(() if box is None else ("box", box)))
            key = self._key("clicked", remembered, *said, self._classify)
            entry = self._cache.get_or_compute(key, selection.tags.union({study.content_hash}), compute)
            logits = self._foundation.postprocess(entry.tensors["logits"][None].to(self._device), geometry)
            return logits[0, 0].half().cpu().numpy()

    def _mix(self, logits: Tensor, target: Features, prepared: Prepared | None) -> Tensor:
        if prepared is None or prepared.classifier is None:
            return logits
        return prepared.classifier.mix(logits, target)

    def _decode(self, study: Study, indices: Sequence[int], prepared: Prepared) -> dict[str, Tensor]:
        """What the decoder says of some slices: logits (n, N, S/4, S/4) float16, presence (n, N) probabilities."""
        logits, presence = [], []
        step = self._slices_at_once(prepared.encoding.values.shape[1])
        for start in range(0, len(indices), step):
            advance(start, len(indices))
            target = self._target(study, indices[start : start + step])
            with self._latencies.of("decode"):
                decoded = self._segmenter.segment(target, prepared.encoding)
                logits.append(self._mix(decoded.mask_logits, target, prepared).half().cpu())
                presence.append(decoded.presence_logit.float().sigmoid().cpu())
        advance(len(indices), len(indices))
        return {"logits": torch.cat(logits), "presence": torch.cat(presence)}

    # encoding

    @torch.inference_mode()
    def prepare(self, selection: Selection, key: str | None = None) -> Prepared:
        """All that depends on the supports only, from the cache or into it.

        Args:
            selection: the supports.
            key: :meth:`memory_key`, where it is known already.

        Returns:
            What targets are segmented with.
        """
        key = key or self.memory_key(selection)
        encoding = self._encode_support(selection, key, lambda: self._supports(selection))
        return Prepared(encoding, self._fit_classifier(selection, key) if self._classify else None)

    def _slices_at_once(self, objects: int) -> int:
        work = _WORK * (_GPU_FACTOR if self._device.type == "cuda" else 1)
        return max(1, work // (self._foundation.grid**2 * objects))

    def _key(self, kind: str, *parts: object) -> str:
        return content_key(kind, self._segmenter.weights_sha256, *parts)

    def _target(self, study: Study, indices: Sequence[int]) -> Features:
        """Features of some slices of the target; those that the cache does not hold are encoded together."""
        keys = [self._key("features", study.slice_hash(i)) for i in indices]
        with self._latencies.of("encode"):
            found = {n: entry for n, key in enumerate(keys) if (entry := self._cache.get(key)) is not None}
            missing = [n for n in range(len(keys)) if n not in found]
            if missing:
                made = self._encode(torch.from_numpy(study.images([indices[n] for n in missing])))
                for row, n in enumerate(missing):
                    found[n] = self._cache.put(keys[n], made[row : row + 1].to_tensors(), tags={study.content_hash})
            return Features.join([Features.from_tensors(found[n].tensors) for n in range(len(keys))], self._device)

    def _encode(self, images: Tensor) -> Features:
        """images: (B, 3, h, w) in [0, 1]. Features with their padding."""
        prepared, geometry = self._foundation.preprocess(images.to(self._device))
        features = self._segmenter.encode(prepared)
        return replace(features, padding=self._foundation.padding(geometry, len(images), self._device))

    def _encoded(self, image: Tensor) -> dict[str, Tensor]:
        return self._encode(image).to_tensors()

    def _supports(self, selection: Selection) -> tuple[Features, Tensor]:
        """F_sup of the K support images, and V (K, N, D, H, W), zeros where a study does not declare the structure."""
        features: list[Features] = []
        contexts: list[Tensor] = []
        for k, chosen in enumerate(selection.slices):
            image = torch.from_numpy(selection.images[k])[None]
            with self._latencies.of("encode"):
                entry = self._cache.get_or_compute(
                    self._key("features", chosen.image_key),
                    chosen.tags,
                    partial(self._encoded, image),
                )
                features.append(Features.from_tensors(entry.tensors))
            with self._latencies.of("encode_support"):
                contexts.append(self._context(image, selection.masks[k], selection.valid[k], chosen))
        return Features.join(features, self._device), torch.stack(contexts).to(self._device)

    def _context(
        self, image: Tensor, masks: NDArray[np.bool_], valid: NDArray[np.bool_], chosen: SupportSlice
    ) -> Tensor:
        """V of one support image with each of its N masks: (N, D, H, W)."""

        def encode(laid: Tensor) -> Tensor:
            prepared, _ = self._foundation.preprocess(image.to(self._device))
            return self._segmenter.encode_pair(prepared, laid)[0]

        return self._of_masks("context", self._context_keys(chosen.image_key, masks), masks, valid, chosen, encode)

    def _of_masks(
        self,
        name: str,
        keys: Sequence[str],
        masks: NDArray[np.bool_],
        valid: NDArray[np.bool_],
        chosen: SupportSlice,
        compute: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """What is made of one support image with each of its N masks: (N, ...), zeros for those that are not declared.

        Those that the cache does not hold under their keys are computed together. compute: (1, n, S, S) -> (n, ...).
        """
        declared = np.flatnonzero(valid).tolist()
        found = {n: entry for n in declared if (entry := self._cache.get(keys[n])) is not None}
        missing = [n for n in declared if n not in found]
        if missing:
            made = compute(self._lay(masks[missing]))
            for row, n in enumerate(missing):
                found[n] = self._cache.put(keys[n], {name: made[row]}, tags=chosen.tags)
        known = {n: found[n].tensors[name] for n in declared}
        empty = torch.zeros_like(next(iter(known.values())))
        return torch.stack([known.get(n, empty) for n in range(len(masks))])

    def _lay(self, masks: NDArray[np.bool_]) -> Tensor:
        """(N, h, w) bool as the foundation takes them: (1, N, S, S)."""
        laid = torch.from_numpy(masks)[None].to(self._device)
        return self._foundation.preprocess_masks(laid, self._foundation.geometry(size_of(laid)))

    def _context_keys(self, image_key: str, masks: NDArray[np.bool_]) -> list[str]:
        return [self._key("context", image_key, np.packbits(mask), list(mask.shape)) for mask in masks]

    def memory_key(self, selection: Selection) -> str:
        """Under which the cache keeps a support encoding.

        Args:
            selection: the supports.

        Returns:
            A content key.
        """
        keys = [self._context_keys(s.image_key, selection.masks[k]) for k, s in enumerate(selection.slices)]
        return self._key("support encoding", keys, selection.valid)

    def _encode_support(
        self, selection: Selection, key: str, supports: Callable[[], tuple[Features, Tensor]]
    ) -> SupportEncoding:
        """supports: F_sup and V (K, N, D, H, W), which are not asked for where the memory is known."""

        def compute() -> dict[str, Tensor]:
            features, contexts = supports()
            with self._latencies.of("encode_support"):
                valid = torch.from_numpy(selection.valid).to(self._device)
                encoding = self._segmenter.encode_support(features, contexts, valid)
            return dict(vars(encoding))

        entry = self._cache.get_or_compute(key, selection.tags, compute)
        return SupportEncoding(**{name: tensor.to(self._device) for name, tensor in entry.tensors.items()})

    # the pixel classifier

    def _fit_classifier(self, selection: Selection, key: str) -> PixelClassifier | None:
        def compute() -> dict[str, Tensor]:
            features, contexts = self._supports(selection)
            if not can_classify(features):
                return {"none": torch.zeros(1)}
            with self._latencies.of("classifier"):
                described = self._describe(selection, features)
                classifier = fit(described.sum(0))
                mixture = self._mixture(selection, features, contexts, described)
            share, offset = (torch.tensor(each, device=self._device) for each in zip(*mixture, strict=True))
            return {**vars(classifier), "share": share, "offset": offset}

        tensors = self._cache.get_or_compute(content_key("pixel classifier", key), selection.tags, compute).tensors
        if "none" in tensors:
            return None
        return PixelClassifier(**{name: tensor.to(self._device) for name, tensor in tensors.items()})

    def _describe(self, selection: Selection, features: Features) -> Tensor:
        """(K, N, F + 2, F + 2), zeros where a study does not declare the structure."""
        each = []
        for k, chosen in enumerate(selection.slices):
            masks, valid = selection.masks[k], selection.valid[k]
            keys = [content_key("moments", key) for key in self._context_keys(chosen.image_key, masks)]
            describe = partial(moments, features[k : k + 1])
            each.append(self._of_masks("moments", keys, masks, valid, chosen, describe))
        return torch.stack(each).to(self._device)

    def _mixture(
        self, selection: Selection, features: Features, contexts: Tensor, described: Tensor
    ) -> list[tuple[float, float]]:
        """Share and offset of each structure: up to :data:`TRIED` supports are segmented from all the others."""
        held, valid = selection.held(), torch.from_numpy(selection.valid).to(self._device)
        tried: list[list[Tensor]] = [[] for _ in selection.structures]
        for k in range(min(len(selection), TRIED)):
            others = [j for j in range(len(selection)) if j != k]
            shown = [n for n in np.flatnonzero(held[k]).tolist() if selection.valid[others, n].any()]
            if not shown:
                continue
            encoding = self._segmenter.encode_support(
                features[others], contexts[others][:, shown], valid[others][:, shown]
            )
            decoded = self._segmenter.segment(features[k : k + 1], encoding)
            score = fit(described[others][:, shown].sum(0)).score(features[k : k + 1])
            dice = dice_of_mixtures(decoded.mask_logits, score, self._lay(selection.masks[k][shown]))
            for row, n in enumerate(shown):
                tried[n].append(dice[..., row])
        return [best_mixture(each) for each in tried]

    # agreement

    @torch.inference_mode()
    def alone(self, study: Study, selection: Selection, indices: Sequence[int]) -> list[Alone]:
        """What each support draws all by itself on some slices of the target.

        Args:
            study: the target.
            selection: the supports.
            indices: of the slices.

        Returns:
            For each support one for each structure that it holds, where another support holds it too.
        """
        where = searched(study, selection, indices)
        found = self._alone(study, selection, indices)
        return [one._replace(masks=one.masks & where[:, one.structure, None, None]) for one in found]

    @torch.inference_mode()
    def disagreement(self, study: Study, selection: Selection, index: int) -> NDArray[np.float32] | None:
        """Where on a slice the supports, each by itself, draw different things.

        Args:
            study: the target.
            selection: the supports.
            index: of the slice.

        Returns:
            (h, w), from 0 where all agree on every structure to 1 where half of them draw one; None where no two
            supports hold the same structure.
        """
        drawn: dict[int, list[NDArray[np.bool_]]] = {}
        for one in self._alone(study, selection, [index]):
            drawn.setdefault(one.structure, []).append(one.masks)
        if not drawn:
            return None
        share = np.stack([np.mean(masks, axis=0, dtype=np.float32) for masks in drawn.values()], axis=1)
        geometry = self._foundation.geometry(study.slice_shape)
        laid = self._foundation.postprocess(torch.from_numpy(share).to(self._device), geometry)[0].clamp(0, 1)
        return (4 * laid * (1 - laid)).amax(dim=0).cpu().numpy()

    def _alone(self, study: Study, selection: Selection, indices: Sequence[int]) -> Iterator[Alone]:
        held = selection.held()
        compared = held & (held.sum(axis=0) > 1)
        if not compared.any():
            return
        target = self._target(study, indices)
        features, contexts = self._supports(selection)
        for k in range(len(selection)):
            shared = np.flatnonzero(compared[k]).tolist()
            if not shared:
                continue
            single = selection.only(k, shared)
            own = features[k : k + 1], contexts[k : k + 1, shared]
            memory = self._encode_support(single, self.memory_key(single), partial(_same, own))
            with self._latencies.of("agreement"):
                decoded = self._segmenter.segment(target, memory)
                presence = decoded.presence_logit.sigmoid()
                masks = (decoded.mask_logits > 0) & (presence >= PRESENT)[..., None, None]
                for row, n in enumerate(shared):
                    yield Alone(n, masks[:, row].cpu().numpy(), presence[:, row].float().cpu().numpy())

    def _agreement(self, study: Study, selection: Selection, shown: int) -> tuple[float | None, ...]:
        """How alike the supports, each alone, draw each structure: mean Dice over pairs, on the slice that shows most.

        None for a structure that fewer than two supports hold.

        One slice is enough to notice supports that contradict each other, and keeps the cost at K decodings.
        """
        drawn: list[list[NDArray[np.bool_]]] = [[] for _ in selection.structures]
        for one in self._alone(study, selection, [shown]):
            drawn[one.structure].append(one.masks)
        return tuple(mean_dice(masks) for masks in drawn)


def _same(own: tuple[Features, Tensor]) -> tuple[Features, Tensor]:
    return own


def placed(study: Study, selection: Selection, indices: Sequence[int]) -> NDArray[np.float64]:
    """What the supports' volumes say of the places of slices, by :func:`proxyprompt.supports.slice_positions.likely`.

    Args:
        study: the target.
        selection: the supports.
        indices: of the slices.

    Returns:
        (len(indices), N), from 0 to 1; 1 for anything but a volume.
    """
    slice_presence = selection.slice_presence.values() if study.kind == "volume" else ()
    return likely(slice_presence, len(selection.structures), len(study), indices, study.length)


def searched(study: Study, selection: Selection, indices: Sequence[int]) -> NDArray[np.bool_]:
    """Whether structures can be on slices at all, by :func:`placed`.

    Args:
        study: the target.
        selection: the supports.
        indices: of the slices.

    Returns:
        (len(indices), N).
    """
    return placed(study, selection, indices) >= PLACED


def most_shown(masks: Masks) -> int:
    """The slice with the most pixels of all structures; where none is drawn, the one where most is likely present.

    Args:
        masks: of some slices.

    Returns:
        Its index among them.
    """
    area = [(masks.logits[z, masks.present()[z]] > 0).sum() for z in range(len(masks.logits))]
    return int(np.argmax(area)) if any(area) else int(masks.presence.max(axis=1).argmax())


def mean_dice(masks: Sequence[NDArray[np.bool_]]) -> float | None:
    """How alike masks are.

    Args:
        masks: of one shape.

    Returns:
        Mean Dice over all pairs, 1 for two empty masks; None for fewer than two masks.
    """
    pairs = [overlap(one, other).dice for one, other in combinations(masks, 2)]
    return float(np.mean(pairs)) if pairs else None
