"""Labels are written on the image's own grid, whatever the suffix, and read back only from that grid."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from proxyprompt.io.label_files import WRITABLE, WRITABLE_PLAIN_IMAGES
from proxyprompt.io.study import StudyError, read_study

RNG = np.random.default_rng(3)
TURNED = ((0.96, -0.28, 0, 0.28, 0.96, 0, 0, 0, 1), (0, 0, -1, 1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0, 0, 0, -1))
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha")


def itk_image(path, shape, *, direction=None, vector=False, dtype=np.int16):
    values = RNG.integers(0, 250, shape).astype(np.uint8 if vector else dtype)
    image = sitk.GetImageFromArray(values, isVector=vector)
    n = image.GetDimension()
    image.SetSpacing((0.5, 0.75, 3.25)[:n])
    image.SetOrigin((11.5, -20.25, 7)[:n])
    if direction:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return path


def random_labels(study):
    return RNG.integers(0, 256, (len(study), *study.slice_shape)).astype(np.uint8)


def assert_same_grid(label, image):
    a, b = sitk.ReadImage(str(label)), sitk.ReadImage(str(image))
    assert a.GetSize() == b.GetSize()
    assert a.GetPixelID() == sitk.sitkUInt8
    for got, wanted in ((a.GetSpacing(), b.GetSpacing()), (a.GetOrigin(), b.GetOrigin())):
        assert np.allclose(got, wanted, rtol=1e-6, atol=1e-5)
    assert np.allclose(a.GetDirection(), b.GetDirection(), atol=1e-6)


@pytest.mark.parametrize("suffix", VOLUMES)
@pytest.mark.parametrize("kind", VOLUMES)
@pytest.mark.parametrize("direction", TURNED)
def test_volumes_in_every_pair_of_formats(tmp_path, kind, suffix, direction):
    image = itk_image(tmp_path / f"image{kind}", (4, 5, 6), direction=direction)
    study = read_study(image)
    labels = random_labels(study)
    path = study.write_label(labels, tmp_path / "new" / f"label{suffix}")
    assert_same_grid(path, image)
    assert np.array_equal(study.read_label(path), labels)
    # an independent reader finds each value in the voxel where the slices had it
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    grid = study.to_grid(labels)
    assert np.array_equal(written, grid.transpose() if ".nii" in kind else grid)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", VOLUMES + WRITABLE_PLAIN_IMAGES)
@pytest.mark.parametrize("kind", [".png", ".tif", ".jpg", ".bmp", ".nrrd", ".nii.gz", "rgb.nii.gz", "slab.nii.gz"])
def test_images_in_every_pair_of_formats(tmp_path, kind, suffix):
    image = tmp_path / f"image{kind}"
    if "nii" in kind or "nrrd" in kind:
        shape = {"rgb.nii.gz": (5, 6, 3), "slab.nii.gz": (1, 5, 6)}.get(kind, (5, 6))
        itk_image(image, shape, vector=kind == "rgb.nii.gz")
    else:
        Image.fromarray(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8)).save(image, dpi=(72, 36))
    study = read_study(image)
    labels = random_labels(study)
    path = study.write_label(labels, tmp_path / f"label{suffix}")
    assert np.array_equal(study.read_label(path), labels)
    if suffix in WRITABLE_PLAIN_IMAGES:
        assert np.array_equal(np.asarray(Image.open(path)), labels[0])
    else:
        assert_same_grid(path, image)


def test_nifti_header_is_kept(tmp_path):
    image = nib.Nifti1Image(RNG.random((4, 5, 6)).astype(np.float32), None)
    sform = np.array([[-0.8, 0.01, 0.3, 7], [0.02, 0.9, 0.1, -3], [-0.2, 0, 2.5, 4], [0, 0, 0, 1]])  # with shear
    image.set_sform(sform, 4)
    image.set_qform(np.diag([-0.85, 0.9, 2.5, 1]), 2)
    image.header.set_xyzt_units("mm", "sec")
    image.header["cal_max"] = 0.5
    image.header.set_slope_inter(2.0, 1.0)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a name"))
    nib.save(image, tmp_path / "image.nii.gz")
    study = read_study(tmp_path / "image.nii.gz")
    labels = random_labels(study)
    written = nib.load(study.write_label(labels, tmp_path / "label.nii.gz"))
    original = nib.load(tmp_path / "image.nii.gz")
    for field in ("pixdim", "srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "quatern_b", "qoffset_x"):
        assert np.array_equal(written.header[field], original.header[field]), field
    assert np.array_equal(written.affine, original.affine)
    assert written.header["xyzt_units"] == original.header["xyzt_units"]
    assert written.get_data_dtype() == np.uint8 and written.header["cal_max"] == 0
    assert not written.header.extensions
    assert np.array_equal(study.read_label(tmp_path / "label.nii.gz"), labels)


def test_shear_can_only_be_kept_by_nifti(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.4
    image = nib.Nifti1Image(RNG.random((4, 5, 6)).astype(np.float32), None)
    image.set_sform(affine, 1)
    nib.save(image, tmp_path / "image.nii")
    study = read_study(tmp_path / "image.nii")
    labels = random_labels(study)
    study.write_label(labels, tmp_path / "label.nii")
    assert np.array_equal(study.read_label(tmp_path / "label.nii"), labels)
    with pytest.raises(StudyError, match=r"not at right angles.*write the label as \.nii\.gz"):
        study.write_label(labels, tmp_path / "label.nrrd")


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1)])
def test_every_pair_of_form_codes(tmp_path, codes):
    image = nib.Nifti1Image(RNG.random((4, 5, 6)).astype(np.float32), None)
    affine = np.diag([-1.0, 1, 3, 1])
    affine[:3, 3] = 9, 8, 7
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    nib.save(image, tmp_path / "image.nii.gz")
    study = read_study(tmp_path / "image.nii.gz")
    labels = random_labels(study)
    for suffix in VOLUMES:
        path = study.write_label(labels, tmp_path / f"label{suffix}")
        assert_same_grid(path, tmp_path / "image.nii.gz")
        assert np.array_equal(study.read_label(path), labels)


def test_raw_unless_asked(tmp_path):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 50, 60)))
    labels = np.zeros((4, 50, 60), np.uint8)
    assert b"encoding: raw" in study.write_label(labels, tmp_path / "a.nrrd").read_bytes()[:600]
    assert b"encoding: gzip" in study.write_label(labels, tmp_path / "b.nrrd", compress=True).read_bytes()[:600]


@pytest.mark.parametrize(
    "change",
    [
        lambda i: i.SetOrigin((11.5, -20.25, 7.5)),
        lambda i: i.SetSpacing((0.5, 0.75, 3.0)),
        lambda i: i.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1)),
        lambda i: i.SetDirection((0.999, -0.0447, 0, 0.0447, 0.999, 0, 0, 0, 1)),
    ],
)
def test_another_grid_is_refused_and_both_are_named(tmp_path, change):
    study = read_study(itk_image(tmp_path / "image.nrrd", (40, 50, 60)))
    label = sitk.ReadImage(str(study.write_label(random_labels(study), tmp_path / "label.nrrd")))
    change(label)
    sitk.WriteImage(label, str(tmp_path / "label.nrrd"))
    with pytest.raises(StudyError) as refused:
        study.read_label(tmp_path / "label.nrrd")
    text = str(refused.value)
    assert "label.nrrd" in text and "image.nrrd" in text and "origin (11.5, -20.25, 7) mm" in text
    assert text.count("size (60, 50, 40), spacing") == 2


def test_another_size_is_refused(tmp_path):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    itk_image(tmp_path / "label.nii.gz", (4, 5, 7))
    with pytest.raises(StudyError, match=r"size \(7, 5, 4\).*size \(6, 5, 4\)"):
        study.read_label(tmp_path / "label.nii.gz")


@pytest.mark.parametrize("kept", [slice(1, 3), slice(2, 3), slice(0, 2), slice(2, 4)])
@pytest.mark.parametrize("direction", TURNED)
def test_a_nrrd_may_leave_out_slices(tmp_path, kept, direction):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6), direction=direction))
    whole = sitk.ReadImage(str(study.write_label(random_labels(study), tmp_path / "whole.nrrd")))
    slab = sitk.Flip(whole[:, :, kept], (False, True, True))
    sitk.WriteImage(slab, str(tmp_path / "label.seg.nrrd"))
    found = sitk.GetImageFromArray(study.to_grid(study.read_label(tmp_path / "label.seg.nrrd")).transpose())
    outside = [z for z in range(4) if not kept.start <= z < kept.stop]
    assert np.array_equal(sitk.GetArrayFromImage(found[:, :, kept]), sitk.GetArrayFromImage(whole[:, :, kept]))
    assert not sitk.GetArrayFromImage(found)[outside].any()
    sitk.WriteImage(slab, str(tmp_path / "label.nii.gz"))
    with pytest.raises(StudyError, match="grid is not the image's"):
        study.read_label(tmp_path / "label.nii.gz")


@pytest.mark.parametrize("box", [np.s_[1:, :, 1:], np.s_[:, 1:, 1:]])
def test_a_nrrd_that_is_smaller_along_two_axes_is_refused(tmp_path, box):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    whole = sitk.ReadImage(str(study.write_label(random_labels(study), tmp_path / "whole.nrrd")))
    sitk.WriteImage(whole[box], str(tmp_path / "label.nrrd"))
    with pytest.raises(StudyError, match="grid is not the image's"):
        study.read_label(tmp_path / "label.nrrd")


def test_label_image_of_another_size_is_refused(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(np.zeros((6, 5), np.uint8)).save(tmp_path / "label.png")
    with pytest.raises(StudyError, match=r"5 x 6 x 1 pixels .columns x rows x pages., .*6 x 5 x 1"):
        read_study(tmp_path / "image.png").read_label(tmp_path / "label.png")


def test_palette_and_one_bit_labels_are_indices(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8)).save(tmp_path / "image.png")
    study = read_study(tmp_path / "image.png")
    labels = random_labels(study)[0] % 3
    plain_image = Image.fromarray(labels)
    plain_image.putpalette([0, 0, 0, 255, 0, 0, 255, 0, 0])  # two indices of one colour stay apart
    plain_image.save(tmp_path / "palette.png")
    Image.fromarray(labels > 0).save(tmp_path / "bits.png")
    assert np.array_equal(study.read_label(tmp_path / "palette.png")[0], labels)
    assert np.array_equal(study.read_label(tmp_path / "bits.png")[0], labels > 0)


def test_whole_numbers_stored_as_float_are_labels(tmp_path):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    affine = nib.load(tmp_path / "image.nii.gz").affine
    labels = RNG.integers(0, 4, (6, 5, 4))
    nib.save(nib.Nifti1Image(labels.astype(np.float64), affine), tmp_path / "label.nii.gz")
    assert np.array_equal(study.to_grid(study.read_label(tmp_path / "label.nii.gz")), labels)


@pytest.mark.parametrize("off", [1e-7, -1e-7, 4e-4])
def test_labels_within_rounding_are_labels(tmp_path, off):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    affine = nib.load(tmp_path / "image.nii.gz").affine
    labels = RNG.integers(0, 4, (6, 5, 4))
    nib.save(nib.Nifti1Image((labels + off).astype(np.float32), affine), tmp_path / "label.nii.gz")
    assert np.array_equal(study.to_grid(study.read_label(tmp_path / "label.nii.gz")), labels)


@pytest.mark.parametrize("largest", [1, 7, 255])
def test_labels_stored_with_a_scale_factor_are_labels(tmp_path, largest):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    labels = RNG.integers(0, largest + 1, (6, 5, 4))
    label = nib.Nifti1Image(np.round(labels * (30000 / largest)).astype(np.int16), nib.load(study.path).affine)
    label.header.set_slope_inter(largest / 30000, 0)
    nib.save(label, tmp_path / "label.nii")
    raw = bytearray((tmp_path / "label.nii").read_bytes())
    raw[112:116] = np.float32(largest / 30000).tobytes()  # scl_slope, which nibabel leaves to the array
    raw[352:] = np.round(labels * (30000 / largest)).astype("<i2").tobytes(order="F")
    (tmp_path / "label.nii").write_bytes(raw)
    stored = np.asanyarray(nib.load(tmp_path / "label.nii").dataobj)
    assert stored.dtype.kind == "f" and np.allclose(stored, labels, atol=5e-3) and (stored != labels).any()
    assert np.array_equal(study.to_grid(study.read_label(tmp_path / "label.nii")), labels)


@pytest.mark.parametrize(
    "probabilities", [np.linspace(0, 1, 120), np.array([0, 1, 0.98] * 40), np.array([0, 0.01] * 60)]
)
def test_probabilities_are_refused(tmp_path, probabilities):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    values = probabilities.reshape(6, 5, 4).astype(np.float32)
    nib.save(nib.Nifti1Image(values, nib.load(study.path).affine), tmp_path / "label.nii.gz")
    with pytest.raises(StudyError, match="expected a label map, not probabilities: save it after choosing a threshold"):
        study.read_label(tmp_path / "label.nii.gz")


@pytest.mark.parametrize(
    ("value", "message"), [(0.5, "not whole numbers"), (300.0, "0 to 300"), (-1.0, "-1 to 0"), (np.nan, "nan")]
)
def test_values_that_are_no_labels(tmp_path, value, message):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    values = np.zeros((6, 5, 4), np.float32)
    values[0, 0, 0] = value
    nib.save(nib.Nifti1Image(values, nib.load(tmp_path / "image.nii.gz").affine), tmp_path / "label.nii.gz")
    with pytest.raises(StudyError, match=f"label.nii.gz: .*{message}"):
        study.read_label(tmp_path / "label.nii.gz")


def test_images_that_are_no_labels(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8)).save(tmp_path / "image.png")
    study = read_study(tmp_path / "image.png")
    with pytest.raises(StudyError, match="colour image; expected one number per pixel"):
        study.read_label(tmp_path / "image.png")
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "label.jpg")
    with pytest.raises(StudyError, match="JPEG changes label values"):
        study.read_label(tmp_path / "label.jpg")


def test_formats_that_cannot_hold_the_label(tmp_path):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    with pytest.raises(StudyError, match=r"an image holds one slice.*6 x 5 x 4"):
        study.write_label(random_labels(study), tmp_path / "label.png")
    for name in ("label.jpg", "label.xyz", "label"):
        with pytest.raises(StudyError, match="expected one of " + r"\.nii\.gz"):
            study.write_label(random_labels(study), tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["image.nii.gz"]
    assert ".jpg" not in WRITABLE


def test_a_failed_write_leaves_the_old_label(tmp_path, monkeypatch):
    study = read_study(itk_image(tmp_path / "image.nii.gz", (4, 5, 6)))
    labels = random_labels(study)
    path = study.write_label(labels, tmp_path / "label.nii.gz")

    def full_disk(self, target):
        with open(target, "wb") as f:
            f.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", full_disk)
    with pytest.raises(OSError, match="no space"):
        study.write_label(255 - labels, path)
    assert np.array_equal(study.read_label(path), labels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.nii.gz", "label.nii.gz"]
