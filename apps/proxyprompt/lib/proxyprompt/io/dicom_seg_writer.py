"""Masks as a DICOM SEG of the image they were drawn on.

One writer for everything that the readers read: series of single images, Enhanced multi-frame images, and images
without a place in the patient (ultrasound, photographs, cine), for which the common tools have no answer. The frames
say both where they lie, if that is known, and which frame of the image they were drawn on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import Code, codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from .dicom import Frame, read_frames
from .errors import StudyError
from .files import replacing
from .registry import name_key

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
MAKER = "Proxy Prompt"
SERIES_NUMBER = 300
_OF_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber"),
    *("ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator"),
)
_REQUIRED_BLANK = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime")
_REQUIRED_BLANK += ("AccessionNumber", "ReferringPhysicianName")


def write_seg(source: Path, masks: Mapping[str, np.ndarray], path: Path, *, creator: str = MAKER) -> Path:
    """Write a binary DICOM SEG, beside and then renamed.

    Its segments are numbered from 1 in the order of ``masks``. Empty slices are left out; a structure without a voxel
    keeps one empty frame, which says that it was looked for.

    Args:
        source: the image, a DICOM file or the folder of a series.
        masks: name of the structure -> (ni, nj, nk) bool on the image's grid in file order (see ``Raster``).
        path: of the SEG.
        creator: who made it.

    Returns:
        That path.

    Raises:
        StudyError: for no masks at all, and for masks of another size.
    """
    frames = read_frames(source)
    size = (int(frames[0].header.Columns), int(frames[0].header.Rows), len(frames))
    if not masks:
        raise StudyError(f"no structure to write for {source}: name at least one")
    for name, mask in masks.items():
        if mask.shape != size:
            raise StudyError(f"mask of {name!r} has shape {mask.shape}, the image {source} has {size}")
    seg = _object(frames[0].header)
    seg.ContentCreatorName = _person(creator)
    seg.SegmentSequence = [_segment(n, name) for n, name in enumerate(masks, 1)]
    drawn = [
        (number, k, mask[:, :, k])
        for number, mask in enumerate(masks.values(), 1)
        for k in (np.flatnonzero(mask.any(axis=(0, 1))).tolist() or [0])
    ]
    _describe_frames(seg, frames, [(number, k) for number, k, _ in drawn])
    bits = np.packbits(np.stack([plane.T for _, _, plane in drawn]).ravel(), bitorder="little").tobytes()
    seg.PixelData = bits + b"\0" * (len(bits) % 2)
    with replacing(path) as beside:
        seg.save_as(beside, write_like_original=False)
    return path


def property_codes(name: str) -> tuple[Code, Code]:
    """What DICOM calls a structure.

    Args:
        name: of the structure.

    Returns:
        (category, type): SNOMED CT where DICOM's own lists of segmented properties have the name; else a private code,
        whose scheme begins with 99 as DICOM wants it.
    """
    known = _known_codes().get(name_key(name))
    if known is not None:
        return known
    return codes.cid7150.SpatialAndRelationalConcept, Code(name_key(name)[:16], "99PROXYPROMPT", name[:64])


@cache
def _known_codes() -> dict[str, tuple[Code, Code]]:
    """name_key -> codes, from DICOM's context groups of anatomical and of abnormal structures."""
    groups = (
        (codes.cid7150.MorphologicallyAbnormalStructure, codes.cid7194),
        (codes.cid7150.AnatomicalStructure, codes.cid7192),
    )
    found = {name_key(k): (category, getattr(group, k, None)) for category, group in groups for k in group.dir()}
    return {key: known for key, known in found.items() if known[1] is not None}  # a few keywords stand for two codes


