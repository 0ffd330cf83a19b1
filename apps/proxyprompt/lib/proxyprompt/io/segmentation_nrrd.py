"""Segmentations of 3D Slicer (``.seg.nrrd``): names, values and layers of the segments stand in the header.

The header counts, not the file's name. Slicer crops such a file to what is painted; segments that overlap lie in
several layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nrrd
import numpy as np
import SimpleITK as sitk

from .errors import StudyError
from .grid import Grid, ItkGeometry
from .label_map import LARGEST_VALUE, LabelMap, from_segments
from .raster import DAMAGE, Raster, damaged, suffix_of

SUFFIX = ".seg.nrrd"


@dataclass(frozen=True)
class Segment:
    """One segment of the header.

    Attributes:
        name: of the structure.
        layer: that holds it.
        value: it is where the layer holds this one; None for anything but 0.
    """

    name: str
    layer: int
    value: int | None


def is_segmentation_nrrd(path: Path) -> bool:
    """Whether a file is a NRRD whose header lists segments.

    Args:
        path: of the file.

    Returns:
        True for such a one.
    """
    return path.is_file() and suffix_of(path) == ".nrrd" and bool(_listed(path))


def read_segmentation_nrrd_on(image: Raster, path: Path) -> LabelMap:
    """The segments on the image's grid, numbered from 1 in the order of the header; a cropped file is laid on it.

    Args:
        image: whose grid counts.
        path: of the label.

    Returns:
        Values and names.

    Raises:
        StudyError: the file does not lie on the image's voxels, holds fractions, or more segments than a label map has
            room for.
    """
    header = _header(path)
    representation = header.get("Segmentation_MasterRepresentation") or header.get("Segmentation_SourceRepresentation")
    if "fractional" in str(representation or "").lower():
        raise StudyError(f"{path}: holds fractions of voxels, not a label; export it as a binary labelmap")
    try:
        layers, grid = _layers(path)
    except DAMAGE as error:
        raise damaged(path, error) from error
    segments = _segments(path, header, layers.shape[3])
    placed = next(filter(None, (own.placement(grid, box=True) for own in image.grids)), None)
    if placed is None:
        raise StudyError(
            f"{path}: this segmentation does not lie on the image's voxels. Segmentation: {grid.describe()}. Image "
            f"{image.path}: {image.grid.describe()}. Export it with the image as reference volume"
        )
    alignment, ranges = placed
    voxels, names = {}, {}
    for number, segment in enumerate(segments, 1):
        layer = layers[..., segment.layer]
        whole = np.zeros(image.grid.size, dtype=bool, order="F")
        whole[ranges] = alignment.apply(layer != 0 if segment.value is None else layer == segment.value)
        voxels[number], names[number] = np.flatnonzero(whole.ravel(order="F")), segment.name
    return from_segments(image.grid.size, voxels, names)


def _listed(path: Path) -> list[int]:
    """The numbers of the segments in the header; none where it cannot be read."""
    try:
        return _numbers(_header(path))
    except StudyError:
        return []


def _numbers(header: Mapping[str, object]) -> list[int]:
    keys = (key.removeprefix("Segment").partition("_")[0] for key in header if key.startswith("Segment"))
    return sorted({int(number) for number in keys if number.isdecimal()})


def _header(path: Path) -> Mapping[str, object]:
    try:
        return nrrd.read_header(str(path))
    except (*DAMAGE, nrrd.NRRDError) as error:
        raise damaged(path, error) from error


def _segments(path: Path, header: Mapping[str, object], layers: int) -> list[Segment]:
    """Old files say neither layer nor value: one layer for each segment, or one for all, numbered."""
    found = []
    for place, number in enumerate(_numbers(header)):
        fields = {key: header.get(f"Segment{number}_{key}") for key in ("Name", "ID", "Layer", "LabelValue")}
        name = str(fields["Name"] or fields["ID"] or f"Segment_{number + 1}").strip()
        try:
            layer = int(fields["Layer"]) if fields["Layer"] is not None else (place if layers > 1 else 0)
            value = (
                int(fields["LabelValue"]) if fields["LabelValue"] is not None else (None if layers > 1 else place + 1)
            )
        except ValueError as error:
            raise damaged(path, error) from error
        if not 0 <= layer < layers:
            raise StudyError(f"{path}: segment {name!r} is in layer {layer} of {layers}; export it again")
        found.append(Segment(name, layer, value))
    if len(found) > LARGEST_VALUE:
        raise StudyError(f"{path}: holds {len(found)} segments; a label map has room for {LARGEST_VALUE}")
    return found


def _layers(path: Path) -> tuple[np.ndarray, Grid]:
    """(ni, nj, nk, layers), and where they lie."""
    image = sitk.ReadImage(str(path))
    geometry = ItkGeometry.of(image)
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., None] if len(geometry.size) < 4 else np.moveaxis(array, 0, -1)
    while array.ndim < 4:
        array = array[None]
    return array.transpose(2, 1, 0, 3), Grid.from_itk(geometry)
