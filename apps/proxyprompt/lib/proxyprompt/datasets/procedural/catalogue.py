"""The kinds of anatomy the generator knows: what structures they have, how they lie to each other.

An anatomy is a list of slots, drawn in order: a later one covers an earlier one. Lengths are in half image sides.
The numbers are ranges to draw from; nothing here imitates one particular organ or data set.
"""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES = ("star", "polygon", "band", "arc", "region", "ridges", "tree", "fibres", "scatter")
THIN = ("tree", "fibres", "ridges")


@dataclass(frozen=True)
class Slot:
    """One structure. Ranges are (low, high).

    families: shapes it may take, drawn once per anatomy. size: radius (log-uniform); a fraction of the parent's for a
    child. parent: slot it lies in or at. offset: standard deviation of its place around the parent's or the image's
    centre, relative to the parent's size. roam: how far members differ in that place, in the same unit. soft: width of
    the border in 1/128 of the image. weight: how often it is asked for. use: share of the anatomies that have it.
    similar: chance of looking like the slot before it. see_through: does not cut holes into the masks below.
    rim: chance of a border brighter or darker than its inside. relief: chance of a bulge lit from one side. dark:
    chance of being darker than what is below.
    """

    families: tuple[str, ...] = ("star",)
    size: tuple[float, float] = (0.15, 0.5)
    parent: int | None = None
    offset: float = 0.35
    roam: float = 0.1
    soft: tuple[float, float] = (0.5, 2.0)
    aspect: float = 1.6
    rough: float = 0.15
    weight: float = 1.0
    use: float = 1.0
    similar: float = 0.15
    see_through: bool = False
    rim: float = 0.15
    relief: float = 0.15
    dark: float = 0.5


_TREE = Slot(("tree",), (0.5, 1.2), offset=0.5, roam=0.15, soft=(0.3, 1.0), weight=2.0, see_through=True, rim=0.0)
_DISC = Slot(
    ("star",), (0.11, 0.28), offset=0.45, roam=0.15, soft=(0.7, 3.0), aspect=1.2, rough=0.05, weight=2.5, dark=0.2
)
_CUP = Slot(
    ("star",), (0.3, 0.75), parent=1, offset=0.15, soft=(1.0, 4.0), aspect=1.3, rough=0.08, weight=2.0, dark=0.2
)
_ARCADE = Slot(
    ("tree",),
    (0.9, 1.6),
    parent=1,
    offset=0.3,
    roam=0.2,
    soft=(0.3, 1.0),
    weight=4.0,
    see_through=True,
    rim=0.1,
    dark=0.8,
)
_THREADS = Slot(
    ("ridges", "fibres", "tree"), (0.4, 1.0), offset=0.5, soft=(0.3, 1.0), weight=1.5, see_through=True, rim=0.0
)
_FIBRES = Slot(("fibres",), (0.5, 1.2), offset=0.3, roam=0.1, soft=(0.3, 1.0), see_through=True, rim=0.0)
_LESION = Slot(
    ("star", "star", "region"), (0.06, 0.35), offset=0.4, roam=0.3, soft=(0.5, 9.0), rough=0.3, weight=2.5, relief=0.35
)
_SPOTS = Slot(("scatter",), (0.4, 0.8), offset=0.2, roam=0.1, soft=(0.5, 2.0), weight=0.8)

