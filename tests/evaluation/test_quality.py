"""Worse supports are as bad as they say, and nothing else changes."""

import numpy as np
import pytest
from labelled_folders import write_plain_images

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.methods import Copy, Fitted, Method
from proxyprompt.evaluation.quality import degrade, with_inverted_masks, with_masks_of
from proxyprompt.metrics.segmentation import overlap


class Keeper(Method):
    name, settings = "keeper", {"a": 1}

    def has_seen(self, collection, group):
        return group == "p1"

    def fit(self, supports, *, seed):
        self.got = supports
        return Fitted(lambda slices: slices, {"own": 1})


@pytest.fixture
def supports(tmp_path):
    collection = read_collection(write_plain_images(tmp_path / "rings", size=(96, 80)))
    return EvalEpisodes(collection, EpisodeConfig()).supports("label_1", 2, 0)


@pytest.mark.parametrize("quality", [0.9, 0.7, 0.4])
def test_masks_come_out_at_the_dice_asked_for(quality):
    rows, columns = np.ogrid[:120, :100]
    mask = np.hypot(rows - 60, columns - 45) < 25
    for seed in range(4):
        worse = degrade(mask, quality, np.random.default_rng(seed))
        assert overlap(worse, mask).dice == pytest.approx(quality, abs=0.06)
    assert not np.array_equal(worse, degrade(mask, quality, np.random.default_rng(99)))


def test_the_ends_are_exact_and_empty():
    mask = np.eye(9, dtype=bool)
    rng = np.random.default_rng(0)
    assert np.array_equal(degrade(mask, 1, rng), mask) and not degrade(mask, 0, rng).any()
    assert not degrade(np.zeros_like(mask), 0.5, rng).any()


def test_only_the_masks_change(supports):
    keeper = Keeper()
    method = with_masks_of(keeper, 0.7)
    fitted = method.fit(supports, seed=3)
    assert method.name == "keeper, masks at Dice 0.7" and method.identity != keeper.identity
    assert fitted.notes["own"] == 1 and fitted.notes["mask_dice"] == pytest.approx([0.7, 0.7], abs=0.1)
    assert keeper.got.images is supports.images and keeper.got.slices == supports.slices
    first = keeper.got.masks
    method.fit(supports, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, keeper.got.masks, strict=True))
    assert method.has_seen("x", "p1") and not method.has_seen("x", "p2")


def test_inverted_masks_are_the_rest(supports):
    keeper = Keeper()
    with_inverted_masks(keeper).fit(supports, seed=0)
    assert all(np.array_equal(a, ~b) for a, b in zip(keeper.got.masks, supports.masks, strict=True))


def test_a_quality_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"0 to 1; got 1\.5"):
        with_masks_of(Copy(), 1.5)
