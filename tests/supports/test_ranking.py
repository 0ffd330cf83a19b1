"""Which candidates are taken: similarity, relevance of target slices, and turns between studies."""

import numpy as np

from proxyprompt.supports.ranking import MARGIN, TEMPERATURE, evenly, pick, relevance, scores, similarities


def test_evenly_keeps_both_ends():
    assert evenly(range(5), 8) == [0, 1, 2, 3, 4]
    assert evenly(range(100), 3) == [0, 50, 99]
    assert evenly([4, 7, 9], 1) == [7]
    assert len(set(evenly(range(17), 16))) == 16


def test_similarity_is_a_cosine_after_the_common_part_is_gone():
    rng = np.random.default_rng(0)
    target, candidates = rng.normal(size=(2, 5)), rng.normal(size=(3, 5))
    owners = ["a", "a", "b"]
    centre = (candidates[:2].mean(0) + candidates[2] + target.mean(0)) / (3 + 8)
    for t in range(2):
        for n in range(3):
            x, y = target[t] - centre, candidates[n] - centre
            expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            assert abs(similarities(target, candidates, owners)[t, n] - expected) < 1e-9


def test_a_large_study_does_not_shift_the_centre():
    rng = np.random.default_rng(0)
    target, candidates = rng.normal(size=(1, 5)), rng.normal(size=(2, 5))
    once = similarities(target, candidates, ["a", "b"])
    many = similarities(target, np.concatenate([candidates[:1]] * 50 + [candidates[1:]]), ["a"] * 50 + ["b"])
    assert np.allclose(many[:, [0, 50]], once)


def test_target_slices_that_resemble_no_labelled_slice_hardly_count():
    similarity = np.array([[0.9, 0.2], [0.1, 0.1], [0.0, 0.15]])
    weight = relevance(similarity)
    expected = np.exp(np.array([0.9, 0.1, 0.15]) / TEMPERATURE)
    assert np.allclose(weight, expected / expected.sum())
    assert weight[0] > 0.99
    assert np.allclose(scores(similarity), weight @ similarity)


def test_one_target_one_slice_a_study_is_plain_ranking():
    rng = np.random.default_rng(1)
    similarity = rng.uniform(-1, 1, size=(1, 30))
    best = np.argsort(-similarity[0])[:6]
    assert pick(similarity, [str(i) for i in range(30)], 6) == best.tolist()


def test_studies_take_turns_as_long_as_they_are_near():
    similarity = np.array([[0.9, 0.89, 0.88, 0.9 - MARGIN + 0.01, 0.9 - MARGIN - 0.01]])
    owners = ["a", "a", "a", "b", "far"]
    assert pick(similarity, owners, 2) == [0, 3]
    assert pick(similarity, owners, 3) == [0, 3, 1]
    assert pick(similarity, owners, 4) == [0, 3, 1, 2]
    assert pick(similarity, owners, 9) == [0, 3, 1, 2, 4]  # all there are; the far one only now


def test_further_slices_of_a_study_cover_the_target_instead_of_repeating():
    # target slices 0 and 1 are both labelled somewhere; candidate 1 is nearly candidate 0, candidate 2 suits the other
    similarity = np.array([[0.9, 0.89, 0.2], [0.5, 0.5, 0.85]])
    assert pick(similarity, ["a"] * 3, 2) == [0, 2]
    assert pick(similarity, ["a"] * 3, 2, chosen=[2]) == [2, 0]


def test_more_than_there_is_gives_all():
    assert sorted(pick(np.array([[0.1, 0.2]]), ["a", "b"], 5)) == [0, 1]
    assert pick(np.array([[0.1, 0.2]]), ["a", "b"], 1, chosen=[0, 1]) == [0, 1]
