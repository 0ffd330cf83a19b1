"""The files that are, or were, the labels of a study: one counts, the others are history, and none comes back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from proxyprompt.io.files import stamp, write_json

from .versions import LabelVersion, moment, names_in, writer_of

HISTORY = ".history"
"""The folder beside those of the tags; hidden ones are no tags."""
_STAMP = re.compile(r"\.(\d{8}T\d{6})\d*Z")
_INFO = ".info"  # the folder in the history for what was noted with its labels
_SEG = ".seg"  # of 3D Slicer's segmentations, between name and suffix


class LabelVersions(LocalDatastore):
    """A :class:`LocalDatastore` that knows every file of a label. Callers have their turn already."""

    def _label_id(self, file: str) -> str:
        """Whose label a file in a folder of labels is: the study of its name, or of what is before ``.seg`` in it."""
        name = self._to_id(file)[0]
        shorter = name.removesuffix(_SEG)
        return shorter if name not in self._datastore.objects and shorter in self._datastore.objects else name

    def _label_files(self, image_id: str, tag: str) -> list[Path]:
        """Every file that is, or was, the label of a study."""
        folder, known = Path(self._datastore.label_path(tag)), self._datastore.label(image_id, tag)
        found = {path for path in files_of(folder) if self._label_id(path.name) == image_id}
        if known is not None:
            found |= {folder / self._filename(image_id, known.ext)}
        return sorted(path for path in found if os.path.lexists(path))

    def _keep(self, path: Path, image_id: str, tag: str) -> None:
        """Put a second name of a label's file into the history. Not of proposals: the model can make them again."""
        if tag == DefaultLabelTag.ORIGINAL.value:
            return
        suffix = path.name.removeprefix(image_id)
        kept = Path(self._datastore.label_path(None)) / HISTORY / tag / f"{image_id}.{stamp()}{suffix}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            kept.hardlink_to(path)
        except OSError:  # not every file system has them
            shutil.copy2(path, kept)
        known = self._datastore.label(image_id, tag)
        if known is not None and path.name == self._filename(image_id, known.ext):
            noted = _info_of(kept)
            noted.parent.mkdir(parents=True, exist_ok=True)
            write_json(noted, known.info, default=str)

    def _earlier_labels(self, image_id: str, tag: str) -> list[Path]:
        """What the history holds of a study's label, the newest first."""
        of_this = re.compile(re.escape(image_id) + _STAMP.pattern + r".*")
        folder = Path(self._datastore.label_path(None)) / HISTORY / tag
        found = [path for path in files_of(folder) if of_this.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.name, reverse=True)

    def _current_label(self, image_id: str, tag: str) -> tuple[Path, Mapping[str, Any]] | None:
        known = self._datastore.label(image_id, tag)
        path = None if known is None else Path(self._datastore.label_path(tag)) / self._filename(image_id, known.ext)
        return None if known is None or path is None or not path.is_file() else (path, known.info)

    def _delete_label(self, image_id: str, tag: str) -> None:
        for path in self._label_files(image_id, tag):
            delete(path)
        for path in self._earlier_labels(image_id, tag):
            delete(_info_of(path))
            delete(path)


def current_version(path: Path, info: Mapping[str, Any]) -> LabelVersion:
    """The label that counts.

    Args:
        path: its file.
        info: what is noted with it.

    Returns:
        What is known of it; its version is made of the bytes of the file.
    """
    when = info.get("ts") if isinstance(info.get("ts"), int | float) else path.stat().st_mtime
    return LabelVersion(_digest(path), writer_of(info), moment(float(when or 0)), names_in(info), current=True)


def earlier_version(path: Path) -> LabelVersion:
    """A label of the history.

    Args:
        path: its file there.

    Returns:
        What is known of it.
    """
    info = kept_info(path)
    when = info.get("ts")
    if not isinstance(when, int | float):  # when it was replaced is all that its name tells
        found = _STAMP.search(path.name)
        when = datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp() if found else 0.0
    return LabelVersion(earlier_name(path), writer_of(info), moment(float(when)), names_in(info))


def earlier_name(path: Path) -> str:
    """What a label of the history is called: by its bytes, and the time in its name, since it may be there twice.

    Args:
        path: its file there.

    Returns:
        A version.
    """
    found = _STAMP.search(path.name)
    return f"{_digest(path)}-{found[0].strip('.') if found else ''}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _info_of(kept: Path) -> Path:
    return kept.parent.with_name(_INFO) / kept.parent.name / f"{kept.name}.json"


def kept_suffix(kept: Path, image_id: str) -> str:
    """The suffix that a label had before it went to the history.

    Args:
        kept: its file there.
        image_id: of its study.

    Returns:
        The suffix.
    """
    return _STAMP.sub("", kept.name.removeprefix(image_id), count=1)


def kept_info(kept: Path) -> dict[str, Any]:
    """What was noted with a label before it went to the history.

    Args:
        kept: its file there.

    Returns:
        That; empty where nobody knows.
    """
    try:
        found = json.loads(_info_of(kept).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def files_of(folder: Path) -> list[Path]:
    """Without the hidden ones, among which are those that are being written."""
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    except FileNotFoundError:
        return []


def delete(path: Path) -> None:
    """Delete a file or a folder; a link only itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
