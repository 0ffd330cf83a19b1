"""The files that are, or were, the labels of a study: one counts, the others are history, and none comes back."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from proxyprompt.io.files import stamp

HISTORY = ".history"
"""The folder beside those of the tags; hidden ones are no tags."""
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

    def _delete_label(self, image_id: str, tag: str) -> None:
        for path in self._label_files(image_id, tag):
            delete(path)
        of_this = re.compile(re.escape(image_id) + r"\.\d{8}T\d+Z\..*")
        for path in files_of(Path(self._datastore.label_path(None)) / HISTORY / tag):
            if of_this.fullmatch(path.name):
                delete(path)


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
