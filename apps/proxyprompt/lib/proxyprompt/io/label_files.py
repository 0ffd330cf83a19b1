"""Label files on the grid of an image: read exactly, written exactly, never resampled."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from PIL import Image

from .errors import StudyError
from .grid import ItkGeometry
from .label_map import LabelMap
from .raster import NIFTI, PLAIN_IMAGES, Raster, has_dicom_magic, is_dicom_path, suffix_of
from .readers import read_raster
from .segmentation_nrrd import is_segmentation_nrrd, read_segmentation_nrrd_on

logger = logging.getLogger(__name__)

ROUNDING = 5e-3  # labels that were stored with a scale factor, or as float, are whole numbers but for this
WRITABLE_PLAIN_IMAGES = (".png", ".tif", ".tiff", ".bmp")
WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha", *WRITABLE_PLAIN_IMAGES)


def read_label_map(image: Raster, path: Path) -> LabelMap:
    """The label's values on the image's voxels, and the names that the file itself gives them.

    A DICOM SEG and a Segmentation NRRD name their segments, which may overlap, and may leave out what is empty. A label
    that holds the same voxels in another order is turned. A NRRD may leave out slices at the ends of the stack: that is
    what MONAI Label makes of a DICOM SEG, in which empty slices are not stored.

    Args:
        image: whose grid counts.
        path: of the label.

    Returns:
        Values, names and notes.

    Raises:
        StudyError: the label lies on another grid (both are named), or holds no whole numbers from 0 to 255.
    """
    if is_dicom_path(path) or has_dicom_magic(path):
        from .dicom_seg import read_seg_on

        return read_seg_on(image, path)
    if is_segmentation_nrrd(path):
        return read_segmentation_nrrd_on(image, path)
    return LabelMap(_values_on(image, path))


def names_itself(path: Path) -> bool:
    """Whether a label file is of a kind that names its structures: a DICOM SEG, or a Segmentation NRRD.

    Args:
        path: of the label.

    Returns:
        True for these.
    """
    return is_dicom_path(path) or has_dicom_magic(path) or is_segmentation_nrrd(path)


def _values_on(image: Raster, path: Path) -> np.ndarray:
    """Of a file that holds nothing but numbers."""
    if suffix_of(path) in (".jpg", ".jpeg"):
        raise StudyError(f"{path}: JPEG changes label values; save the label as PNG, NIfTI or NRRD")
    label = read_raster(path, indices=True)
    if label.colour:
        raise StudyError(f"{path}: is a colour image; expected one number per pixel: save it gray, or with a palette")
    values = as_labels(path, label.voxels)
    if suffix_of(path) in PLAIN_IMAGES:
        return _plain_image_on(image, label, values)
    pairs = [(own, other) for own in image.grids for other in label.grids]
    for own, other in pairs:
        alignment = own.alignment(other)
        if alignment is not None:
            return alignment.apply(values)
    placed = next(filter(None, (own.placement(other) for own, other in pairs)), None)
    if placed is not None and suffix_of(path) == ".nrrd":
        whole = np.zeros(image.grid.size, dtype=np.uint8, order="F")
        whole[placed[1]] = placed[0].apply(values)
        logger.info("%s: covers only a part of the slices of %s; the others are taken as empty", path, image.path)
        return whole
    raise StudyError(
        f"{path}: the label's grid is not the image's. Label: {label.grid.describe()}. Image {image.path}: "
        f"{image.grid.describe()}. Resample the label onto the image, or pair it with the image it was drawn on"
    )


def read_slices_on(image: Raster, path: Path, instances: Sequence[tuple[str, int | str]] | None) -> np.ndarray:
    """Read a label that is bare bytes, slice after slice of a DICOM image.

    Args:
        image: whose grid counts.
        path: of the label.
        instances: SOPInstanceUID and frame of each slice, in the order of the bytes.

    Returns:
        (ni, nj, nk) uint8.

    Raises:
        StudyError: when the instances are not those of the image, once each, or when the file has another size.
    """
    columns, rows, slices = image.grid.size
    given = [(str(uid), int(frame)) for uid, frame in instances or ()]
    if sorted(given) != sorted(image.instances):
        raise StudyError(
            f"{path.name}: names {len(given)} slices, which are not the {slices} of {image.path}; expected "
            "SOPInstanceUID and frame of each as 'instances'"
        )
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if content.size != columns * rows * slices:
        raise StudyError(
            f"{path.name}: has {content.size} bytes, expected {columns} x {rows} x {slices}, one byte a pixel"
        )
    drawn = dict(zip(given, content.reshape(slices, rows, columns), strict=True))
    return np.stack([drawn[instance].T for instance in image.instances], axis=2)


def as_labels(path: Path, voxels: np.ndarray) -> np.ndarray:
    """Bring numbers of any type to uint8.

    Args:
        path: for messages.
        voxels: any shape.

    Returns:
        The same numbers.

    Raises:
        StudyError: the values are not whole numbers from 0 to 255 (within the rounding of a scale factor).
    """
    whole = np.rint(voxels) if voxels.dtype.kind == "f" else voxels
    low, high = voxels.min(), voxels.max()
    if not (whole.min() >= 0 and whole.max() <= 255):  # NaN fails too
        raise StudyError(f"{path}: label values run from {low:g} to {high:g}; expected whole numbers from 0 to 255")
    if voxels.dtype.kind == "f" and np.abs(voxels - whole).max() > ROUNDING:
        raise StudyError(
            f"{path}: holds values that are not whole numbers; expected a label map, not probabilities: save it after "
            "choosing a threshold"
        )
    return whole.astype(np.uint8)


def _plain_image_on(image: Raster, label: Raster, values: np.ndarray) -> np.ndarray:
    """An image has no geometry: its columns and rows are the image's two axes of several voxels, in file order."""
    columns_rows = [n for n in image.grid.size if n > 1]
    if len(columns_rows) == 2 and values.shape == (*columns_rows, 1):
        return values.reshape(image.grid.size)
    if values.shape != image.grid.size:
        turned = image.orientation >= 5 and values.shape[1::-1] == image.grid.size[:2]
        hint = "draw it on the pixels as they are stored, or save the image upright" if turned else ""
        raise StudyError(
            f"{label.path}: the label image has {_by(values.shape)} pixels (columns x rows x pages), "
            f"the image {image.path} {_by(image.grid.size)}; {hint or 'pair it with the image it was drawn on'}"
        )
    return values


