"""Draws docs/architecture.png: the rooms of the library on their floors, and who imports whom, as the code says it.

    python scripts/architecture.py             # draws the figure
    python scripts/architecture.py --list      # prints every arrow between rooms, and the imports behind it

Arrows that others imply (A to B to C implies A to C) are left out of the figure. FLOORS is the one place where it is
written down which room lies above which; tests/test_architecture.py holds the code to it.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "apps" / "proxyprompt" / "lib" / "proxyprompt"
FIGURE = ROOT / "docs" / "architecture.png"


class Room(NamedTuple):
    """How a room is drawn.

    Attributes:
        kind: a key of COLOURS.
        x: where it stands on its floor.
    """

    kind: str
    x: float


FLOORS: tuple[Mapping[str, Room], ...] = (
    {"viewer": Room("serving", 1.2), "io": Room("data", 5.2), "metrics": Room("learning", 9.7)},
    {
        "errors": Room("serving", 5.9),
        "datasets": Room("data", 10.2),
        "prompt_generator": Room("method", 7.9),
        "foundation": Room("method", 3.4),
    },
    {"settings": Room("serving", 2.3), "datastores": Room("data", 6.2), "extensions": Room("method", 8.95)},
    {"requests": Room("serving", 3.0), "supports": Room("data", 5.2)},
    {"session": Room("serving", 4.9), "predictor": Room("method", 8.1)},
    {"batch": Room("serving", 6.5)},
    {"infers": Room("serving", 4.1), "training": Room("learning", 9.4)},
    {"trainers": Room("serving", 3.0), "activelearning": Room("serving", 5.4), "pretraining": Room("learning", 9.9)},
    {"server": Room("serving", 1.6), "benchmark": Room("learning", 8.4), "evaluation": Room("learning", 6.0)},
)
"""The rooms by floor, the lowest floor first. A room imports from floors below its own, from no other."""

COLOURS = {"method": "#bcd7f5", "data": "#cfe8c6", "learning": "#fbdcae", "serving": "#e3d3ef"}
MEANING = {
    "method": "method and extensions",
    "data": "studies, labels, supports",
    "learning": "training, measuring",
    "serving": "MONAI Label, viewers",
}


class Import(NamedTuple):
    """That one module of the package imports another.

    Attributes:
        source, target: dotted names, such as ``proxyprompt.io.study``.
        typing: whether it is for annotations only, under ``if TYPE_CHECKING``.
    """

    source: str
    target: str
    typing: bool


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name -> file, for every module of the package; the package itself by its own name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(path: Path, module: str) -> Iterator[tuple[str, bool]]:
    """What a file imports, wherever in it.

    Args:
        path: of the file.
        module: its dotted name, for relative imports.

    Yields:
        The dotted name, with the imported attribute as its last part in ``from ... import``, and whether it is for
        annotations only.
    """
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) in typing


def imports(package: Path = PACKAGE) -> list[Import]:
    """All imports within the package; ``from proxyprompt import __version__``, which imports no room, is none."""
    known = modules(package)
    found = set()
    for module, path in known.items():
        for name, typing in imported_names(path, module):
            if name.partition(".")[0] != package.name or name == f"{package.name}.__version__":
                continue
            while name not in known:
                name = name.rpartition(".")[0]
            if name != module:
                found.add(Import(module, name, typing))
    return sorted(found)


def room_of(module: str) -> str:
    """The room of a module, or the module itself where it lies beside them; "" for the package's own door."""
    return (*module.split("."), "")[1]


def arrows(found: list[Import]) -> dict[tuple[str, str], list[Import]]:
    """(room, room that it imports from) -> the imports behind it, those for annotations too."""
    between: dict[tuple[str, str], list[Import]] = {}
    for one in found:
        pair = room_of(one.source), room_of(one.target)
        if pair[0] != pair[1]:
            between.setdefault(pair, []).append(one)
    return between


def floor_of() -> dict[str, int]:
    """Room -> its floor, 0 for the lowest."""
    return {room: number for number, floor in enumerate(FLOORS) for room in floor}


def reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that no chain of others implies. pairs: without circles."""
    after: dict[str, set[str]] = {}
    for source, target in pairs:
        after.setdefault(source, set()).add(target)

    def reaches(start: str, goal: str) -> bool:
        return any(step == goal or reaches(step, goal) for step in after.get(start, ()))

    return {(a, b) for a, b in pairs if not any(reaches(step, b) for step in after[a] if step != b)}


def drawn_arrows() -> str:
    """The arrows between rooms as one text; the figure keeps it, so that a test can tell when it is out of date."""
    return " ".join(sorted(f"{a}>{b}" for a, b in arrows(imports()) if a))


def draw(path: Path = FIGURE) -> None:
    """Write the figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(11, 9.2), dpi=110)
    places = _places()
    _bands(axis)
    colours = {name: COLOURS[room.kind] for floor in FLOORS for name, room in floor.items()}
    for source, target in sorted(reduced({(a, b) for a, b in arrows(imports()) if a})):
        _arrow(axis, places[source], places[target], colours[source])
    for name, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": colours[name], "edgecolor": "#444444", "linewidth": 1}
        axis.text(x, y, name, ha="center", va="center", fontsize=12, bbox=box, zorder=3)
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=COLOURS[key], edgecolor="#444444") for key in COLOURS]
    axis.legend(handles, MEANING.values(), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, frameon=False)
    axis.set_axis_off()
    figure.savefig(path, bbox_inches="tight", metadata={"Description": drawn_arrows(), "Software": None})
    plt.close(figure)


STOREY = 1.0


def _places() -> dict[str, tuple[float, float]]:
    return {name: (room.x, number * STOREY) for number, floor in enumerate(FLOORS) for name, room in floor.items()}


def _bands(axis: Axes) -> None:
    top = len(FLOORS)
    for floor in range(top):
        shade = "#f6f6f6" if floor % 2 else "#ffffff"
        axis.axhspan((floor - 0.5) * STOREY, (floor + 0.5) * STOREY, color=shade, zorder=0)
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": "#444444", "linestyle": "--"}
    texts = ((3.4, "main.py: wires them all for MONAI Label"), (8.2, "import proxyprompt: ProxyPromptPredictor"))
    for x, text in texts:
        axis.text(x, top * STOREY, text, ha="center", va="center", fontsize=11, bbox=box)
    axis.set_xlim(0.3, 11.0)
    axis.set_ylim(-0.5 * STOREY, (top + 0.45) * STOREY)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    import colorsys

    from matplotlib.colors import to_rgb

    hue, light, full = colorsys.rgb_to_hls(*to_rgb(colour))
    ink = colorsys.hls_to_rgb(hue, light * 0.55, full * 0.7)
    axis.annotate(
        "",
        xy=(end[0], end[1] + 0.2 * STOREY),
        xytext=(start[0], start[1] - 0.2 * STOREY),
        arrowprops={"arrowstyle": "-|>", "color": ink, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0},
        zorder=2,
    )


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the arrows instead of drawing them")
    parser.add_argument("--out", type=Path, default=FIGURE, help="file of the figure (default: docs/architecture.png)")
    options = parser.parse_args(argv)
    if not options.list:
        draw(options.out)
        return
    for (source, target), behind in sorted(arrows(imports()).items()):
        print(f"{source or 'proxyprompt'} -> {target or 'proxyprompt'}")
        for one in behind:
            print(f"    {one.source} imports {one.target}{' (annotations)' if one.typing else ''}")


if __name__ == "__main__":
    main()
