"""Where along a volume a structure lies, as labelled volumes tell."""

import numpy as np
import pytest

from proxyprompt.supports.slice_positions import SlicePresence, likely


def volume(depth, first, last, *, length=None, declared=True):
    shown = np.zeros((depth, 1), bool)
    shown[first : last + 1] = True
    return SlicePresence(shown, np.array([declared]), length)


def searched(slice_presence, depth, length=None):
    return (likely(slice_presence, 1, depth, range(depth), length)[:, 0] >= 0.5).nonzero()[0].tolist()


def test_a_volume_is_searched_where_a_labelled_one_shows_the_structure():
    assert searched([volume(21, 5, 10)], 21) == [5, 6, 7, 8, 9, 10]
    assert searched([volume(21, 5, 10)], 42) == list(range(10, 22))
    assert searched([volume(21, 0, 3)], 21) == [0, 1, 2, 3]


def test_most_of_several_volumes_decide():
    three = [volume(21, 4, 10), volume(21, 4, 10), volume(21, 10, 20)]
    found = searched(three, 21)
    assert {5, 6, 7, 8, 9} <= set(found) and not {0, 1, 2, 14, 15, 16, 17, 18, 19, 20} & set(found)


def test_where_labels_contradict_each_other_all_of_them_count():
    assert searched([volume(21, 0, 5), volume(21, 15, 20)], 21) == [0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20]


@pytest.mark.parametrize(
    "slice_presence",
    [
        [],
        [volume(1, 0, 0)],
        [volume(21, 5, 10, declared=False)],
        [volume(21, 5, 4)],
        [volume(21, 5, 10, length=100.0)],
    ],
    ids=["none", "an image", "not declared", "empty", "of another length"],
)
def test_it_is_searched_everywhere_where_no_label_tells(slice_presence):
    assert searched(slice_presence, 21, length=400.0) == list(range(21))
    assert searched([volume(21, 5, 10)], 1) == [0]


def test_volumes_of_like_length_tell_and_structures_do_not_mix():
    both = SlicePresence(np.eye(21, 2, dtype=bool), np.array([True, True]), 120.0)
    found = likely([both], 2, 21, [0, 1, 20], 100.0)
    assert found.shape == (3, 2) and found[0].argmax() == 0 and found[1].argmax() == 1
    assert (found[2] < 0.01).all() and found.max() == 1
