"""Images as people have them: turned by a tag, deep, inverted, with thumbnails."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from proxyprompt.io.readers import read_raster
from proxyprompt.io.study import StudyError, read_study

RNG = np.random.default_rng(15)
GRAY = RNG.integers(0, 256, (10, 14)).astype(np.uint8)
RGB = RNG.integers(0, 256, (10, 14, 3)).astype(np.uint8)
UPRIGHT = {  # orientation -> what viewers make of the stored array
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def rows(path):
    """(rows, columns[, 3]) of an image's only page, as the raster holds it."""
    voxels = read_raster(path).voxels[:, :, 0]
    return voxels.swapaxes(0, 1)


def seen(study, index=0):
    return study.image(index).transpose(1, 2, 0) * 255


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("stored", [GRAY, GRAY.astype(np.uint16) * 200, RGB, GRAY / 300.0])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_tiffs_are_turned_upright(tmp_path, stored, orientation, compression):
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=tag, compression=compression)
    wanted = UPRIGHT[orientation](stored)
    assert np.allclose(rows(tmp_path / "a.tif"), wanted)
    study = read_study(tmp_path / "a.tif")
    labels = RNG.integers(0, 9, (1, *wanted.shape[:2])).astype(np.uint8)
    assert np.array_equal(study.to_grid(labels), labels[0])
    for suffix in (".png", ".tif", ".nrrd"):
        assert np.array_equal(study.read_label(study.write_label(labels, tmp_path / f"l{suffix}")), labels)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_label_that_carries_the_same_tag_fits(tmp_path, orientation):
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", RGB, extratags=tag)
    tifffile.imwrite(tmp_path / "l.tif", GRAY, extratags=tag)
    study = read_study(tmp_path / "a.tif")
    assert np.array_equal(study.read_label(tmp_path / "l.tif")[0], UPRIGHT[orientation](GRAY))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_other_images_are_seen_upright_and_masked_as_stored(tmp_path, suffix, orientation):
    smooth = np.add.outer(np.arange(40) * 4, np.arange(48) * 2).astype(np.uint8)[..., None] + np.array([0, 9, 30], "u1")
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(smooth).save(tmp_path / f"a{suffix}", exif=exif)
    study = read_study(tmp_path / f"a{suffix}")
    assert np.abs(seen(study) - UPRIGHT[orientation](smooth)).mean() < 3
    assert bool(study.warnings) == (orientation != 1)
    stored = RNG.integers(0, 9, (40, 48)).astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / "l.png")
    labels = study.read_label(tmp_path / "l.png")
    assert np.array_equal(labels[0], UPRIGHT[orientation](stored))
    assert np.array_equal(study.to_grid(labels), stored)
    assert np.array_equal(study.read_label(study.write_label(labels, tmp_path / "again.png")), labels)
    row, column = study.locate((5, 7, 0))[1:]
    assert study.image(0)[:, row, column] == pytest.approx(np.asarray(Image.open(study.path))[7, 5] / 255)


