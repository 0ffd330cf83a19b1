"""The interactive infer task ``proxyprompt_edit``: supports and clicks in one request.

Every request holds all the clicks so far, so that undo is one click fewer. What was asked for without clicks is
segmented as ever (or comes from the cache); then each clicked structure is decoded once more on each clicked slice,
prompted by its supports and the clicks on it together. Nothing else changes: not the other slices, not the other
structures, whatever else was clicked.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from proxyprompt.errors import as_monailabel
from proxyprompt.io.errors import StudyError
from proxyprompt.io.labels import StructureRegistry, merge
from proxyprompt.io.study import Study
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.masks import Masks
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.requests.clicks import Click, Clicks, as_box, as_points, parse_clicks, split_points, structure_name
from proxyprompt.requests.options import Options
from proxyprompt.supports.corrections import Corrections
from proxyprompt.supports.selection import NoSupport, Selection

from .corrections import lay, obey
from .proxyprompt import ProxyPromptInfer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Structures that were segmented together. alone: why there is no support, where clicks are all there is."""

    selection: Selection
    masks: Masks
    alone: str = ""


class ProxyPromptEdit(ProxyPromptInfer):
    """In-context segmentation that takes clicks; listed where viewers offer points."""

    kind = InferType.DEEPEDIT
    purpose = "Segments a study as labelled studies and your clicks show it."

    def config(self) -> dict[str, Any]:
        """As the plain task; agreement is not asked for at every click."""
        return {**super().config(), "agreement": False}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment one study by supports and clicks.

        The points are those of :mod:`proxyprompt.requests.clicks`, all else as for the plain task. The result holds the
        structure that ``label`` names; else those of ``structure`` and the clicked ones; else all that suit.
        """
        latencies = Latencies()
        registry = self._library.catalogue.registry
        with as_monailabel("interactive segmentation", StudyError), self._library.catalogue.one_look(remote=True):
            said, rest = split_points(request)
            options = self._options(rest, agreement=False)
            segmenter = self._models.get(options.adapter)
            image, label = request["image"], rest.get("label") or None
            label = label and structure_name(str(label), registry)
            with latencies.of("read"):
                study = self._read(image)
            clicks = parse_clicks(said, study, label=label or _single(options.structures), registry=registry)
            pipeline = self._pipeline(segmenter, latencies)
            corrections = self._corrections(study, image, options)
            parts = []
            for selection, alone in self._selections(study, image, options, clicks, label, latencies):
                masks = self._segment(pipeline, study, selection, options, corrections)
                parts.append(Part(selection, masks, alone))
            edited = Edited(study, parts, clicks, registry, corrections)
            edited.apply(pipeline)
            names = {label} if label else {*(options.structures or ()), *edited.clicks.structures()}
            with latencies.of("write"):
                labels = edited.only(names)
                path = self._write(study, labels, options)
            answer = self._answer(segmenter, study, [(p.selection, p.masks) for p in edited.parts], labels, names)
            answer["clicks"] = edited.report()
            answer["corrected"] = sorted(corrections)
            answer["warnings"] += [
                f"{p.selection.structures[0]}: segmented by clicks alone, without a support: {p.alone}"
                for p in parts
                if p.alone
            ]
            self._propose(image, study, edited.proposed, {**answer, "label_names": edited.ids})
            answer["latencies"] = latencies.report()
            logger.info("%s: %d clicks in %s", image, len(clicks), answer["latencies"])
            return str(path), answer

    def _selections(
        self,
        study: Study,
        image: str | Path,
        options: Options,
        clicks: Clicks,
        label: str | None,
        latencies: Latencies,
    ) -> list[tuple[Selection, str]]:
        """Supports for what is asked for as if without clicks, and for each further structure that is clicked.

        Beside each, why there is none, where there is none: a clicked structure can do without.
        """
        found: list[tuple[Selection, str]] = []
        with latencies.of("support"):
            try:
                found.append((self._choose(study, image, options, options.structures), ""))
            except NoSupport:
                if not clicks.structures() or set(options.structures or ()) - set(clicks.structures()):
                    raise
            known = {name for selection, _ in found for name in selection.structures}
            for name in dict.fromkeys((*clicks.structures(), *([label] if label else []))):
                if name in known:
                    continue
                try:
                    found.append((self._choose(study, image, options, (name,)), ""))
                except NoSupport as none:
                    if name not in clicks.structures():
                        raise
                    found.append((Selection.empty((name,)), str(none)))
        return found


class Edited:
    """The label map of a study while clicks are applied to it.

    labels: (Z, h, w) uint8 registry ids. proposed: the same as it was without clicks. ids: of all its structures.
    parts: as segmented without clicks; a slice on which a structure was clicked counts as showing it. clicks: with
    those in no structure at all given to the structures they speak about.
    """

    def __init__(
        self,
        study: Study,
        parts: Sequence[Part],
        clicks: Clicks,
        registry: StructureRegistry,
        corrections: Corrections = MappingProxyType({}),
    ) -> None:
        self._study, self._registry, self._corrections = study, registry, corrections
        self.parts = list(parts)
        self._place = {name: (p, n) for p, part in enumerate(parts) for n, name in enumerate(part.selection.structures)}
        self._layers = {name: parts[p].masks.gated(n) for name, (p, n) in self._place.items()}
        self.ids = {name: registry.id_of(name) for name in self._place}
        self.proposed = merge(self._layers, registry)
        self.labels = self.proposed.copy()
        about = {name: given for name in self._place if (given := self._about(name, clicks))}
        self.clicks = Clicks(about, boxes=clicks.boxes)
        self._enforced = dict.fromkeys(self.clicks.structures(), 0)

    def _about(self, name: str, clicks: Clicks) -> tuple[Click, ...]:
        """The clicks on a structure. A point that is in nothing speaks about what is drawn on it, or clicked beside."""
        own = clicks.of.get(name, ())
        slices = {c.slice for c in own if c.inside} | {c.slice for c in clicks.nothing if self._drawn(name, c)}
        return (*own, *(c for c in clicks.nothing if c.slice in slices and c not in own))

    def _drawn(self, name: str, click: Click) -> bool:
        return bool(self._layers[name][click.slice, click.row, click.column] > 0)

    def apply(self, pipeline: Pipeline) -> None:
        """Decode every clicked structure on every slice where it was clicked, and lay it into the label map."""
        for name in self.clicks.structures():
            for index in self.clicks.slices(name):
                self._apply(name, index, pipeline)

    def _apply(self, name: str, index: int, pipeline: Pipeline) -> None:
        given, box = self.clicks.on(name, index), self.clicks.box(name, index)
        inside = box is not None or any(click.inside for click in given)
        if not inside and not any(self._drawn(name, click) for click in given):
            return  # nothing is there to be taken away
        p, n = self._place[name]
        part = self.parts[p]
        prompts = as_points(given), as_box(box)
        made = pipeline.click(self._study, part.selection, index, n, *prompts, corrections=self._corrections)
        logits, enforced = obey(made, given, box)
        self._layers[name][index] = logits
        self._enforced[name] += enforced
        if inside:
            presence = part.masks.presence.copy()
            presence[index, n] = 1.0
            self.parts[p] = replace(part, masks=replace(part.masks, presence=presence))
        layers = {other: masks[index] for other, masks in self._layers.items()}
        on_slice = {other: self.clicks.on(other, index) for other in self.clicks.structures()}
        self.labels[index] = lay(self.labels[index], layers, name, on_slice, self._registry)

    def only(self, names: Collection[str]) -> NDArray[np.uint8]:
        """(Z, h, w): the label map with these structures alone; with all for no name."""
        wanted = [self.ids[name] for name in names or self.ids]
        return np.where(np.isin(self.labels, wanted), self.labels, 0).astype(np.uint8)

    def report(self) -> dict[str, dict[str, Any]]:
        """For the answer.

        Returns:
            By structure the clicks inside and outside, its boxes, the slices they lie on, and how many of the clicks
            the decoder did not obey by itself.
        """
        return {
            name: {
                "inside": sum(click.inside for click in self.clicks.of.get(name, ())),
                "outside": sum(not click.inside for click in self.clicks.of.get(name, ())),
                "boxes": len(self.clicks.boxes.get(name, ())),
                "slices": self.clicks.slices(name),
                "enforced": self._enforced[name],
            }
            for name in self.clicks.structures()
        }


def _single(names: Sequence[str] | None) -> str | None:
    return names[0] if names is not None and len(names) == 1 else None
