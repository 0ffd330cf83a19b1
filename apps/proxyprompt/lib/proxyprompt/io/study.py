"""Any image file as slices for the model, and masks on those slices back on the file's own grid."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import StudyError
from .intensity import Bounds, IntensitySettings, normalise
from .label_files import read_label_map, write_label_on
from .label_map import LabelMap
from .orientation import Cut, cut, upright
from .padding import without_padding
from .raster import Raster, from_itk
from .readers import read_raster

__all__ = ["Study", "StudyError", "read_clip", "read_study", "study_of"]

logger = logging.getLogger(__name__)

UNKNOWN = ("", "UNK", "NONE")  # what MONAI Label writes where a DICOM tag is missing
# modalities whose images have no orientation in the patient, unless the file says otherwise
FLAT_MODALITIES = frozenset({"US", "ES", "OP", "XC", "GM", "SM", "CR", "DX", "MG", "XA", "RF", "RGB"})


def read_study(path: str | Path, *, intensity: IntensitySettings | None = None, modality: str | None = None) -> Study:
    """Read NIfTI, NRRD, MetaImage, DICOM (a file, or a folder with one series), PNG, JPEG, TIFF, BMP or PPM.

    Args:
        path: of the file or folder.
        intensity: how values become brightness; None for "auto".
        modality: what is known from elsewhere (a DICOM tag kept beside a converted file); it wins over the file's own.

    Returns:
        The study.

    Raises:
        StudyError: when the file cannot be used; names it. See :class:`Study`.
    """
    return Study(read_raster(path), intensity=intensity or IntensitySettings(), modality=modality)


def study_of(image: np.ndarray | sitk.Image, *, intensity: IntensitySettings | None = None) -> Study:
    """A study of what is in memory already.

    Args:
        image: (h, w) gray, (h, w, 3) colour or (Z, h, w) gray; of an array nothing is known of spacing and
            orientation, of a SimpleITK image both.
        intensity: how values become brightness.

    Returns:
        The study; it has no file.

    Raises:
        StudyError: for another number of axes, and as :class:`Study`.
    """
    if not isinstance(image, sitk.Image):
        array = np.asarray(image)
        colour = array.ndim == 3 and array.shape[-1] == 3
        if array.ndim not in (2, 3) or array.dtype.kind not in "buif":
            raise StudyError(
                f"the image is an array {array.shape} of {array.dtype}; expected numbers (h, w), (h, w, 3) in colour, "
                f"or (Z, h, w) for a volume or clip"
            )
        array = array.astype(np.uint8) if array.dtype == bool else array
        array = array.astype(np.float32) if array.dtype == np.float16 else array
        image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=colour)
    return Study(from_itk(Path("the image"), image), intensity=intensity or IntensitySettings())


def read_clip(paths: Sequence[str | Path], *, intensity: IntensitySettings | None = None) -> Study:
    """Frames of a clip that are a file each, such as a sequence of PNG.

    Args:
        paths: of images of one size, in their order in time.
        intensity: as for :func:`read_study`; of all frames together.

    Returns:
        The clip; its path is the first frame's.

    Raises:
        StudyError: for a file that cannot be used, for frames of different sizes, and for no frame.
    """
    if not len(paths):
        raise StudyError("a clip of no frames: expected the path of at least one image")
    rasters = [read_raster(path) for path in paths]
    first = rasters[0]
    for raster in rasters:
        if raster.voxels.shape != first.voxels.shape or raster.voxels.shape[2] != 1:
            sizes = (" x ".join(map(str, (*one.grid.size, *one.voxels.shape[3:]))) for one in (first, raster))
            raise StudyError(
                f"frames of a clip have one size: {first.path} is {next(sizes)}, {raster.path} is {next(sizes)}; "
                "bring them to one size, or give them one by one"
            )
    array = np.stack([raster.voxels[:, :, 0].swapaxes(0, 1) for raster in rasters])
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=first.colour)
    stack = replace(from_itk(first.path, image), frames=True, orientation=first.orientation, notes=first.notes)
    return Study(stack, intensity=intensity or IntensitySettings())


class Study:
    """One image as Z slices of (h, w), cut and turned as :mod:`proxyprompt.io.orientation` says.

    Values that are not finite or are padding (:mod:`proxyprompt.io.padding`) are replaced by the smallest other one,
    and left out of the statistics, with a warning.

    Args:
        raster: voxels and what belongs to them.
        intensity: how values become brightness.
        modality: what is known from elsewhere; it wins over the file's own.

    Raises:
        StudyError: for slices thinner than 2 x 2 pixels, for an image without a finite value and for a constant one.

    Attributes:
        path: of the file or folder.
        kind: "image" (one slice), "cine" (frames in time) or "volume".
        modality: upper case ("RGB" for colour and "OT" for gray of which nothing is known).
        plane: "axial", "coronal", "sagittal" or "image".
        slice_shape: (h, w).
        pixel_spacing: mm (row step, column step).
        slice_spacing: mm.
        bounds: the values that become 0 and 1.
        intensity: what was given.
        warnings: texts for the user.
        tags: DICOM tags of the file.
    """

    def __init__(self, raster: Raster, *, intensity: IntensitySettings, modality: str | None = None) -> None:
        self._raster = raster
        self.path = raster.path
        self.tags = dict(raster.tags)
        known = (modality or "").strip().upper()
        known = raster.modality if known in UNKNOWN else known
        self._cut = _cut(raster, known)
        self.plane = self._cut.plane
        turned = self._cut.alignment.apply(raster.voxels)
        z, *shape = turned.shape[:3]
        self.slice_shape = (int(shape[0]), int(shape[1]))
        if min(self.slice_shape) < 2:
            raise StudyError(
                f"{self.path}: its slices have {shape[0]} x {shape[1]} pixels (array {raster.array_shape}); "
                "expected at least 2 x 2: give the whole image"
            )
        self.kind = "image" if z == 1 else ("cine" if raster.frames or self.plane == "image" else "volume")
        self.slice_spacing, *pixels = (float(raster.grid.spacing[a]) for a in self._cut.alignment.axes)
        self.pixel_spacing = tuple(pixels)
        padded = without_padding(self.path, turned)
        self._voxels, self.warnings = padded.voxels, padded.notes + raster.notes
        values = self._voxels if padded.measured is None else self._voxels[padded.measured]
        known_by = {"modality": known, "colour": raster.colour}
        try:
            self.bounds: Bounds = intensity.bounds(values, padding=padded.smallest, **known_by)
        except StudyError as e:
            raise StudyError(f"{self.path}: {e}") from None
        if padded.about and (padded.notes or intensity.bounds(turned, **known_by) != self.bounds):
            self.warnings = (padded.about, *self.warnings)  # a window of a CT does not mind what is far below it
        for text in self.warnings:
            logger.warning("%s: %s", self.path, text)
        self.modality = known or ("RGB" if raster.colour else "OT")
        self.intensity = intensity

    def __len__(self) -> int:
        return self._voxels.shape[0]

    @property
    def instances(self) -> tuple[tuple[str, int], ...]:
        """Of DICOM: SOPInstanceUID and frame behind each slice of the file's own grid (see ``to_grid``)."""
        return self._raster.instances

    def __repr__(self) -> str:
        return (
            f"Study({str(self.path)!r}, {self.kind}, {self.modality}, {self.plane}, {len(self)} x {self.slice_shape})"
        )

    @property
    def spacing_known(self) -> bool:
        """Whether ``slice_spacing`` and ``pixel_spacing`` can be millimetres: a volume whose file places its voxels.

        Axes of unit steps from the origin are what converters write that know nothing.
        """
        return self.kind == "volume" and not np.array_equal(np.abs(self._raster.grid.affine), np.eye(4))

    @property
    def length(self) -> float | None:
        """From the first slice of a volume to the last, in mm; None where nobody knows."""
        return self.slice_spacing * (len(self) - 1) if self.spacing_known else None

    def image(self, index: int) -> np.ndarray:
        """One slice.

        Args:
            index: which.

        Returns:
            (3, h, w) float32 in [0, 1]; gray is repeated in the three channels.

        Raises:
            StudyError: for a slice that does not exist.
        """
        return self.images([index])[0]

    def images(self, indices: Iterable[int]) -> np.ndarray:
        """Some slices.

        Args:
            indices: which.

        Returns:
            (n, 3, h, w) float32 in [0, 1].

        Raises:
            StudyError: for a slice that does not exist.
        """
        indices = [self._index(i) for i in indices]
        values = normalise(self._voxels[indices], self.bounds)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if values.ndim == 4 else _three(values)

    def slice_hash(self, index: int) -> str:
        """Hash what the model sees of a slice.

        The same anatomy and window give the same hash, whatever the file's kind, order of voxels and name.

        Args:
            index: of the slice.

        Returns:
            sha256.

        Raises:
            StudyError: for a slice that does not exist.
        """
        return self._slice_hashes[self._index(index)]

    @cached_property
    def _slice_hashes(self) -> tuple[str, ...]:
        """Of all: whoever asks for one comes to need :attr:`content_hash` too."""
        hashes = []
        for voxels in self._voxels:
            values = np.ascontiguousarray(normalise(voxels, self.bounds))
            digest = hashlib.sha256(repr((self.plane, values.shape)).encode())
            digest.update(values)
            hashes.append(digest.hexdigest())
        return tuple(hashes)

    @cached_property
    def content_hash(self) -> str:
        """sha256 over all slices, as :meth:`slice_hash` sees them."""
        digest = hashlib.sha256(b"study")
        for each in self._slice_hashes:
            digest.update(bytes.fromhex(each))
        return digest.hexdigest()

    def read_label(self, path: str | Path) -> np.ndarray:
        """A label file's values on this study's slices.

        The label must cover the same voxels (size, spacing, origin, axes; it may hold them in another order); a 2-D
        image is compared by size only. A DICOM SEG and a NRRD may leave slices out.

        Args:
            path: of the label.

        Returns:
            (Z, h, w) uint8.

        Raises:
            StudyError: when it does not; names both grids.
        """
        return self.read_label_map(path).values

    def read_label_map(self, path: str | Path) -> LabelMap:
        """As :meth:`read_label`, with what else the file says.

        Args:
            path: of the label.

        Returns:
            The values, the names that the file itself gives them, and what there is to say about it.

        Raises:
            StudyError: as :meth:`read_label`.
        """
        found = read_label_map(self._raster, Path(path))
        return replace(found, values=np.ascontiguousarray(self._cut.alignment.apply(found.values)))

    def locate(self, voxel: Sequence[float]) -> tuple[int, int, int]:
        """Find a voxel among the slices: the inverse of :meth:`to_grid`.

        Args:
            voxel: (x, y, z) of the file; x runs along the file's fastest axis (an image's columns), as in ITK,
                nibabel, 3D Slicer and OHIF; z may be left out where there is one slice. Fractions are rounded.

        Returns:
            (slice, row, column).

        Raises:
            StudyError: outside the image.
        """
        size = self._raster.grid.size
        given = list(voxel) + [0] * (3 - len(voxel)) if size[2] == 1 else list(voxel)
        if len(given) != 3 or not np.isfinite(given).all():
            raise StudyError(f"point {list(voxel)}: expected voxel coordinates (x, y, z) in an image of size {size}")
        index = [int(np.floor(v + 0.5)) for v in given]
        if any(not 0 <= i < n for i, n in zip(index, size, strict=True)):
            raise StudyError(f"point {list(voxel)} is outside the image, whose size (x, y, z) is {size}")
        return self._cut.alignment.locate(index, size)

    def to_grid(self, labels: np.ndarray) -> np.ndarray:
        """Bring labels to the file's own array order, without colour.

        Args:
            labels: (Z, h, w) integers 0 to 255 or bool.

        Returns:
            uint8: nibabel's (i, j, k) for NIfTI; (slices, rows, columns), SimpleITK's order, for NRRD, MetaImage and
                DICOM;
            (rows, columns) for an image.

        Raises:
            StudyError: for another shape or other values.
        """
        return self._in_file_order(self._to_file(labels))

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Shape of the file's own array, without colour."""
        return tuple(self._raster.array_shape)

    def grid_to_slices(self, values: np.ndarray) -> np.ndarray:
        """The reverse of :meth:`values_to_grid`.

        Args:
            values: in the file's own array order.

        Returns:
            (Z, h, w) of the same type.
        """
        size = self._raster.voxels.shape[:3]
        voxels = values.reshape(size[::-1]).transpose() if self._raster.transposed else values.reshape(size)
        return np.ascontiguousarray(self._cut.alignment.apply(voxels))

    def values_to_grid(self, values: np.ndarray) -> np.ndarray:
        """Bring values of any type to the file's own array order, as :meth:`to_grid` does.

        Args:
            values: (Z, h, w).

        Returns:
            The same values in that order.
        """
        return self._in_file_order(self._cut.alignment.undo(values))

    def _in_file_order(self, voxels: np.ndarray) -> np.ndarray:
        array = voxels.transpose() if self._raster.transposed else voxels
        return np.ascontiguousarray(array.reshape(self._raster.array_shape))

    def write_label(self, labels: np.ndarray, path: str | Path, *, compress: bool = False) -> Path:
        """Write labels on the file's own grid: same size, spacing, origin and axes, for every suffix.

        The file is written beside, then renamed.

        Args:
            labels: (Z, h, w) integers 0 to 255 or bool.
            path: by suffix: .nii.gz, .nii, .nrrd, .mha; for a single slice also .png, .tif and .bmp.
            compress: for .nrrd and .mha (viewers take the raw ones).

        Returns:
            That path.

        Raises:
            StudyError: for other suffixes, and as :meth:`to_grid`.
        """
        return write_label_on(self._raster, self._to_file(labels), Path(path), compress=compress)

    def _to_file(self, labels: np.ndarray) -> np.ndarray:
        """(Z, h, w) -> (ni, nj, nk) uint8."""
        labels = np.asarray(labels)
        expected = (len(self), *self.slice_shape)
        if labels.shape != expected:
            raise StudyError(f"labels have shape {labels.shape}, the study {self.path} has slices of shape {expected}")
        if labels.dtype.kind not in "bui" or (labels.size and (labels.min() < 0 or labels.max() > 255)):
            raise StudyError(f"labels of type {labels.dtype} must be whole numbers from 0 to 255")
        return self._cut.alignment.undo(labels.astype(np.uint8))

    def _index(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise StudyError(f"{self.path}: has no slice {index}; expected 0 to {len(self) - 1}")
        return int(index)


def _cut(raster: Raster, modality: str | None) -> Cut:
    """Files converted from ultrasound or photographs keep their modality but have no orientation: identity axes."""
    identity = np.allclose(raster.grid.direction, np.eye(3)) and not raster.grid.affine[:3, 3].any()
    flat = raster.flat or (modality in FLAT_MODALITIES and identity)
    if flat and not np.allclose(np.abs(raster.grid.direction), np.eye(3)):
        flat = False  # colour with real axes: turned as any other image
    if flat:
        return upright(Cut("image", cut(raster.grid, frames=True).alignment), raster.orientation)
    return cut(raster.grid, frames=raster.frames)


def _three(gray: np.ndarray) -> np.ndarray:
    """(n, h, w) -> (n, 3, h, w)."""
    return np.repeat(gray[:, None], 3, axis=1)
