"""The smallest studies there are: images of a bright square somewhere."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_squares(studies: Path, *, count: int = 4, labelled: int = 2) -> Path:
    """``studies/s0.png``, ...; the first ``labelled`` ones with a final label, in which the square is 1."""
    (studies / "labels" / "final").mkdir(parents=True)
    for n in range(count):
        plain_image, mask = np.full((48, 64), 30, np.uint8), np.zeros((48, 64), np.uint8)
        mask[10 : 20 + n, 8 * n : 8 * n + 20] = 1
        plain_image[mask > 0] = 200 + n
        Image.fromarray(plain_image).save(studies / f"s{n}.png")
        if n < labelled:
            Image.fromarray(mask).save(studies / "labels" / "final" / f"s{n}.png")
    return studies
