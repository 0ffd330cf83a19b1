"""The scoring method ``support_quality``: how well does each labelled study segment the other labelled ones?

Leave-one-out: a label that is shifted, swapped or belongs to another image leads astray whatever it prompts. It is
flagged before it spreads: the work list shows it, and the answer warns where it was used. What results are made of
changes only when a person has seen the flag and leaves the label out.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.scoring import ScoringMethod

from proxyprompt.datastores.notes import QUALITY, read_note, write_notes
from proxyprompt.datastores.shared import SharedDatastore
from proxyprompt.infers.models import Models
from proxyprompt.io.cache import ContentCache, content_key
from proxyprompt.io.errors import StudyError
from proxyprompt.metrics.segmentation import overlap
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.supports.library import LabelledStudy
from proxyprompt.supports.support import SupportLibrary

from .disagreement import seconds_of

logger = logging.getLogger(__name__)

TARGETS = 6
"""Other labelled studies that each one is tried on."""
FEWEST = 4
"""Studies with a structure below which nobody can say who is the odd one out."""
STRUCTURES = 8
"""Most of a study that are tried, the largest ones: a photograph that was stored as a label has 255."""
MARGIN, SPREADS = 0.15, 3.0
"""A label is flagged when its Dice is below the median of all by more than both: this, and so many robust standard
deviations (1.4826 times the median absolute deviation)."""


class SupportQuality(ScoringMethod):
    """Leave-one-out Dice of each labelled study as the only support of others, in the image's info, and flags.

    A study is tried again only when its label, the weights or those that it is tried on change. pause: called before
    each study, may wait.
    """

    def __init__(
        self,
        *,
        models: Models,
        library: SupportLibrary,
        cache: ContentCache,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("How well each labelled study, as a support, segments the other labelled ones")
        self._models, self._library, self._cache, self._pause = models, library, cache, pause

    def __call__(self, request: Mapping[str, Any], datastore: SharedDatastore) -> dict[str, Any]:
        """Try what was not tried yet. request: "seconds", the most it may take.

        Returns how many studies there are, were tried now, remain, and what is flagged: id -> structures.
        """
        limit = time.monotonic() + seconds_of(request)
        segmenter = self._models.get()
        labelled = self._library.studies()
        notes, tried, remaining = {}, 0, 0
        for study in labelled.values():
            others = _targets(study, labelled.values())
            state = content_key(segmenter.weights_sha256, [[s.content_hash, s.label_hash] for s in (study, *others)])
            notes[study.id] = old = read_note(datastore, study.id, QUALITY)
            if old.get("state") == state:
                continue
            if time.monotonic() > limit:
                remaining += 1
                continue
            self._pause()
            dice = self._try(study, others, segmenter)
            notes[study.id] = {"state": state, "label": study.label_hash, "dice": dice, "ts": int(time.time())}
            if old.get("label") == study.label_hash and "decision" in old:  # it is about this label
                notes[study.id]["decision"] = old["decision"]
            tried += 1
        flags = flagged({study_id: note.get("dice", {}) for study_id, note in notes.items()})
        new = {study_id: {**note, "flagged": flags.get(study_id, [])} for study_id, note in notes.items() if note}
        changed = {i: note for i, note in new.items() if note != read_note(datastore, i, QUALITY)}
        if changed:
            write_notes(datastore, QUALITY, changed)
        summary = {"total": len(labelled), "scored": tried, "remaining": remaining, "flagged": flags}
        logger.info("support_quality: %s", summary)
        return summary

    def _try(self, study: LabelledStudy, others: list[LabelledStudy], segmenter: Segmenter) -> dict[str, float]:
        """Structure -> median over the others of the Dice on the slice that shows most of it."""
        pipeline = Pipeline(segmenter, self._cache, Latencies())
        dice: dict[str, list[float]] = {}
        for other in others:
            shared = heapq.nlargest(STRUCTURES, _shared(study, other), key=lambda name: int(study.area(name).sum()))
            try:
                target = self._library.open(other.id)
                selection = self._library.choose(target, other.id, shared, support=study.id, count=1)
                truth = target.read_label(other.label_path)
            except (StudyError, OSError) as error:
                logger.warning("support_quality: %s is not tried on %s: %s", study.id, other.id, error)
                continue
            slices = [int(other.area(name).argmax()) for name in selection.structures]
            masks = pipeline.run(target, selection, indices=slices, agreement=False)
            for n, name in enumerate(selection.structures):
                drawn = masks.gated(n)[n] > 0
                dice.setdefault(name, []).append(overlap(drawn, other.mask(truth[slices[n]], name)).dice)
        return {name: round(float(np.median(values)), 4) for name, values in dice.items()}


def flagged(dice: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """dice: study -> structure -> Dice as support. Returns study -> structures in which it falls out of the row."""
    found: dict[str, list[str]] = {}
    for name in sorted({name for scores in dice.values() for name in scores}):
        scores = {study: values[name] for study, values in dice.items() if name in values}
        if len(scores) < FEWEST:
            continue
        median = np.median(list(scores.values()))
        spread = 1.4826 * np.median(np.abs(np.array(list(scores.values())) - median))
        for study, value in scores.items():
            if value < median - max(MARGIN, SPREADS * spread):
                found.setdefault(study, []).append(name)
    return found


def _targets(study: LabelledStudy, labelled: Iterable[LabelledStudy]) -> list[LabelledStudy]:
    """The same few others for as long as they are there, whatever else is labelled."""
    others = [s for s in labelled if s.id != study.id and s.plane == study.plane and _shared(study, s)]
    return heapq.nsmallest(
        TARGETS, others, key=lambda s: hashlib.sha256(f"{study.content_hash}{s.content_hash}".encode()).digest()
    )


def _shared(study: LabelledStudy, other: LabelledStudy) -> list[str]:
    return [name for name in study.present() if name in other.present()]
