"""An image as NIfTI on its own grid, for viewers that open nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import StudyError
from .raster import Raster


def write_nifti(image: Raster, path: Path) -> Path:
    """Write an image, so that a label drawn on the file lies on the image's own grid.

    Args:
        image: voxels and grid.
        path: ends with .nii.gz; written beside and then renamed.

    Returns:
        That path.

    Raises:
        StudyError: for axes that are not at right angles.
    """
    if image.geometry is None:
        raise StudyError(f"{image.path}: its axes are not at right angles, which NIfTI written by ITK cannot hold")
    voxels = np.moveaxis(image.voxels, (0, 1, 2), (2, 1, 0))  # (k, j, i), colour last
    shape = (*image.geometry.size[::-1], *voxels.shape[3:])
    itk = sitk.GetImageFromArray(np.ascontiguousarray(voxels.reshape(shape)), isVector=image.colour)
    itk.SetSpacing(image.geometry.spacing)
    itk.SetOrigin(image.geometry.origin)
    itk.SetDirection(image.geometry.direction)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".nifti-") as folder:
        beside = Path(folder) / path.name
        sitk.WriteImage(itk, str(beside), True)
        beside.replace(path)
    return path
