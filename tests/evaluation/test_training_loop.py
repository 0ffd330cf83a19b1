"""Which cases the loop labels and which it measures; the loop itself runs against a real server in tests/e2e."""

from pathlib import Path

import pytest

from proxyprompt.datasets.collections import Collection, CollectionCase
from proxyprompt.evaluation.training_loop import LoopResult, plan_of
from proxyprompt.io.errors import StudyError


def collection_of(sizes):
    """sizes: of the groups."""
    cases = [
        CollectionCase(f"{group}_{n}", group, Path("image.png"), Path("label.png"), {"head": (1,)})
        for group, size in sizes.items()
        for n in range(size)
    ]
    return Collection("drawn", Path("drawn"), tuple(cases), {"head": (1,)})


def groups(cases):
    return {case.group for case in cases}


def test_targets_are_of_other_groups_and_labels_of_as_many_as_there_are():
    collection = collection_of({"a": 9, "b": 5, "c": 4, "d": 3, "e": 2, "f": 2, "g": 1, "h": 1})
    plan = plan_of(collection, first=2, more=6, targets=10)
    assert (len(plan.first), len(plan.more), len(plan.targets)) == (2, 6, 10)
    assert groups(plan.targets) == {"a", "b"}
    assert not groups(plan.targets) & groups((*plan.first, *plan.more))
    assert len(groups((*plan.first, *plan.more))) == 6
    assert not set(plan.first) & set(plan.more)
    assert plan == plan_of(collection, first=2, more=6, targets=10)
    assert plan != plan_of(collection, first=2, more=6, targets=10, seed=1)


def test_more_groups_give_targets_when_the_largest_hold_too_few():
    plan = plan_of(collection_of(dict.fromkeys("abcdefgh", 2)), first=2, more=2, targets=7)
    assert len(groups(plan.targets)) == 4


def test_a_collection_that_is_too_small_is_refused_with_what_it_has():
    with pytest.raises(StudyError, match=r"6 cases in 3 groups .* 4 targets"):
        plan_of(collection_of(dict.fromkeys("abc", 2)), first=2, more=2, targets=4)
    with pytest.raises(StudyError, match="ask for fewer"):
        plan_of(collection_of({"a": 20}), first=4, more=4, targets=4)


def test_a_target_counts_once_however_many_structures_it_declares():
    measured = LoopResult("v", {"a": {"disc": 1.0, "cup": 0.0}, "b": {"disc": 0.2}}, {})
    assert measured.means() == [0.5, 0.2]
    assert measured.by_structure() == {"cup": 0.0, "disc": 0.6}