ANATOMIES: dict[str, tuple[Slot, ...]] = {
    "organs": (
        Slot(("star", "polygon"), (0.7, 1.0), offset=0.1, roam=0.05, weight=0.5, use=0.7),
        Slot(("star", "arc"), (0.2, 0.55), offset=0.4),
        Slot(("star", "polygon"), (0.15, 0.45), offset=0.4),
        Slot(("star", "arc"), (0.1, 0.4), offset=0.4),
        Slot(("star",), (0.08, 0.3), offset=0.4),
        Slot(("star",), (0.3, 0.7), parent=1, offset=0.3, roam=0.1, use=0.6),
        Slot(("star", "tree", "fibres"), (0.06, 0.2), offset=0.4, use=0.6),
    ),
    "fundus": (
        Slot(("star",), (0.1, 0.3), offset=0.25, roam=0.1, soft=(6.0, 20.0), weight=0.2, use=0.7, rim=0.0),
        _DISC,
        _CUP,
        _ARCADE,
        Slot(("scatter", "star"), (0.2, 0.6), offset=0.3, roam=0.2, soft=(0.5, 3.0), use=0.4, see_through=True),
    ),
    "sonogram": (
        Slot(("band",), (0.2, 0.6), offset=0.4, roam=0.1, weight=0.4),
        Slot(("band", "ridges"), (0.06, 0.25), offset=0.5, roam=0.1, weight=0.5, use=0.7),
        Slot(("star",), (0.25, 0.6), offset=0.3, roam=0.15, soft=(0.5, 5.0), rough=0.06, weight=2, rim=0.6),
        Slot(("star", "region"), (0.08, 0.3), offset=0.45, roam=0.15, soft=(0.5, 6.0), weight=2, rim=0.4),
        Slot(("star",), (0.06, 0.2), offset=0.45, roam=0.2, soft=(0.5, 3.0), rough=0.05, aspect=1.3, weight=2, rim=0.5),
        Slot(("fibres", "ridges"), (0.5, 1.0), offset=0.4, roam=0.2, soft=(0.5, 2.0), weight=0.5, use=0.6),
    ),
    "smear": (
        Slot(("scatter",), (0.95, 1.0), offset=0.02, roam=0.0, soft=(0.4, 1.5), rim=0.5),
        Slot(("scatter",), (0.7, 1.0), offset=0.1, roam=0.1, soft=(0.4, 1.5), use=0.6, similar=0.4, rim=0.4),
        Slot(("star",), (0.2, 0.5), offset=0.15, roam=0.15, soft=(0.4, 3.0), aspect=1.3, weight=1.5, rim=0.4),
        Slot(("star", "scatter", "scatter"), (0.45, 0.8), parent=2, offset=0.1, roam=0.08, soft=(0.4, 2.0), weight=2),
        Slot(("scatter", "fibres"), (0.4, 0.9), offset=0.2, roam=0.2, use=0.4, weight=0.7),
    ),
    "lesion": (
        Slot(("region", "ridges"), (0.3, 0.6), offset=0.3, soft=(1.0, 8.0), weight=0.3),
        Slot(("region", "band", "star"), (0.2, 0.7), offset=0.4, soft=(1.0, 12.0), weight=0.3),
        Slot(("ridges", "fibres", "tree"), (0.4, 0.9), offset=0.3, weight=0.5, use=0.6, see_through=True),
        _LESION,
        Slot(("star", "scatter"), (0.05, 0.15), offset=0.5, roam=0.3, soft=(0.5, 4.0), weight=1.5, similar=0.3),
        Slot(("star",), (0.3, 0.7), parent=3, offset=0.2, soft=(0.5, 6.0), weight=0.7, use=0.3),
    ),
    "rings": (
        Slot(("star", "polygon"), (0.75, 1.0), offset=0.05, roam=0.05, weight=0.4, use=0.8),
        Slot(("region", "ridges"), (0.3, 0.7), soft=(0.7, 5.0), weight=0.2, use=0.5),
        Slot(("star",), (0.15, 0.5), offset=0.35, roam=0.12, aspect=1.3, rough=0.06, weight=1.5),
        Slot(("star",), (0.5, 0.85), parent=2, offset=0.06, roam=0.04, aspect=1.2, rough=0.06, weight=2.0),
        Slot(("star", "arc"), (0.3, 0.7), parent=3, offset=0.1, roam=0.05, weight=1.0, use=0.4),
        Slot(("star", "region"), (0.15, 0.6), offset=0.45, similar=0.5),
        Slot(("star", "arc"), (0.1, 0.3), offset=0.45, similar=0.4),
    ),
    "layers": (
        Slot(("band",), (0.5, 0.9), offset=0.2, roam=0.08),
        Slot(("band",), (0.15, 0.5), offset=0.35, roam=0.08),
        Slot(("band", "ridges"), (0.06, 0.2), offset=0.35, roam=0.08),
        Slot(("band",), (0.03, 0.12), offset=0.35, roam=0.08, weight=1.5),
        Slot(("star", "region", "polygon"), (0.08, 0.3), offset=0.35, roam=0.2, soft=(0.5, 5.0), weight=1.5),
        Slot(("fibres",), (0.5, 1.0), offset=0.3, use=0.4, see_through=True),
    ),
    "regions": (
        Slot(("region",), (0.5, 0.8)),
        Slot(("region",), (0.4, 0.7)),
        Slot(("region", "ridges"), (0.3, 0.6), weight=1.5),
        Slot(("region", "star"), (0.2, 0.5)),
        Slot(("polygon", "scatter", "star"), (0.1, 0.4), weight=1.5),
    ),
    "threads": (
        Slot(("star", "region"), (0.4, 0.9), offset=0.2, soft=(1.0, 12.0), weight=0.3),
        Slot(("region", "star"), (0.1, 0.5), offset=0.4, soft=(1.0, 8.0), weight=0.3, use=0.7),
        _TREE,
        _THREADS,
        _SPOTS,
        _FIBRES,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Habit:
    """How often an anatomy is drawn (in gray, in colour) and how it tends to be imaged (chances)."""

    gray: float
    colour: float
    circle: float = 0.08  # a round field of view, dark outside
    wedge: float = 0.05  # a sector, as of a convex probe
    frame: float = 0.12  # a dark margin
    speckle: float = 0.15
    uneven: float = 0.5  # strong uneven illumination


HABITS: dict[str, Habit] = {
    "organs": Habit(1.5, 0.7),
    "fundus": Habit(0.5, 2.6, circle=0.75, wedge=0.0, speckle=0.03, uneven=0.8),
    "sonogram": Habit(2.2, 0.2, circle=0.02, wedge=0.5, speckle=0.85, uneven=0.8),
    "smear": Habit(0.5, 1.8, circle=0.1, wedge=0.0, speckle=0.03, uneven=0.3),
    "lesion": Habit(1.3, 1.6, circle=0.15, speckle=0.3),
    "rings": Habit(1.6, 0.5, circle=0.2),
    "layers": Habit(0.9, 0.3, speckle=0.5),
    "regions": Habit(0.5, 0.5),
    "threads": Habit(0.9, 1.2, circle=0.2),
}
SLOTS = max(len(slots) for slots in ANATOMIES.values())
# the slots that may lie in each slot, in any anatomy
CHILDREN = [
    sorted({child for slots in ANATOMIES.values() for child, slot in enumerate(slots) if slot.parent == parent})
    for parent in range(SLOTS)
]
