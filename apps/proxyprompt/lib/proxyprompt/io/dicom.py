"""DICOM images: a series in a folder, or one file with one or many frames.

Pixels and geometry are ITK's, as MONAI Label's and the viewers' are (rescaled values, MONOCHROME1 turned bright side
up, palettes and YBR as RGB); what the frames of a file are to each other is read from the tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from .dicom_pixels import read_image
from .dicom_series import (
    NOT_IMAGES,
    POSITION_TOLERANCE,
    SAME_AXES,
    Image,
    difference,
    is_image,
    place_of,
    read_series,
)
from .errors import StudyError
from .raster import Raster, from_itk

__all__ = ["NOT_IMAGES", "Frame", "is_image", "read_dicom", "read_frames"]

TAGS = (
    *("Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription"),
    *("StudyDescription", "ProtocolName", "BodyPartExamined"),
)
GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
GROUPS += ("PixelValueTransformationSequence",)
"""Functional groups of a frame that say where it lies and what its values mean."""
UNEVEN = 0.05  # of the usual step between slices
TILTED = 1.0  # degrees


@dataclass(frozen=True)
class Frame:
    """One image of a series or of a multi-frame file, without pixels.

    Attributes:
        header: the tags of its file.
        number: of the frame in it, from 1.
        plane: where it lies; the header itself, or for an Enhanced image the tags of this frame's functional groups.
    """

    header: Dataset
    number: int
    plane: Dataset

    @property
    def instance(self) -> tuple[str, int]:
        """SOPInstanceUID, and the number of the frame."""
        return str(self.header.get("SOPInstanceUID", "")), self.number


def read_frames(path: Path) -> list[Frame]:
    """The frames of a study.

    Args:
        path: a DICOM file, or a folder with the files of one series.

    Returns:
        Frames in the order of the raster's slices.

    Raises:
        StudyError: as for :func:`read_dicom`.
    """
    return _frames(read_series(path)[0])


def read_dicom(path: Path) -> Raster:
    """One DICOM study.

    Args:
        path: a DICOM file, or a folder with the files of one series; what is no image beside them is ignored.

    Returns:
        The raster. Several images at one place are frames in time.

    Raises:
        StudyError: no image, several series, several times at several places, images that are no single stack, and
            pixels that cannot be decoded.
    """
    images, notes = read_series(path)
    first = images[0].header
    tags = {name: str(first.get(name)) for name in TAGS if first.get(name)}
    frames = _frames(images)
    places = [place_of(frame.plane) for frame in frames]
    moving = False
    if len(frames) > 1:
        moving, said = _arrangement(path, frames, places)
        notes += said
    raster = from_itk(path, read_image(path, images, [frame.plane for frame in frames]))
    if raster.voxels.shape[2] != len(frames):
        raise StudyError(f"{path}: holds {raster.voxels.shape[2]} frames, its header says {len(frames)}")
    known = all(place is not None for place in places)
    return replace(
        raster,
        frames=moving,
        flat=raster.flat or places[0] is None,
        modality=str(first.get("Modality", "")).upper() or None,
        tags=tags,
        notes=notes,
        instances=tuple(frame.instance for frame in frames),
        origins=np.array([position for position, _ in places]) if known else None,
    )


def _frames(images: Sequence[Image]) -> list[Frame]:
    """All frames of one file, or the one of each file."""
    if len(images) > 1:
        return [Frame(image.header, 1, image.header) for image in images]
    header = images[0].header
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return [Frame(header, n + 1, header) for n in range(images[0].frames)]
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = []
    for n, groups in enumerate(per_frame):
        plane = Dataset()
        for name in GROUPS:
            group = groups.get(name) or shared.get(name)
            if group:
                plane.update(group[0])
        frames.append(Frame(header, n + 1, plane))
    return frames


def _arrangement(path: Path, frames: Sequence[Frame], places: Sequence) -> tuple[bool, tuple[str, ...]]:
    """Whether the images are frames in time, and notes about a stack that is not even."""
    if any(place is None for place in places):
        return True, ()
    positions, normals = (np.array(part) for part in zip(*places, strict=True))
    turned = np.flatnonzero(np.abs(normals - normals[0]).max(axis=1) > SAME_AXES)
    if len(turned):
        raise StudyError(
            f"{path}: is no plain stack: {_named(frames, turned[0])} lies in another orientation than "
            f"{_named(frames, 0)}; export the frames of each orientation by themselves"
        )
    along = positions @ normals[0]
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    moved = steps > POSITION_TOLERANCE
    if not moved.any():
        return True, ()
    if not moved.all():
        at = int(np.flatnonzero(~moved)[0])
        pair = [int(order[at]), int(order[at + 1])]
        one, other = (frames[i].header for i in pair)
        apart = f" and {difference(one, other)}" if one is not other else ""
        raise StudyError(
            f"{path}: holds {len(places)} images at {int(moved.sum()) + 1} places (a time series of volumes, or slices "
            f"that are there twice): {_named(frames, pair[0])} and {_named(frames, pair[1])} lie at one place"
            f"{apart}; expected one volume or one moving slice: export one time point, "
            "or take away what does not belong"
        )
    if not (np.diff(along) > 0).all() and not (np.diff(along) < 0).all():
        raise StudyError(
            f"{path}: its {len(places)} frames are not stored in the order of their places, and viewers show such a "
            "file in the wrong order; export it as a series of single images"
        )
    return False, (*_gaps(frames, order, steps), *_tilt(positions[order], normals[0]))


def _gaps(frames: Sequence[Frame], order: np.ndarray, steps: np.ndarray) -> list[str]:
    usual = float(np.median(steps))
    if np.abs(steps - usual).max() <= UNEVEN * usual:
        return []
    widest = int(np.argmax(steps))
    between = f"{_named(frames, order[widest])} and {_named(frames, order[widest + 1])}"
    missing = int((np.rint(steps / usual) - 1).clip(0).sum())
    what = {0: "none seems to be missing", 1: "one may be missing"}.get(missing, f"{missing} may be missing")
    return [
        f"slices are unevenly spaced ({steps.min():.3g} to {steps.max():.3g} mm): {what}; the widest step is between "
        f"{between}"
    ]


def _tilt(positions: np.ndarray, normal: np.ndarray) -> list[str]:
    """A gantry tilt: each slice lies a little beside the one before."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    sideways = float(np.linalg.norm(step - (step @ normal) * normal))
    degrees = float(np.degrees(np.arctan2(sideways, abs(step @ normal))))
    if degrees <= TILTED:
        return []
    return [
        f"the slices are tilted by {degrees:.3g} degrees against the stack, each lies {sideways:.3g} mm beside the one "
        "before (gantry tilt); masks are right on every slice, but viewers show the volume sheared"
    ]


def _named(frames: Sequence[Frame], index: int) -> str:
    """How to call a slice: its file, or its number in the file."""
    header, number = frames[index].header, frames[index].number
    name = Path(getattr(header, "filename", "") or "").name
    return name if int(header.get("NumberOfFrames", 1) or 1) == 1 else f"frame {number} of {name}"
