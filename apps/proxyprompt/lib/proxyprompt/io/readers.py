"""One reader for each kind of file; every one of them gives a :class:`proxyprompt.io.raster.Raster`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from .dicom import read_dicom
from .errors import StudyError
from .grid import Grid, ItkGeometry
from .image_files import read_pages
from .raster import (
    DAMAGE,
    ITK,
    NIFTI,
    PLAIN_IMAGES,
    Raster,
    damaged,
    from_itk,
    gray_or_rgb,
    has_dicom_magic,
    is_dicom_path,
    suffix_of,
)


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
        return guarded(read_dicom, path)
    if suffix in NIFTI:
        return guarded(read_nifti, path)
    if suffix in ITK:
        return guarded(read_itk, path)
    if suffix in PLAIN_IMAGES:
        return guarded(read_plain_image, path, indices)
    raise StudyError(
        f"{path}: unknown kind of file; expected NIfTI ({', '.join(NIFTI)}), {', '.join(ITK)}, a DICOM file or a "
        f"folder with one DICOM series, or an image ({', '.join(PLAIN_IMAGES)})"
    )


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
    voxels = gray_or_rgb(path, voxels.reshape(*size, voxels.shape[-1]) if colour else voxels.reshape(size))
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


def read_plain_image(path: Path, indices: bool = False) -> Raster:
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
    voxels = gray_or_rgb(path, pages.array.transpose(2, 1, 0, *range(3, pages.array.ndim)))
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

    Viewers go by ITK, and its choices differ from nibabel's (no form code, two forms, dots per inch of an image).

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


def _checked(raster: Raster) -> Raster:
    grids = tuple(grid for grid in raster.grids if grid.usable())
    if not grids:
        raise StudyError(
            f"{raster.path}: its geometry cannot be used (axes {raster.grid.affine.tolist()}); "
            "repair the header or export it again"
        )
    return replace(raster, grids=grids)
