"""A folder like those that pretraining reads."""

import numpy as np
from PIL import Image


def write_task(folder, *, cases=6, seed=0):
    """Bright discs on noise, two images of each patient."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rows = ["case,group"]
    for case in range(cases):
        y, x = np.mgrid[:80, :72]
        disc = (y - rng.integers(25, 55)) ** 2 + (x - rng.integers(25, 45)) ** 2 < 15**2
        image = (rng.random((80, 72)) * 90 + 120 * disc).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"c{case}.png")
        Image.fromarray(disc.astype(np.uint8)).save(folder / "masks" / f"c{case}.png")
        rows.append(f"c{case},p{case // 2}")
    (folder / "groups.csv").write_text("\n".join(rows) + "\n")
