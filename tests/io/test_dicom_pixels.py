"""The values of DICOM images, however they are rescaled, packed and compressed."""

import gdcm
import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import CORONAL, CR, CT, ENHANCED_MR, MR, US, US_FRAMES, dicom, functional_groups, place
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from proxyprompt.io.readers import read_raster
from proxyprompt.io.study import StudyError, read_study

RNG = np.random.default_rng(13)
VOLUME = RNG.integers(0, 3000, (6, 16, 18)).astype(np.uint16)
PET = "1.2.840.10008.5.1.4.1.1.128"
SMOOTH = np.add.outer(np.arange(6) * 9, np.add.outer(np.arange(16) * 8, np.arange(18) * 5)).astype(np.uint16)
HTJ2K, JPEG_XL = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.110"


def values(path):
    """(slices, rows, columns) as the raster holds them."""
    return read_raster(path).voxels.transpose(2, 1, 0)


def save_scaled(folder, activity, scales, *, modality="PT", dtype=np.int16):
    """A series in which each slice has its own slope and intercept."""
    folder.mkdir()
    for k, (plane, (slope, intercept)) in enumerate(zip(activity, scales, strict=True)):
        stored = np.round((plane - intercept) / slope).astype(dtype)
        ds = place(dicom(stored, sop=PET if modality == "PT" else MR, modality=modality, number=k + 1), k)
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        ds.save_as(folder / f"{k}.dcm")
    return folder


@pytest.mark.parametrize("modality", ["PT", "MR"])
@pytest.mark.parametrize("top", [1e-4, 0.85, 1.8, 40.0, 5e6])
def test_every_slice_by_its_own_slope(tmp_path, modality, top):
    activity = VOLUME / 3000 * top
    activity[0] = 0
    slopes = [1.0] + [float(f"{plane.max() / 32000:.8g}") for plane in activity[1:]]
    folder = save_scaled(tmp_path / "pet", activity, [(s, 0) for s in slopes], modality=modality)
    found = values(folder)
    assert found.dtype == np.float32 and np.allclose(found, activity, atol=top / 30000)
    assert np.allclose(read_study(folder).bounds, np.percentile(activity, (0.5, 99.5)), atol=top / 1000)


