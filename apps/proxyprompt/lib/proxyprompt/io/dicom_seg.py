"""DICOM SEG as labels: the names of its segments, and its frames laid on the slices of an image.

A SEG says where each frame lies in the patient, in any order, and usually leaves empty slices out; frames are placed
by position, never by number. Where position says nothing (ultrasound and photographs have none, frames in time share
one) they are placed by the image that each was drawn on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from .dicom_pixels import stored_frames
from .errors import StudyError
from .grid import Grid
from .label_map import LARGEST_VALUE, LabelMap, from_segments
from .raster import DAMAGE, Raster, damaged, has_dicom_magic

Result = TypeVar("Result")


def segment_names(path: str | Path) -> dict[int, str]:
    """The names that a DICOM SEG gives its segments.

    Args:
        path: a file, or the folder that holds it.

    Returns:
        Segment number -> label.

    Raises:
        StudyError: when it is none.
    """
    return _guarded(lambda: _names(_load(Path(path))), Path(path))


def _guarded(read: Callable[[], Result], path: Path) -> Result:
    """``read()``, with pydicom's complaints about damaged or missing tags and pixels turned into one StudyError."""
    try:
        return read()
    except StudyError:
        raise
    except DAMAGE as e:
        raise damaged(path, e) from e


def _names(seg: Dataset) -> dict[int, str]:
    return {
        int(s.SegmentNumber): str(s.get("SegmentLabel") or s.get("SegmentDescription") or f"segment {s.SegmentNumber}")
        for s in seg.SegmentSequence
        if int(s.SegmentNumber)  # 0 is the background of a label map
    }


def read_seg_on(image: Raster, path: Path) -> LabelMap:
    """Lay a DICOM SEG on an image.

    Args:
        image: whose grid counts.
        path: a file, or the folder that holds it.

    Returns:
        The segments by their numbers and names (see :func:`proxyprompt.io.label_map.from_segments`).

    Raises:
        StudyError: the file is no segmentation, or a frame does not lie on a slice of the image.
    """
    return _guarded(lambda: _lay_all(image, _load(path), path), path)


def _lay_all(image: Raster, seg: Dataset, path: Path) -> LabelMap:
    names, notes = _names(seg), ()
    frames = stored_frames(path, seg)
    kind = str(seg.get("SegmentationType", "BINARY")).upper()
    if kind == "FRACTIONAL":
        frames = 2 * frames.astype(np.int64) >= int(seg.get("MaximumFractionalValue", 255))
        notes = ("this DICOM SEG holds fractions; from one half on a voxel counts as inside",)
    shown: dict[int, list[tuple[np.ndarray, Dataset]]] = {number: [] for number in names}
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        if kind == "LABELMAP":
            for number in names:
                if (mask := frame == number).any():
                    shown[number].append((mask, groups))
        else:
            number = int(_group(seg, groups, "SegmentIdentificationSequence", path).ReferencedSegmentNumber)
            shown[number].append((frame != 0, groups))
    voxels = {}
    for number, parts in shown.items():
        mask = np.zeros(image.grid.size, dtype=bool, order="F")
        for frame, groups in parts:
            index = _drawn_on(image, groups) if image.flat or image.frames else None
            if index is not None and frame.T.shape == image.grid.size[:2]:
                mask[:, :, index] |= frame.T
            else:
                _lay(mask, image, frame, _frame_grid(seg, groups, path), path)
        voxels[number] = np.flatnonzero(mask.ravel(order="F"))
    value = {number: number if max(names) <= LARGEST_VALUE else n for n, number in enumerate(names, 1)}
    if len(names) > LARGEST_VALUE:
        raise StudyError(f"{path}: holds {len(names)} segments; a label map has room for {LARGEST_VALUE}")
    by_value = {value[number]: at for number, at in voxels.items()}
    return from_segments(image.grid.size, by_value, {value[number]: name for number, name in names.items()}, notes)


