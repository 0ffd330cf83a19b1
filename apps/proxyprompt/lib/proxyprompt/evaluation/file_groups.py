"""The images of a folder of any layout, each with the labels that lie there for it, to send all of them to a server.

Known are images and their labels side by side (``images/`` and ``masks/``, ``imagesTr/`` and ``labelsTr/``, a MONAI
Label folder), also as one of many sub-folders; DICOM series in folders, with the DICOM SEG files that name them; and
images that just lie there. What counts as an image is the server's own rule (:mod:`proxyprompt.datastores.listing`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from proxyprompt.datastores.listing import StudyListing, dicom_modality, is_dicom_folder
from proxyprompt.io.names import split_suffix
from proxyprompt.requests.defaults import IMAGE_PATTERNS

FINAL = "final"
SERIES = "DICOM series"
"""The name of the group of all series of a folder."""
_LAYOUTS = (("images", "masks"), ("imagesTr", "labelsTr"), (".", "labels/final"))
_FIRST_CHANNEL = "_0000"  # nnU-Net's, of an image; its label goes without


@dataclass(frozen=True)
class ImageFile:
    """One image with what was drawn on it.

    Attributes:
        image: a file, or the folder of a series.
        labels: tag -> file; of ``masks/`` the tag is "final", of other folders beside it their name.
    """

    image: Path
    labels: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class FileGroup:
    """Images that can be each other's supports.

    Attributes:
        name: of their folder.
        items: the images.
        left_out: file that lies beside them -> why it is none.
    """

    name: str
    items: tuple[ImageFile, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def find_groups(folder: Path) -> list[FileGroup]:
    """Every image at and below a folder.

    Args:
        folder: of any layout. Only read.

    Returns:
        The groups in the order of their folders; all DICOM series are one group, the last.
    """
    groups, series = [], []
    segmentations: dict[str, dict[str, Path]] = {}
    for below in _folders(folder):
        if layout := next((pair for pair in _LAYOUTS if all((below / part).is_dir() for part in pair)), None):
            groups.append(_labelled(below, *layout, name=_name(below, folder)))
        elif is_dicom_folder(below):
            series.append(below)
        else:
            segmentations |= _segmentations(below)
            images, left_out = _listed(below)
            if items := tuple(ImageFile(path) for path in images.values() if path.is_file()):
                groups.append(FileGroup(_name(below, folder), items, left_out))
    if series:
        items = tuple(ImageFile(path, segmentations.get(_series_uid(path), {})) for path in series)
        groups.append(FileGroup(SERIES, items))
    return groups


def _folders(folder: Path) -> Iterator[Path]:
    """``folder`` and those below it, but none below one that is a layout of its own."""
    yield folder
    if any(all((folder / part).is_dir() for part in pair) for pair in _LAYOUTS):
        return
    for below in sorted(folder.iterdir()):
        if below.is_dir() and not below.name.startswith("."):
            yield from _folders(below)


def _name(below: Path, folder: Path) -> str:
    return folder.resolve().name if below == folder else below.relative_to(folder).as_posix()


def _labelled(folder: Path, images: str, labels: str, *, name: str) -> FileGroup:
    found, left_out = _listed(folder / images)
    final, known = folder / labels, (Path(images).name, Path(labels).name)
    others = [p for p in sorted(final.parent.iterdir()) if p.is_dir() and p.name not in known and p.name[0] != "."]
    tags: dict[str, dict[str, Path]] = defaultdict(dict)
    for tag, place in ((FINAL, final), *((p.name, p) for p in others)):
        for label_id, path in _listed(place)[0].items():
            names = (label_id, label_id + _FIRST_CHANNEL, label_id.removesuffix(".seg"))
            if image_id := next((each for each in names if each in found), None):
                tags[image_id][tag] = path
            elif tag == FINAL:
                left_out[path.name] = f"is a label, but no image of {images} is called {label_id!r}"
    return FileGroup(name, tuple(ImageFile(path, tags[id]) for id, path in found.items()), left_out)


def _listed(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Id -> image, of what lies directly in a folder; and file -> why it is none, of the other files there."""
    look = StudyListing(folder, IMAGE_PATTERNS, labels=folder / "labels").look()
    suffixes = [pattern.lstrip("*") for pattern in IMAGE_PATTERNS]
    images: dict[str, Path] = {}
    for path in (folder / found.path for found in look.images if "/" not in found.path):
        short = path.name if path.is_dir() else split_suffix(path.name, suffixes)[0]
        images[short if short not in images else path.name] = path
    return images, {name: why for name, why in look.left_out.items() if (folder / name).is_file()}


def _segmentations(folder: Path) -> dict[str, dict[str, Path]]:
    """UID of a series -> the DICOM SEG in this folder that was drawn on it."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and dicom_modality(path) == "SEG":
            tags = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            for each in tags.get("ReferencedSeriesSequence", ()):
                found[str(each.SeriesInstanceUID)] = {FINAL: path}
    return found


def _series_uid(folder: Path) -> str:
    first = next(path for path in sorted(folder.iterdir()) if dicom_modality(path) is not None)
    return str(pydicom.dcmread(first, force=True, stop_before_pixels=True).get("SeriesInstanceUID", ""))
