"""Held out once is held out for ever; nothing written tells who."""

import pytest

from proxyprompt.training.errors import TrainingError
from proxyprompt.training.groups import FILE, GroupSplit


def test_decisions_stay_when_groups_are_added(tmp_path):
    first = GroupSplit(tmp_path).held_out([f"patient {n}" for n in range(8)])
    assert len(first) == 2
    split = GroupSplit(tmp_path)
    later = split.held_out([f"patient {n}" for n in range(20)])
    assert first <= later and len(later) == 5
    assert split.held_out(["patient 3"]) == later & {"patient 3"}
    assert GroupSplit(tmp_path).validation == split.validation


@pytest.mark.parametrize(("groups", "held"), [(1, 0), (2, 0), (3, 1), (4, 1), (7, 2), (11, 3), (16, 4)])
def test_the_share_is_a_quarter_and_two_always_train(tmp_path, groups, held):
    assert len(GroupSplit(tmp_path).held_out(map(str, range(groups)))) == held


def test_the_file_names_nobody_and_another_folder_hashes_otherwise(tmp_path):
    one, two = GroupSplit(tmp_path / "a"), GroupSplit(tmp_path / "b")
    one.held_out(["Miller"])
    assert "Miller" not in (tmp_path / "a" / FILE).read_text()
    assert one.hash_of("Miller") == GroupSplit(tmp_path / "a").hash_of("Miller") != two.hash_of("Miller")


def test_nothing_is_held_out_on_request_unless_it_was_before(tmp_path):
    assert GroupSplit(tmp_path / "a").held_out(map(str, range(8)), hold_out=False) == set()
    split = GroupSplit(tmp_path / "a")
    assert split.held_out(map(str, range(8))) == set(), "what trained once cannot be held out later"
    GroupSplit(tmp_path / "b").held_out(map(str, range(8)))
    with pytest.raises(TrainingError, match="2 of these groups are held out for ever"):
        GroupSplit(tmp_path / "b").held_out(map(str, range(8)), hold_out=False)


def test_a_damaged_file_stops_training(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(TrainingError, match="says which patients are held out"):
        GroupSplit(tmp_path)
