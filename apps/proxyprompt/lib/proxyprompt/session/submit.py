"""What happens when a label comes in: it is a support from now on, and what it changed of the proposal is noted."""

from __future__ import annotations

import logging
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from proxyprompt.io.errors import StudyError
from proxyprompt.supports.library import NOTE
from proxyprompt.supports.support import SupportLibrary

from .proposals import Proposals

logger = logging.getLogger(__name__)

_FINAL = DefaultLabelTag.FINAL.value


def take_in(image_id: str, *, datastore: Datastore, library: SupportLibrary, proposals: Proposals) -> dict[str, Any]:
    """Follow the final label of a study that was just saved; any number of times for one label.

    Returns the note that stands in the label's info now, empty where nothing had been proposed, or where the label
    cannot be used (the library says why). Never fails: the label is saved already.
    """
    try:
        library.refresh()
        study = library.studies().get(image_id)
        if study is None:
            return {}
        noted = datastore.get_label_info(image_id, _FINAL).get(NOTE) or {}
        if noted.get("label_sha256") == study.label_hash:
            return noted
        note = proposals.note(study, library.open(image_id).read_label(study.label_path))
        if note is None:
            return {}
        datastore.update_label_info(image_id, _FINAL, {NOTE: note})
        library.refresh()
    except (StudyError, OSError) as error:
        logger.warning("label of %s: what it changed of the proposal cannot be told: %s", image_id, error)
        return {}
    logger.info("label of %s: %d voxels changed from the proposal", image_id, note["changed_voxels"])
    return note