def write_label_on(image: Raster, labels: np.ndarray, path: Path, *, compress: bool = False) -> Path:
    """Write a label on an image's own grid, to a neighbour file that is then renamed.

    Args:
        image: whose grid and header count.
        labels: (ni, nj, nk) uint8 in the image's file order.
        path: its suffix says what is written.
        compress: for .nrrd and .mha.

    Returns:
        That path.

    Raises:
        StudyError: for a suffix that this image's labels cannot have.
    """
    suffix = suffix_of(path)
    if suffix not in WRITABLE:
        hint = " (JPEG changes label values)" if suffix in (".jpg", ".jpeg") else ""
        raise StudyError(f"{path}: labels cannot be written as {suffix!r}{hint}; expected one of {', '.join(WRITABLE)}")
    if suffix in WRITABLE_PLAIN_IMAGES:
        flat = [n for n in labels.shape if n > 1]
        if len(flat) != 2:
            raise StudyError(
                f"{path}: an image holds one slice, these labels have size {_by(labels.shape)}; write .nii.gz or .nrrd"
            )
        write = Image.fromarray(np.ascontiguousarray(labels.reshape(flat).T)).save
    elif suffix in NIFTI and image.header is not None:
        write = _nifti_like(image, labels, suffix).to_filename
    else:
        itk = _itk_like(image, labels, path)

        def write(target: str) -> None:
            sitk.WriteImage(itk, target, compress or suffix == ".nii.gz")

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".label-") as folder:
        beside = Path(folder) / f"label{suffix}"
        write(str(beside))
        beside.replace(path)
    return path


def _nifti_like(image: Raster, labels: np.ndarray, suffix: str) -> nib.Nifti1Image:
    """uint8 NIfTI with the image's header: both forms with their codes, pixdim, units, bit for bit."""
    kind = nib.Nifti2Image if isinstance(image.header, nib.Nifti2Pair) else nib.Nifti1Image
    header = image.header.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    header.extensions.clear()
    # affine None: the forms and codes of the header stay as they are
    return kind(np.asfortranarray(labels.reshape(image.array_shape)), None, header)


def _itk_like(image: Raster, labels: np.ndarray, path: Path) -> sitk.Image:
    """A SimpleITK image with the image's number of dimensions, spacing, origin and direction."""
    if image.geometry is None:
        raise StudyError(
            f"{path}: the axes of {image.path} are not at right angles, which {suffix_of(path)} written by ITK cannot "
            "hold; write the label as .nii.gz"
        )
    return itk_image(labels.transpose(), image.geometry)


def itk_image(array: np.ndarray, geometry: ItkGeometry) -> sitk.Image:
    """A SimpleITK image on a given grid.

    Args:
        array: (k, j, i), or any shape of as many values.
        geometry: of the result, whose dimensions it has.

    Returns:
        The image.
    """
    itk = sitk.GetImageFromArray(np.ascontiguousarray(array.reshape(geometry.size[::-1])))
    itk.SetSpacing(geometry.spacing)
    itk.SetOrigin(geometry.origin)
    itk.SetDirection(geometry.direction)
    return itk


def _by(size: Sequence[int]) -> str:
    return " x ".join(str(n) for n in size)
