"""Outlines of masks over images, and figures as files."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from proxyprompt.io.files import replacing

COLOURS = ("#ffe119", "#42d4f4", "#f032e6", "#3cb44b", "#f58231", "#4363d8", "#e6194b", "#bfef45", "#fabed4", "#ffffff")


def show(axis: Axes, image: np.ndarray, *, aspect: float = 1.0) -> None:
    """image: (3, h, w) in [0, 1]. aspect: height of a pixel over its width."""
    axis.imshow(image.transpose(1, 2, 0), aspect=aspect, interpolation="nearest")
    axis.set_axis_off()


def outline(axis: Axes, mask: np.ndarray, colour: str, *, width: float = 1.2) -> None:
    """The border of a mask (h, w) that is not empty, closed at the edges of the image too."""
    if mask.any():
        steps = [np.arange(-1, n + 1) for n in mask.shape]
        axis.contour(steps[1], steps[0], np.pad(mask, 1).astype(float), [0.5], colors=colour, linewidths=width)


def save(figure: Figure, path: Path, *, dpi: int) -> Path:
    """Written beside, then renamed, and closed. The suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=dpi, format=path.suffix.lstrip(".") or "png")
    plt.close(figure)
    return path
