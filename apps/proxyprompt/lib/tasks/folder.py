"""A folder of studies in which a DICOM series may lie as a folder of its own.

MONAI Label's local datastore lists files only. Here every sub-folder that directly holds DICOM files is an image too,
whose id is the folder's name; labels are files as ever.
"""

from __future__ import annotations

import os
from pathlib import Path

from lib.studies.shared import SharedDatastore

_MAGIC_AT, _MAGIC = 128, b"DICM"
_LOOKED_AT = 5


def is_dicom_folder(folder: Path) -> bool:
    """Whether one of the first files of ``folder`` is DICOM by its content; names and suffixes say nothing."""
    if not folder.is_dir() or folder.name.startswith("."):
        return False
    with os.scandir(folder) as entries:
        files = sorted((e for e in entries if e.is_file()), key=lambda e: e.name)[:_LOOKED_AT]
    for entry in files:
        try:
            with open(entry.path, "rb") as file:
                file.seek(_MAGIC_AT)
                if file.read(len(_MAGIC)) == _MAGIC:
                    return True
        except OSError:
            continue
    return False


class StudyFolder(SharedDatastore):
    """A datastore on this machine that lists DICOM series too. New folders are seen by :meth:`refresh`."""

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        files = super()._list_files(path, patterns)
        images = Path(self._datastore.image_path())
        if not images.exists() or not images.samefile(path):
            return files
        series = [name for name in sorted(os.listdir(path)) if is_dicom_folder(Path(path) / name)]
        return {**files, **{name: name for name in series}}

    def _to_id(self, file: str) -> tuple[str, str]:
        # A series is often named by its UID, of which the base class would take the end for a suffix.
        if is_dicom_folder(Path(self._datastore.image_path()) / file):
            return file, ""
        return super()._to_id(file)
