"""Killed before every single change of a file, and in the middle of every write: nothing that was there goes."""

import pytest
from breaking import killed_at_every_step, killed_within_writes
from things import THINGS

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("name", THINGS)
def test_killed_at_any_point_loses_nothing(tmp_path, name):
    kills, whole = 0, set()
    for kind in ("steps", "writes"):
        thing = THINGS[name](_new(tmp_path / kind))
        ways = (
            killed_at_every_step(thing.folder, thing.prepare, thing.act)
            if kind == "steps"
            else killed_within_writes(thing.prepare, thing.act)
        )
        for _ in ways:
            kills += 1
            whole.add(thing.check())
        if not thing.check():
            thing.act(thing.prepare())
        assert thing.check(), "after the kills it works as ever"
    assert kills >= 2 and False in whole


def _new(folder):
    folder.mkdir()
    return folder
