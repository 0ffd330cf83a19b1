"""DICOM images: a series in a folder, or one file with one or many frames.

Pixels and geometry are ITK's, as MONAI Label's and the viewers' are (rescaled values, MONOCHROME1 turned bright side
up, palettes and YBR as RGB); what the frames of a file are to each other is read from the tags.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset

from lib.studies.errors import StudyError
from lib.studies.readers import Raster, from_itk, has_dicom_magic

TAGS = ("Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription")
NOT_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG")
POSITION_TOLERANCE = 1e-3  # mm: slices nearer than this lie at the same place
UNEVEN = 0.05  # of the usual step between slices


@dataclass(frozen=True)
class Frame:
    """One image of a series or of a multi-frame file, without pixels.

    header: the tags of its file. number: of the frame in it, from 1. plane: where it lies; the header itself, or for an
    Enhanced image the tags of this frame's functional groups.
    """

    header: Dataset
    number: int
    plane: Dataset

    @property
    def instance(self) -> tuple[str, int]:
        return str(self.header.get("SOPInstanceUID", "")), self.number


def read_frames(path: Path) -> list[Frame]:
    """path: a DICOM file, or a folder with the files of one series. The frames in the order of the raster's slices."""
    return _frames([_header(file) for file in _files(path)])


def read_dicom(path: Path) -> Raster:
    """path: a DICOM file, or a folder with the files of one series (other files beside them are ignored).

    Several images at one place are frames in time; several times at several places are refused.
    """
    files = _files(path)
    headers = [_header(file) for file in files]
    first = headers[0]
    modality = str(first.get("Modality", "")).upper() or None
    if modality in NOT_IMAGES:
        raise StudyError(f"{path}: is a DICOM object of modality {modality}, not an image; give the image series")
    tags = {name: str(first.get(name)) for name in TAGS if first.get(name)}
    images = _frames(headers)
    frame_count = len(images)
    places = [_place(image.plane) for image in images]
    oriented = places[0] is not None
    frames, notes = False, ()
    if frame_count > 1:
        frames, notes = _arrangement(path, places, sorted_by_itk=len(files) > 1)
    image = sitk.ReadImage([str(f) for f in files]) if len(files) > 1 else sitk.ReadImage(str(files[0]))
    raster = from_itk(path, image)
    if raster.voxels.shape[2] != frame_count:
        raise StudyError(f"{path}: holds {raster.voxels.shape[2]} frames, its header says {frame_count}")
    return replace(
        raster,
        frames=frames,
        flat=raster.flat or not oriented,
        modality=modality,
        tags=tags,
        notes=notes,
        instances=tuple(image.instance for image in images),
    )


def _files(path: Path) -> list[Path]:
    return _series_files(path) if path.is_dir() else [path]


def _series_files(folder: Path) -> list[Path]:
    """The files of the folder's one series, in ITK's order (along the stack).

    ITK passes over a damaged file without a word, which would close the gap that it leaves: such a file is refused.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise StudyError(f"{folder}: no DICOM image in this folder; give a file, or a folder with one DICOM series")
    if len(series) > 1:
        raise StudyError(
            f"{folder}: holds {len(series)} DICOM series ({', '.join(series)}); put each in its own folder"
        )
    files = [Path(f) for f in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])]
    for file in sorted(set(folder.iterdir()) - set(files)):
        if has_dicom_magic(file) and file.name.upper() != "DICOMDIR":
            raise StudyError(f"{file}: cannot be read with its series, it may be damaged or cut short; export it again")
    return files


def _header(file: Path) -> Dataset:
    """Tags without pixels. StudyError when the file is shorter than its uncompressed pixels."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    if (
        header.get("Rows")
        and not pydicom.uid.UID(header.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")).is_compressed
    ):
        bits = int(header.get("BitsAllocated", 8)) * int(header.get("SamplesPerPixel", 1))
        pixels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames", 1) or 1)
        if file.stat().st_size < pixels * bits // 8:
            raise StudyError(
                f"{file}: cannot be read, it is cut short ({file.stat().st_size} bytes for {pixels * bits // 8} bytes "
                "of pixels); export it again"
            )
    return header


def _place(header: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Position (3,) and normal (3,) of one image in LPS mm; None where it has none."""
    position, axes = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    if not position or not axes or len(axes) != 6:
        return None
    axes = np.asarray(axes, dtype=float)
    return np.asarray(position, dtype=float), np.cross(axes[:3], axes[3:])


def _frames(headers: list[Dataset]) -> list[Frame]:
    """All frames of one file, or the one of each file."""
    if len(headers) > 1:
        return [Frame(header, 1, header) for header in headers]
    (header,) = headers
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return [Frame(header, n + 1, header) for n in range(int(header.get("NumberOfFrames", 1) or 1))]
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = []
    for n, groups in enumerate(per_frame):
        plane = Dataset()
        for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
            group = groups.get(name) or shared.get(name)
            if group:
                plane.update(group[0])
        frames.append(Frame(header, n + 1, plane))
    return frames


def _arrangement(path: Path, places: list, *, sorted_by_itk: bool) -> tuple[bool, tuple[str, ...]]:
    """Whether the images are frames in time, and notes about an uneven stack."""
    if any(place is None for place in places):
        return True, ()
    normal = places[0][1]
    along = np.array([float(position @ normal) for position, _ in places])
    one_way = (np.diff(along) > 0).all() or (np.diff(along) < 0).all()
    steps = np.diff(np.sort(along))
    moved = steps > POSITION_TOLERANCE
    if not moved.any():
        return True, ()
    if not moved.all():
        raise StudyError(
            f"{path}: holds {len(places)} images at {int(moved.sum()) + 1} places (a time series of volumes); "
            "expected one volume or one moving slice: export one time point"
        )
    if not one_way and not sorted_by_itk:
        raise StudyError(
            f"{path}: its {len(places)} frames are not stored in the order of their places, and viewers show such a "
            "file in the wrong order; export it as a series of single images"
        )
    usual = float(np.median(steps))
    if np.abs(steps - usual).max() > UNEVEN * usual:
        return False, (f"slices are unevenly spaced ({steps.min():.3g} to {steps.max():.3g} mm): one may be missing",)
    return False, ()
