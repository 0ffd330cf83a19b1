"""The list of studies, ``datastore_v2.json``, as it may be found: empty, cut short, or edited by hand."""

from __future__ import annotations

import json
from typing import Any

from monailabel.datastore.local import ImageLabelModel, LocalDatastoreModel

from proxyprompt.io.names import why_unusable

_OF_THE_LIST = {"name", "description", "images_dir", "labels_dir"}


def parse_list(text: bytes, before: LocalDatastoreModel) -> tuple[LocalDatastoreModel, list[str]]:
    """Read a list of studies as far as it can be understood.

    Args:
        text: of the file.
        before: the list that counts where nothing can be understood, and for what the text does not say.

    Returns:
        The list, and what of the text is damaged, in words; nothing where it is whole. Studies whose names the rule for
        names does not allow (there was none once) are left out and are no damage.
    """
    try:
        given = json.loads(text, parse_constant=lambda constant: None)
        entries = dict(given.pop("objects", {}))
        plain = before.model_dump(include=_OF_THE_LIST)
        found = LocalDatastoreModel.model_validate({**plain, **given})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return before, [str(error).splitlines()[0]]
    damaged = []
    for image_id, entry in entries.items():
        if why_unusable(image_id):
            continue
        try:
            found.objects[image_id] = _parsed(entry)
        except ValueError as error:
            damaged.append(f"{image_id}: {str(error).splitlines()[-1].strip()}")
    found.base_path = before.base_path
    return found, damaged


def _parsed(entry: Any) -> ImageLabelModel:
    """One study; ValueError for what is none, and for one that leads out of its folder."""
    study = ImageLabelModel.model_validate(entry)
    for data in (study.image, *study.labels.values()):
        if ".." in data.ext.split("/") or "\\" in data.ext or "\0" in data.ext:
            raise ValueError(f"the suffix {data.ext!r} leads out of the folder")
    if unusable := [tag for tag in study.labels if why_unusable(tag)]:
        raise ValueError(f"{unusable[0]!r} is no tag")
    return study
