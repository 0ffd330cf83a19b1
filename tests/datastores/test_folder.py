"""DICOM series that lie as folders among the studies, and many studies in one request."""

import nibabel
import numpy as np
import pydicom
import pytest
from app_in_process import build_app
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from proxyprompt.datastores.folder import StudyFolder, is_dicom_folder

UID = "1.2.840.99.5"  # the end of a UID looks like a suffix


def write_series(folder, voxels, spacing=2.0):
    """voxels: (z, rows, columns) int16, one file a slice."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    for z, slice_ in enumerate(voxels):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset(str(folder / f"{z}"), {}, file_meta=meta, preamble=b"\0" * 128)
        ds.is_little_endian, ds.is_implicit_VR = True, False
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = study, series, "CT"
        ds.InstanceNumber, ds.ImagePositionPatient = z + 1, [0, 0, z * spacing]
        ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = [1, 0, 0, 0, 1, 0], [1, 1], spacing
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *slice_.shape, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleIntercept, ds.RescaleSlope = 0, 1
        ds.PixelData = slice_.astype("<i2").tobytes()
        pydicom.dcmwrite(folder / f"slice{z}", ds, write_like_original=False)


@pytest.fixture
def studies(tmp_path):
    """Two CT series, the first labelled, and a folder that is no study."""
    rng = np.random.default_rng(0)
    for number, name in enumerate((UID, "second")):
        voxels = rng.integers(-100, 0, (4, 24, 32)).astype(np.int16)
        voxels[1:3, 5:15, 5 + number : 20] = 150
        write_series(tmp_path / name, voxels)
    final = tmp_path / "labels" / "final"
    final.mkdir(parents=True)
    mask = np.zeros((32, 24, 4), np.uint8)
    mask[5:20, 5:15, 1:3] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([-1.0, -1, 2, 1])), final / f"{UID}.nii.gz")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no study" * 100)
    return tmp_path


def test_series_are_listed_by_the_name_of_their_folder(studies):
    store = StudyFolder(str(studies), extensions=["*.nii.gz"])
    assert sorted(store.list_images()) == [UID, "second"]
    assert store.get_image_uri(UID) == str((studies / UID).resolve())
    assert store.get_labeled_images() == [UID]


def test_what_is_a_series(studies):
    assert is_dicom_folder(studies / UID)
    assert not is_dicom_folder(studies / "notes")
    assert not is_dicom_folder(studies / "labels")
    assert not is_dicom_folder(studies / UID / "slice0")


def test_a_new_series_is_seen_at_the_next_refresh(studies):
    store = StudyFolder(str(studies), extensions=["*.nii.gz"])
    write_series(studies / "third", np.zeros((2, 8, 8), np.int16))
    store.refresh()
    assert "third" in store.list_images()


def test_one_series_segments_another(studies, weights):
    app = build_app(studies, weights)
    result = app.infer({"model": "proxyprompt", "image": "second"})
    assert result["params"]["supports"][0]["id"] == UID
    made = nibabel.load(result["file"])
    assert made.shape == (32, 24, 4)
    np.testing.assert_allclose(np.abs(made.header.get_zooms()), (1, 1, 2))


def test_many_studies_in_one_request_without_a_gpu(studies, weights):
    app = build_app(studies, weights)
    done = app.batch_infer({"model": "proxyprompt", "images": "unlabeled", "multi_gpu": True, "device": "cuda"})
    assert list(done) == ["second"]
    assert app.datastore().get_label_uri("second", "original").endswith("second.nii.gz")