def test_a_label_drawn_on_the_turned_image_is_refused_with_a_hint(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(np.zeros((14, 10), np.uint8)).save(tmp_path / "l.png")
    with pytest.raises(StudyError, match=r"10 x 14 x 1 .*14 x 10 x 1; draw it on the pixels as they are stored"):
        read_study(tmp_path / "a.jpg").read_label(tmp_path / "l.png")


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm", ".ppm.gz"])
def test_deep_colour_keeps_its_depth(tmp_path, suffix, bits):
    deep = RNG.integers(0, 2**bits, (10, 14, 3)).astype(np.uint16)
    deep[0, 0] = 2**bits - 1, 0, 5
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        sitk.WriteImage(sitk.GetImageFromArray(deep, isVector=True), str(path))
    elif suffix == ".tif":
        tifffile.imwrite(path, deep)
    else:
        content = f"P6 14 10 {2**bits - 1}\n".encode() + deep.astype(">u2").tobytes()
        path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert np.array_equal(rows(path), deep)
    assert np.allclose(seen(read_study(path)) / 255, deep / (2**bits - 1), atol=1e-5)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_gray_by_its_real_range(tmp_path, suffix, bits):
    deep = RNG.integers(0, 2**bits, (10, 14)).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    if suffix == ".pgm":
        path.write_bytes(f"P5 14 10 {2**bits - 1}\n".encode() + deep.astype(">u2").tobytes())
    else:
        sitk.WriteImage(sitk.GetImageFromArray(deep), str(path))
    assert np.array_equal(rows(path), deep)
    assert np.allclose(read_study(path).bounds, np.percentile(deep, (0.5, 99.5)))


def test_deep_gray_with_alpha(tmp_path):
    import imagecodecs

    deep = RNG.integers(0, 60000, (10, 14, 2)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    assert np.array_equal(rows(tmp_path / "a.png"), deep[..., 0])


def test_few_levels_of_netpbm(tmp_path):
    levels = RNG.integers(0, 4, (10, 14)).astype(np.uint8)
    (tmp_path / "l.pgm").write_bytes(b"P5 14 10 3\n" + levels.tobytes())
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert np.array_equal(read_study(tmp_path / "a.png").read_label(tmp_path / "l.pgm")[0], levels)
    (tmp_path / "c.ppm").write_bytes(b"P6 14 10 15\n" + (RGB // 16).tobytes())
    assert np.array_equal(rows(tmp_path / "c.ppm"), RGB // 16 * 17)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.uint32])
def test_white_is_zero_at_any_depth(tmp_path, dtype):
    stored = (np.add.outer(np.arange(10), np.arange(14)) * (5 if dtype == np.uint8 else 500)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    found = rows(tmp_path / "a.tif").astype(np.float64)
    assert np.allclose(found, found[0, 0] - stored) and read_study(tmp_path / "a.tif").image(0)[0, 0, 0] == 1
    if dtype == np.uint8:  # of a label the stored numbers count
        Image.fromarray(RGB).save(tmp_path / "i.png")
        assert np.array_equal(read_study(tmp_path / "i.png").read_label(tmp_path / "a.tif")[0], stored)


def test_white_is_zero_in_one_bit(tmp_path):
    bits = GRAY > 128
    for photometric, shown in (("minisblack", bits), ("miniswhite", ~bits)):
        tifffile.imwrite(tmp_path / "a.tif", bits, photometric=photometric)
        assert np.array_equal(rows(tmp_path / "a.tif"), shown)
        Image.fromarray(RGB).save(tmp_path / "i.png")
        assert np.array_equal(read_study(tmp_path / "i.png").read_label(tmp_path / "a.tif")[0], shown)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32, np.uint32, np.int8])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
def test_tiffs_of_every_type_and_packing(tmp_path, dtype, compression):
    values = (RNG.random((10, 14)) * 100).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, compression=compression)
    assert np.allclose(rows(tmp_path / "a.tif"), values)


def test_planes_palettes_and_photographs_in_a_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(rows(tmp_path / "planes.tif"), RGB)
    smooth = np.add.outer(np.arange(40) * 4, np.arange(48) * 2).astype(np.uint8)[..., None] + np.array([0, 9, 30], "u1")
    tifffile.imwrite(tmp_path / "jpeg.tif", smooth, photometric="rgb", compression="jpeg")
    assert np.abs(rows(tmp_path / "jpeg.tif").astype(float) - smooth).mean() < 3
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.abs(rows(tmp_path / "cmyk.tif").astype(float) - smooth).mean() < 1
    plain_image = Image.fromarray(GRAY % 3)
    plain_image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 9])
    plain_image.save(tmp_path / "palette.tif")
    assert np.array_equal(rows(tmp_path / "palette.tif"), np.array([[0, 0, 0], [255, 0, 0], [0, 255, 9]])[GRAY % 3])
    assert np.array_equal(read_study(tmp_path / "planes.tif").read_label(tmp_path / "palette.tif")[0], GRAY % 3)


@pytest.mark.parametrize("flagged", [True, False])
def test_thumbnails_are_left_out(tmp_path, flagged):
    whole = RNG.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in (whole[::4, ::4], whole, whole[::2, ::2]):
            file.write(page, subfiletype=int(flagged and page is not whole), metadata=None)
    study = read_study(tmp_path / "a.tif")
    assert (study.kind, len(study)) == ("image", 1) and np.array_equal(rows(tmp_path / "a.tif"), whole)
    assert bool(study.warnings) != flagged


def test_previews_of_a_camera_are_left_out(tmp_path):
    smooth = np.add.outer(np.arange(40) * 4, np.arange(48) * 2).astype(np.uint8)[..., None] + np.array([0, 9, 30], "u1")
    first, second = Image.fromarray(smooth), Image.fromarray(smooth[::2, ::2])
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert len(read_study(tmp_path / "a.jpg")) == 1
    assert np.abs(seen(read_study(tmp_path / "a.jpg")) - smooth).mean() < 3


def test_pages_that_do_not_belong_together_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in (GRAY, GRAY[:5], GRAY[:, :5]):
            file.write(page, metadata=None)
    with pytest.raises(StudyError, match=r"a\.tif: its 3 pages differ in size or colour"):
        read_study(tmp_path / "a.tif")


def test_what_nothing_decodes_is_refused_for_that(tmp_path):
    tifffile.imwrite(tmp_path / "lab.tif", RGB, photometric="cielab")
    with pytest.raises(StudyError, match=r"lab\.tif: this TIFF cannot be decoded here \(colours of the kind CIELAB"):
        read_study(tmp_path / "lab.tif")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "jpeg"])
@pytest.mark.parametrize("keep", [0.4, 0.9])
def test_a_tiff_that_is_cut_short_is_damaged(tmp_path, compression, keep):
    noise = RNG.integers(0, 256, (90, 90, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", noise, compression=compression, rowsperstrip=30, photometric="rgb")
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(StudyError, match=r"a\.tif: cannot be read"):
        read_study(tmp_path / "a.tif")
