"""Which study to label next."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from proxyprompt.datastores.notes import DISAGREEMENT, read_note
from proxyprompt.supports.support import SupportLibrary

from .coverage import gains

logger = logging.getLogger(__name__)

RECENTLY = 24 * 3600.0
"""Seconds for which a study that was proposed counts as being labelled by somebody."""


class FirstUnlabelled(Strategy):
    """The first study, by name, that has no final label."""

    def __init__(self) -> None:
        super().__init__("First unlabelled study by name")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The first study without a label, as MONAI Label asks; None where there is none."""
        waiting = _waiting(datastore)
        return {"id": waiting[0]} if waiting else None


class RandomUnlabelled(Strategy):
    """Any study without a final label, least recently proposed first, so that pressing "next" again moves on."""

    def __init__(self) -> None:
        super().__init__("Random unlabelled study")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """A study without a label, as MONAI Label asks; None where there is none."""
        proposed = {image_id: _proposed(datastore, image_id) for image_id in _waiting(datastore)}
        if not proposed:
            return None
        oldest = min(proposed.values())
        return {"id": random.choice([image_id for image_id, ts in proposed.items() if ts == oldest])}


class MostDisagreement(Strategy):
    """The study whose label would help most.

    The supports of today disagree on it (``support_disagreement``), and it is unlike what is labelled or was proposed
    within a day. While nothing is scored, a random one.
    """

    def __init__(self, library: SupportLibrary) -> None:
        super().__init__("Where supports disagree, unlike what is labelled already")
        self._library, self._random = library, RandomUnlabelled()

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """That study, as MONAI Label asks; None where there is none."""
        now = time.time()
        scores, rows, covered = {}, {}, []
        for image_id in _waiting(datastore):
            note = read_note(datastore, image_id, DISAGREEMENT)
            row = self._library.describe(note["content"]) if "score" in note else None
            if row is None:
                continue
            if now - _proposed(datastore, image_id) < RECENTLY:
                covered.append(row)
            else:
                scores[image_id], rows[image_id] = note["score"], row
        if not scores:
            return self._random(request, datastore)
        labelled = (self._library.describe(study.content_hash) for study in self._library.studies().values())
        covered += [row for row in labelled if row is not None]
        waiting = np.stack(list(rows.values()))
        gain = gains(np.array(list(scores.values())), waiting, np.array(covered).reshape(-1, waiting.shape[1]))
        best = list(scores)[int(gain.argmax())]
        logger.info("next sample: %s, supports disagree by %.3f, gain %.3f", best, scores[best], gain.max())
        return {"id": best, DISAGREEMENT: scores[best], "gain": round(float(gain.max()), 4)}


class Chosen(Strategy):
    """One of ``strategies``, under the name that viewers ask for: their button knows no other."""

    def __init__(self, strategies: Mapping[str, Strategy], name: str) -> None:
        self._strategy = strategies[name]
        super().__init__(f"{self._strategy.description} (--conf next_sample {name})")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """What the chosen strategy proposes."""
        return self._strategy(request, datastore)


def _waiting(datastore: Datastore) -> list[str]:
    """By name, the studies without a final label."""
    return sorted(set(datastore.get_unlabeled_images()))


def _proposed(datastore: Datastore, image_id: str) -> float:
    """When a study was proposed last, by whatever strategy; seconds since 1970, 0 for never."""
    noted = datastore.get_image_info(image_id).get("strategy") or {}
    return max((entry.get("ts", 0) for entry in noted.values()), default=0)
