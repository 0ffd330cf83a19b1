"""Which files of a folder make up its DICOM series, in which order, and whether they are one stack.

Order is ITK's, which viewers follow: along the normal of the images, else by instance number, else by file name. What
is no image (reports, key objects, presentation states, structure sets, registrations, segmentations, ...) is left out.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.pixel_data_handlers.util import get_expected_length
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from .errors import StudyError
from .limits import check_size
from .raster import DAMAGE, DICOM, has_dicom_magic, suffix_of

logger = logging.getLogger(__name__)

# pydicom warns of values that DICOM does not allow, and tells them: dates of birth and names would stand in logs.
config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE

Values = tuple[float, ...] | None

NOT_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG")
_OTHER_PIXELS = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
)
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
"""Numbers of a computation, not seldom with decimals: read where somebody gives one, but no study of an archive."""
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
"""Transfer syntaxes that store pixels as they are; all others may take less room."""
POSITION_TOLERANCE = 1e-3  # mm: slices nearer than this lie at the same place
SAME_AXES = 0.02  # of a unit vector: about one degree
SAME_SPACING = 0.01
TELLING = (
    *("TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "TriggerTime", "DiffusionBValue", "InversionTime"),
    *("AcquisitionNumber", "ImageType", "AcquisitionTime", "ContentTime", "InstanceNumber"),
)
"""Tags by which images at one place differ, the most telling first."""


@dataclass(frozen=True)
class Image:
    """One DICOM file that holds pixels.

    Attributes:
        file: its path.
        header: its tags without the pixels.
    """

    file: Path
    header: Dataset

    @property
    def frames(self) -> int:
        """How many images it holds."""
        return int(self.header.get("NumberOfFrames", 1) or 1)


def read_series(path: Path) -> tuple[list[Image], tuple[str, ...]]:
    """The images of a file, or of the one series in a folder, in the order of the slices; and notes for the user.

    Args:
        path: a DICOM file, or a folder; files of other kinds and DICOM objects without an image are left out.

    Returns:
        The images, each instance once, and what the user should know about them.

    Raises:
        StudyError: no image, several series, a damaged file, or images that are no single stack; it names the files.
    """
    if not path.is_dir():
        image = Image(path, read_header(path))
        if not _has_image(image):
            raise StudyError(f"{path}: is a DICOM object {_kind(image.header)}, not an image; give the image series")
        return [image], ()
    found = [Image(f, read_header(f)) for f in sorted(path.iterdir()) if _is_dicom(f)]
    images = [image for image in found if _has_image(image)]
    others = [f"{i.file.name} {_kind(i.header)}" for i in found if not _has_image(i)]
    if not images:
        there = f"only {_listed(others)}" if others else "no DICOM image"
        raise StudyError(f"{path}: {there} in this folder; give a file, or a folder with one DICOM series")
    if others:
        logger.info("%s: left out, since they are no images: %s", path, _listed(others))
    series = Counter(str(image.header.get("SeriesInstanceUID", "")) for image in images)
    if len(series) > 1:
        shown = ", ".join(f"{uid} ({n} files)" for uid, n in series.most_common())
        raise StudyError(f"{path}: holds {len(series)} DICOM series ({shown}); put each in its own folder")
    images, notes = _once_each(path, images)
    if len(images) > 1:
        _refuse_clips(path, images)
        _refuse_mixture(path, images)
        images, again = _without_copies(path, in_order(images))
        notes += again
    return images, tuple(notes)


def read_header(file: Path) -> Dataset:
    """Tags without pixels, also of a file that lacks DICOM's prefix.

    Args:
        file: a DICOM file.

    Returns:
        The tags.

    Raises:
        StudyError: the file cannot be read, or is shorter than its uncompressed pixels.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=has_dicom_magic(file))
        if not header.get("SOPClassUID") and not header.get("Rows"):
            raise ValueError("it has no SOP class and no pixels")
        _refuse_short(file, header)
    except StudyError:
        raise
    except DAMAGE as error:
        text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise StudyError(f"{file}: cannot be read, it may be damaged or cut short ({text}); export it again") from error
    return header


