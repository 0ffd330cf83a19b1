"""What scoring methods note about a study, in the datastore's own info of the image, where every client sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore

from .shared import SharedDatastore

DISAGREEMENT = "support_disagreement"
QUALITY = "support_quality"


def read_note(datastore: Datastore, image_id: str, key: str) -> dict[str, Any]:
    """What was noted under ``key``; empty where nothing was."""
    note = datastore.get_image_info(image_id).get(key)
    return dict(note) if isinstance(note, Mapping) else {}


def write_note(datastore: Datastore, image_id: str, key: str, note: Mapping[str, Any]) -> None:
    """Replace what was noted under ``key``. ImageNotFoundException where the image is gone."""
    datastore.update_image_info(image_id, {key: dict(note)})


def write_notes(datastore: SharedDatastore, key: str, notes: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace what was noted under ``key`` about several images, in one step; those that are gone are left out."""
    datastore.update_image_infos({image_id: {key: dict(note)} for image_id, note in notes.items()})
