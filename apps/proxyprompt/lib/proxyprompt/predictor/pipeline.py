"""From a target and its supports to masks on the target's slices. Knows no server and no files.

Everything that is computed from pixels and weights goes through the content cache: the features of a slice (a target
today is a support tomorrow), the context of each support image with each mask, the memory of a whole support set, and
what the decoder said of each target. Another structure or another support then costs only the decoding, a click only
that of the clicked slice, and the same request again nothing.

Axes: ``Z`` target slices of (h, w), ``K`` support slices, ``N`` structures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxyprompt.extensions import ALL, Extensions
from proxyprompt.extensions.pieces import tiles_along_a_side
from proxyprompt.foundation.base import Features, Points
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import Study
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding
from proxyprompt.supports.corrections import Corrections, with_corrections
from proxyprompt.supports.selection import Selection

from .encoding import Encoding
from .latency import Latencies
from .masks import PRESENT, Alone, Masks, mean_dice, most_shown, placed, searched
from .pieces import StudyInPieces, supports_in_pieces
from .progress import advance
from .segmenter import Segmenter

_WORK = 32 * 32
"""Objects times grid positions that are decoded at once on a CPU: more leave its caches and take longer each."""
_GPU_FACTOR = 64


class Pipeline:
    """One request's way through one segmenter.

    Args:
        segmenter: foundation and generator.
        cache: what was computed before.
        latencies: where the time goes.
        extensions: what is used beyond the paper, where the foundation can.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        cache: ContentCache,
        latencies: Latencies,
        *,
        extensions: Extensions = ALL,
    ) -> None:
        self._segmenter, self._cache, self._latencies = segmenter, cache, latencies
        self._foundation, self._extensions = segmenter.foundation, extensions
        self.encoding = Encoding(segmenter, cache, latencies)

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
        presence = np.zeros((len(indices), structures), np.float32)
        if not len(selection):
            return Masks(logits, presence, presence + 1, (None,) * structures)
        sides = np.ones(structures, int)
        for side, chosen in self._by_side(selection).items():
            decoded = self._decoded if side == 1 else partial(self._decoded_in_pieces, side)
            logits[:, chosen], presence[:, chosen] = decoded(study, selection.of(chosen), indices)
            sides[chosen] = side
        where = np.ones(presence.shape) if everywhere else placed(study, selection, indices)
        masks = Masks(logits, presence, where, (None,) * structures, tuple(sides.tolist()))
        masks = masks.keep(corrections, selection.structures, indices)
        if not agreement or not len(others):
            return masks
        shown = indices[most_shown(masks)]
        return replace(masks, agreement=self._agreement(study, others, shown))

    def _by_side(self, selection: Selection) -> dict[int, list[int]]:
        """Tiles along a side of the image -> the structures that are looked at so."""
        if not self._extensions.pieces or not self._foundation.looks_at_pieces:
            return {1: list(range(len(selection.structures)))}
        held, found = selection.held(), defaultdict(list)
        for n in range(len(selection.structures)):
            side = tiles_along_a_side([selection.masks[k][n] for k in np.flatnonzero(held[:, n])])
            found[side].append(n)
        return dict(sorted(found.items()))

    def _decoded(
        self, study: Study | StudyInPieces, selection: Selection, indices: Sequence[int]
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Logits (n, N, h, w) and presence (n, N) of some slices."""
        logits = np.zeros((len(indices), len(selection.structures), *study.slice_shape), np.float16)
        remembered = self.encoding.memory_key(selection)
        encoding = self.prepare(selection, remembered)
        key = self.encoding.key("decoded", study.content_hash, remembered, indices)
        entry = self._cache.get(key)
        if entry is None:
            made = self._decode(study, indices, encoding)
            entry = self._cache.put(key, made, tags=selection.tags.union({study.content_hash}))
        with self._latencies.of("decode"):
            geometry = self._foundation.geometry(study.slice_shape)
            for z, small in enumerate(entry.tensors["logits"]):
                small = small[None].to(self.encoding.device)
                logits[z] = self._foundation.postprocess(small, geometry)[0].half().cpu().numpy()
        return logits, entry.tensors["presence"].numpy()

    def _decoded_in_pieces(
        self, side: int, study: Study, selection: Selection, indices: Sequence[int]
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """As :meth:`_decoded`; a structure is on a slice when it is on one of the tiles."""
        pieces = StudyInPieces(study, side)
        found = self._decoded(pieces, supports_in_pieces(selection, side), pieces.of_slices(indices))
        logits, presence = (x.reshape(len(indices), side**2, *x.shape[1:]) for x in found)
        return np.stack([pieces.tiles.join(x) for x in logits]), presence.max(1)

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
        if len(selection):
            side = next(side for side, chosen in self._by_side(selection).items() if structure in chosen)
            if side > 1:
                return self._clicked_in_pieces(study, selection.of([structure]), index, points, side)
        return self._clicked(study, selection, index, structure, points)

    def _clicked_in_pieces(
        self, study: Study, selection: Selection, index: int, points: Points, side: int
    ) -> NDArray[np.float16]:
        """Tiles without a click stay as they are."""
        pieces, supports = StudyInPieces(study, side), supports_in_pieces(selection, side)
        logits = self._decoded(pieces, supports, pieces.of_slices([index]))[0]
        for tile, row in enumerate(pieces.of_slices([index])):
            on_it = pieces.points(points, tile)
            if on_it is not None:
                logits[tile, 0] = self._clicked(pieces, supports, row, 0, on_it)
        return pieces.tiles.join(logits)[0]

    def _clicked(
        self, study: Study | StudyInPieces, selection: Selection, index: int, structure: int, points: Points
    ) -> NDArray[np.float16]:
        remembered = self.encoding.memory_key(selection)
        encoding = self.prepare(selection, remembered).only(structure) if len(selection) else None
        target = self.encoding.target(study, [index])

        def compute() -> dict[str, Tensor]:
            coords = self._foundation.to_input(points.coords.to(self.encoding.device), geometry)
            clicks = Points(coords, points.labels.to(self.encoding.device))
            return {"logits": self._segmenter.segment(target, encoding, clicks).mask_logits[0]}

        with self._latencies.of("click"):
            geometry = self._foundation.geometry(study.slice_shape)
            said = (study.slice_hash(index), structure, points.coords, points.labels)
            key = self.encoding.key("clicked", remembered, *said)
            entry = self._cache.get_or_compute(key, selection.tags.union({study.content_hash}), compute)
            logits = self._foundation.postprocess(entry.tensors["logits"][None].to(self.encoding.device), geometry)
            return logits[0, 0].half().cpu().numpy()

    def _decode(
        self, study: Study | StudyInPieces, indices: Sequence[int], encoding: SupportEncoding
    ) -> dict[str, Tensor]:
        """What the decoder says of some slices: logits (n, N, S/4, S/4) float16, presence (n, N) probabilities."""
        logits, presence = [], []
        step = self._slices_at_once(encoding.values.shape[1])
        for start in range(0, len(indices), step):
            advance(start, len(indices))
            target = self.encoding.target(study, indices[start : start + step])
            with self._latencies.of("decode"):
                decoded = self._segmenter.segment(target, encoding)
                logits.append(decoded.mask_logits.half().cpu())
                presence.append(decoded.presence_logit.float().sigmoid().cpu())
        advance(len(indices), len(indices))
        return {"logits": torch.cat(logits), "presence": torch.cat(presence)}

    @torch.inference_mode()
    def prepare(self, selection: Selection, key: str | None = None) -> SupportEncoding:
        """All that depends on the supports only, from the cache or into it.

        Args:
            selection: the supports.
            key: :meth:`memory_key`, where it is known already.

        Returns:
            What targets are segmented with.
        """
        key = key or self.encoding.memory_key(selection)
        return self.encoding.encode_support(selection, key, lambda: self.encoding.supports(selection))

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
