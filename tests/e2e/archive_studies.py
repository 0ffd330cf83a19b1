"""Studies for an archive: the drawn samples as DICOM, some with labels as DICOM SEG, and real ones where they lie.

Each drawn study is a patient of its own, named as the sample: ``us_*`` single-frame ultrasound, ``cine_*``
multi-frame ones, ``rgb_*`` fundus photographs, ``mr_*`` volumes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from dicom_files import CT, MR, US, US_FRAMES, dicom, place
from pydicom.uid import generate_uid

from proxyprompt.datasets.samples.store import FAMILIES
from proxyprompt.io.dicom_seg_writer import write_seg

FUNDUS = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL_SERIES = {"t2": "dicom_brain_mr/T2_reg", "flair": "dicom_brain_mr/FLAIR_reg", "ct": "dicom_ct_liver_seg/ct"}
LABELLED = tuple(f"us_{n:02d}" for n in (*range(1, 7), *range(16, 23)))
LABELLED += ("rgb_01", "rgb_02", "rgb_03", "mr_01", "mr_02")
"""Patients enough for a training to hold out five: three can be scored even if two are the only ones of their kind."""
UNLABELLED = tuple(f"us_{n:02d}" for n in (7, 8, 9, 10)) + tuple(f"rgb_{n:02d}" for n in (7, 8, 9, 10))
UNLABELLED += tuple(f"mr_{n:02d}" for n in (5, 6, 7, 8))
DRAWN = {family.prefix: family for family in FAMILIES}


@dataclass(frozen=True)
class ArchiveStudy:
    """One series in the archive; truth: (Z, rows, columns) of a drawn one, with the values of ``structures``."""

    name: str
    study: str
    series: str
    folder: Path
    truth: np.ndarray | None = None
    structures: dict[str, int] | None = None


def make_archive_studies(folder: Path) -> dict[str, ArchiveStudy]:
    """Writes everything into ``folder``, one sub-folder a series, SEGs into ``folder/seg``; returns name -> study."""
    (folder / "seg").mkdir(parents=True)
    studies = {name: drawn_study(name, folder / name) for name in (*LABELLED, *UNLABELLED)}
    for name, frames in (("cine_01", ("us_11", "us_12", "us_13")), ("cine_02", ("us_14", "us_15", "us_14"))):
        studies[name] = _cine(name, frames, folder / name)
    for name in LABELLED:
        study = studies[name]
        masks = {s: study.truth.transpose(2, 1, 0) == value for s, value in study.structures.items()}
        write_seg(study.folder, masks, folder / "seg" / f"{name}.dcm")
    for name, where in REAL_SERIES.items():
        if (REAL / where).is_dir():
            studies[name] = real_study(name)
    return studies


def labelled_and_not(folder: Path, kinds: tuple[str, ...]) -> dict[str, ArchiveStudy]:
    """Four studies of each kind into ``folder``, two with a SEG; one of the two others is returned by kind."""
    (folder / "seg").mkdir(parents=True)
    waiting = {}
    for kind in kinds:
        for number in range(1, 5):
            name = f"{kind}_{number:02d}"
            if kind == "cine":
                study = _cine(name, tuple(f"us_{number * 3 + n + 20:02d}" for n in range(3)), folder / name)
            else:
                study = drawn_study(name, folder / name)
            if number <= 2:
                masks = {s: study.truth.transpose(2, 1, 0) == value for s, value in study.structures.items()}
                write_seg(study.folder, masks, folder / "seg" / f"{name}.dcm")
            waiting[kind] = study
    return waiting


def files_of(studies: dict[str, ArchiveStudy], folder: Path) -> list[Path]:
    """What to push: the series, their SEGs, and the real SEG of the liver."""
    real = [REAL / "dicom_ct_liver_seg" / "seg"] if "ct" in studies else []
    return [*(s.folder for s in studies.values()), folder / "seg", *real]


def real_study(name: str) -> ArchiveStudy:
    """One of REAL_SERIES."""
    folder = REAL / REAL_SERIES[name]
    header = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
    return ArchiveStudy(name, header.StudyInstanceUID, header.SeriesInstanceUID, folder)


def drawn_study(name: str, folder: Path) -> ArchiveStudy:
    """The drawn sample of this name, written into ``folder``."""
    kind = name.split("_")[0]
    family = DRAWN["mr" if kind == "ct" else kind]
    image, label, *_ = family.drawn(name.replace("ct", "mr"), 0)
    if kind == "ct":  # from -100 to 300 Hounsfield units
        volume, truth = image.transpose(2, 1, 0), label.transpose(2, 1, 0)
        units = (volume / volume.max() * 400 - 100).astype(np.int16)
        files = [
            place(dicom(plane, sop=CT, modality="CT", number=n + 1), n, spacing=(1.5, 1.5))
            for n, plane in enumerate(units)
        ]
    elif family.prefix == "mr":  # (i, j, k) -> slices of rows and columns
        volume, truth = image.transpose(2, 1, 0), label.transpose(2, 1, 0)
        files = [
            place(dicom(plane.astype(np.uint16), sop=MR, modality="MR", number=n + 1), n, spacing=(1.5, 1.5))
            for n, plane in enumerate(volume)
        ]
    else:
        truth = label[None]
        tags = {"sop": FUNDUS, "modality": "OP"} if family.prefix == "rgb" else {"sop": US, "modality": "US"}
        files = [dicom(np.ascontiguousarray(image), **tags)]
    return saved(name, files, folder, truth, family.structures)


def _cine(name: str, frames: tuple[str, ...], folder: Path) -> ArchiveStudy:
    """A multi-frame file in colour, as most machines store their clips."""
    family = DRAWN["us"]
    drawn = [family.drawn(frame, 0) for frame in frames]
    pixels = np.repeat(np.stack([image for image, *_ in drawn])[..., None], 3, axis=-1)
    file = dicom(np.ascontiguousarray(pixels), sop=US_FRAMES, modality="US", frames=len(frames))
    return saved(name, [file], folder, np.stack([label for _, label, *_ in drawn]), family.structures)


def saved(name: str, files: list, folder: Path, truth: np.ndarray, structures: dict[str, int]) -> ArchiveStudy:
    """The files of one series, written into ``folder`` as a study and a patient of this name."""
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for n, ds in enumerate(files):
        ds.PatientID, ds.PatientName, ds.PatientSex, ds.PatientBirthDate = name, f"Drawn^{name}", "O", "19700101"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20250101"
        ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
        ds.StudyDescription, ds.SeriesDescription, ds.SeriesNumber = f"{name} study", name, 1
        ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", name, ""
        if ds.Modality in ("US", "OP"):
            del ds.FrameOfReferenceUID
        if ds.Modality == "MR":  # as scanners write it
            ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 500, 1000, "LINEAR"
        ds.save_as(folder / f"{n:03d}.dcm", write_like_original=False)
    return ArchiveStudy(name, study, series, folder, truth, dict(structures))