def _lay(mask: np.ndarray, image: Raster, frame: np.ndarray, grid: Grid, path: Path) -> None:
    """Adds one frame (rows, columns) to ``mask`` on the slice of the image where it lies."""
    for own in image.grids:
        across = int(np.argmax(np.abs(np.linalg.inv(own.affine)[:3, :3] @ grid.affine[:3, 2])))
        affine = own.affine.copy()
        if across == 2 and image.origins is not None:
            normal = np.cross(own.direction[:, 0], own.direction[:, 1])
            index = int(np.argmin(np.abs((image.origins - grid.affine[:3, 3]) @ normal)))
            affine[:3, 3] = image.origins[index]
        else:
            index = round(float((np.linalg.inv(own.affine) @ grid.affine[:, 3])[across]))
            affine[:3, 3] += own.affine[:3, across] * index
        if not 0 <= index < own.size[across]:
            continue
        plane = Grid(tuple(1 if a == across else n for a, n in enumerate(own.size)), affine)
        alignment = plane.alignment(grid)
        if alignment is not None:
            at = tuple(slice(index, index + 1) if a == across else slice(None) for a in range(3))
            mask[at] |= alignment.apply(frame.T[:, :, None])
            return
    raise StudyError(
        f"{path}: a frame of this DICOM SEG does not lie on a slice of the image. Frame: {grid.describe()}. "
        f"Image {image.path}: {image.grid.describe()}. Pair it with the series it was drawn on"
    )


def _drawn_on(image: Raster, groups: Dataset) -> int | None:
    """The image's slice that a frame of the SEG says it was drawn on; None where it says none."""
    slices = {instance: k for k, instance in enumerate(image.instances)}
    for derivation in groups.get("DerivationImageSequence") or ():
        for source in derivation.get("SourceImageSequence") or ():
            frame = source.get("ReferencedFrameNumber") or 1
            frame = frame if isinstance(frame, int) else frame[0]
            index = slices.get((str(source.get("ReferencedSOPInstanceUID")), int(frame)))
            if index is not None:
                return index
    return None


def _frame_grid(seg: Dataset, groups: Dataset, path: Path) -> Grid:
    """The grid (columns, rows, 1) of one frame; its third axis is one mm long."""
    position = np.asarray(_group(seg, groups, "PlanePositionSequence", path).ImagePositionPatient, dtype=float)
    axes = np.asarray(_group(seg, groups, "PlaneOrientationSequence", path).ImageOrientationPatient, dtype=float)
    row_step, column_step = (float(v) for v in _group(seg, groups, "PixelMeasuresSequence", path).PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = axes[:3] * column_step
    affine[:3, 1] = axes[3:] * row_step
    affine[:3, 2] = np.cross(axes[:3], axes[3:])
    affine[:3, 3] = position
    return Grid((int(seg.Columns), int(seg.Rows), 1), affine)


def _group(seg: Dataset, groups: Dataset, name: str, path: Path) -> Dataset:
    """A functional group of one frame, or the one that all frames share."""
    shared = (seg.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    found = groups.get(name) or shared.get(name)
    if not found:
        raise StudyError(f"{path}: this DICOM SEG has no {name}; its frames cannot be placed: export it again")
    return found[0]


def _load(path: Path) -> Dataset:
    files = sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]
    if len(files) != 1 or not path.exists():
        raise StudyError(f"{path}: expected one DICOM SEG file, found {len(files) if path.exists() else 'none'}")
    seg = pydicom.dcmread(files[0], defer_size="1 MB", force=has_dicom_magic(files[0]))
    if seg.get("Modality") == "RTSTRUCT":
        raise StudyError(
            f"{path}: is an RTSTRUCT, whose contours are not read as a label; convert it to a DICOM SEG or a .seg.nrrd "
            "(3D Slicer with SlicerRT: load it with its images, then export the segmentation)"
        )
    if seg.get("Modality") != "SEG" or not seg.get("SegmentSequence"):
        raise StudyError(f"{path}: is a DICOM object of modality {seg.get('Modality')}, not a segmentation (SEG)")
    return seg
