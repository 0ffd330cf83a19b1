"""From a target and its supports to masks on the target's slices. Knows no server and no files.

Everything that is computed from pixels and weights goes through the content cache: the features of a slice (a target
today is a support tomorrow), the context of each support image with each mask, the memory of a whole support set, and
what the decoder said of each target. Another structure or another support then costs only the decoding, a click only
that of the clicked slice, and the same request again nothing.

Axes: ``Z`` target slices of (h, w), ``K`` support slices, ``N`` structures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from proxyprompt.extensions.pixel_classifier import PixelClassifier
from proxyprompt.foundation.base import Features, Points
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import Study
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding
from proxyprompt.settings import AUTO, MODES, NEIGHBOURS, PROPAGATE, SLICE_BY_SLICE
from proxyprompt.supports.corrections import Corrections, with_corrections
from proxyprompt.supports.selection import Selection

from .classifier_fit import ClassifierFit
from .encoding import Encoding
from .latency import Latencies
from .masks import PRESENT, SURE, Alone, Masks, mean_dice, most_shown, placed, searched
from .progress import advance
from .propagation import Propagation, with_neighbours
from .segmenter import Segmenter
from .stream import Stream

_WORK = 32 * 32
"""Objects times grid positions that are decoded at once on a CPU: more leave its caches and take longer each."""
_GPU_FACTOR = 64


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
        self.encoding = Encoding(segmenter, cache, latencies)
        self._classifier = ClassifierFit(segmenter, self.encoding, cache, latencies)

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
        mode: str = AUTO,
        clean: bool = False,
    ) -> Masks:
        """Segment a study as the supports show; nothing where there is no support.

        Args:
            study: the target.
            selection: the supports.
            indices: of the slices; None for all.
            agreement: whether to compare what each support says by itself, on the slice that shows most.
            everywhere: also where labelled volumes do not show the structure.
            corrections: slices of the study that a person painted. They support the others, and stay as they are.
            mode: of :data:`proxyprompt.settings.MODES`; some slices of a study are always segmented slice by slice.
            clean: whether small parts and holes are removed, by what the supports show.

        Returns:
            What the model says of these slices.

        Raises:
            StudyError: for input that cannot be used.
            ValueError: for an unknown mode.
        """
        mode = self._mode(mode, study, indices)
        structures, others = len(selection.structures), selection
        selection = with_corrections(selection, study, corrections)
        indices = list(range(len(study)) if indices is None else indices)
        logits = np.zeros((len(indices), structures, *study.slice_shape), np.float16)
        if not len(selection):
            nowhere = np.zeros((len(indices), structures), np.float32)
            return Masks(logits, nowhere, nowhere + 1, (None,) * structures)
        remembered = self.encoding.memory_key(selection)
        prepared = self.prepare(selection, remembered)
        tags = selection.tags.union({study.content_hash})
        small = self._decoded(study, indices, prepared, remembered, tags, passes=1 + (mode == PROPAGATE))
        if mode == PROPAGATE:
            small = self._propagated(study, small, selection, corrections, remembered, tags)
        if mode != SLICE_BY_SLICE:
            small = {name: with_neighbours(tensor) for name, tensor in small.items()}
        with self._latencies.of("decode"):
            geometry = self._foundation.geometry(study.slice_shape)
            for z, each in enumerate(small["logits"]):
                large = self._foundation.postprocess(each[None].to(self.encoding.device), geometry)
                logits[z] = large[0].half().cpu().numpy()
        presence = small["presence"].numpy()
        where = np.ones_like(presence) if everywhere else placed(study, selection, indices)
        shares = () if prepared.classifier is None else tuple(prepared.classifier.share.tolist())
        masks = Masks(logits, presence, where, (None,) * structures, shares, mode)
        masks = masks.keep(corrections, selection.structures, indices)
        if clean:
            masks = masks.cleaned(selection, volume=study.kind == "volume" and len(indices) == len(study))
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
        points: Points,
        *,
        corrections: Corrections = MappingProxyType({}),
    ) -> NDArray[np.float16]:
        """One structure on one slice, prompted by its supports and by clicks; without supports by these alone.

        Args:
            study: the target.
            selection: the supports.
            index: of the slice.
            structure: which of the N.
            points: coords (1, 1, P, 2) as (x, y) in pixels of the slice.
            corrections: as for :meth:`run`.

        Returns:
            (h, w) logits, not gated.
        """
        selection = with_corrections(selection, study, corrections)
        remembered = self.encoding.memory_key(selection)
        prepared = self.prepare(selection, remembered).only(structure) if len(selection) else None
        target = self.encoding.target(study, [index])

        def compute() -> dict[str, Tensor]:
            coords = self._foundation.to_input(points.coords.to(self.encoding.device), geometry)
            clicks = Points(coords, points.labels.to(self.encoding.device))
            decoded = self._segmenter.segment(target, None if prepared is None else prepared.encoding, clicks)
            return {"logits": self._mix(decoded.mask_logits, target, prepared)[0]}

        with self._latencies.of("click"):
            geometry = self._foundation.geometry(study.slice_shape)
            said = (study.slice_hash(index), structure, points.coords, points.labels)
            key = self.encoding.key("clicked", remembered, *said, self._classify)
            entry = self._cache.get_or_compute(key, selection.tags.union({study.content_hash}), compute)
            logits = self._foundation.postprocess(entry.tensors["logits"][None].to(self.encoding.device), geometry)
            return logits[0, 0].half().cpu().numpy()

    @torch.inference_mode()
    def stream(self, selection: Selection, *, smooth: bool = True) -> Stream:
        """Everything that the supports have to give, ready for frames that are still to come.

        Args:
            selection: the supports.
            smooth: whether the frame before counts.

        Returns:
            What takes the frames, one after the other; nothing of them is kept.
        """
        prepared = self.prepare(selection)

        def decode(image: Tensor) -> tuple[Tensor, Tensor]:
            target = self.encoding.encode(image)
            decoded = self._segmenter.segment(target, prepared.encoding)
            return self._mix(decoded.mask_logits, target, prepared), decoded.presence_logit.sigmoid()

        return Stream(self._foundation, decode, len(selection.structures), smooth=smooth)

    def _mix(self, logits: Tensor, target: Features, prepared: Prepared | None) -> Tensor:
        if prepared is None or prepared.classifier is None:
            return logits
        return prepared.classifier.mix(logits, target)

    def _mode(self, mode: str, study: Study, indices: Sequence[int] | None) -> str:
        """What is done about neighbours; ``auto`` is what won, see docs/volumes.md."""
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
        if len(study) == 1 or (indices is not None and list(indices) != list(range(len(study)))):
            return SLICE_BY_SLICE
        if mode == AUTO:
            mode = PROPAGATE if study.kind == "volume" else NEIGHBOURS
        return NEIGHBOURS if mode == PROPAGATE and not self._foundation.remembers else mode

    def _decoded(
        self,
        study: Study,
        indices: Sequence[int],
        prepared: Prepared,
        remembered: str,
        tags: frozenset[str],
        *,
        passes: int = 1,
    ) -> Mapping[str, Tensor]:
        """What the decoder says of some slices: logits (n, N, s, s) float16, presence (n, N) probabilities."""

        def compute() -> dict[str, Tensor]:
            logits, presence = [], []
            step = self._slices_at_once(prepared.encoding.values.shape[1])
            for start in range(0, len(indices), step):
                advance(start, passes * len(indices))
                target = self.encoding.target(study, indices[start : start + step])
                with self._latencies.of("decode"):
                    decoded = self._segmenter.segment(target, prepared.encoding)
                    logits.append(self._mix(decoded.mask_logits, target, prepared).half().cpu())
                    presence.append(decoded.presence_logit.float().sigmoid().cpu())
            advance(len(indices), passes * len(indices))
            return {"logits": torch.cat(logits), "presence": torch.cat(presence)}

        key = self.encoding.key("decoded", study.content_hash, remembered, indices, self._classify)
        return self._cache.get_or_compute(key, tags, compute).tensors

    def _propagated(
        self,
        study: Study,
        small: Mapping[str, Tensor],
        selection: Selection,
        corrections: Corrections,
        remembered: str,
        tags: frozenset[str],
    ) -> Mapping[str, Tensor]:
        """The whole study as :class:`Propagation` says, from what the decoder said of each slice."""
        count, names = len(study), set(selection.structures)
        known = sorted(index for index, masks in corrections.items() if names & set(masks))

        def compute() -> dict[str, Tensor]:
            logits, presence = small["logits"].clone(), small["presence"].clone()
            for z in known:
                for name in names & set(corrections[z]):
                    n, mask = selection.structures.index(name), corrections[z][name]
                    laid = self.encoding.lay(mask[None])
                    laid = interpolate(laid, logits.shape[-2:], mode="area").clamp(0, 1)[0, 0].cpu()
                    logits[z, n], presence[z, n] = (2 * laid - 1) * SURE, float(mask.any())
            propagation = Propagation(
                self._foundation, lambda z: self.encoding.target(study, [z]), logits, presence, self._latencies
            )
            logits, presence = propagation.run(known, lambda done: advance(count + done, 2 * count))
            logits[known], presence[known] = small["logits"][known], small["presence"][known]  # no louder than others
            return {"logits": logits, "presence": presence}

        key = self.encoding.key("propagated", study.content_hash, remembered, known, self._classify)
        return self._cache.get_or_compute(key, tags, compute).tensors

    @torch.inference_mode()
    def prepare(self, selection: Selection, key: str | None = None) -> Prepared:
        """All that depends on the supports only, from the cache or into it.

        Args:
            selection: the supports.
            key: :meth:`memory_key`, where it is known already.

        Returns:
            What targets are segmented with.
        """
        key = key or self.encoding.memory_key(selection)
        encoding = self.encoding.encode_support(selection, key, lambda: self.encoding.supports(selection))
        return Prepared(encoding, self._classifier.fit(selection, key) if self._classify else None)

    def _slices_at_once(self, objects: int) -> int:
        work = _WORK * (_GPU_FACTOR if self.encoding.device.type == "cuda" else 1)
        return max(1, work // (self._foundation.grid**2 * objects))

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

    def _alone(self, study: Study, selection: Selection, indices: Sequence[int]) -> Iterator[Alone]:
        held = selection.held()
        compared = held & (held.sum(axis=0) > 1)
        if not compared.any():
            return
        target = self.encoding.target(study, indices)
        features, contexts = self.encoding.supports(selection)
        for k in range(len(selection)):
            shared = np.flatnonzero(compared[k]).tolist()
            if not shared:
                continue
            single = selection.only(k, shared)
            own = features[k : k + 1], contexts[k : k + 1, shared]
            memory = self.encoding.encode_support(single, self.encoding.memory_key(single), partial(_same, own))
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
