"""What a label is worth: near-duplicates and outliers nothing, the middle of the unsure most."""

import numpy as np
import pytest

from proxyprompt.activelearning.coverage import gains, similarity


def cloud(rng, centre, n, spread=0.1):
    return np.asarray(centre) + spread * rng.normal(size=(n, len(centre)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_similarity_takes_off_what_all_share(rng):
    rows = 100.0 + rng.normal(size=(6, 8))
    alike = similarity(rows)
    np.testing.assert_allclose(np.diag(alike), 1)
    assert alike[~np.eye(6, dtype=bool)].max() < 0.95


def test_a_duplicate_of_a_labelled_study_is_worth_nothing(rng):
    labelled = rng.normal(size=(3, 8))
    waiting = np.concatenate([labelled[:1], rng.normal(size=(4, 8))])
    gain = gains(np.ones(5), waiting, labelled)
    assert gain[0] == pytest.approx(0, abs=1e-9) and gain[1:].min() > 0.1


def test_duplicates_are_not_proposed_in_a_row(rng):
    """Twenty copies of one unsure study and a few others: after one copy comes another kind of study."""
    waiting = np.concatenate(
        [cloud(rng, [3, 0, 0, 0], 20, 0.01), cloud(rng, [0, 3, 0, 0], 3), cloud(rng, [0, 0, 3, 0], 3)]
    )
    labelled = cloud(rng, [0, 0, 0, 3], 2)
    unsure = np.r_[np.full(20, 0.9), np.full(6, 0.5)]
    first = int(gains(unsure, waiting, labelled).argmax())
    assert first < 20
    covered = np.concatenate([labelled, waiting[first : first + 1]])
    rest = np.delete(np.arange(26), first)
    second = rest[int(gains(unsure[rest], waiting[rest], covered).argmax())]
    assert second >= 20


def test_where_supports_disagree_a_label_is_worth_more(rng):
    waiting = np.concatenate([cloud(rng, [3, 0, 0], 5), cloud(rng, [0, 3, 0], 5)])
    labelled = cloud(rng, [0, 0, 3], 2)
    assert gains(np.r_[np.full(5, 0.1), np.full(5, 0.8)], waiting, labelled).argmax() >= 5
    assert gains(np.r_[np.full(5, 0.8), np.full(5, 0.1)], waiting, labelled).argmax() < 5


def test_an_outlier_is_worth_less_than_the_middle_of_many(rng):
    waiting = np.concatenate([cloud(rng, [3, 0, 0], 9), [[0, 9, 0]]])
    assert gains(np.ones(10), waiting, cloud(rng, [0, 0, 3], 2)).argmax() < 9


def test_without_any_label_everything_can_gain(rng):
    assert (gains(np.ones(4), rng.normal(size=(4, 6)), np.zeros((0, 6))) > 0).all()
