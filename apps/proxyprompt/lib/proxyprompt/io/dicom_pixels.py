"""The voxels of DICOM images, rescaled, and where they lie.

ITK reads them, as for MONAI Label and the viewers. Two things it does not do well: it takes the first file's type and
the first frame's slope for all, so slices with rescaling of their own (PET, some MR) are read one by one, in float; and
what it cannot decode (HTJ2K, JPEG XL, pixels stored as floats) pydicom and imagecodecs decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.encaps import generate_pixel_data_frame
from pydicom.pixel_data_handlers.util import convert_color_space, pixel_dtype

from .dicom_series import NATIVE, Image, place_of, syntax_of
from .errors import StudyError
from .raster import DAMAGE, damaged

DECODERS = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)), imagecodecs.jpeg2k_decode),  # HTJ2K
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112)), imagecodecs.jpegxl_decode),
}
"""Transfer syntax -> decoder of one frame, for those that ITK does not know."""
RESCALE = ("RescaleSlope", "RescaleIntercept")
TYPE = (*RESCALE, "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
CANNOT_DECODE = (
    "{path}: its pixels are stored as {syntax}, which cannot be decoded here; convert the file to an uncompressed or "
    "JPEG 2000 transfer syntax (with gdcmconv or dcmconv, for example), and a film to single images"
)


def read_image(path: Path, images: Sequence[Image], planes: Sequence[Dataset]) -> sitk.Image:
    """The voxels and geometry of a series, or of one file.

    Args:
        path: for messages.
        images: the files, in the order of the slices.
        planes: for each slice the tags that say where it lies and how it is rescaled.

    Returns:
        As ITK holds it.

    Raises:
        StudyError: the pixels are stored in a way that nothing here decodes.
        RuntimeError: a damaged file, as the libraries say it.
        OSError: the same.
        ValueError: the same.
    """
    files = [str(image.file) for image in images]
    kinds = {tuple(str(image.header.get(name)) for name in TYPE) for image in images}
    each = len(images) == 1 and len({_rescale(images[0].header, plane) for plane in planes}) > 1
    if syntax_of(images[0].header) in DECODERS or "PixelData" not in _pixel_elements(images[0].file):
        return _decoded(path, images, planes)
    try:
        image = sitk.ReadImage(files if len(files) > 1 else files[0])
        if len(kinds) > 1:
            parts = [sitk.GetArrayFromImage(sitk.ReadImage(file)) for file in files]
            return _like(image, np.concatenate([part.astype(np.float32) for part in parts]))
    except RuntimeError as error:
        return _decoded(path, images, planes, failed=error)
    if each:
        return _like(image, _values(path, images[0], planes))
    return image


def _like(image: sitk.Image, array: np.ndarray) -> sitk.Image:
    made = sitk.GetImageFromArray(array, isVector=image.GetNumberOfComponentsPerPixel() > 1)
    made.CopyInformation(image)
    return made


def _decoded(
    path: Path, images: Sequence[Image], planes: Sequence[Dataset], failed: Exception | None = None
) -> sitk.Image:
    """Without ITK. failed: what it said."""
    shares = [planes] if len(images) == 1 else [[plane] for plane in planes]
    parts = []
    for image, share in zip(images, shares, strict=True):
        try:
            parts.append(_values(path, image, share, failed))
        except StudyError:
            raise
        except DAMAGE as error:
            raise damaged(image.file, error) from error
    array = np.concatenate(parts)
    made = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    first = planes[0]
    row_step, column_step = (
        float(v) for v in first.get("PixelSpacing") or images[0].header.get("PixelSpacing", (1, 1))
    )
    step = 1.0
    places = [place_of(plane) for plane in planes]
    if all(place is not None for place in places):
        axes = np.asarray(first.ImageOrientationPatient, dtype=float)
        if len(places) > 1:
            step = float((places[-1][0] - places[0][0]) @ places[0][1]) / (len(places) - 1)
        normal = places[0][1] * (np.sign(step) or 1)
        made.SetOrigin(places[0][0].tolist())
        made.SetDirection(np.stack([axes[:3], axes[3:], normal], axis=1).ravel().tolist())
    made.SetSpacing((column_step, row_step, abs(step) or 1.0))
    return made


def _values(path: Path, image: Image, planes: Sequence[Dataset], failed: Exception | None = None) -> np.ndarray:
    """(frames, rows, columns[, 3]) of one file, each frame rescaled by its own slope; bright side up, colour as RGB."""
    whole = pydicom.dcmread(image.file, force=True)
    frames = stored_frames(path, whole, failed)
    kind = str(whole.get("PhotometricInterpretation", "MONOCHROME2"))
    if frames.ndim == 4:
        return convert_color_space(frames, kind, "RGB") if kind.startswith("YBR_FULL") else frames
    scales = [_rescale(whole, plane) for plane in planes]
    if kind == "MONOCHROME1":
        frames = frames.max() - frames
    if all(scale == (1.0, 0.0) for scale in scales):
        return frames
    return np.stack([frame * np.float64(s) + i for frame, (s, i) in zip(frames, scales, strict=True)]).astype(
        np.float32
    )


def stored_frames(path: Path, whole: Dataset, failed: Exception | None = None) -> np.ndarray:
    """Pixels as stored, by pydicom's decoders, and those of imagecodecs.

    Args:
        path: for messages.
        whole: one file, with pixels.
        failed: what another reader said about it.

    Returns:
        (frames, rows, columns), or (frames, rows, columns, samples).

    Raises:
        StudyError: nothing here decodes the transfer syntax.
    """
    syntax = syntax_of(whole)
    shape = (-1, int(whole.Rows), int(whole.Columns), *([whole.SamplesPerPixel] if whole.SamplesPerPixel > 1 else []))
    if decode := DECODERS.get(syntax):
        count = int(whole.get("NumberOfFrames", 1) or 1)
        packed = generate_pixel_data_frame(whole.PixelData, count)
        return np.stack([decode(frame) for frame in packed]).astype(pixel_dtype(whole), copy=False).reshape(shape)
    try:
        return whole.pixel_array.reshape(shape)
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, NotImplementedError) or (syntax not in NATIVE and "decod" in str(error)):
            raise StudyError(CANNOT_DECODE.format(path=path, syntax=f"{syntax.name} ({syntax})")) from error
        raise (failed or error) from error


def _rescale(header: Dataset, plane: Dataset) -> tuple[float, float]:
    """Slope and intercept of one frame: of its own functional group, else of the file."""
    slope, intercept = (plane.get(n, header.get(n)) for n in RESCALE)
    return float(1 if slope is None else slope), float(intercept or 0)


def _pixel_elements(file: Path) -> set[str]:
    """Which of the elements that may hold pixels a file has."""
    names = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    whole = pydicom.dcmread(file, force=True, defer_size=1024, specific_tags=list(names))
    return {name for name in names if name in whole}
