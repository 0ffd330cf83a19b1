"""The registry only grows: numbers are never given twice, whoever writes at the same time."""

import json
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxyprompt.io.errors import StudyError
from proxyprompt.io.registry import StructureRegistry


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model" / "structures.json"


def test_ids_in_order_of_registration(path):
    registry = StructureRegistry(path)
    assert [registry.ensure(n) for n in ("liver", "spleen", "liver")] == [1, 2, 1]
    assert registry.names() == ["liver", "spleen"]
    assert registry.id_of("spleen") == 2 and registry.name_of(2) == "spleen"


def test_case_space_and_underscore_make_no_difference(path):
    registry = StructureRegistry(path)
    assert registry.ensure("Left Kidney") == 1
    for name in ("left_kidney", "LEFTKIDNEY", "  left\tkidney "):
        assert registry.ensure(name) == registry.id_of(name) == 1
    assert registry.ensure("left-kidney") == 2
    assert registry.names() == ["Left Kidney", "left-kidney"]


def test_aliases(path):
    registry = StructureRegistry(path)
    registry.ensure("optic disc", aliases=["OD", "disc"])
    assert registry.id_of("Disc") == 1
    assert registry.ensure("od", aliases=["papilla"]) == 1
    assert StructureRegistry(path).structures()[0].aliases == ("OD", "disc", "papilla")
    registry.ensure("cup")
    with pytest.raises(StudyError, match=r"alias 'cup' of 'OD' already means 'cup'"):
        registry.ensure("OD", aliases=["cup"])
    assert registry.names() == ["optic disc", "cup"]


def test_other_instances_see_what_was_added(path):
    a, b = StructureRegistry(path), StructureRegistry(path)
    assert a.ensure("x") == 1 and b.ensure("y") == 2
    assert a.name_of(2) == "y" and b.id_of("x") == 1 and a.names() == b.names()


def test_the_256th_is_refused_and_255_stay(path):
    registry = StructureRegistry(path)
    path.parent.mkdir()
    path.write_text(json.dumps({"format": 1, "structures": [{"id": n, "name": f"s{n}"} for n in range(1, 255)]}))
    assert registry.ensure("last") == 255
    with pytest.raises(StudyError, match="cannot register 'one more': all 255 structures are taken"):
        registry.ensure("one more")
    assert len(StructureRegistry(path).names()) == 255 and registry.ensure("s7") == 7


@pytest.mark.parametrize("name", ["", "  ", "_", "background", "Back ground"])
def test_names_that_name_nothing(path, name):
    with pytest.raises(StudyError, match="cannot name a structure"):
        StructureRegistry(path).ensure(name)
    assert not path.exists()


def test_unknown_names_and_ids_list_the_known_ones(path):
    registry = StructureRegistry(path)
    with pytest.raises(StudyError, match="'liver'; expected one of: none yet"):
        registry.id_of("liver")
    registry.ensure("spleen")
    with pytest.raises(StudyError, match="'liver'; expected one of: spleen"):
        registry.id_of("liver")
    with pytest.raises(StudyError, match="no structure has id 9; registered: 1 spleen"):
        registry.name_of(9)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "structures": []}',
        '{"format": 1, "structures": [{"id": 0, "name": "a"}]}',
        '{"format": 1, "structures": [{"id": 256, "name": "a"}]}',
        '{"format": 1, "structures": [{"id": true, "name": "a"}]}',
        '{"format": 1, "structures": [{"id": 1, "name": ""}]}',
        '{"format": 1, "structures": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
        '{"format": 1, "structures": [{"id": 1, "name": "a"}, {"id": 2, "name": "A_"}]}',
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(StudyError, match=r"structures\.json"):
        StructureRegistry(path)
    assert path.read_text() == content


def test_numbers_survive_a_lost_file_and_a_renumbered_one_is_refused(path):
    registry = StructureRegistry(path)
    registry.ensure("a")
    registry.ensure("b")
    path.unlink()
    assert registry.ensure("c") == 3
    assert StructureRegistry(path).names() == ["a", "b", "c"]
    path.write_text('{"format": 1, "structures": [{"id": 1, "name": "b"}]}')
    with pytest.raises(StudyError, match="id 1 was 'a' and is now 'b'"):
        registry.names()


def _register(path, worker):
    registry = StructureRegistry(path)
    for n in range(8):
        registry.ensure(f"shared {n}")
        registry.ensure(f"own {worker} {n}")
    return os.getpid()


def test_processes_and_threads_at_once(path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pids = pool.starmap(_register, [(path, f"p{n}") for n in range(3)], chunksize=1)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: _register(path, f"t{n}"), range(4)))
    entries = json.loads(path.read_text())["structures"]
    assert len(set(pids)) > 1
    assert [e["id"] for e in entries] == list(range(1, 8 + 7 * 8 + 1))
    assert len({e["name"] for e in entries}) == len(entries)
    assert {p.name for p in path.parent.iterdir()} <= {path.name, path.name + ".lock"}