def _object(header: Dataset) -> FileDataset:
    """Patient and study of the image; a new series with this one instance. Times are in UTC, and say so."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SEGMENTATION_STORAGE, generate_uid()
    seg = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    seg.is_little_endian, seg.is_implicit_VR = True, False
    seg.SpecificCharacterSet = "ISO_IR 192"
    for name in _OF_PATIENT_AND_STUDY:
        if name in header:
            setattr(seg, name, str(header.get(name) or ""))
        elif name in _REQUIRED_BLANK:
            setattr(seg, name, "")
    seg.SOPClassUID, seg.SOPInstanceUID = SEGMENTATION_STORAGE, meta.MediaStorageSOPInstanceUID
    _date(seg)
    seg.Modality, seg.SeriesInstanceUID = "SEG", generate_uid()
    seg.SeriesNumber, seg.InstanceNumber, seg.SeriesDescription = SERIES_NUMBER, 1, f"Segmentation ({MAKER})"
    seg.Manufacturer = seg.ManufacturerModelName = MAKER
    seg.DeviceSerialNumber, seg.SoftwareVersions = "1", "1"
    seg.ContentLabel, seg.ContentDescription = "SEGMENTATION", "For research only"
    seg.ImageType, seg.LossyImageCompression = ["DERIVED", "PRIMARY"], "00"
    seg.SegmentationType, seg.SegmentsOverlap = "BINARY", "UNDEFINED"
    seg.Rows, seg.Columns, seg.SamplesPerPixel = int(header.Rows), int(header.Columns), 1
    seg.PhotometricInterpretation, seg.PixelRepresentation = "MONOCHROME2", 0
    seg.BitsAllocated, seg.BitsStored, seg.HighBit = 1, 1, 0
    return seg


def copy_of(seg: Dataset, *, creator: str = MAKER) -> Dataset:
    """The same masks as an object of their own, in a series of its own, made now.

    Args:
        seg: a DICOM SEG, which is changed.
        creator: who makes it.

    Returns:
        ``seg``.
    """
    seg.SOPInstanceUID, seg.SeriesInstanceUID = generate_uid(), generate_uid()
    seg.file_meta.MediaStorageSOPInstanceUID = seg.SOPInstanceUID
    seg.ContentCreatorName = _person(creator)
    _date(seg)
    return seg


def _date(seg: Dataset) -> None:
    now = datetime.now(UTC)
    seg.TimezoneOffsetFromUTC = "+0000"
    seg.SeriesDate = seg.ContentDate = seg.InstanceCreationDate = now.strftime("%Y%m%d")
    seg.SeriesTime = seg.ContentTime = seg.InstanceCreationTime = now.strftime("%H%M%S.%f")


def _person(name: str) -> str:
    """A name as DICOM can hold it: without the signs that divide one."""
    return "".join(" " if sign in "\\=^" or ord(sign) < 32 else sign for sign in name)[:64].strip() or MAKER


def _segment(number: int, name: str) -> Dataset:
    category, kind = property_codes(name)
    return _dataset(
        SegmentNumber=number,
        SegmentLabel=name[:64],
        SegmentAlgorithmType="SEMIAUTOMATIC",
        SegmentAlgorithmName=MAKER,
        SegmentedPropertyCategoryCodeSequence=[_code(category)],
        SegmentedPropertyTypeCodeSequence=[_code(kind)],
    )


def _code(code: Code) -> Dataset:
    return _dataset(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)


def _describe_frames(seg: Dataset, frames: list[Frame], drawn: list[tuple[int, int]]) -> None:
    """The functional groups of the SEG's frames: (segment number, index of the image's frame) of each."""
    seg.NumberOfFrames = len(drawn)
    seg.SharedFunctionalGroupsSequence = [_shared(frames)]
    seg.PerFrameFunctionalGroupsSequence = [_groups(frames[k], number, k) for number, k in drawn]
    organization = generate_uid()
    seg.DimensionOrganizationSequence = [_dataset(DimensionOrganizationUID=organization)]
    seg.DimensionIndexSequence = [
        _dataset(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=group,
            DimensionDescriptionLabel=label,
        )
        for pointer, group, label in (
            (0x0062000B, 0x0062000A, "ReferencedSegmentNumber"),
            (0x00200032, 0x00209113, "ImagePositionPatient")
            if "ImagePositionPatient" in frames[0].plane
            else (0x00081160, 0x00082112, "ReferencedFrameNumber"),
        )
    ]
    headers = {str(frame.header.SOPInstanceUID): frame.header for frame in frames}
    seg.ReferencedSeriesSequence = [
        _dataset(
            SeriesInstanceUID=frames[0].header.SeriesInstanceUID,
            ReferencedInstanceSequence=[_reference(header) for header in headers.values()],
        )
    ]


def _shared(frames: list[Frame]) -> Dataset:
    """Orientation and pixel size, as far as the image has them."""
    plane, shared = frames[0].plane, Dataset()
    if "ImageOrientationPatient" in plane:
        shared.PlaneOrientationSequence = [_dataset(ImageOrientationPatient=plane.ImageOrientationPatient)]
    if "PixelSpacing" in plane:
        measures = _dataset(PixelSpacing=plane.PixelSpacing, SliceThickness=plane.get("SliceThickness") or 1)
        if len(frames) > 1 and all("ImagePositionPatient" in frame.plane for frame in frames[:2]):
            first, second = (np.array(frame.plane.ImagePositionPatient, float) for frame in frames[:2])
            measures.SpacingBetweenSlices = round(float(np.linalg.norm(second - first)), 6) or measures.SliceThickness
        shared.PixelMeasuresSequence = [measures]
    return shared


def _groups(frame: Frame, segment: int, index: int) -> Dataset:
    source = _reference(frame.header)
    if int(frame.header.get("NumberOfFrames", 1) or 1) > 1:
        source.ReferencedFrameNumber = frame.number
    source.PurposeOfReferenceCodeSequence = [_code(codes.DCM.SourceImageForImageProcessingOperation)]
    groups = _dataset(
        FrameContentSequence=[_dataset(DimensionIndexValues=[segment, index + 1])],
        SegmentIdentificationSequence=[_dataset(ReferencedSegmentNumber=segment)],
        DerivationImageSequence=[
            _dataset(DerivationCodeSequence=[_code(codes.cid7203.Segmentation)], SourceImageSequence=[source])
        ],
    )
    if "ImagePositionPatient" in frame.plane:
        groups.PlanePositionSequence = [_dataset(ImagePositionPatient=frame.plane.ImagePositionPatient)]
    return groups


def _reference(header: Dataset) -> Dataset:
    return _dataset(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)


def _dataset(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made
