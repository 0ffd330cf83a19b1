"""From a scanner's values to [0, 1]: CT by a window, colour as it is, everything else by percentiles.

The bounds are found once over the whole study, so that a tissue looks the same on every slice. 8-bit gray images go
by percentiles too: ultrasound and photographed film rarely use their range, and a gray image must look the same
whether it was saved with 8 or 16 bits. Percentiles are 0.5 and 99.5; where they coincide (a few bright pixels on
black) the smallest and the largest value take their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import StudyError
from .padding import usual_limits

# name -> (centre, width) in Hounsfield units
CT_WINDOWS = {
    "soft-tissue": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "mediastinum": (50.0, 350.0),
    "liver": (60.0, 160.0),
}
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners put into 16; files rarely say how many are used
AIR, FAT = -500.0, -50.0  # HU: what a CT reaches down to, with and without air
PERCENTILES = (0.5, 99.5)
SAMPLE = 4_000_000  # values looked at for percentiles; beyond it every n-th


class Bounds(NamedTuple):
    """What is shown between black and white.

    Attributes:
        low: the value that becomes 0.
        high: the one that becomes 1.
    """

    low: float
    high: float


@dataclass(frozen=True)
class IntensitySettings:
    """How values become brightness.

    "auto" takes soft tissue for CT and for volumes that look like Hounsfield units, percentiles for other gray studies.
    A named CT window is for CT (or what looks like it); other gray studies keep percentiles, so that one setting serves
    a mixed archive. (centre, width) is for every gray study. 8-bit colour stays as it is under each of them.

    Attributes:
        window: "auto", "percentile", the name of a CT window, or (centre, width) in the file's own values.

    Raises:
        StudyError: for another window.
    """

    window: str | tuple[float, float] = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.window, str):
            if self.window not in names():
                raise StudyError(
                    f"unknown intensity window {self.window!r}; expected one of {', '.join(names())}, or centre,width"
                )
            return
        try:
            centre, width = (float(v) for v in self.window)
        except (TypeError, ValueError):
            raise StudyError(
                f"intensity window {self.window!r} is neither a name ({', '.join(names())}) nor (centre, width)"
            ) from None
        if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
            raise StudyError(f"intensity window {self.window!r}: centre must be finite and width above 0")
        object.__setattr__(self, "window", (centre, width))

    @classmethod
    def parse(cls, text: str) -> IntensitySettings:
        """From an option's text.

        Args:
            text: a name, or ``centre,width`` as in ``40,400``.

        Returns:
            The settings.

        Raises:
            StudyError: for another text.
        """
        text = text.strip()
        if "," not in text:
            return cls(text)
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            raise StudyError(f"intensity window {text!r}: expected two numbers as centre,width") from None
        return cls(values)

    def bounds(self, voxels: np.ndarray, *, modality: str | None, colour: bool, padding: float | None = None) -> Bounds:
        """What becomes 0 and 1 in this study.

        Args:
            voxels: finite, any shape, without padding.
            modality: DICOM's, upper case; None where nobody knows.
            colour: whether the study has three channels.
            padding: the smallest padding value that was taken out of the voxels, if any.

        Returns:
            The two values.

        Raises:
            StudyError: the voxels are all alike.
        """
        low, high = float(voxels.min()), float(voxels.max())
        if low == high:
            raise StudyError(
                f"the image is constant (every value is {low:g}): nothing can be segmented in it; "
                "check how it was exported"
            )
        if colour and voxels.dtype == np.uint8:
            return Bounds(0.0, 255.0)
        if colour and voxels.dtype == np.uint16:
            return Bounds(0.0, next(2.0**bits - 1 for bits in DEPTHS if high < 2**bits))
        if isinstance(self.window, tuple):
            return _window(*self.window)
        hounsfield = modality == "CT" or (modality in (None, "OT") and looks_like_hounsfield(voxels, padding))
        if hounsfield and self.window != "percentile":
            return _window(*CT_WINDOWS["soft-tissue" if self.window == "auto" else self.window])
        step = max(1, voxels.size // SAMPLE)
        values = voxels.ravel()[::step] if step > 1 else voxels
        p_low, p_high = (float(v) for v in np.percentile(values, PERCENTILES))
        return Bounds(p_low, p_high) if p_low < p_high else Bounds(low, high)


def names() -> tuple[str, ...]:
    """Every window that has a name."""
    return ("auto", "percentile", *CT_WINDOWS)


def looks_like_hounsfield(voxels: np.ndarray, padding: float | None = None) -> bool:
    """Whether a gray volume of unknown modality spans air to soft tissue as CT does, and no other modality.

    Args:
        voxels: finite, any shape; a few that are far off from all others do not count.
        padding: the smallest padding value that was taken out of them, if any. Below zero it may stand for the air:
            then fat is enough.

    Returns:
        True when it does.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if low < -4096 or high > 32767:
        usual = usual_limits(voxels)
        kept = voxels[(voxels >= usual[0]) & (voxels <= usual[1])]
        low, high = float(kept.min()), float(kept.max())
    if not (low >= -4096 and 100 <= high <= 32767):
        return False
    return low <= AIR or (padding is not None and padding <= AIR and np.percentile(voxels, PERCENTILES[0]) <= FAT)


def normalise(values: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Bring values to [0, 1].

    Args:
        values: (...) of any type.
        bounds: what becomes 0 and 1.

    Returns:
        (...) float32.
    """
    scaled = (values.astype(np.float32) - np.float32(bounds.low)) / np.float32(bounds.high - bounds.low)
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def _window(centre: float, width: float) -> Bounds:
    return Bounds(centre - width / 2, centre + width / 2)
