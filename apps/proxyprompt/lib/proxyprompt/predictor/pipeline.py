"""From a target and its supports to masks on the target's slices. Knows no server and no files.

Everything that is computed from pixels and weights goes through the content cache: the features of a slice (a target
today is a support tomorrow), the context of each support image with each mask, the memory of a whole support set, and
what the decoder said of each target. Another structure or another support then costs only the decoding, a click only
that of the clicked slice, and the same request again nothing.

Axes: ``Z`` target slices of (h, w), ``K`` support slices, ``N`` structures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from proxyprompt.extensions import ALL, Extensions
from proxyprompt.extensions.pieces import tiles_along_a_side
from proxyprompt.foundation.base import Features, Points
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import Study
from proxyprompt.prompt_generator.contextual_selection import SupportEncoding
from proxyprompt.settings import AUTO, MODES, NEIGHBOURS, PROPAGATE, SLICE_BY_SLICE
from proxyprompt.supports.corrections import Corrections, with_corrections
from proxyprompt.supports.selection import Selection

from .encoding import Encoding
from .latency import Latencies
from .masks import PRESENT, SURE, Alone, Masks, mean_dice, most_shown, placed, searched
from .pieces import StudyInPieces, supports_in_pieces
from .progress import advance
from .propagation import Propagation, with_neighbours
from .segmenter import Segmenter
from .stream import Stream

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
        presence = np.zeros((len(indices), structures), np.float32)
        if not len(selection):
            return Masks(logits, presence, presence + 1, (None,) * structures)
        sides = np.ones(structures, int)
        for side, chosen in self._by_side(selection).items():
            some = selection.of(chosen)
            if side == 1:
                found = self._in_whole_view(study, some, indices, mode, corrections)
            else:
                found = self._in_pieces(side, study, some, indices, mode)
            logits[:, chosen], presence[:, chosen] = found
            sides[chosen] = side
        where = np.ones(presence.shape) if everywhere else placed(study, selection, indices)
        masks = Masks(logits, presence, where, (None,) * structures, tuple(sides.tolist()), mode)
        masks = masks.keep(corrections, selection.structures, indices)
        if clean:
            masks = masks.cleaned(selection, volume=study.kind == "volume" and len(indices) == len(study))
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

    def _in_whole_view(
        self, study: Study, selection: Selection, indices: Sequence[int], mode: str, corrections: Corrections
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Logits (n, N, h, w) and presence (n, N) of some slices."""
        small = self._decoded(study, selection, indices, passes=1 + (mode == PROPAGATE))
        if mode == PROPAGATE:
            small = self._propagated(study, small, selection, corrections)
        if mode != SLICE_BY_SLICE:
            small = {name: with_neighbours(tensor) for name, tensor in small.items()}
        return self._enlarged(small["logits"], study), small["presence"].numpy()

    def _in_pieces(
        self, side: int, study: Study, selection: Selection, indices: Sequence[int], mode: str
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """The same, tile by tile; a structure is on a slice when it is on one of the tiles. Memory knows no tiles."""
        pieces = StudyInPieces(study, side)
        small = self._decoded(pieces, supports_in_pieces(selection, side), pieces.of_slices(indices))
        small = {name: tensor.unflatten(0, (len(indices), side**2)) for name, tensor in small.items()}
        if mode != SLICE_BY_SLICE:
            small = {name: with_neighbours(tensor) for name, tensor in small.items()}
        logits = np.stack([pieces.tiles.join(self._enlarged(each, pieces)) for each in small["logits"]])
        return logits, small["presence"].amax(1).numpy()

    def _enlarged(self, small: Tensor, study: Study | StudyInPieces) -> NDArray[np.float16]:
        """(n, N, s, s) as the decoder gives them -> (n, N, h, w)."""
        logits = np.zeros((*small.shape[:2], *study.slice_shape), np.float16)
        with self._latencies.of("decode"):
            geometry = self._foundation.geometry(study.slice_shape)
            for z, each in enumerate(small):
                large = self._foundation.postprocess(each[None].to(self.encoding.device), geometry)
                logits[z] = large[0].half().cpu().numpy()
        return logits

    @torch.inference_mode()
    def click(
        self,
        study: Study,
        selection: Selection,
        index: int,
        structure: int,
        points: Points | None,
        box: Tensor | None = None,
        *,
        corrections: Corrections = MappingProxyType({}),
    ) -> NDArray[np.float16]:
        """One structure on one slice, prompted by its supports and by clicks or a box; without supports by these alone.

        Args:
            study: the target.
            selection: the supports.
            index: of the slice.
            structure: which of the N.
            points: coords (1, 1, P, 2) as (x, y) in pixels of the slice.
            box: (1, 1, 4) as x0, y0, x1, y1 in pixels of the slice.
            corrections: as for :meth:`run`.

        Returns:
            (h, w) logits, not gated.
        """
        selection = with_corrections(selection, study, corrections)
        if len(selection):
            side = next(side for side, chosen in self._by_side(selection).items() if structure in chosen)
            if side > 1:
                return self._clicked_in_pieces(study, selection.of([structure]), index, points, box, side)
        return self._clicked(study, selection, index, structure, points, box)

    def _clicked_in_pieces(
        self, study: Study, selection: Selection, index: int, points: Points | None, box: Tensor | None, side: int
    ) -> NDArray[np.float16]:
        """Tiles on which no click lies and nothing of the box stay as they are."""
        pieces, supports = StudyInPieces(study, side), supports_in_pieces(selection, side)
        logits = self._enlarged(self._decoded(pieces, supports, pieces.of_slices([index]))["logits"], pieces)
        for tile, row in enumerate(pieces.of_slices([index])):
            clicks, part = pieces.points(points, tile), pieces.box(box, tile)
            if clicks is not None or part is not None:
                logits[tile, 0] = self._clicked(pieces, supports, row, 0, clicks, part)
        return pieces.tiles.join(logits)[0]

    def _clicked(
        self,
        study: Study | StudyInPieces,
        selection: Selection,
        index: int,
        structure: int,
        points: Points | None,
        box: Tensor | None,
    ) -> NDArray[np.float16]:
        remembered = self.encoding.memory_key(selection)
        encoding = self.prepare(selection, remembered).only(structure) if len(selection) else None
        target, device = self.encoding.target(study, [index]), self.encoding.device
        refine = self._extensions.refinement and self._foundation.refines

        def compute() -> dict[str, Tensor]:
            clicks, corners = None, None
            if points is not None:
                coords = self._foundation.to_input(points.coords.to(device), geometry)
                clicks = Points(coords, points.labels.to(device))
            if box is not None:
                corners = self._foundation.to_input(box.to(device).unflatten(2, (2, 2)), geometry).flatten(2)
            decoded = self._segmenter.segment(target, encoding, clicks, corners, refine=refine)
            return {"logits": decoded.mask_logits[0]}

        with self._latencies.of("click"):
            geometry = self._foundation.geometry(study.slice_shape)
            said = (study.slice_hash(index), structure, *(points or ()), *(() if box is None else ("box", box)))
            key = self.encoding.key("clicked", remembered, *said, refine)
            entry = self._cache.get_or_compute(key, selection.tags.union({study.content_hash}), compute)
            logits = self._foundation.postprocess(entry.tensors["logits"][None].to(self.encoding.device), geometry)
            return logits[0, 0].half().cpu().numpy()

    @torch.inference_mode()
    def stream(self, selection: Selection, *, smooth: bool = True) -> Stream:
        """Everything that the supports have to give, ready for frames that are still to come.

        Fine structures are looked at in the whole view like all others: pieces would take too long.

        Args:
            selection: the supports.
            smooth: whether the frame before counts.

        Returns:
            What takes the frames, one after the other; nothing of them is kept.
        """
        encoding = self.prepare(selection)

        def decode(image: Tensor) -> tuple[Tensor, Tensor]:
            target = self.encoding.encode(image)
            decoded = self._segmenter.segment(target, encoding)
            return decoded.mask_logits, decoded.presence_logit.sigmoid()

        return Stream(self._foundation, decode, len(selection.structures), smooth=smooth)

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
        self, study: Study | StudyInPieces, selection: Selection, indices: Sequence[int], *, passes: int = 1
    ) -> Mapping[str, Tensor]:
        """What the decoder says of some slices: logits (n, N, s, s) float16, presence (n, N) probabilities."""
        remembered = self.encoding.memory_key(selection)
        encoding = self.prepare(selection, remembered)

        def compute() -> dict[str, Tensor]:
            logits, presence = [], []
            step = self._slices_at_once(encoding.values.shape[1])
            for start in range(0, len(indices), step):
                advance(start, passes * len(indices))
                target = self.encoding.target(study, indices[start : start + step])
                with self._latencies.of("decode"):
                    decoded = self._segmenter.segment(target, encoding)
                    logits.append(decoded.mask_logits.half().cpu())
                    presence.append(decoded.presence_logit.float().sigmoid().cpu())
            advance(len(indices), passes * len(indices))
            return {"logits": torch.cat(logits), "presence": torch.cat(presence)}

        key = self.encoding.key("decoded", study.content_hash, remembered, indices)
        return self._cache.get_or_compute(key, selection.tags.union({study.content_hash}), compute).tensors

    def _propagated(
        self,
        study: Study,
        small: Mapping[str, Tensor],
        selection: Selection,
        corrections: Corrections,
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

        remembered, tags = self.encoding.memory_key(selection), selection.tags.union({study.content_hash})
        key = self.encoding.key("propagated", study.content_hash, remembered, known)
        return self._cache.get_or_compute(key, tags, compute).tensors

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
        laid = self._foundation.postprocess(torch.from_numpy(share).to(self.encoding.device), geometry)[0].clamp(0, 1)
        return (4 * laid * (1 - laid)).amax(dim=0).cpu().numpy()

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
