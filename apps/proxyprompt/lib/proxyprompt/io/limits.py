"""What a file may claim to hold, so that a few bytes cannot ask for all of a machine's memory."""

from __future__ import annotations

import gzip
import math
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from .errors import StudyError

MOST_VOXELS = 1 << 30
"""Of one image, 1024 x 1024 x 1024: more than scanners make, and still a few GB."""
MOST_BYTES = 8 << 30
"""Of what is unpacked from one file."""
_PIECE = 1 << 20


def check_size(path: Path, size: Iterable[int], *, most: int = MOST_VOXELS) -> None:
    """Refuse an image by the size that its header claims, before its pixels are asked for.

    Args:
        path: of the file, for the message.
        size: numbers of columns, rows, slices, channels, frames: whatever is multiplied.
        most: voxels that are read.

    Raises:
        StudyError: when there are more.
    """
    sides = [int(side) for side in size]
    count = math.prod(sides)
    if count > most:
        raise StudyError(
            f"{path}: its header claims {' x '.join(map(str, sides))} = {count:,} voxels; at most {most:,} are read: "
            "crop or downsample it, or repair the header"
        )


def gunzip(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """Unpack a gzipped file, as long as it does not grow beyond all bounds.

    Args:
        path: of the file.
        most: bytes.

    Returns:
        Its content.

    Raises:
        StudyError: when there is more in it.
    """
    pieces, size = [], 0
    with gzip.open(path) as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            if size > most:
                raise StudyError(f"{path}: unpacks to more than {most >> 20} MB; send the picture itself")
            pieces.append(piece)
    return b"".join(pieces)


def check_archive(path: Path, *, most: int = MOST_BYTES) -> None:
    """Refuse a ZIP or TAR file that unpacks to more than the disk should take, or a TAR file to elsewhere. Others pass.

    ``tarfile`` itself refuses the latter from Python 3.11.4 on only; Debian 12 has 3.11.2.

    Args:
        path: of the file.
        most: bytes of all files in it.

    Raises:
        StudyError: when there are more.
        tarfile.TarError: for a damaged one, and one with links or with places outside; zipfile.BadZipFile likewise.
    """
    size = 0
    for part in _sizes(path):
        size += part
        if size > most:
            raise StudyError(f"{path.name}: unpacks to more than {most >> 20} MB; send less at a time")


def _sizes(path: Path) -> Iterable[int]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (part.file_size for part in archive.infolist())
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for part in archive:  # one by one: each header is read before what follows it is unpacked
                place = PurePosixPath(part.name)
                if place.is_absolute() or ".." in place.parts or not (part.isfile() or part.isdir()):
                    raise tarfile.TarError(f"{part.name!r} is no file of its own folder")
                yield part.size
