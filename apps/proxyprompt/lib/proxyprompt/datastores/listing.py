"""What a folder of studies holds: its images with the ids they may have, and what is left out and why.

An image is a file of a known kind directly in the folder (in whatever case its suffix is written), a DICOM file without
a suffix, or a folder at any depth that directly holds the DICOM files of a series, as archives export them
(patient/study/series). Names say nothing of DICOM: the content is looked at, with or without the prefix ``DICM``.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import pydicom

from proxyprompt.io.dicom import NOT_IMAGES
from proxyprompt.io.groups import GROUPS
from proxyprompt.io.names import split_suffix, why_unusable
from proxyprompt.io.raster import DICOM, has_dicom_magic, suffix_of

OURS = ("datastore_v2.json*", "dataset.json", GROUPS)
"""Files beside the studies that are no studies, and of which nothing need be said."""
_VOXELS = (".raw", ".zraw", ".raw.gz", ".img")  # of a header file that lies beside them
_HEADERS = (".mhd", ".nhdr")
_DICOMDIR = "DICOMDIR"
_LOOKED_AT = 50  # files of a folder
_DEPTH = 8  # of folders in folders
_SETTLED = 10.0  # seconds after which what was seen of an unchanged folder is remembered


@dataclass(frozen=True)
class Found:
    """An image. path: relative to the folder of studies. ids: those that it may have, the first that is free counts.

    Series whose folders share a name (patient 1's and patient 2's ``SER1``) are all told apart by the whole path: were
    one of them to get the short id, it could be another one tomorrow, and with it another patient's label.
    """

    path: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """images: in the order in which they choose their ids. left_out: relative path -> why it is no study."""

    images: tuple[Found, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def dicom_modality(path: Path) -> str | None:
    """The modality that a DICOM file names.

    Args:
        path: any file.

    Returns:
        The modality in upper case, "" where the file does not say or cannot be read on; None for what is no DICOM.
    """
    try:
        if path.name.upper() == _DICOMDIR or not has_dicom_magic(path):
            return None
        tags = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID", "Modality"])
    except OSError:
        return None
    except Exception:  # whatever a damaged file makes the library raise
        return ""
    if tags.preamble is None and not tags.get("SOPClassUID"):
        return None  # its first bytes look like a tag by chance
    return str(tags.get("Modality") or "").upper()


def is_dicom_folder(folder: Path) -> bool:
    """Whether ``folder`` directly holds a DICOM image among its first files; names and suffixes say nothing."""
    if not folder.is_dir() or folder.name.startswith("."):
        return False
    modalities = _modalities(sorted(e.path for e in _entries(folder) if e.is_file()))
    return any(modality not in NOT_IMAGES for modality in modalities)


class StudyListing:
    """Looks at a folder; what it saw of sub-folders that did not change is remembered. Not thread safe.

    folder: of the studies. patterns: of the files that are images, such as ``*.nii.gz``; where two files differ in
    the suffix only, the earlier pattern has the shorter id. labels: the folder of the labels, which is passed over.
    """

    def __init__(self, folder: str | Path, patterns: Sequence[str], *, labels: str | Path) -> None:
        self._folder, self._labels = Path(folder), Path(labels)
        self._patterns = [pattern.lower() for pattern in patterns]
        self.suffixes = [pattern.lstrip("*") for pattern in self._patterns]
        self._seen: dict[str, tuple[object, list[str]]] = {}

    def is_image_name(self, name: str) -> bool:
        """Whether a file of this name is taken for an image or a label."""
        return any(fnmatch(name.lower(), pattern) for pattern in self._patterns)

    def look(self) -> Look:
        """What lies in the folder now."""
        left_out: dict[str, str] = {}
        entries = sorted(_entries(self._folder), key=lambda entry: entry.name)
        files = [found for entry in entries if not entry.is_dir() for found in self._file(entry, entries, left_out)]
        files.sort(key=lambda found: (self._rank(found.path), found.path))
        series = [
            path
            for entry in entries
            if entry.is_dir() and not _same(entry.path, self._labels) and not entry.name.startswith(".")
            for path in self._series(entry.path, left_out, frozenset())
        ]
        series.sort(key=lambda path: (path.count("/"), path))
        names = Counter(path.rpartition("/")[2] for path in series)
        images = [*files, *(Found(path, _series_ids(path, names)) for path in series)]
        return Look(tuple(images), left_out)

    # inside

    def _rank(self, name: str) -> int:
        fitting = (n for n, pattern in enumerate(self._patterns) if fnmatch(name.lower(), pattern))
        return next(fitting, len(self._patterns))

    def _file(
        self, entry: os.DirEntry[str], beside: Collection[os.DirEntry[str]], left_out: dict[str, str]
    ) -> Iterator[Found]:
        name, known = entry.name, self.is_image_name(entry.name)
        if any(fnmatch(name, pattern) for pattern in OURS):
            return
        if name.startswith("."):
            if known:
                left_out[name] = _hidden(name)
            return
        if not entry.is_file():
            left_out[name] = "is no file: a broken link, or something else"
        elif (modality := self._modality(entry, known)) in NOT_IMAGES:
            left_out[name] = f"is a DICOM object of modality {modality}, not an image"
        elif known:
            yield Found(name, (split_suffix(name, self.suffixes)[0], name))
        elif modality is not None:
            yield Found(name, (name,))
        elif name.upper() == _DICOMDIR:
            left_out[name] = "is the index of a DICOM export; its series are listed by their folders"
        elif not _is_voxels(name, beside):
            left_out[name] = f"is not of a kind that is read ({', '.join(self.suffixes)}, DICOM)"

    @staticmethod
    def _modality(entry: os.DirEntry[str], known: bool) -> str | None:
        """Of a file that may be DICOM by its name; other names that are known speak for themselves."""
        path = Path(entry.path)
        return None if known and suffix_of(path) not in DICOM else dicom_modality(path)

    def _series(self, folder: str, left_out: dict[str, str], above: frozenset[str]) -> Iterator[str]:
        """The folders at and below ``folder`` that hold a series, relative to the folder of studies."""
        relative = Path(folder).relative_to(self._folder).as_posix()
        real = os.path.realpath(folder)
        if real in above or len(above) >= _DEPTH:
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            left_out[relative] = f"cannot be looked into: {error.strerror}"
            return
        files = [entry for entry in entries if not entry.name.startswith(".") and entry.is_file()]
        modalities = self._remembered(folder, files)
        images = [entry.name for entry in files if self.is_image_name(entry.name)]
        if any(modality not in NOT_IMAGES for modality in modalities):
            yield relative
        elif modalities:
            kinds = ", ".join(sorted(set(modalities)))
            left_out[relative] = f"holds DICOM objects without pixels ({kinds}), no images"
        elif images:
            left_out[relative] = (
                f"holds {len(images)} image files, such as {images[0]}: they must lie directly in the folder of "
                "studies, only DICOM series are looked for below it"
            )
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                yield from self._series(entry.path, left_out, above | {real})

    def _remembered(self, folder: str, files: Sequence[os.DirEntry[str]]) -> list[str]:
        first = files[:_LOOKED_AT]
        stamp = tuple((entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in first)
        if (seen := self._seen.get(folder)) is not None and seen[0] == stamp:
            return seen[1]
        modalities = _modalities([entry.path for entry in first])
        if all(time.time() - changed / 1e9 > _SETTLED for _, changed, _ in stamp):
            self._seen[folder] = stamp, modalities
        return modalities


def _series_ids(path: str, names: Counter[str]) -> tuple[str, ...]:
    own, whole = path.rpartition("/")[2], path.replace("/", "_")
    return (whole,) if names[own] > 1 else (own, whole)


def _modalities(files: Sequence[str]) -> list[str]:
    """Of the DICOM files among the first ones, up to the first image."""
    found: list[str] = []
    for file in files[:_LOOKED_AT]:
        if (modality := dicom_modality(Path(file))) is not None:
            found.append(modality)
            if modality not in NOT_IMAGES:
                break
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _hidden(name: str) -> str:
    if name.startswith("._"):
        return "is what macOS writes beside a file on a foreign disk, no image"
    return f"{why_unusable(name)}: rename it if it is a study"


def _is_voxels(name: str, beside: Collection[os.DirEntry[str]]) -> bool:
    """Whether a file holds the voxels of a header that lies beside it."""
    stem, suffix = split_suffix(name, _VOXELS)
    return suffix.lower() in _VOXELS and any(
        entry.name.lower() == f"{stem.lower()}{header}" for entry in beside for header in _HEADERS
    )


def _same(one: str | Path, other: str | Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