def test_intercepts_signs_and_depths_that_differ(tmp_path):
    activity = VOLUME.astype(float) - 1000
    scales = [(1, -1000), (1, 0), (2, -1000), (0.5, 3), (1, -1024), (1, 0)]
    folder = save_scaled(tmp_path / "mr", activity, scales, modality="MR")
    assert np.allclose(values(folder), activity, atol=1.01)
    for k, dtype in enumerate((np.uint16, np.int16, np.uint8, np.int16, np.uint16, np.int16)):
        stored = (VOLUME[k] // 20).astype(dtype)
        if dtype == np.int16:
            stored = stored - 30
        place(dicom(stored, sop=MR, modality="MR", number=k + 1), k).save_as(folder / f"{k}.dcm")
    wanted = VOLUME // 20 - np.array([0, 30, 0, 30, 0, 30])[:, None, None]
    assert np.array_equal(values(folder), wanted)


def test_one_slope_for_all_stays_as_it_was(tmp_path):
    folder = save_scaled(tmp_path / "ct", VOLUME.astype(float), [(1, -1024)] * 6, modality="MR")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    assert np.array_equal(values(folder), sitk.GetArrayFromImage(sitk.ReadImage(files)))


@pytest.mark.parametrize("shared", [False, True])
def test_frames_with_slopes_of_their_own(tmp_path, shared):
    ds = functional_groups(dicom(VOLUME, sop=ENHANCED_MR, modality="MR", frames=6), range(6))
    slopes = [1.0, 0.25, 0.5, 0.001, 2.0, 3.0] if not shared else [0.25] * 6
    for groups, slope in zip(ds.PerFrameFunctionalGroupsSequence, slopes, strict=True):
        scale = Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, 1, "US"
        if not shared:
            groups.PixelValueTransformationSequence = [scale]
        else:
            ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [scale]
    ds.save_as(tmp_path / "e.dcm")
    assert np.allclose(values(tmp_path / "e.dcm"), VOLUME * np.array(slopes)[:, None, None] + 1, rtol=1e-6)


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_transfer_syntaxes_without_compression_of_pixels(tmp_path, syntax):
    (tmp_path / "mr").mkdir()
    for k, plane in enumerate(SMOOTH):
        ds = place(dicom(plane, sop=MR, modality="MR", number=k + 1), k)
        ds.file_meta.TransferSyntaxUID = syntax
        ds.is_little_endian, ds.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = plane.astype(">u2").tobytes()
        ds.save_as(tmp_path / "mr" / f"{k}.dcm", write_like_original=False)
    assert np.array_equal(values(tmp_path / "mr"), SMOOTH)
    victim = tmp_path / "mr" / "3.dcm"
    victim.write_bytes(victim.read_bytes()[:-60])
    with pytest.raises(StudyError, match=r"3\.dcm: cannot be read"):
        read_study(tmp_path / "mr")


def compressed(path, syntax):
    """The file at ``path`` in another transfer syntax, by gdcm's own tool."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize(
    "syntax",
    [
        gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        gdcm.TransferSyntax.JPEGLSLossless,
        gdcm.TransferSyntax.JPEG2000Lossless,
        gdcm.TransferSyntax.RLELossless,
    ],
)
def test_compressed_pixels(tmp_path, syntax):
    dicom(SMOOTH, sop=ENHANCED_MR, modality="MR", frames=6).save_as(tmp_path / "a.dcm")
    compressed(tmp_path / "a.dcm", syntax)
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(values(tmp_path / "a.dcm"), SMOOTH)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(HTJ2K, imagecodecs.htj2k_encode), (JPEG_XL, lambda plane: imagecodecs.jpegxl_encode(plane, lossless=True))],
)
def test_codecs_that_itk_does_not_know(tmp_path, syntax, encode):
    (tmp_path / "ct").mkdir()
    for k, plane in enumerate(SMOOTH):
        ds = place(dicom(plane, sop=CT, modality="CT", number=k + 1), k, axes=CORONAL)
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = encapsulate([encode(np.ascontiguousarray(plane))])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = MPEG2MPML  # pydicom 2 cannot write the others, which are as long
        ds.save_as(tmp_path / "ct" / f"{k}.dcm")
        written = (tmp_path / "ct" / f"{k}.dcm").read_bytes()
        (tmp_path / "ct" / f"{k}.dcm").write_bytes(written.replace(MPEG2MPML.encode(), syntax.encode()))
        native = place(dicom(plane, sop=CT, modality="CT", number=k + 1), k, axes=CORONAL)
        native.RescaleSlope, native.RescaleIntercept = 1, -1024
        (tmp_path / "native").mkdir(exist_ok=True)
        native.save_as(tmp_path / "native" / f"{k}.dcm")
    found, wanted = read_raster(tmp_path / "ct"), read_raster(tmp_path / "native")
    assert np.array_equal(found.voxels, wanted.voxels)
    assert np.allclose(found.grid.affine, wanted.grid.affine)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.100", "1.2.3.4.5.6"])
def test_pixels_that_nothing_decodes_are_refused_for_that(tmp_path, syntax):
    ds = dicom(SMOOTH, sop=US_FRAMES, modality="US", frames=6)
    ds.PixelData = encapsulate([b"no film at all " * 40])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(tmp_path / "film.dcm")
    with pytest.raises(StudyError, match=rf"film\.dcm: its pixels are stored as .*{syntax}\), which cannot be decoded"):
        read_study(tmp_path / "film.dcm")


@pytest.mark.parametrize("syntax", [gdcm.TransferSyntax.JPEGLosslessProcess14_1, gdcm.TransferSyntax.JPEG2000Lossless])
def test_compressed_pixels_that_are_cut_short_are_damaged(tmp_path, syntax):
    noise = RNG.integers(0, 3000, (6, 40, 40)).astype(np.uint16)
    dicom(noise, sop=ENHANCED_MR, modality="MR", frames=6).save_as(tmp_path / "a.dcm")
    compressed(tmp_path / "a.dcm", syntax)
    whole = (tmp_path / "a.dcm").read_bytes()
    for keep in (0.9, 0.5):
        (tmp_path / "a.dcm").write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(StudyError, match=r"a\.dcm: cannot be read"):
            read_study(tmp_path / "a.dcm")


def ycc(rgb):
    """(..., columns, 3) colour -> Y1 Y2 Cb Cr of each pair of columns, as DICOM's YBR_FULL_422 stores them."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    y, cb, cr = np.moveaxis(rgb.astype(float) @ weights.T + (0, 128, 128), -1, 0)
    pairs = [(c[..., 0::2] + c[..., 1::2]) / 2 for c in (cb, cr)]
    return np.stack([y[..., 0::2], y[..., 1::2], *pairs], -1).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("frames", [None, 6])
def test_colour_with_half_of_the_chroma_is_whole(tmp_path, frames):
    gray = (SMOOTH if frames else SMOOTH[:1]) / SMOOTH.max()
    rgb = (np.stack([gray, gray * 0.8, gray * 0.5], -1) * 255).astype(np.uint8)
    ds = dicom(
        rgb if frames else rgb[0],
        sop=US_FRAMES if frames else US,
        modality="US",
        photometric="YBR_FULL_422",
        frames=frames,
    )
    ds.PixelData = ycc(rgb).tobytes()
    ds.save_as(tmp_path / "us.dcm")
    study = read_study(tmp_path / "us.dcm")
    shown = study.images(range(len(study))).transpose(0, 2, 3, 1) * 255
    assert np.abs(shown - rgb).mean() < 3
    (tmp_path / "us.dcm").write_bytes((tmp_path / "us.dcm").read_bytes()[: -len(ds.PixelData) // 3])
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path / "us.dcm")


@pytest.mark.parametrize(("name", "dtype"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_pixels_stored_as_floats(tmp_path, name, dtype):
    parameters = (VOLUME / 1000).astype(dtype)
    ds = functional_groups(dicom(VOLUME, sop="1.2.840.10008.5.1.4.1.1.30", modality="MR", frames=6), range(6))
    del ds.PixelData
    ds.BitsAllocated = 8 * dtype().itemsize
    setattr(ds, name, parameters.tobytes())
    ds.save_as(tmp_path / "map.dcm")
    raster = read_raster(tmp_path / "map.dcm")
    assert np.allclose(raster.voxels.transpose(2, 1, 0), parameters)
    assert np.allclose(raster.grid.spacing, (0.8, 0.7, 3)) and np.allclose(raster.grid.affine[:3, 3], (10, 20, 30))


def test_rle_of_a_film_is_bright_side_up(tmp_path):
    film = np.linspace(0, 4000, 288).reshape(16, 18).astype(np.uint16)
    ds = dicom(film, sop=CR, modality="CR", photometric="MONOCHROME1")
    ds.compress(RLELossless)
    ds.save_as(tmp_path / "film.dcm")
    plain_image = read_study(tmp_path / "film.dcm").image(0)[0]
    assert plain_image[0, 0] == 1 and plain_image[-1, -1] == 0
