"""Small DICOM files for tests, made with pydicom."""

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
US, US_FRAMES, CR = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.1"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)
ORIGIN = np.array([10.0, 20.0, 30.0])


def dicom(pixels, *, sop, modality, series="1.2.3.4", number=1, frames=None, photometric=None):
    """pixels: (rows, columns), (rows, columns, 3) bytes, with a first axis of frames if ``frames``."""
    ds = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.is_little_endian, ds.is_implicit_VR = True, False
    ds.Modality, ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = modality, "P-7", "1.2.3", series
    ds.FrameOfReferenceUID, ds.InstanceNumber = "1.2.3.9", number
    colour = pixels.dtype == np.uint8 and pixels.shape[-1] == 3
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    ds.SamplesPerPixel = 3 if colour else 1
    if colour:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric or ("RGB" if colour else "MONOCHROME2")
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames:
        ds.NumberOfFrames = frames
    ds.PixelData = pixels.tobytes()
    return ds


def place(ds, index, *, axes=AXIAL, gap=3.0, spacing=(0.7, 0.8)):
    """Puts an image on the ``index``-th slice of a stack along the normal of ``axes``."""
    normal = np.cross(axes[:3], axes[3:])
    ds.ImagePositionPatient = [float(x) for x in ORIGIN + normal * index * gap]
    ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = list(map(float, axes)), list(spacing), gap
    return ds


def save_series(folder, volume, *, places=None, modality="CT", axes=AXIAL, series="1.2.3.4", gap=3.0):
    """One file for each slice of (slices, rows, columns), named in an order that says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, pixels in enumerate(volume):
        ds = dicom(pixels, sop=CT if modality == "CT" else MR, modality=modality, series=series, number=n + 1)
        place(ds, n if places is None else places[n], axes=axes, gap=gap)
        if modality == "CT":
            ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.save_as(folder / f"{(n * 7) % 10}-{n}.dcm")
    return folder


def functional_groups(ds, places, *, axes=AXIAL, gap=3.0, spacing=(0.7, 0.8)):
    """Gives every frame of a multi-frame file its place, as Enhanced images and SEG do."""
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(spacing), gap
    orientation.ImageOrientationPatient = list(map(float, axes))
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for index in places:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = place(Dataset(), index, axes=axes, gap=gap).ImagePositionPatient
        frame.PlanePositionSequence = [position]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    return ds


def seg(frames, places, segments, names, *, axes=AXIAL, fractional=False):
    """A DICOM SEG. frames: (n, rows, columns) bool; for each frame its slice and its segment number."""
    n, rows, columns = frames.shape
    ds = dicom(np.zeros((n, rows, columns), np.uint8), sop=SEG, modality="SEG", series="1.2.3.5", frames=n)
    functional_groups(ds, places, axes=axes)
    for frame, number in zip(ds.PerFrameFunctionalGroupsSequence, segments, strict=True):
        identification = Dataset()
        identification.ReferencedSegmentNumber = number
        frame.SegmentIdentificationSequence = [identification]
    ds.SegmentSequence = []
    for number, name in names.items():
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, name
        ds.SegmentSequence.append(segment)
    if fractional:
        ds.SegmentationType, ds.MaximumFractionalValue = "FRACTIONAL", 200
        ds.PixelData = (frames * 200).astype(np.uint8).tobytes()
    else:
        ds.SegmentationType = "BINARY"
        ds.BitsAllocated = ds.BitsStored = 1
        ds.HighBit = 0
        bits = np.packbits(frames.ravel(), bitorder="little").tobytes()
        ds.PixelData = bits + b"\0" * (len(bits) % 2)
    return ds
