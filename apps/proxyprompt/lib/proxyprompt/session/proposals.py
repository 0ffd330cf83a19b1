"""What the model proposed for a study, kept until a label of it comes in, to tell what the reader changed.

A label that was accepted as it was proposed holds nothing that the model did not know: trained on, it would only make
the model surer of itself. So every new label is compared with the last proposal for its image.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyprompt.io.files import replacing
from proxyprompt.supports.library import LabelledStudy

logger = logging.getLogger(__name__)

_UNNAMED = re.compile(r"label_\d+")


@dataclass(frozen=True)
class Proposal:
    """What was proposed for an image.

    Attributes:
        labels: (Z, h, w) uint8 on the study's slices.
        names: structure -> its value there.
        made_by: supports, adapter, weights.
        content_hash: of the image that it was made for.
    """

    labels: NDArray[np.uint8]
    names: Mapping[str, int]
    made_by: Mapping[str, Any]
    content_hash: str

    def changed(self, labels: NDArray[np.uint8], structures: Mapping[str, frozenset[int]]) -> int:
        """Voxels on which ``labels`` (Z, h, w) say something else, structure by structure, however each numbers them.

        A label that came without names is compared number by number.
        """
        if all(map(_UNNAMED.fullmatch, structures)):
            return int((labels != self.labels).sum())
        differs = np.zeros(labels.shape, dtype=bool)
        for name in {*self.names, *structures}:
            differs |= self.mask(name) != np.isin(labels, sorted(structures.get(name, ())))
        return int(differs.sum())

    def mask(self, structure: str) -> NDArray[np.bool_]:
        """(Z, h, w) bool, where the structure was proposed; ``label_3`` is number 3."""
        number = int(structure.rpartition("_")[2]) if _UNNAMED.fullmatch(structure) else 0
        value = self.names.get(structure, number)
        return self.labels == value if value else np.zeros(self.labels.shape, bool)


class Proposals:
    """The last proposal for each image, one small file each in ``folder``. Any number of threads may use it."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def keep(self, image_id: str, proposal: Proposal) -> None:
        """Replaces what was kept for this image. A disk that takes no more is logged, no error: the result stands."""
        about = {
            "names": dict(proposal.names),
            "made_by": dict(proposal.made_by),
            "content_hash": proposal.content_hash,
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(image_id)) as beside, beside.open("wb") as file:
                np.savez_compressed(file, labels=proposal.labels, about=np.array(json.dumps(about)))
        except OSError as error:
            logger.warning("the proposal for %s could not be kept: %s", image_id, error)

    def last(self, image_id: str) -> Proposal | None:
        """None where nothing was proposed, or what was kept cannot be read."""
        path = self._path(image_id)
        try:
            with np.load(path, allow_pickle=False) as kept:
                return Proposal(kept["labels"], **json.loads(str(kept["about" if "about" in kept else "told"])))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            logger.warning("dropping the damaged proposal %s: %s", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def note(self, study: LabelledStudy, labels: NDArray[np.uint8]) -> dict[str, Any] | None:
        """What to note with a label that came in: voxels changed from the proposal, and what had made it.

        labels: (Z, h, w) uint8, those of ``study``. None where nothing was proposed for these pixels.
        """
        proposal = self.last(study.id)
        if proposal is None or proposal.content_hash != study.content_hash or proposal.labels.shape != labels.shape:
            return None
        changed = proposal.changed(labels, study.structures)
        note = {"changed_voxels": changed, "accepted_unchanged": not changed, **proposal.made_by}
        return {**note, "label_sha256": study.label_hash}

    def _path(self, image_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(image_id.encode()).hexdigest()[:32]}.npz"
