"""Voxels outside the field of view: NaN, infinities, and numbers far off from every measured value.

Scanners and converters fill what was not measured with one number (-9999, -32768, -1e30, 65535, ...), which the file
rarely names. It is found by its distance: nothing else in the study lies anywhere near. The natural ends of a scale (0
in magnitudes, -1024 in Hounsfield units, 255 in an image) are never that far off, and stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import StudyError

SAMPLE = 200_000  # values looked at for what is usual; beyond it every n-th
USUAL = (0.5, 99.5)  # percentiles
ALIKE = 0.01  # of a padding value: numbers this near to it are the same one, rounded
SHARE = 0.004  # of the voxels: with fewer, percentiles pass over them, and bright specks are no padding
AIR = (-1024.0, -1000.0)  # Hounsfield units: the end of a scale, however far the tissues are from it
MOST = 4  # padding values of one study


class Padded(NamedTuple):
    """A study without its padding.

    Attributes:
        voxels: with every padding value replaced by the smallest measured one.
        measured: bool, of the same shape, where there was something to see; None for everywhere.
        smallest: the lowest number taken for padding, if any.
        notes: texts for the user.
        about: one more, on the padding.
    """

    voxels: np.ndarray
    measured: np.ndarray | None
    smallest: float | None
    notes: tuple[str, ...]
    about: str = ""


def without_padding(path: Path, voxels: np.ndarray) -> Padded:
    """Takes the padding out of a study.

    Args:
        path: for messages.
        voxels: (Z, h, w) gray, or (Z, h, w, 3) colour, of which only NaN and infinities are looked for.

    Returns:
        See :class:`Padded`.

    Raises:
        StudyError: no voxel has a finite value.
    """
    measured, smallest, notes, about = None, None, [], ""
    if voxels.dtype.kind == "f" and not (finite := np.isfinite(voxels)).all():
        if not finite.any():
            raise StudyError(f"{path}: no voxel has a finite value (all NaN or infinite); export it again")
        missing = voxels.size - int(finite.sum())
        notes.append(
            f"{missing} of {voxels.size} voxels are NaN or infinite; they were replaced by the smallest value "
            f"{voxels[finite].min():g}"
        )
        measured = finite
    if voxels.ndim == 3:
        far = _far(voxels, measured)
        count = 0 if far is None else int(far.sum())
        if count and count >= SHARE * voxels.size:
            values = np.unique(voxels[far])
            smallest = float(values[0])
            shown = ", ".join(f"{v:g}" for v in values) if len(values) <= MOST else f"{values[0]:g} to {values[-1]:g}"
            about = (
                f"{count} of {voxels.size} voxels ({count / voxels.size:.2g}) hold {shown}, far off from all others: "
                "taken for padding, shown black and left out of the gray scale"
            )
            measured = ~far if measured is None else measured & ~far
    if measured is None:
        return Padded(voxels, None, None, ())
    return Padded(np.where(measured, voxels, voxels[measured].min()), measured, smallest, tuple(notes), about)


def _far(voxels: np.ndarray, measured: np.ndarray | None) -> np.ndarray | None:
    """(bool) which of the measured voxels are far off; None for none."""
    low, high = usual_limits(voxels if measured is None else voxels[measured])
    if np.isinf(low) and np.isinf(high):
        return None
    far = (voxels < low) | (voxels > high)
    return far if measured is None else far & measured


def usual_limits(values: np.ndarray) -> tuple[float, float]:
    """The range outside which values are so far off that they are no measurement.

    A group of (nearly) equal values at one end is far off when it is farther from zero than the others, and farther
    from them than they are spread; at the upper end also only where the corners of the volume hold it, since bright
    things may well be saturated.

    Args:
        values: finite, any shape; corners are those of its outer axes.

    Returns:
        (low, high), both included; infinities where nothing is far off, as always for 8-bit values.
    """
    limits = [-np.inf, np.inf]
    if values.dtype.itemsize == 1 or not values.size:
        return tuple(limits)
    corners = values[np.ix_(*([0, -1] for _ in values.shape))].astype(np.float64)
    flat = values.ravel()[:: max(1, values.size // SAMPLE)].astype(np.float64)
    ends = [float(values.min()), float(values.max())]
    for _ in range(MOST):
        found = False
        for side, sign in ((0, -1.0), (1, 1.0)):
            end = ends[side]
            others = flat[sign * flat < sign * end - ALIKE * abs(end)]
            if sign * end <= 0 or not others.size or AIR[0] <= end <= AIR[1]:
                continue
            low, high = np.percentile(others, USUAL)
            spread, nearest = high - low, (low, high)[side]
            far = spread > 0 and abs(end) > max(abs(low), abs(high)) and sign * (end - nearest) > spread
            if far and (side == 0 or np.mean(corners > high + spread) >= 0.5):
                limits[side] = float(nearest + sign * spread)
                flat = flat[sign * flat <= sign * limits[side]]
                ends[side] = float(flat.max() if side else flat.min())
                found = True
        if not found:
            break
    return tuple(limits)
