"""Scores of masks whose right answer can be counted or worked out by hand."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from proxyprompt.evaluation.scoring import TOLERANCE, image_difference, score


def box(z, rows, columns, shape=(8, 30, 32)):
    mask = np.zeros(shape, bool)
    mask[slice(*z), slice(*rows), slice(*columns)] = True
    return mask


def test_volume():
    truth, predicted = box((2, 6), (5, 15), (5, 15)), box((3, 7), (5, 15), (5, 15))
    found = score(predicted, truth, (4.0, 1.0, 1.0))
    assert found.dice == pytest.approx(0.75) and found.iou == pytest.approx(0.6)
    assert (found.present_slices, found.missed_slices, found.absent_slices, found.false_slices) == (4, 1, 4, 1)
    assert found.hd95 == pytest.approx(4.0) and 0.3 < found.nsd < 0.8
    assert score(truth, truth, (4.0, 1.0, 1.0)).hd95 == 0.0 and score(truth, truth, (4.0, 1.0, 1.0)).nsd == 1.0


def test_distances_are_in_millimetres_of_their_axis():
    truth, shifted = box((2, 6), (5, 15), (5, 15)), box((2, 6), (5, 15), (8, 18))
    assert score(shifted, truth, (4.0, 1.0, 0.5)).hd95 == pytest.approx(1.5)
    assert score(shifted, truth, (4.0, 1.0, 0.5)).nsd == 1.0
    assert score(shifted, truth, (4.0, 1.0, 2.0)).hd95 == pytest.approx(6.0)
    assert score(shifted, truth).hd95 is None and score(shifted, truth).nsd is None


def test_a_mask_at_the_edge_of_the_image():
    truth = box((0, 8), (0, 30), (0, 10))
    assert score(box((0, 8), (0, 30), (0, 12)), truth, (1.0, 1.0, 1.0)).hd95 == pytest.approx(2.0)


def test_nothing_there_and_nothing_drawn():
    nothing, something = box((0, 0), (0, 0), (0, 0)), box((1, 3), (5, 8), (5, 8))
    missed = score(nothing, something, (1.0, 1.0, 1.0))
    assert (missed.dice, missed.hd95, missed.nsd, missed.missed_slices) == (0.0, None, 0.0, 2)
    invented = score(something, nothing, (1.0, 1.0, 1.0))
    assert (invented.dice, invented.iou, invented.hd95, invented.nsd, invented.false_slices) == (None,) * 4 + (2,)
    assert score(nothing, nothing).false_slices == 0 and score(nothing, nothing).absent_slices == 8


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="bring them to one grid"):
        score(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 5), bool))


def border(mask, spacing):
    """Millimetre places of the voxels that have a neighbour outside, counted one by one."""
    padded, places = np.pad(mask, 1), []
    for place in zip(*np.nonzero(mask), strict=True):
        centre = np.add(place, 1)
        around = [centre + sign * step for step in np.eye(3, dtype=int) for sign in (-1, 1)]
        if not all(padded[tuple(n)] for n in around):
            places.append(np.multiply(place, spacing))
    return np.array(places)


@pytest.mark.parametrize("seed", range(4))
def test_distances_against_brute_force(seed):
    rng, spacing = np.random.default_rng(seed), (3.0, 0.8, 1.3)
    truth, predicted = (gaussian_filter(rng.standard_normal((7, 16, 18)), 2) > 0.02 for _ in range(2))
    distances = cdist(border(predicted, spacing), border(truth, spacing))
    there, back = distances.min(1), distances.min(0)
    found = score(predicted, truth, spacing)
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-4)
    within = (there <= TOLERANCE).sum() + (back <= TOLERANCE).sum()
    assert found.nsd == pytest.approx(within / (len(there) + len(back)), abs=1e-4)
    both, either = (predicted & truth).sum(), (predicted | truth).sum()
    assert (found.dice, found.iou) == pytest.approx((2 * both / (both + either), both / either))


def test_the_difference_of_images_is_in_gray_levels():
    image = np.random.default_rng(0).random((3, 40, 50), dtype=np.float32)
    assert image_difference(image, image) == 0
    assert image_difference(np.zeros((3, 9, 9), np.float32), np.full((3, 70, 30), 0.2, np.float32)) == pytest.approx(
        51**2
    )
