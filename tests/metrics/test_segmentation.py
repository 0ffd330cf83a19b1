"""Scores against loops over voxels and against MONAI; bootstrap against what is known in closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_dice, compute_iou

from proxyprompt.metrics.segmentation import (
    bootstrap_mean,
    mask_of,
    overlap,
    overlap_of_tensors,
    overlaps,
    paired_bootstrap,
)

masks = hnp.arrays(bool, (3, 4))


def counted(predicted, truth):
    both = only = 0
    for p, t in zip(predicted.flat, truth.flat, strict=True):
        both += bool(p and t)
        only += bool(p) != bool(t)
    if both + only == 0:
        return 1.0, 1.0
    return 2 * both / (2 * both + only), both / (both + only)


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_overlap_equals_counting_voxels_and_monai(predicted, truth):
    got = overlap(predicted, truth)
    assert got == pytest.approx(counted(predicted, truth))
    tensors = [torch.from_numpy(a)[None, None].float() for a in (predicted, truth)]
    assert got.dice == pytest.approx(compute_dice(*tensors, ignore_empty=False).item())
    if predicted.any() or truth.any():
        assert got.iou == pytest.approx(compute_iou(*tensors, ignore_empty=False).item())


def test_both_empty_is_right_and_one_empty_is_wrong():
    empty, full = np.zeros((2, 2)), np.ones((2, 2))
    assert overlap(empty, empty) == (1.0, 1.0)
    assert overlap(empty, full) == overlap(full, empty) == (0.0, 0.0)


def test_shapes_that_differ_are_refused_with_both_named():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        overlap(np.zeros((2, 3)), np.zeros((3, 2)))


def test_a_structure_may_have_several_values_and_other_ones_in_the_truth():
    predicted = np.array([[7, 7, 9], [0, 8, 9]])
    truth = np.array([[1, 2, 3], [0, 0, 0]])
    got = overlaps(predicted, truth, {"disc": 7, "nerve": 9}, truth_structures={"disc": {1, 2}, "nerve": 3, "cup": 2})
    assert list(got) == ["disc", "nerve", "cup"]
    assert got["disc"].dice == 1.0
    assert got["nerve"].dice == pytest.approx(2 / 3)
    assert got["cup"].dice == 0.0
    assert overlaps(truth, truth, {"disc": 1, "vein": 5})["vein"].dice == 1.0


def test_label_maps_that_are_not_integers_are_refused():
    with pytest.raises(ValueError, match="float64"):
        mask_of(np.zeros((2, 2)), 1)


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        interval = bootstrap_mean(rng.normal(0.7, 0.1, 40), confidence=0.9, resamples=500)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.8 <= covered / 200 <= 0.97


def test_pairs_cancel_what_studies_have_in_common():
    hard = np.linspace(0.1, 0.9, 30)
    interval = paired_bootstrap(hard + 0.05, hard)
    assert interval == pytest.approx((0.05, 0.05, 0.05))
    noisy = paired_bootstrap(hard[::-1] + 0.05, hard)
    assert noisy.low < -0.05 < 0.15 < noisy.high
    assert paired_bootstrap(hard[::-1] + 0.05, hard) == noisy


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=8))
def test_bounds_lie_among_the_values(values):
    interval = bootstrap_mean(values, resamples=200)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([]), "at least one"),
        (lambda: bootstrap_mean([0.5, float("nan")]), r"\[1\]"),
        (lambda: bootstrap_mean([0.5], confidence=95), "95"),
        (lambda: paired_bootstrap([0.5, 0.6], [0.5]), "2 scores against 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_groups_are_drawn_whole():
    values, groups = [0.2, 0.2, 0.2, 0.8], ["a", "a", "a", "b"]
    alone, together = bootstrap_mean(values), bootstrap_mean(values, groups=groups)
    assert together.mean == alone.mean == pytest.approx(0.35)
    assert (together.low, together.high) == pytest.approx((0.2, 0.8))
    assert bootstrap_mean(values, groups=[1, 2, 3, 4]) == alone
    assert paired_bootstrap(values, [0.0] * 4, groups=groups) == together
    with pytest.raises(ValueError, match="4 values but 2 groups"):
        bootstrap_mean(values, groups=["a", "b"])


def test_of_tensors_it_is_the_same_rule():
    rng = np.random.default_rng(0)
    one, other = (rng.random((2, 3, 9, 7)) > 0.6 for _ in range(2))
    one[0, 0] = other[0, 0] = False  # both empty
    one[1, 1] = False  # one of them
    dice, iou = overlap_of_tensors(torch.from_numpy(one), torch.from_numpy(other))
    for index in np.ndindex(2, 3):
        expected = overlap(one[index], other[index])
        assert (dice[index].item(), iou[index].item()) == pytest.approx(expected)
