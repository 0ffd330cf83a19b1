"""Whether two files are the same image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import StudyError
from .readers import read_raster

_BLOCK = 1 << 20


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes.

    Args:
        one: a file.
        other: another.

    Returns:
        True when they do.
    """
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while block := first.read(_BLOCK):
            if block != second.read(_BLOCK):
                return False
    return True


def same_image(one: Path, other: Path) -> bool:
    """Whether two files hold the same voxels on the same grid, however they are written.

    Args:
        one: a file, or a folder with a DICOM series.
        other: as ``one``.

    Returns:
        True also for two files of the same bytes that cannot be read; False where only one of them can.
    """
    if one.is_file() and other.is_file() and same_bytes(one, other):
        return True
    try:
        first, second = read_raster(one), read_raster(other)
    except StudyError:
        return False
    return (
        first.voxels.shape == second.voxels.shape
        and np.allclose(first.grid.affine, second.grid.affine, atol=1e-4)
        and np.array_equal(first.voxels, second.voxels, equal_nan=first.voxels.dtype.kind == "f")
    )
