"""One reader for each kind of file; every one of them gives a :class:`Raster`.

Voxels are held as the file indexes them, (i, j, k) with the first axis fastest: columns, rows, slices of a picture
or a DICOM series; nibabel's own order for NIfTI. Nothing is turned or resampled here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from PIL import Image
from pydicom.errors import BytesLengthException, InvalidDicomError

from .errors import StudyError
from .grid import Grid, ItkGeometry
from .image_files import read_pages

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".ppm.gz", ".pgm.gz")
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
        orientation: how a viewer turns the picture before it shows it (1 to 8, as in EXIF).
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
    for suffix in sorted((*NIFTI, *ITK, *PICTURES, *DICOM), key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    return path.suffix.lower()


def read_raster(path: str | Path, *, indices: bool = False) -> Raster:
    """Read any file, or a folder that holds one DICOM series.

    Args:
        path: of the file or folder.
        indices: keep palette indices, as a label wants them.

    Returns:
        Its voxels and what belongs to them.

    Raises:
        StudyError: when there is no such file, when its kind is not known, and when it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise StudyError(f"{path}: no such file or folder")
    suffix = suffix_of(path)
    if is_dicom_path(path) or has_dicom_magic(path):
        from .dicom import read_dicom

        return guarded(read_dicom, path)
    if suffix in NIFTI:
        return guarded(read_nifti, path)
    if suffix in ITK:
        return guarded(read_itk, path)
    if suffix in PICTURES:
        return guarded(read_picture, path, indices)
    raise StudyError(
        f"{path}: unknown kind of file; expected NIfTI ({', '.join(NIFTI)}), {', '.join(ITK)}, a DICOM file or a "
        f"folder with one DICOM series, or a picture ({', '.join(PICTURES)})"
    )


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


def guarded(reader: Callable[..., Raster], path: Path, *args: object) -> Raster:
    """Call a reader, with every complaint of a library about a damaged file turned into one StudyError.

    Args:
        reader: takes the path first.
        path: of the file.
        *args: what else it takes.

    Returns:
        What the reader returns.

    Raises:
        StudyError: the reader's own, or in the place of what a library raised.
    """
    try:
        return _checked(reader(path, *args))
    except StudyError:
        raise
    except DAMAGE as e:
        raise damaged(path, e) from e


def read_nifti(path: Path) -> Raster:
    """Read NIfTI-1 or -2, gray or colour, 2-D or 3-D; colour as RGB24 or as a trailing vector axis, as ITK writes it.

    Args:
        path: of the file.

    Returns:
        The raster.

    Raises:
        StudyError: for more axes or other types.
    """
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Pair):
        raise StudyError(f"{path}: is {type(image).__name__}, not NIfTI; convert it to .nii.gz")
    voxels = np.asanyarray(image.dataobj)
    shape = voxels.shape
    if voxels.dtype.names:
        voxels = np.stack([voxels[name] for name in ("R", "G", "B")], axis=-1)
        colour = True
    else:
        # colour is the fifth axis (ITK); four axes ending in 3 bytes are colour only if there is one slice
        colour = (len(shape) == 5 and shape[4] > 1) or (
            len(shape) == 4 and shape[2] == 1 and shape[3] in (3, 4) and voxels.dtype == np.uint8
        )
        shape = shape[:-1] if colour else shape
    if any(n > 1 for n in shape[3:]) or not shape or 0 in shape:
        raise StudyError(
            f"{path}: has shape {image.shape}; expected one 2-D or 3-D image, gray or RGB: "
            "save one time point or channel as its own file"
        )
    size = (shape + (1, 1))[:3]
    voxels = _gray_or_rgb(path, voxels.reshape(*size, voxels.shape[-1]) if colour else voxels.reshape(size))
    geometry = itk_geometry(path, size)
    if len(image.shape) > len(shape):  # colour: ITK leaves out the axes of one voxel before it, a label does too
        shape = geometry.size if geometry is not None else size
    grids = [Grid.from_ras(size, image.affine)]
    if geometry is not None:
        grids.insert(0, Grid.from_itk(geometry))
    if int(image.header["qform_code"]) and int(image.header["sform_code"]):
        grids.append(Grid.from_ras(size, image.get_qform()))
    return Raster(path, voxels, tuple(grids), shape, False, geometry, header=image, flat=voxels.ndim == 4)


def read_itk(path: Path) -> Raster:
    """Read NRRD or MetaImage.

    Args:
        path: of the file.

    Returns:
        The raster.

    Raises:
        StudyError: for more axes.
    """
    return from_itk(path, sitk.ReadImage(str(path)))


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
    voxels = _gray_or_rgb(path, voxels.transpose(2, 1, 0, *range(3, voxels.ndim)))
    return Raster(path, voxels, (Grid.from_itk(geometry),), shape, True, geometry, flat=voxels.ndim == 4)


def read_picture(path: Path, indices: bool = False) -> Raster:
    """Read PNG, JPEG, TIFF (several pages of one size are frames), BMP or PPM; see :mod:`proxyprompt.io.image_files`.

    Args:
        path: of the file.
        indices: keep palette indices, as a label wants them.

    Returns:
        The raster.

    Raises:
        StudyError: for pages that do not belong together, or pixels that nothing here decodes.
    """
    pages = read_pages(path, indices=indices)
    frames = len(pages.array) > 1
    shape = pages.array.shape[:3] if frames else pages.array.shape[1:3]
    geometry = itk_geometry(path, (shape[::-1] + (1,))[:3]) or ItkGeometry.identity(*shape[::-1])
    voxels = _gray_or_rgb(path, pages.array.transpose(2, 1, 0, *range(3, pages.array.ndim)))
    return Raster(
        path,
        voxels,
        (Grid.from_itk(geometry),),
        shape,
        True,
        geometry,
        frames=frames,
        flat=True,
        notes=pages.notes,
        orientation=pages.orientation,
    )


def itk_geometry(path: Path, size: tuple[int, ...]) -> ItkGeometry | None:
    """The geometry that ITK reads in a file's header.

    Viewers go by ITK, and its choices differ from nibabel's (no form code, two forms, dots per inch of a picture).

    Args:
        path: of the file.
        size: that it should have.

    Returns:
        The geometry; None when ITK cannot read it, or sees another size.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # shear, or a kind that ITK does not know
        return None
    geometry = ItkGeometry.of(reader)
    same = (geometry.size + (1, 1))[:3] == tuple(size) and all(n == 1 for n in geometry.size[3:])
    return geometry if same else None


def _gray_or_rgb(path: Path, voxels: np.ndarray) -> np.ndarray:
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


def _checked(raster: Raster) -> Raster:
    grids = tuple(grid for grid in raster.grids if grid.usable())
    if not grids:
        raise StudyError(
            f"{raster.path}: its geometry cannot be used (axes {raster.grid.affine.tolist()}); "
            "repair the header or export it again"
        )
    return replace(raster, grids=grids)


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
