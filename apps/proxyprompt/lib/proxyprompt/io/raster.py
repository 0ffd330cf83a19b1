"""The voxels of one file, whatever kind it is, and what its name and first bytes say of its kind.

Voxels are held as the file indexes them, (i, j, k) with the first axis fastest: columns, rows, slices of an image
or a DICOM series; nibabel's own order for NIfTI. Nothing is turned or resampled here.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from PIL import Image
from pydicom.errors import BytesLengthException, InvalidDicomError

from .errors import StudyError
from .grid import Grid, ItkGeometry

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PLAIN_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".ppm.gz", ".pgm.gz")
DICOM = (".dcm", ".dicom", ".ima")
# what libraries raise on damaged files: pydicom an AttributeError for a missing tag, Pillow even SyntaxError
DAMAGE = (
    *(OSError, EOFError, ValueError, RuntimeError, KeyError, SyntaxError, MemoryError, OverflowError),
    *(AttributeError, IndexError, TypeError, BytesLengthException),
    *(zlib.error, struct.error, InvalidDicomError, Image.DecompressionBombError),
    *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError),
)


@dataclass(frozen=True)
class Raster:
    """Voxels of one file (or series) and everything needed to write a label of the same grid.

    Attributes:
        path: of the file or folder.
        voxels: (ni, nj, nk), or (ni, nj, nk, 3) for colour.
        grids: where they lie; the first is the one used (what ITK and the viewers see), the others are further readings
            of the same header that a label may follow.
        array_shape: of the array that the file's own library gives, without colour, with its own number of axes.
        transposed: whether that one is (k, j, i) instead of (i, j, k).
        geometry: as ITK holds it, None where ITK cannot.
        header: nibabel's image for NIfTI.
        frames: the third axis is time.
        flat: no orientation in a patient.
        modality: as the file says, in upper case.
        tags: DICOM tags of the file.
        notes: texts for the user.
        instances: of DICOM, the SOPInstanceUID and the frame, from 1, behind each index of the third axis.
        origins: of DICOM, (nk, 3) LPS mm, where its first pixel really lies, which ITK's even grid says only of an even
            stack; None where nobody knows.
        orientation: how a viewer turns the image before it shows it (1 to 8, as in EXIF).
    """

    path: Path
    voxels: np.ndarray
    grids: tuple[Grid, ...]
    array_shape: tuple[int, ...]
    transposed: bool
    geometry: ItkGeometry | None = None
    header: Any = None
    frames: bool = False
    flat: bool = False
    modality: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    instances: tuple[tuple[str, int], ...] = ()
    origins: np.ndarray | None = None
    orientation: int = 1

    @property
    def grid(self) -> Grid:
        """The one that is used."""
        return self.grids[0]

    @property
    def colour(self) -> bool:
        """Whether a voxel has three numbers."""
        return self.voxels.ndim == 4


def suffix_of(path: Path) -> str:
    """The suffix that says what a file is.

    Args:
        path: of the file.

    Returns:
        In lower case, with both parts of ``.nii.gz``.
    """
    name = path.name.lower()
    for suffix in sorted((*NIFTI, *ITK, *PLAIN_IMAGES, *DICOM), key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    return path.suffix.lower()


def is_dicom_path(path: Path) -> bool:
    """Whether a path names DICOM: a folder (of a series), or a file with a DICOM suffix.

    Args:
        path: need not exist.

    Returns:
        True for these.
    """
    return path.is_dir() or suffix_of(path) in DICOM


def has_dicom_magic(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes: the prefix, or (in old files without one) a first tag.

    Args:
        path: of the file.

    Returns:
        False also where there is no such file.
    """
    if not path.is_file():
        return False
    with path.open("rb") as f:
        head = f.read(132)
    return head[128:] == b"DICM" or _starts_with_a_tag(head)


def _starts_with_a_tag(head: bytes) -> bool:
    """Group 0002 or 0008, which every DICOM object begins with, a low element, and a type or a short length."""
    if len(head) < 132:
        return False
    group, element, length = struct.unpack("<HHI", head[:8])
    explicit = head[4:6] in (b"UL", b"UI", b"CS", b"OB", b"DA", b"TM", b"SH", b"LO")
    return group in (0x0002, 0x0008) and element <= 0x0070 and (explicit or 0 < length <= 128)


def damaged(path: Path, reason: Exception) -> StudyError:
    """The error for a file that a library could not read.

    Args:
        path: of the file.
        reason: what the library said.

    Returns:
        The error, to be raised.
    """
    text = str(reason).strip().splitlines()[-1] if str(reason).strip() else type(reason).__name__
    return StudyError(f"{path}: cannot be read, it may be damaged or cut short ({text}); export it again")


def from_itk(path: Path, image: sitk.Image) -> Raster:
    """What SimpleITK has read.

    Args:
        path: for messages.
        image: axes of one voxel after the third are squeezed, longer ones refused.

    Returns:
        The raster.

    Raises:
        StudyError: for longer ones.
    """
    geometry = ItkGeometry.of(image)
    components = image.GetNumberOfComponentsPerPixel()
    if any(n > 1 for n in geometry.size[3:]):
        raise StudyError(
            f"{path}: has size {geometry.size} with {components} channels; expected one 2-D or 3-D image, gray or RGB: "
            "save one time point or channel as its own file"
        )
    array = sitk.GetArrayFromImage(image)
    colour = components > 1
    shape = array.shape[:-1] if colour else array.shape
    voxels = array.reshape(*((1, 1) + shape)[-3:], *array.shape[len(shape) :])
    voxels = gray_or_rgb(path, voxels.transpose(2, 1, 0, *range(3, voxels.ndim)))
    return Raster(path, voxels, (Grid.from_itk(geometry),), shape, True, geometry, flat=voxels.ndim == 4)


def gray_or_rgb(path: Path, voxels: np.ndarray) -> np.ndarray:
    """(i, j, k[, c]) -> gray or three channels, native byte order; equal channels are gray, alpha is left out."""
    if voxels.dtype.kind not in "buif":
        raise StudyError(f"{path}: has values of type {voxels.dtype}; expected whole or real numbers")
    if voxels.ndim == 4:
        channels = voxels.shape[3]
        if channels not in (1, 3, 4) or (channels > 1 and voxels.dtype.kind not in "ui"):
            raise StudyError(
                f"{path}: has {channels} channels of {voxels.dtype}; expected gray, or RGB of whole numbers"
            )
        voxels = voxels[..., :3]
        if channels == 1 or all(np.array_equal(voxels[..., 0], voxels[..., c]) for c in (1, 2)):
            voxels = voxels[..., 0]
    if voxels.dtype == np.float64 or voxels.dtype == np.float16 or voxels.dtype.itemsize > 8:
        voxels = voxels.astype(np.float32)
    if voxels.dtype == bool:
        voxels = voxels.astype(np.uint8)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
