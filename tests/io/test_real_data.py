"""Real images with their own headers, where they lie beside the project; SimpleITK as the independent reader."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from proxyprompt.io.study import StudyError, read_study

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NIFTI = (
    [f"spinal_cord_sct/images/{n}.nii.gz" for n in ("t2_cord", "t2s_graymatter")]
    + [f"radiomics_lesions/images/{n}.nii.gz" for n in ("brain1", "brain2", "breast1")]
    + ["msd_hippocampus/images/hippocampus_001.nii.gz", "promise12/images/Case01.nii.gz"]
)
VIEWED = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIL"}  # columns, rows, slices run towards these


def at(name):
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not here")
    return DATA / name


def read_itk(path):
    if path.is_dir():
        return sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
    return sitk.ReadImage(str(path))


def assert_as_itk_sees_it(study, image):
    """The slices against SimpleITK's own reorientation, the written labels against its reading of the image."""
    turned = sitk.DICOMOrient(image, "".join(VIEWED["axial"]))
    assert study.plane == "axial"
    values = sitk.GetArrayFromImage(turned).astype(np.float32)
    low, high = study.bounds
    wanted = np.clip((values - low) / (high - low), 0, 1)
    assert np.allclose(study.images(range(len(study)))[:, 0], wanted, atol=1e-5)
    spacing = turned.GetSpacing()
    assert np.allclose((study.slice_spacing, *study.pixel_spacing), spacing[::-1], rtol=1e-5)


def assert_labels_return(study, image, folder):
    labels = np.random.default_rng(0).integers(0, 256, (len(study), *study.slice_shape)).astype(np.uint8)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        path = study.write_label(labels, folder / f"label{suffix}")
        written = sitk.ReadImage(str(path))
        assert written.GetSize() == image.GetSize()
        assert np.allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-6)
        assert np.allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-4)
        assert np.allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)
        assert np.array_equal(sitk.GetArrayFromImage(sitk.DICOMOrient(written, "LPS")), labels)
        assert np.array_equal(study.read_label(path), labels)


@pytest.mark.parametrize("name", NIFTI)
def test_nifti(tmp_path, name):
    path = at(name)
    study, image = read_study(path), read_itk(path)
    assert_as_itk_sees_it(study, image)
    assert_labels_return(study, image, tmp_path)
    mask = path.parents[1] / "masks" / path.name
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(mask)), "LPS"))
    assert np.array_equal(study.read_label(mask), expected)


@pytest.mark.parametrize("name", ["dicom_brain_mr/T2_reg", "dicom_brain_mr/FLAIR_reg", "dicom_ct_liver_seg/ct"])
def test_dicom_series(tmp_path, name):
    path = at(name)
    study, image = read_study(path), read_itk(path)
    assert study.modality == ("CT" if "ct" in name else "MR") and study.tags["PatientID"]
    assert_as_itk_sees_it(study, image)
    assert_labels_return(study, image, tmp_path)


def test_dicom_seg_of_the_liver(tmp_path):
    study = read_study(at("dicom_ct_liver_seg/ct"))
    seg = at("dicom_ct_liver_seg/seg/liver.dcm")
    labels = study.read_label(seg)
    assert set(np.unique(labels)) == {0, 1} and labels.any(axis=(1, 2)).all()
    tool = Path(sys.executable).with_name("segimage2itkimage")
    if not tool.exists():
        pytest.skip("segimage2itkimage (dcmqi), the independent reader, is not installed")
    command = [tool, "--inputDICOM", seg, "--outputDirectory", tmp_path, "--outputType", "nrrd"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=120)
    (mask,) = tmp_path.glob("*.nrrd")
    on_grid = sitk.Resample(sitk.ReadImage(str(mask)), read_itk(study.path), sitk.Transform(), sitk.sitkNearestNeighbor)
    assert np.array_equal(labels, sitk.GetArrayFromImage(on_grid))


def test_the_two_brain_series_show_the_same_patient():
    t2, flair = (read_study(at(f"dicom_brain_mr/{n}_reg")) for n in ("T2", "FLAIR"))
    assert t2.tags["PatientID"] == flair.tags["PatientID"] and t2.content_hash != flair.content_hash
    assert (t2.plane, len(t2), t2.slice_shape) == (flair.plane, len(flair), flair.slice_shape)


def test_a_mask_of_another_case_is_refused():
    study = read_study(at("radiomics_lesions/images/brain1.nii.gz"))
    with pytest.raises(StudyError, match=r"size \(256, 256, 23\).*size \(256, 256, 25\)"):
        study.read_label(at("radiomics_lesions/masks/brain2.nii.gz"))


@pytest.mark.parametrize("name", ["stare", "psfhs_fh_ps", "smdg_disc_cup", "kvasir_polyp", "busi", "wbc"])
def test_images(tmp_path, name):
    for path in sorted(at(name).glob("images/*"))[:3]:
        study = read_study(path)
        mask = next((path.parents[1] / "masks").glob(path.stem + ".*"))
        labels = study.read_label(mask)
        assert labels.shape == (1, *study.slice_shape) and labels.any()
        assert np.array_equal(study.read_label(study.write_label(labels, tmp_path / "l.png")), labels)
