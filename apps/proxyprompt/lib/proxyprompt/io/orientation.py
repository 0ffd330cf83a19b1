"""How a volume is cut into slices, and how each slice is turned.

A volume is cut across its thick axis. Each slice then stands the way radiologists view its plane, whatever the order
in which the file holds the voxels: axial with the front of the patient on top and the patient's right on the left of
the screen; coronal with the head on top and the patient's right on the left; sagittal with the head on top and the
face to the left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nibabel.orientations import io_orientation

from .grid import Alignment, Grid
from .image_files import SHOWN

THICK = 1.25  # an axis is thick when its spacing is this many times the next one's
# plane -> patient axis (0 left, 1 posterior, 2 superior) and sense (+1 along it) of slices, rows going down, columns
VIEWS = {
    "axial": ((2, +1), (1, +1), (0, +1)),
    "coronal": ((1, +1), (2, -1), (0, +1)),
    "sagittal": ((0, +1), (2, -1), (1, +1)),
}
PLANES = {2: "axial", 1: "coronal", 0: "sagittal"}


class Cut(NamedTuple):
    """How a file's voxels become slices.

    Attributes:
        plane: axial, coronal or sagittal (image: of no patient).
        alignment: from (i, j, k) to (slice, row, column).
    """

    plane: str
    alignment: Alignment


def slice_axis(grid: Grid) -> int:
    """The file's axis across which to cut.

    Args:
        grid: of the file.

    Returns:
        The axis of a single voxel, else the one of by far the largest spacing, else the one nearest to the patient's
        long axis.
    """
    single = [axis for axis, n in enumerate(grid.size) if n == 1]
    if len(single) == 1:
        return single[0]
    order = np.argsort(grid.spacing)
    if grid.spacing[order[2]] >= THICK * grid.spacing[order[1]]:
        return int(order[2])
    return int(np.flatnonzero(patient_axes(grid)[:, 0] == 2)[0])


def patient_axes(grid: Grid) -> np.ndarray:
    """How a file lies in the patient.

    Args:
        grid: of the file.

    Returns:
        (3, 2): for each axis of the file the nearest patient axis (0 left, 1 posterior, 2 superior) and the sense.
    """
    return io_orientation(grid.affine).astype(int)


def cut(grid: Grid, *, frames: bool = False) -> Cut:
    """Where the slices lie.

    Args:
        grid: of the file.
        frames: the third axis counts frames in time: it is cut there, and their order is kept.

    Returns:
        The cut.
    """
    nearest = patient_axes(grid)
    across = 2 if frames else slice_axis(grid)
    plane = PLANES[int(nearest[across, 0])]
    axes, flips = [], []
    for patient_axis, sense in VIEWS[plane]:
        axis = int(np.flatnonzero(nearest[:, 0] == patient_axis)[0])
        axes.append(axis)
        flips.append(bool(nearest[axis, 1] != sense))
    if frames:
        flips[0] = False
    return Cut(plane, Alignment(tuple(axes), tuple(flips)))


def upright(cut: Cut, orientation: int) -> Cut:
    """A cut whose slices are turned further.

    Args:
        cut: as the file lies.
        orientation: an image's orientation tag (1 to 8, as in EXIF).

    Returns:
        The turned one.
    """
    if orientation not in SHOWN:
        return cut
    (across, *axes), (flip, *flips) = cut.alignment.axes, cut.alignment.flips
    if orientation >= 5:
        axes, flips = axes[::-1], flips[::-1]
    turned = tuple(bool(f) != bool(back) for f, back in zip(flips, SHOWN[orientation], strict=True))
    return Cut(cut.plane, Alignment((across, *axes), (flip, *turned)))
