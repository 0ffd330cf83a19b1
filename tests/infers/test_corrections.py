"""Clicks hold, and change no more than they must."""

import numpy as np
import pytest

from proxyprompt.infers.corrections import MARGIN, REACH, TAKES, distance, lay, obey, pixels
from proxyprompt.io.labels import StructureRegistry
from proxyprompt.requests.clicks import Click


def inside(row, column):
    return Click(0, row, column, True)


def outside(row, column):
    return Click(0, row, column, False)


def test_clicks_that_are_obeyed_change_nothing():
    logits = np.where(np.arange(100) < 50, 3.0, -3.0)[None].repeat(80, 0)
    made, enforced = obey(logits, [inside(10, 10), outside(10, 90)])
    assert enforced == 0
    np.testing.assert_array_equal(made, logits)


@pytest.mark.parametrize("click", [inside(40, 60), outside(40, 20)])
def test_a_click_that_is_not_obeyed_is_enforced_close_by_only(click):
    logits = np.where(np.arange(100) < 50, 3.0, -3.0)[None].repeat(80, 0)
    made, enforced = obey(logits, [click])
    assert enforced == 1
    assert made[click.row, click.column] == pytest.approx(MARGIN if click.inside else -MARGIN)
    far = distance(logits.shape, click) >= pixels(REACH, logits.shape)
    np.testing.assert_array_equal(made[far], logits[far])


def test_opposite_clicks_side_by_side_both_hold():
    rng = np.random.default_rng(0)
    for _ in range(50):
        logits = rng.normal(0, 8, (64, 64))
        places = rng.permutation(36)[:12]
        clicks = [Click(0, 20 + p // 6, 20 + p % 6, bool(n % 2)) for n, p in enumerate(places)]
        made, _ = obey(logits, clicks)
        assert all((made[c.row, c.column] > 0) == c.inside for c in clicks)


@pytest.fixture
def registry(tmp_path):
    registry = StructureRegistry(tmp_path / "structures.json")
    for name in ("disc", "cup", "vessel"):
        registry.ensure(name)
    return registry


def test_a_new_mask_leaves_the_others_their_pixels(registry):
    disc, cup, vessel = (np.full((100, 100), -1.0) for _ in range(3))
    disc[20:60, 20:60], cup[30:40, 30:40], vessel[:, 70:80] = 1, 1, 1
    labels = np.zeros((100, 100), np.uint8)
    labels[disc > 0], labels[cup > 0], labels[vessel > 0] = 1, 2, 3
    grown = np.full((100, 100), -1.0)
    grown[10:60, 20:90] = 1
    masks = {"disc": grown, "cup": cup, "vessel": vessel}
    made = lay(labels, masks, "disc", {"disc": [inside(50, 85)]}, registry)
    for id in (2, 3):
        np.testing.assert_array_equal(made == id, labels == id)
    np.testing.assert_array_equal(made == 1, (grown > 0) & (labels != 2) & (labels != 3))


def test_a_click_takes_its_own_neighbourhood_from_another(registry):
    disc, vessel = np.full((100, 100), -1.0), np.full((100, 100), -1.0)
    vessel[:, 70:80] = 1
    labels = np.where(vessel > 0, 3, 0).astype(np.uint8)
    disc[40:60, 60:90] = 1
    click = inside(50, 75)
    made = lay(labels, {"disc": disc, "vessel": vessel}, "disc", {"disc": [click]}, registry)
    assert made[50, 75] == 1
    far = distance(labels.shape, click) > pixels(TAKES, labels.shape)
    np.testing.assert_array_equal((made == 3)[far], (labels == 3)[far])


def test_what_is_taken_away_uncovers_what_lies_under(registry):
    disc, cup = np.full((50, 50), -1.0), np.full((50, 50), -1.0)
    disc[10:40, 10:40], cup[20:30, 20:30] = 1, 1
    labels = np.zeros((50, 50), np.uint8)
    labels[disc > 0], labels[cup > 0] = 1, 2
    smaller = cup.copy()
    smaller[20:25] = -1
    made = lay(labels, {"disc": disc, "cup": smaller}, "cup", {"cup": [outside(22, 22)]}, registry)
    assert (made[20:25, 20:30] == 1).all() and (made[25:30, 20:30] == 2).all()
    assert (made > 0).sum() == (labels > 0).sum()
