"""The paper's data sets in small, in exactly the layouts that their makers distribute."""

import gzip
import io

import numpy as np
import SimpleITK as sitk
from PIL import Image

SIZE = (20, 24)  # rows, columns
RNG = np.random.default_rng(11)


def discs(values, size=SIZE):
    """Concentric: background, outer, inner."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    distance = np.hypot(rows - size[0] / 2, columns - size[1] / 2)
    background, outer, inner = values
    labels = np.full(size, background, np.uint8)
    labels[distance < 8] = outer
    labels[distance < 4] = inner
    return labels


def colour(size=SIZE):
    return Image.fromarray(RNG.integers(0, 255, (*size, 3), dtype=np.uint8))


def _save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_refuge(folder):
    """Two parts that use the same names, with illustrations and a spreadsheet beside them."""
    first, second = folder / "Train" / "REFUGE1-train", folder / "Validation"
    for name, kind in (("g0001", "Glaucoma"), ("n0001", "Non-Glaucoma")):
        _save(colour(), first / "Training400" / kind / f"{name}.jpg")
        masks = first / "Annotation-Training400" / "Disc_Cup_Masks" / kind
        _save(Image.fromarray(discs((255, 128, 0))), masks / f"{name}.bmp")
        _save(colour(), first / "Annotation-Training400" / "Disc_Cup_Fovea_Illustration" / kind / f"{name}.jpg")
    for part in (folder / "Train" / "REFUGE1-val", second):
        _save(colour(), part / "Images" / "V0001.jpg")
        _save(Image.fromarray(discs((255, 128, 0))), part / "Disc_Cup_Masks" / "V0001.bmp")
    _save(colour(), second / "Images" / "V0002.jpg")  # its mask was not published
    (second / "Fovea_location.xlsx").write_bytes(b"")
    return folder


def write_stare(folder, *, count=3, observers=("ah", "vk")):
    def gzipped(image, path):
        stream = io.BytesIO()
        image.save(stream, "PPM")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(stream.getvalue()))

    for n in range(1, count + 1):
        gzipped(colour(), folder / "stare-images" / f"im{n:04}.ppm.gz")
        for observer in observers:
            mask = Image.fromarray(discs((0, 127, 255)))
            gzipped(mask, folder / f"labels-{observer}" / f"im{n:04}.{observer}.ppm.gz")
    gzipped(colour(), folder / "stare-images" / "im0319.ppm.gz")  # not labelled
    return folder


def write_fh_ps_aop(folder, *, numbers=(1, 99, 100, 230)):
    root = folder / "Pubic Symphysis-Fetal Head Segmentation and Angle of Progression"
    for name in ("image_mha", "label_mha"):
        (root / name).mkdir(parents=True)
    for n in numbers:
        gray = RNG.integers(0, 255, SIZE, dtype=np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([gray] * 3)), str(root / "image_mha" / f"{n:05}.mha"))
        sitk.WriteImage(sitk.GetImageFromArray(discs((0, 2, 1))), str(root / "label_mha" / f"{n:05}.mha"))
    return folder


def write_promise12(folder, *, count=2):
    part = folder / "TrainingData_Part1"
    part.mkdir(parents=True)
    for n in range(count):
        voxels = RNG.integers(0, 900, (5, *SIZE)).astype(np.int16)
        labels = np.repeat(discs((0, 1, 1))[None], 5, axis=0).astype(np.int8)
        for name, array in ((f"Case{n:02}", voxels), (f"Case{n:02}_segmentation", labels)):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.625, 0.625, 3.6))
            image.SetOrigin((-10.0, 5.0, 2.5))
            sitk.WriteImage(image, str(part / f"{name}.mhd"))
    test = sitk.GetImageFromArray(np.zeros((5, *SIZE), np.int16))
    (folder / "TestData").mkdir()
    sitk.WriteImage(test, str(folder / "TestData" / "Case30.mhd"))
    return folder


def write_jnu_ifm(folder, *, videos=2, frames=3):
    for v in range(videos):
        name = f"20190830T11551{v}"
        rows = ["frame_id,frame_label"]
        for n in range(frames):
            _save(colour(), folder / name / "image" / f"{name}_{n}.png")
            _save(Image.fromarray(discs((0, 8, 7))), folder / name / "mask" / f"{name}_{n}_mask.png")
            _save(colour(), folder / name / "mask_enhance" / f"{name}_{n}_mask_enhance.png")
            rows.append(f"{n},sp+head")
        (folder / name / "frame_label.csv").write_text("\n".join(rows) + "\n")
    return folder
