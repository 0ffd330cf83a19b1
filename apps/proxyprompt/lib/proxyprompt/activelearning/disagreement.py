"""The scoring method ``support_disagreement``: on which unlabelled studies do the supports contradict each other?

Each of several supports segments the study alone. Where they draw different things, or are of different minds about
whether a structure is there at all, a label of this study teaches most.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import combinations
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from numpy.typing import NDArray

from proxyprompt.datastores.notes import DISAGREEMENT, read_note, write_note
from proxyprompt.errors import refuse
from proxyprompt.infers.models import Models
from proxyprompt.io.cache import ContentCache, content_key
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.masks import Alone, mean_dice
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.supports.ranking import evenly
from proxyprompt.supports.support import SupportLibrary

logger = logging.getLogger(__name__)

SECONDS = 600.0
"""After which a run stops, unless the request says otherwise; the next one goes on from there."""
SLICES = 8
"""Of a volume: enough to see a disagreement, few enough for a CPU."""
_LOG_SECONDS = 10.0


class SupportDisagreement(ScoringMethod):
    """Scores every unlabelled study from 0 (all supports draw the same) to 1, in the image's info.

    A score stands as long as the very supports, the weights and the pixels that it came from: a new label costs a new
    score only where it is among the most similar ones. pause: called before each study, may wait.
    """

    def __init__(
        self,
        *,
        models: Models,
        library: SupportLibrary,
        cache: ContentCache,
        supports: int = 4,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("How far several supports disagree on each unlabelled study")
        self._models, self._library, self._cache, self._pause = models, library, cache, pause
        self._supports = max(2, supports)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what is not scored yet or no longer right. request: "seconds", the most it may take.

        Returns how many studies there are, were scored now, and remain.
        """
        limit = time.monotonic() + seconds_of(request)
        segmenter = self._models.get()
        pool = self._pool(segmenter)
        waiting = sorted(set(datastore.get_unlabeled_images()))
        notes = {image_id: read_note(datastore, image_id, DISAGREEMENT) for image_id in waiting}
        stale = [image_id for image_id in waiting if notes[image_id].get("pool") != pool]
        stale.sort(key=lambda image_id: "score" in notes[image_id])  # those without any score first
        done, said = 0, time.monotonic()
        for image_id in stale:
            if time.monotonic() > limit:
                break
            self._pause()
            try:
                note = self._note(image_id, notes[image_id], segmenter, pool)
            except Exception as error:  # one bad study must not keep the others from their scores
                logger.warning("support_disagreement: %s cannot be scored: %s", image_id, error)
                note = {"pool": pool, "error": str(error)}
            with suppress(ImageNotFoundException):  # it may be gone by now
                write_note(datastore, image_id, DISAGREEMENT, note)
            done += 1
            if time.monotonic() - said > _LOG_SECONDS:
                said = time.monotonic()
                logger.info("support_disagreement: %d of %d studies", done, len(stale))
        summary = {"total": len(waiting), "scored": done, "remaining": len(stale) - done}
        logger.info("support_disagreement: %s", summary)
        return summary

    def _pool(self, segmenter: Segmenter) -> str:
        """Everything that any score depends on beside the study itself."""
        labelled = sorted((s.content_hash, s.label_hash) for s in self._library.studies().values())
        return content_key(segmenter.weights_sha256, self._supports, labelled)

    def _note(self, image_id: str, old: Mapping[str, Any], segmenter: Segmenter, pool: str) -> dict[str, Any]:
        study = self._library.open(image_id)
        selection = self._library.choose(study, image_id, count=self._supports)
        pipeline = Pipeline(segmenter, self._cache, Latencies())
        state = content_key(study.content_hash, pipeline.encoding.memory_key(selection))
        if old.get("state") == state:
            return {**old, "pool": pool}
        found = disagreement(pipeline.alone(study, selection, evenly(range(len(study)), SLICES)))
        note = {"pool": pool, "state": state, "content": study.content_hash, "ts": int(time.time())}
        if found:
            note["score"] = round(float(np.mean(list(found.values()))), 4)
            note["structures"] = {selection.structures[n]: round(value, 4) for n, value in found.items()}
        return note


def seconds_of(request: Mapping[str, Any]) -> float:
    """The time that a scoring request allows; MONAILabelException (bad input) when it is none."""
    given = request.get("seconds")
    try:
        seconds = SECONDS if given in (None, "") else float(given)
    except (TypeError, ValueError):
        seconds = -1.0
    if not seconds > 0:
        raise refuse(f"seconds {given!r} is not a time above 0")
    return seconds


def disagreement(drawn: Iterable[Alone]) -> dict[int, float]:
    """How far supports disagree.

    Args:
        drawn: what each support by itself says.

    Returns:
        Structure -> 0 to 1: the mean of how far the masks differ (1 - Dice, over all pairs of supports and all slices
        at once), and of how far the probabilities differ that the structure is there at all.
    """
    masks: dict[int, list[NDArray[np.bool_]]] = defaultdict(list)
    presence: dict[int, list[NDArray[np.float32]]] = defaultdict(list)
    for one in drawn:
        masks[one.structure].append(one.masks)
        presence[one.structure].append(one.presence)
    return {
        n: (
            1
            - (mean_dice(masks[n]) or 0.0)
            + float(np.mean([abs(a - b).mean() for a, b in combinations(presence[n], 2)]))
        )
        / 2
        for n in sorted(masks)
    }
