"""What a request says with points, in the words of every viewer.

- 3D Slicer: ``{"label": "head", "foreground": [[x, y, z], ...], "background": [...]}``: all about one structure.
- OHIF: ``{"head": [[x, y, z], ...], "background": [...]}``: points inside each structure, and points that are in none.
- Scripts: ``{"head": {"foreground": [...], "background": [...], "boxes": [[corner, corner], ...]}}``: all for each
  structure; a box is two opposite corners on one slice, which the structure does not leave there.

Points and corners are voxels (x, y, z) of the image file, as :meth:`proxyprompt.io.study.Study.locate` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from proxyprompt.errors import refuse
from proxyprompt.foundation.base import Points
from proxyprompt.io.errors import StudyError
from proxyprompt.io.registry import StructureRegistry
from proxyprompt.io.study import Study

from .options import FOREIGN, OURS

FOREGROUND, BACKGROUND, BOXES = "foreground", "background", "boxes"
MAX_POINTS = 1000


class Click(NamedTuple):
    """A point on a slice. inside: whether the structure is there."""

    slice: int
    row: int
    column: int
    inside: bool


class Box(NamedTuple):
    """Pixels of a slice that a structure does not leave, the last row and column among them."""

    slice: int
    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Clicks:
    """of: structure -> its clicks. nothing: points that are in no structure at all. boxes: structure -> its boxes."""

    of: Mapping[str, tuple[Click, ...]] = field(default_factory=dict)
    nothing: tuple[Click, ...] = ()
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, [*self.of.values(), *self.boxes.values()])) + len(self.nothing)

    def structures(self) -> list[str]:
        """Those that something is said of."""
        return list(dict.fromkeys((*self.of, *self.boxes)))

    def slices(self, structure: str) -> list[int]:
        """Those on which something is said of a structure, in order."""
        said: list[Click | Box] = [*self.of.get(structure, ()), *self.boxes.get(structure, ())]
        return sorted({one.slice for one in said})

    def box(self, structure: str, index: int) -> Box | None:
        """The box of one structure on one slice."""
        return next((box for box in self.boxes.get(structure, ()) if box.slice == index), None)

    def on(self, structure: str, index: int) -> list[Click]:
        """The clicks of one structure on one slice."""
        return [click for click in self.of.get(structure, ()) if click.slice == index]


def split_points(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what may be points, all the rest of the request)."""
    options = {*OURS, *FOREIGN, "image"}
    said = {
        key: value
        for key, value in request.items()
        if key in (FOREGROUND, BACKGROUND) or (key not in options and isinstance(value, list | tuple | Mapping))
    }
    return said, {key: value for key, value in request.items() if key not in said}


def parse_clicks(said: Mapping[str, Any], study: Study, *, label: str | None, registry: StructureRegistry) -> Clicks:
    """The points of :func:`split_points` on the slices of ``study``.

    label: the structure that ``foreground`` and ``background`` speak of, where the request names it. Raises
    MONAILabelException or StudyError (bad input) for structures that do not exist, points outside the image, and points
    that contradict each other.
    """
    of: dict[str, list[Click]] = {}
    boxes: dict[str, tuple[Box, ...]] = {}
    nothing: list[Click] = []
    for key, value in said.items():
        if key == FOREGROUND:
            if value:
                of.setdefault(_sole(label, registry), []).extend(_place(study, key, value, True))
        elif key == BACKGROUND:
            about = of.setdefault(_sole(label, registry), []) if label or said.get(FOREGROUND) else nothing
            about.extend(_place(study, key, value, False))
        else:
            name = structure_name(key, registry)
            parts = value if isinstance(value, Mapping) else {FOREGROUND: value}
            if unknown := sorted(set(parts) - {FOREGROUND, BACKGROUND, BOXES}):
                expected = f"{FOREGROUND} and {BACKGROUND} points, and {BOXES}"
                raise refuse(f"{key}: unknown {', '.join(unknown)}; expected {expected}")
            if parts.get(BOXES):
                boxes[name] = _boxes(study, key, parts[BOXES])
            clicks = of.setdefault(name, [])
            clicks.extend(_place(study, key, parts.get(FOREGROUND) or (), True))
            clicks.extend(_place(study, key, parts.get(BACKGROUND) or (), False))
    made = Clicks({name: tuple(dict.fromkeys(given)) for name, given in of.items() if given}, tuple(nothing), boxes)
    if len(made) > MAX_POINTS:
        raise refuse(f"{len(made)} points in one request; at most {MAX_POINTS} are taken")
    for name, given in made.of.items():
        both = {c[:3] for c in given if c.inside} & {c[:3] for c in (*given, *nothing) if not c.inside}
        if both:
            raise refuse(f"points inside and outside {name!r} lie on the same pixel (slice, row, column) {min(both)}")
    return made


def as_points(clicks: Iterable[Click]) -> Points | None:
    """Clicks on one slice for one structure, as the foundation takes them: (1, 1, P, 2), (x, y) in pixels."""
    clicks = sorted(clicks)
    if not clicks:
        return None
    coords = torch.tensor([[[[c.column, c.row] for c in clicks]]], dtype=torch.float32)
    return Points(coords, torch.tensor([[[int(c.inside) for c in clicks]]], dtype=torch.int32))


def as_box(box: Box | None) -> torch.Tensor | None:
    """A box as the foundation takes it: (1, 1, 4), x0, y0, x1, y1 in pixels."""
    if box is None:
        return None
    return torch.tensor([[[box.left, box.top, box.right, box.bottom]]], dtype=torch.float32)


def _sole(label: str | None, registry: StructureRegistry) -> str:
    """The structure meant where none need be named: ``label``, or the only one that there is."""
    known = registry.names()
    if label is None and len(known) != 1:
        raise refuse(f"{FOREGROUND} points of which structure? Name it as label; valid: {', '.join(known) or 'none'}")
    return structure_name(label or known[0], registry)


def structure_name(key: str, registry: StructureRegistry) -> str:
    """The registered name of a structure; MONAILabelException, with the names there are, for one that is not known."""
    try:
        return registry.name_of(registry.id_of(key))
    except StudyError:
        known = ", ".join(registry.names()) or "none yet: label a study, or start the server with --conf labels"
        raise refuse(
            f"{key!r} is neither a structure nor an option; structures: {known}; options: {', '.join(OURS)}"
        ) from None


def _boxes(study: Study, key: str, given: Any) -> tuple[Box, ...]:
    made: dict[int, Box] = {}
    for corners in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(corners, list | tuple) or len(corners) != 2:
            raise refuse(f"{key}: {corners!r} is not a box; expected two opposite corners, voxels [x, y, z]")
        one, other = _place(study, key, corners, True)
        if one.slice != other.slice or one.slice in made:
            raise refuse(f"{key}: the box {corners!r} must have both corners on one slice, which has no other box")
        (top, bottom), (left, right) = sorted((one.row, other.row)), sorted((one.column, other.column))
        made[one.slice] = Box(one.slice, top, left, bottom, right)
    return tuple(made.values())


def _place(study: Study, key: str, points: Any, inside: bool) -> list[Click]:
    rows = points if isinstance(points, list | tuple) else [points]
    for point in rows:
        numbers = isinstance(point, list | tuple) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in point
        )
        if not numbers or len(point) not in (2, 3):
            raise refuse(f"{key}: {point!r} is not a point; expected a list of voxels [x, y, z]")
    return [Click(*study.locate(point), inside) for point in rows]
