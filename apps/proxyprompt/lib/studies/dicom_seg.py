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

from lib.studies.errors import StudyError
from lib.studies.grid import Grid
from lib.studies.readers import DAMAGE, Raster, damaged

Result = TypeVar("Result")


def segment_names(path: str | Path) -> dict[int, str]:
    """Segment number -> label of a DICOM SEG (a file, or the folder that holds it). StudyError when it is none."""
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
    }


def read_seg_on(image: Raster, path: Path) -> np.ndarray:
    """(ni, nj, nk) uint8 of segment numbers on the image's grid.

    Where segments overlap the smaller one is on top. StudyError when a frame does not lie on a slice of the image.
    """
    return _guarded(lambda: _lay_all(image, _load(path), path), path)


def _lay_all(image: Raster, seg: Dataset, path: Path) -> np.ndarray:
    numbers = list(_names(seg))
    if max(numbers) > 255:
        raise StudyError(f"{path}: holds segment number {max(numbers)}; a label map has room for 1 to 255")
    frames = seg.pixel_array.reshape(-1, int(seg.Rows), int(seg.Columns))
    if str(seg.get("SegmentationType", "BINARY")).upper() == "FRACTIONAL":
        frames = 2 * frames.astype(np.int64) >= int(seg.get("MaximumFractionalValue", 255))
    masks = {number: np.zeros(image.grid.size, dtype=bool, order="F") for number in numbers}
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(_group(seg, groups, "SegmentIdentificationSequence", path).ReferencedSegmentNumber)
        index = _drawn_on(image, groups) if image.flat or image.frames else None
        if index is not None and frame.T.shape == image.grid.size[:2]:
            masks[number][:, :, index] |= frame.T != 0
        else:
            _lay(masks[number], image, frame != 0, _frame_grid(seg, groups, path), path)
    labels = np.zeros(image.grid.size, dtype=np.uint8, order="F")
    for number in sorted(masks, key=lambda n: -int(masks[n].sum())):
        labels[masks[number]] = number
    return labels


def _lay(mask: np.ndarray, image: Raster, frame: np.ndarray, grid: Grid, path: Path) -> None:
    """Adds one frame (rows, columns) to ``mask`` on the slice of the image where it lies."""
    for own in image.grids:
        across = int(np.argmax(np.abs(np.linalg.inv(own.affine)[:3, :3] @ grid.affine[:3, 2])))
        index = round(float((np.linalg.inv(own.affine) @ grid.affine[:, 3])[across]))
        if not 0 <= index < own.size[across]:
            continue
        shift = np.zeros(3)
        shift[across] = index
        affine = own.affine.copy()
        affine[:3, 3] += own.affine[:3, :3] @ shift
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
    seg = pydicom.dcmread(files[0], defer_size="1 MB")
    if seg.get("Modality") != "SEG" or not seg.get("SegmentSequence"):
        raise StudyError(f"{path}: is a DICOM object of modality {seg.get('Modality')}, not a segmentation (SEG)")
    return seg
