"""The studies of a batch: all that a folder lists, or all images of a DICOMweb server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monailabel.config import settings

from proxyprompt.datastores.listing import StudyListing
from proxyprompt.io.names import why_unusable

from .queue import BatchError, BatchItem


@dataclass(frozen=True)
class BatchStudies:
    """What there is to do.

    Attributes:
        items: the studies, in the order of their ids.
        left_out: file -> why it is no study.
        archive: address of the server that they are on; "" for files.
    """

    items: tuple[BatchItem, ...]
    left_out: dict[str, str]
    archive: str = ""


def find_studies(where: str) -> BatchStudies:
    """List studies.

    Args:
        where: a folder, by the rules of :mod:`proxyprompt.datastores.listing`, or the address of a DICOMweb server.

    Returns:
        The studies, by the ids that a server on the same folder gives them.

    Raises:
        BatchError: when there is no such folder, or nothing in it.
    """
    found = _archived(where) if where.startswith(("http://", "https://")) else _in_folder(Path(where))
    if not found.items:
        reasons = "".join(f"; {name}: {why}" for name, why in list(found.left_out.items())[:3])
        raise BatchError(f"{where}: no study was found{reasons}")
    return found


def labelled_files(folder: Path, id: str) -> tuple[str, str]:
    """The files of a labelled study.

    Args:
        folder: of studies, with labels in ``labels/final``.
        id: of the study.

    Returns:
        (image, mask).

    Raises:
        BatchError: when there is no such study, or no label of it.
    """
    sources = {item.id: item.source for item in _in_folder(folder).items}
    labels = folder / "labels" / "final"
    masks = sorted(path for path in labels.glob("*") if path.name.partition(".")[0] == id.partition(".")[0])
    masks = [path for path in masks if path.name.startswith(f"{id}.")]
    if id not in sources or not masks:
        what = "has no label in labels/final" if id in sources else "does not exist"
        raise BatchError(f"the support {id!r} {what} in {folder}; name a labelled study, or IMAGE and MASK files")
    return sources[id], str(masks[0])


def _in_folder(folder: Path) -> BatchStudies:
    if not folder.is_dir():
        raise BatchError(f"{folder}: no such folder of studies")
    look = StudyListing(folder, settings.MONAI_LABEL_DATASTORE_FILE_EXT, labels=folder / "labels").look()
    sources: dict[str, str] = {}
    left_out = dict(look.left_out)
    for found in look.images:
        free = [each for each in found.ids if not why_unusable(each) and each not in sources]
        if free:
            sources[free[0]] = str(folder.resolve() / found.path)
        else:
            left_out[found.path] = "has no name that a study may have: rename it"
    return BatchStudies(tuple(BatchItem(id, source) for id, source in sorted(sources.items())), left_out)


def _archived(address: str) -> BatchStudies:
    from proxyprompt.datastores.dicomweb import open_archive

    images = open_archive(address).archive.listing().images
    items = (BatchItem(series, f"{tags['StudyInstanceUID']}/{series}") for series, tags in sorted(images.items()))
    return BatchStudies(tuple(items), {}, address)
