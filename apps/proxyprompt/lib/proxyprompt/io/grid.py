"""Voxel grids in patient space: where the voxels of a file lie, and whether two files cover the same voxels.

Space is LPS (x to the patient's left, y to the back, z to the head), in mm, as in DICOM and ITK; indices are
(i, j, k), first axis fastest in the file. A 2-D image is a grid with one voxel along k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import SimpleITK as sitk

TOLERANCE = 0.1  # of the smallest spacing: files round their geometry, but a tenth of a voxel is a different grid
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class ItkGeometry:
    """A grid as ITK holds it, with the file's own number of dimensions D.

    Attributes:
        size: D.
        spacing: D, in mm.
        origin: D, in mm.
        direction: D x D, row by row.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def identity(cls, *size: int) -> ItkGeometry:
        """Spacing 1, origin 0, axes along the patient's: what ITK gives an image without geometry.

        Args:
            *size: of the grid.

        Returns:
            The geometry.
        """
        d = len(size)
        return cls(tuple(size), (1.0,) * d, (0.0,) * d, tuple(np.eye(d).ravel().tolist()))

    @classmethod
    def of(cls, image: sitk.Image | sitk.ImageFileReader) -> ItkGeometry:
        """That of an image.

        Args:
            image: a SimpleITK image, or an ImageFileReader after ReadImageInformation.

        Returns:
            The geometry.
        """
        return cls(
            tuple(image.GetSize()),
            tuple(image.GetSpacing()),
            tuple(image.GetOrigin()),
            tuple(image.GetDirection()),
        )


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie in patient space.

    Attributes:
        size: (ni, nj, nk).
        affine: (4, 4), from voxel index to LPS mm.
    """

    size: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def from_ras(cls, size: Sequence[int], affine: ArrayLike) -> Grid:
        """From nibabel's affine.

        Args:
            size: (ni, nj, nk).
            affine: (4, 4), from voxel index to RAS mm.

        Returns:
            The grid.
        """
        return cls(tuple(int(n) for n in size), LPS_FROM_RAS @ np.asarray(affine, dtype=np.float64))

    @classmethod
    def from_itk(cls, geometry: ItkGeometry) -> Grid:
        """The spatial part of an ITK grid; dimensions after the third are left out.

        Args:
            geometry: of one to four dimensions.

        Returns:
            The grid.
        """
        d = len(geometry.size)
        n = min(d, 3)
        affine = np.eye(4)
        direction = np.asarray(geometry.direction).reshape(d, d)[:n, :n]
        affine[:n, :n] = direction * np.asarray(geometry.spacing[:n])
        affine[:n, 3] = geometry.origin[:n]
        return cls(tuple(geometry.size[:n]) + (1,) * (3 - n), affine)

    @property
    def spacing(self) -> np.ndarray:
        """(3,), mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def direction(self) -> np.ndarray:
        """(3, 3), a unit column for each axis."""
        return self.affine[:3, :3] / self.spacing

    def usable(self) -> bool:
        """Whether the axes are finite and span space."""
        return bool(np.isfinite(self.affine).all() and abs(np.linalg.det(self.affine)) > 1e-12)

    def describe(self) -> str:
        """One line for messages."""

        def numbers(values: Iterable[float]) -> str:
            return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"

        axes = " ".join(numbers(column) for column in self.direction.T)
        return (
            f"size {self.size}, spacing {numbers(self.spacing)} mm, origin {numbers(self.affine[:3, 3])} mm, "
            f"axes {axes} (LPS)"
        )

    def alignment(self, other: Grid) -> Alignment | None:
        """How the voxels of another grid are to be permuted and flipped to stand on this one.

        Every corner must agree to a tenth of the smallest spacing. The spacing along an axis of one voxel says nothing
        and is not compared.

        Args:
            other: the other grid.

        Returns:
            The alignment; None if it does not cover this grid.
        """
        placed = self.placement(other)
        return placed[0] if placed and tuple(n.stop - n.start for n in placed[1]) == self.size else None

    def placement(self, other: Grid, *, box: bool = False) -> tuple[Alignment, tuple[slice, slice, slice]] | None:
        """As :meth:`alignment` for a slab, which may leave out whole slices at the ends of one axis.

        Args:
            other: the slab's grid.
            box: it may leave out slices of all three axes.

        Returns:
            How to turn it, and the range of this grid's voxels that it then fills; None where it does not fit.
        """
        to_self = np.linalg.inv(self.affine) @ other.affine
        steps = np.abs(to_self[:3, :3] * np.where(np.asarray(other.size) > 1, 1.0, 1e-6))
        axes = [-1, -1, -1]  # axes[own axis] = axis of the other
        for _ in range(3):
            row, column = np.unravel_index(np.argmax(steps), (3, 3))
            axes[row] = int(column)
            steps[row, :] = -1
            steps[:, column] = -1
        size = [other.size[a] for a in axes]
        shorter = [n < own for n, own in zip(size, self.size, strict=True)]
        if (sum(shorter) > 1 and not box) or any(n > own for n, own in zip(size, self.size, strict=True)):
            return None
        flips = tuple(bool(to_self[row, axes[row]] < 0) and size[row] > 1 for row in range(3))
        first = np.ones(4)
        first[axes] = [n - 1 if flip else 0 for n, flip in zip(size, flips, strict=True)]
        starts = [round(float(at)) if short else 0 for at, short in zip(to_self @ first, shorter, strict=False)]
        if any(not 0 <= start <= own - n for start, own, n in zip(starts, self.size, size, strict=True)):
            return None
        several = [s for s, n in zip(self.spacing, self.size, strict=True) if n > 1] or list(self.spacing)
        for corner in product(*((0, n - 1) for n in other.size)):
            found = (to_self @ np.array([*corner, 1.0]))[:3]
            at = [corner[a] for a in axes]
            turned = [n - 1 - c if flip else c for c, n, flip in zip(at, size, flips, strict=True)]
            if np.linalg.norm(self.affine[:3, :3] @ (found - turned - starts)) > TOLERANCE * min(several):
                return None
        ranges = tuple(slice(start, start + n) for start, n in zip(starts, size, strict=True))
        return Alignment(tuple(axes), flips), ranges


@dataclass(frozen=True)
class Alignment:
    """A permutation of three axes followed by flips: lossless, and its own kind of inverse.

    Attributes:
        axes: ``axes[n]`` is the source axis that becomes axis n.
        flips: whether axis n then runs backwards.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Turn an array.

        Args:
            array: (a, b, c, ...) in the source order; further axes stay.

        Returns:
            A view in the new order.
        """
        moved = array.transpose(*self.axes, *range(3, array.ndim))
        return moved[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def locate(self, index: Sequence[int], size: Sequence[int]) -> tuple[int, int, int]:
        """Where a voxel lies after :meth:`apply`.

        Args:
            index: of the voxel in the source array.
            size: of the source array.

        Returns:
            Its index in the new order.
        """
        return tuple(
            int(size[a] - 1 - index[a] if flip else index[a]) for a, flip in zip(self.axes, self.flips, strict=True)
        )

    def undo(self, array: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`apply`.

        Args:
            array: (a, b, c, ...) in the new order.

        Returns:
            A view in the source order.
        """
        back = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return back.transpose(*np.argsort(self.axes), *range(3, array.ndim))