def syntax_of(header: Dataset) -> UID:
    """The transfer syntax; files without DICOM's prefix are as a rule in the oldest one.

    Args:
        header: of the file.

    Returns:
        Its UID.
    """
    return UID(getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID", ImplicitVRLittleEndian))


def place_of(header: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Where one image lies.

    Args:
        header: of the image, or the tags of its functional groups.

    Returns:
        Position (3,) and normal (3,) in LPS mm; None where it has none.
    """
    position, axes = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    if not position or not axes or len(axes) != 6:
        return None
    axes = np.asarray(axes, dtype=float)
    return np.asarray(position, dtype=float), np.cross(axes[:3], axes[3:])


def in_order(images: Sequence[Image]) -> list[Image]:
    """Sort images as ITK does.

    Args:
        images: of one series.

    Returns:
        Along the normal of the first image where all lie at different places, else by number, else by file name.
    """
    places = [place_of(image.header) for image in images]
    if all(place is not None for place in places):
        along = np.array([float(position @ places[0][1]) for position, _ in places])
        if np.ptp(along) > POSITION_TOLERANCE:
            return [images[i] for i in np.argsort(along.round(6), kind="stable")]
    numbers = [image.header.get("InstanceNumber") for image in images]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return [image for _, image in sorted(zip(map(int, numbers), images, strict=True), key=lambda pair: pair[0])]
    return sorted(images, key=lambda image: image.file.name)


def difference(a: Dataset, b: Dataset) -> str:
    """By which tag two images at one place differ.

    Args:
        a: tags of one.
        b: tags of the other.

    Returns:
        Words for a message.
    """
    for name in TELLING:
        if a.get(name) != b.get(name):
            return f"they differ in {name}: {a.get(name)} and {b.get(name)}"
    return "no tag tells them apart"


def _is_dicom(file: Path) -> bool:
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR" or not file.is_file():
        return False
    return has_dicom_magic(file) or suffix_of(file) in DICOM


def is_image(header: Dataset) -> bool:
    """Whether a DICOM object is an image, by its SOP class and its pixels; of any modality, OT too.

    Args:
        header: its tags, of which Rows, Columns and SOPClassUID count.

    Returns:
        False for what has no pixels, and for what has other things in their place (segments, doses, maps).
    """
    if _has_other_pixels(header) or str(header.get("SOPClassUID", "")) == _PARAMETRIC_MAP:
        return False
    return bool(header.get("Rows") and header.get("Columns"))


def _has_other_pixels(header: Dataset) -> bool:
    return str(header.get("Modality", "")).upper() in NOT_IMAGES or str(header.get("SOPClassUID", "")) in _OTHER_PIXELS


def _has_image(image: Image) -> bool:
    """Of a file that was cut short before its size, the class still says what it was."""
    header = image.header
    if _has_other_pixels(header):
        return False
    if header.get("Rows") and header.get("Columns"):
        check_size(image.file, (header.Rows, header.Columns, image.frames))
        return True
    name = UID(str(header.get("SOPClassUID", ""))).name
    if name.endswith(("Image Storage", "Volume Storage")):
        raise StudyError(
            f"{image.file}: cannot be read, it may be damaged or cut short ({name} without Rows and "
            "Columns); export it again"
        )
    return False


def _kind(header: Dataset) -> str:
    modality = str(header.get("Modality", "")).upper()
    return f"of modality {modality}" if modality else f"of class {UID(str(header.get('SOPClassUID', ''))).name}"


def _refuse_short(file: Path, header: Dataset) -> None:
    if not header.get("Rows") or syntax_of(header) not in NATIVE:
        return
    expected = get_expected_length(header) if header.get("PhotometricInterpretation") else 0
    if file.stat().st_size < expected:
        raise StudyError(
            f"{file}: cannot be read, it is cut short ({file.stat().st_size} bytes for {expected} bytes of pixels); "
            "export it again"
        )


def _once_each(path: Path, images: list[Image]) -> tuple[list[Image], list[str]]:
    """Each instance once: the same file may lie there under two names."""
    kept: dict[Hashable, Image] = {}
    copies = []
    for image in images:
        uid = str(image.header.get("SOPInstanceUID", "")) or image.file
        first = kept.setdefault(uid, image)
        if first is image:
            continue
        if _pixels(first) != _pixels(image):
            raise StudyError(
                f"{path}: {first.file.name} and {image.file.name} call themselves the same instance ({uid}) and hold "
                "different pixels; take the wrong one away"
            )
        copies.append(f"{image.file.name} (as {first.file.name})")
    said = f"{_listed(copies)} hold an instance that is there already; they were left out"
    return list(kept.values()), [said] if copies else []


def _without_copies(path: Path, images: list[Image]) -> tuple[list[Image], list[str]]:
    """In a stack, of images at the same place with the same pixels the first."""
    places = [place_of(image.header) for image in images]
    if any(place is None for place in places):
        return images, []
    along = np.array([float(position @ places[0][1]) for position, _ in places])
    if np.ptp(along) <= POSITION_TOLERANCE:
        return images, []  # a moving slice, which may stand still
    kept, copies = [0], []
    for i in range(1, len(images)):
        here = [k for k in kept if abs(along[k] - along[i]) <= POSITION_TOLERANCE]
        same = next((k for k in here if _pixels(images[k]) == _pixels(images[i])), None)
        if same is None:
            kept.append(i)
        else:
            copies.append(f"{images[i].file.name} (as {images[same].file.name})")
    said = f"{_listed(copies)} lie at the place of another image and hold the same pixels; they were left out"
    return [images[k] for k in kept], [said] if copies else []


def _pixels(image: Image) -> str:
    whole = pydicom.dcmread(image.file, force=True)
    return hashlib.sha256(whole.get("PixelData", b"")).hexdigest()


def _refuse_clips(path: Path, images: Sequence[Image]) -> None:
    clips = [image.file.name for image in images if image.frames > 1]
    if clips:
        raise StudyError(
            f"{path}: holds {len(images)} files, of which {_listed(clips)} have several frames each; expected one such "
            "file, or single images: put each in its own folder"
        )


def _refuse_mixture(path: Path, images: Sequence[Image]) -> None:
    """A scout, a secondary capture or anything else that is no slice of the stack which the others make up."""
    for what, value_of, tolerance in (
        ("orientation (ImageOrientationPatient)", _axes, {"atol": SAME_AXES, "rtol": 0}),
        ("size (rows, columns, channels)", _size, {"atol": 0, "rtol": 0}),
        ("pixel spacing", _spacing, {"atol": 0, "rtol": SAME_SPACING}),
    ):
        groups: list[tuple[Values, list[str]]] = []
        for image in images:
            value = value_of(image.header)
            names = next((names for known, names in groups if _same(value, known, tolerance)), None)
            if names is None:
                groups.append((value, names := []))
            names.append(image.file.name)
        (usual, most), *odd = sorted(groups, key=lambda group: -len(group[1]))
        if odd:
            files = _listed([name for _, names in odd for name in names])
            raise StudyError(
                f"{path}: is no plain stack: {files} differs in {what} from the other {len(most)} images "
                f"({_shown(odd[0][0])}, the others {_shown(usual)}); a scout, a capture? Put it in a folder of its own"
            )


def _axes(header: Dataset) -> Values:
    return None if place_of(header) is None else tuple(float(v) for v in header.ImageOrientationPatient)


def _size(header: Dataset) -> Values:
    return int(header.Rows), int(header.Columns), int(header.get("SamplesPerPixel", 1))


def _spacing(header: Dataset) -> Values:
    given = header.get("PixelSpacing")
    return tuple(float(v) for v in given) if given else None


def _same(a: Values, b: Values, tolerance: dict[str, float]) -> bool:
    if a is None or b is None:
        return a is b
    return len(a) == len(b) and np.allclose(a, b, **tolerance)


def _shown(value: Values) -> str:
    return "none" if value is None else "(" + ", ".join(f"{v:.4g}" for v in value) + ")"


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
