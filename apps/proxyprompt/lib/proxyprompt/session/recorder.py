"""Notes in the journal what the session report needs to know."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyprompt.io.errors import StudyError
from proxyprompt.supports.library import LabelledStudy
from proxyprompt.supports.support import SupportLibrary

from .journal import LABEL, PROPOSAL, Journal
from .proposals import Proposal, Proposals

logger = logging.getLogger(__name__)


class Recorder:
    """proposals: the last proposal for each study, which a new label is compared with."""

    def __init__(self, journal: Journal, library: SupportLibrary, proposals: Proposals) -> None:
        self.journal, self._library, self._proposals = journal, library, proposals

    def proposal(self, image_id: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """After an inference of a study of the datastore."""
        start, end = answer["busy"]
        clicks = {name: made["inside"] + made["outside"] for name, made in answer.get("clicks", {}).items()}
        self.journal.write(
            PROPOSAL,
            image=image_id,
            model=request["model"],
            user=request.get("client_id"),
            structures={name: found["slices"] for name, found in answer["structures"].items()},
            supports=list(dict.fromkeys(used["id"] for used in answer["supports"])),
            clicks=clicks,
            adapter=answer["adapter"],
            seconds=round(end - start, 3),
        )

    def label(self, image_id: str) -> None:
        """After a final label of a study came in. One that the library cannot use is not noted."""
        study = self._library.studies().get(image_id)
        if study is None:
            return
        try:
            labels = self._library.open(image_id).read_label(study.label_path)
        except (StudyError, OSError) as error:
            logger.warning("label of %s: not noted in the journal: %s", image_id, error)
            return
        proposal = self._proposals.last(image_id)
        if proposal is not None and proposal.content_hash != study.content_hash:
            proposal = None
        self.journal.write(
            LABEL,
            image=image_id,
            sha256=study.label_hash,
            proposed=proposal is not None,
            structures={name: changes(study, labels, name, proposal) for name in study.structures},
        )


def changes(
    study: LabelledStudy, labels: NDArray[np.uint8], structure: str, proposal: Proposal | None
) -> dict[str, int]:
    """How a label (Z, h, w) differs from what had been proposed, for one structure.

    slices: those on which the label or the proposal has it; unchanged: of these, the ones that were accepted as they
    were; voxels: that it has in the label; changed: that are in one of the two and not in the other. Where nothing was
    proposed, everything is changed.
    """
    final = study.mask(labels, structure)
    proposed = np.zeros_like(final) if proposal is None else proposal.mask(structure)
    differs = (final ^ proposed).sum(axis=(1, 2))
    touched = (final | proposed).any(axis=(1, 2))
    return {
        "slices": int(touched.sum()),
        "unchanged": int((touched & (differs == 0)).sum()),
        "voxels": int(final.sum()),
        "changed": int(differs.sum()),
    }
