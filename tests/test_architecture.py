"""Who may import whom: rooms know lower floors only, nothing runs in circles, and a name means one class.

The floors stand in scripts/architecture.py, which also draws them.
"""

import ast
import re
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import architecture
import pytest
from architecture import FIGURE, FLOORS, PACKAGE, ROOT, Import, floor_of, imported_names, imports, modules, room_of
from PIL import Image

DOOR = ""
"""The room of the package's own ``__init__``, which leads to the predictor; nothing within imports it."""


def arrows_up(found: list[Import]) -> list[str]:
    floors = {**floor_of(), DOOR: len(FLOORS)}
    return [
        f"{one.source} imports {one.target}"
        for one in found
        if room_of(one.source) != room_of(one.target) and floors[room_of(one.source)] <= floors[room_of(one.target)]
    ]


def circle(pairs: list[tuple[str, str]]) -> list[str]:
    """The modules or rooms of one circle; empty where there is none."""
    graph = defaultdict(set)
    for source, target in pairs:
        graph[source].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def between_modules(found: list[Import]) -> list[tuple[str, str]]:
    """Also what is imported for annotations only."""
    return [(one.source, one.target) for one in found]


def between_rooms(found: list[Import]) -> list[tuple[str, str]]:
    return list(architecture.arrows(found))


@pytest.fixture(scope="module")
def found():
    return imports()


def test_every_room_stands_on_one_floor():
    placed = [room for floor in FLOORS for room in floor]
    there = {room_of(module) for module in modules()} - {DOOR}
    assert sorted(placed) == sorted(there), "FLOORS of scripts/architecture.py says where a room belongs"


def test_no_arrow_goes_up_or_along_a_floor(found):
    assert not arrows_up(found)


def test_no_circle_of_rooms_or_modules(found):
    assert len(found) > 300
    assert not circle(between_rooms(found))
    assert not circle(between_modules(found))


def test_what_is_wrong_is_seen(tmp_path):
    """The rules above, on a package that breaks each of them."""
    package = tmp_path / "proxyprompt"
    files = {
        "__init__.py": "__version__ = '1'",
        "io/__init__.py": "",
        "io/study.py": "from . import names\nfrom proxyprompt import __version__",
        "io/names.py": "def f():\n    from .study import Study",
        "metrics/__init__.py": "import proxyprompt.io.names",
        "foundation/__init__.py": "from proxyprompt import ProxyPromptPredictor",
        "training/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..server import gate",
        "server/__init__.py": "",
        "server/gate.py": "import proxyprompt.training",
    }
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = imports(package)
    assert arrows_up(found) == [
        "proxyprompt.foundation imports proxyprompt",
        "proxyprompt.metrics imports proxyprompt.io.names",
        "proxyprompt.training imports proxyprompt.server.gate",
    ]
    assert set(circle(between_rooms(found))) == {"server", "training"}
    in_io = [pair for pair in between_modules(found) if room_of(pair[0]) == "io"]
    assert set(circle(in_io)) == {"proxyprompt.io.names", "proxyprompt.io.study"}


def test_no_two_public_classes_of_one_name():
    places = defaultdict(list)
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert len(places) > 100
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_package_knows_neither_scripts_nor_tests():
    outside = {"scripts", "tests", "examples", "main"}
    outside |= {path.stem for folder in ("scripts", "tests") for path in (ROOT / folder).rglob("*.py")} - {"__init__"}
    wrong = [
        f"{module} imports {name}"
        for module, path in modules().items()
        for name, _ in imported_names(path, module)
        if name.partition(".")[0] in outside
    ]
    assert not wrong


def changes_of_the_path(text: str) -> list[str]:
    """The expressions of a program that change where Python looks for modules."""
    changes = (
        r"sys\.path(\[.*\])?\.(insert|append|extend|remove|pop|clear)\(.*|.*\bsyspath_prepend\(.*|.*\baddsitedir\(.*"
    )
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and re.fullmatch(changes, ast.unparse(node), re.DOTALL):
            found.append(ast.unparse(node))
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        )
        found += [ast.unparse(node) for target in targets if ast.unparse(target).startswith("sys.path")]
    return found


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("import sys\nsys.path.insert(0, 'lib')", True),
        ("import sys\nsys.path[:0] = ['lib']", True),
        ("import sys\nsys.path += ['lib']", True),
        ("import sys\nprint(sys.path)", False),
    ],
)
def test_changes_of_the_path_are_seen(text, changed):
    assert bool(changes_of_the_path(text)) == changed


def test_nothing_tricks_the_path():
    files = [path for folder in ("scripts", "examples", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    wrong = {str(path.relative_to(ROOT)): changes_of_the_path(path.read_text(encoding="utf-8")) for path in files}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_the_page_names_every_room_and_its_figure_is_up_to_date():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [
        room for floor in FLOORS for room in floor if not re.search(rf"^\| `{room}(\.py)?` \|", page, re.MULTILINE)
    ]
    assert not missing
    with Image.open(FIGURE) as figure:
        drawn = figure.info["Description"]
    assert drawn == architecture.drawn_arrows(), "rooms import others than before: run python scripts/architecture.py"


def test_every_path_and_name_of_the_page_is_there():
    """What the tables point to: files, modules of the package, and their functions and classes."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    pairs = re.findall(r"`([a-z_0-9/]+\.py)`: ((?:`[A-Za-z_.]+`(?:, )?)+)", page)
    assert len(pairs) > 10
    for file, names in pairs:
        text = (PACKAGE / file).read_text(encoding="utf-8")
        for name in re.findall(r"`([^`]+)`", names):
            last = name.rpartition(".")[2]
            assert re.search(rf"\b(def|class) {last}\b|^\s*{last}\b.*=", text, re.MULTILINE), f"{file} has no {name}"


def test_links_and_paths_of_the_documents_lead_somewhere():
    """Relative links, and paths of the repository in backticks, of README, docs and the other pages."""
    pages = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "apps" / "proxyprompt" / "model").glob("*.md"),
    ]
    broken = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not link.startswith(("http://", "https://", "mailto:")) and not (page.parent / link).exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
        for path in re.findall(r"`((?:apps|scripts|docs|tests|examples)/[\w./-]+)`", text):
            if not (ROOT / path).exists():
                broken.append(f"{page.relative_to(ROOT)}: {path}")
        broken += [
            f"{page.relative_to(ROOT)}: {path}"
            for path in re.findall(r"(?<!apps/proxyprompt/)\blib/proxyprompt/\S+", text)
        ]
    assert not broken
