"""Small labelled studies for training tests: a bright disc and a dark square on noise, as images and as cases."""

import numpy as np
from PIL import Image

from lib.studies.collections import read_collection
from lib.training.cases import Cases

NAMES = {"disc": (1,), "square": (2,)}


def draw_blob(seed: int, *, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(image, labels), both (side, side) uint8; disc 1, square 2."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    image = rng.normal(110, 12, (side, side))
    labels = np.zeros((side, side), np.uint8)
    y, x = rng.integers(side // 4, 3 * side // 4, 2)
    disc = (rows - y) ** 2 + (columns - x) ** 2 < (side // 6) ** 2
    y, x = rng.integers(side // 8, side // 2, 2)
    square = (abs(rows - y) < side // 9) & (abs(columns - x) < side // 9) & ~disc
    image[disc] += 90
    image[square] -= 80
    labels[disc], labels[square] = 1, 2
    return image.clip(0, 255).astype(np.uint8), labels


def write_blobs(folder, count, *, side: int = 64, wrong: int = 0, first: int = 0):
    """``images/`` and ``masks/`` of ``count`` studies; the first ``wrong`` of them have noise for a label."""
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for n in range(count):
        image, labels = draw_blob(first + n, side=side)
        Image.fromarray(image).save(folder / "images" / f"case{n:02d}.png")
        Image.fromarray(labels).save(folder / "masks" / f"case{n:02d}.png")
    return folder


def blob_cases(folder, count, **options) -> Cases:
    return Cases.from_collection(read_collection(write_blobs(folder, count, **options), structures=NAMES))
