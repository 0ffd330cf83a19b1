"""Small parts and holes, by what the supports show."""

from dataclasses import replace

import numpy as np
import pytest

from proxyprompt.predictor.cleaning import Shape, clean, shape_of
from proxyprompt.predictor.masks import Masks
from proxyprompt.supports.selection import Selection


def square(*corners, size=20, side=5):
    mask = np.zeros((size, size), bool)
    for row, column in corners:
        mask[row : row + side, column : column + side] = True
    return mask


def supports(*masks):
    nothing = Selection.empty(["organ"])
    return replace(nothing, masks=[mask[None] for mask in masks], valid=np.ones((len(masks), 1), bool))


def test_what_the_supports_show():
    one, two, ring = square((2, 2)), square((2, 2), (12, 12)), square((2, 2))
    ring[4, 4] = False
    assert shape_of(supports(one), 0) == Shape(1, False)
    assert shape_of(supports(one, two), 0) == Shape(2, False)
    assert shape_of(supports(ring), 0) == Shape(1, True)
    speck = square((2, 2), side=12)
    speck[18, 18] = True  # less than a fiftieth of the structure
    assert shape_of(supports(speck), 0) == Shape(1, False)
    assert shape_of(supports(one & ~one), 0) == Shape(1, False)


def test_the_largest_parts_stay_and_holes_are_filled():
    mask = square((2, 2), (12, 12))
    mask[2, 2] = mask[4, 4] = False
    found = clean(mask[None], Shape(1, False), volume=False)[0]
    assert np.array_equal(found, square((12, 12)))
    both = clean(mask[None], Shape(2, False), volume=False)[0]
    assert both[4, 4] and not both[2, 2] and both[12, 12]
    assert np.array_equal(clean(mask[None], Shape(2, True), volume=False)[0], mask)


def test_parts_of_a_volume_go_through_its_slices():
    """A speck on the slice beside the structure stays in a clip, where it is all of its frame, and goes in a volume."""
    mask = np.stack([square((2, 2)), square((3, 3)), square((15, 15), side=2)])
    assert clean(mask, Shape(1, False), volume=True).any((1, 2)).tolist() == [True, True, False]
    assert clean(mask, Shape(1, False), volume=False).any((1, 2)).all()


def test_logits_change_their_sign_where_the_mask_changes():
    logits = np.where(square((2, 2), (12, 12)), 2.0, -2.0).astype(np.float16)
    logits[3, 3], logits[12, 12] = -1.0, -1.0
    masks = Masks(np.stack([logits, logits])[:, None], np.array([[0.9], [0.2]]), np.ones((2, 1)), (None,))
    found = masks.cleaned(supports(square((1, 1))), volume=True)
    assert np.array_equal(found.gated(0)[0] > 0, square((2, 2)))
    assert np.array_equal(found.logits[1, 0], logits)  # absent there: nothing is drawn, nothing changes


@pytest.mark.parametrize("volume", [True, False])
def test_nothing_stays_nothing(volume):
    nothing = np.zeros((2, 6, 6), bool)
    assert not clean(nothing, Shape(1, False), volume=volume).any()
