"""The gate: what it lets through, what not, and that it says why with figures."""

import math

import pytest

from proxyprompt.training.gate import judge


def scores(**by_structure):
    return {name: {f"g{i}": value for i, value in enumerate(values)} for name, values in by_structure.items()}


def test_a_better_version_is_published_and_the_reason_has_the_figures():
    decision = judge(scores(disc=[0.5, 0.6, 0.7], cup=[0.4, 0.4, 0.4]), scores(disc=[0.6, 0.7, 0.8], cup=[0.5] * 3))
    assert decision.status == "published" and decision.groups == 3
    assert decision.gain == pytest.approx(0.1) and decision.gains == pytest.approx({"disc": 0.1, "cup": 0.1})
    assert "+0.100 on 3 held-out groups" in decision.reason and "cup +0.100" in decision.reason


@pytest.mark.parametrize(("loss", "status"), [(0.0001, "published"), (0.0049, "published"), (0.0051, "refused")])
def test_the_mean_may_lose_no_more_than_half_a_point(loss, status):
    decision = judge(scores(disc=[0.5] * 4), scores(disc=[0.5 - loss] * 4))
    assert decision.status == status
    if status == "refused":
        assert decision.reason.startswith("worse than the version it came from: mean Dice -0.005")


def test_a_version_that_draws_the_same_is_not_worth_serving():
    same = scores(disc=[0.5, 0.6, 0.7], cup=[0.4] * 3)
    decision = judge(same, same)
    assert decision.status == "refused" and decision.gain == 0
    assert "draws what the version it came from draws" in decision.reason and "train longer" in decision.reason


def test_no_structure_may_pay_for_another():
    parent, child = scores(disc=[0.5] * 3, cup=[0.5] * 3), scores(disc=[0.9] * 3, cup=[0.47] * 3)
    decision = judge(parent, child)
    assert decision.status == "refused" and decision.reason.startswith("cup lost more than 0.02")
    assert judge(parent, scores(disc=[0.9] * 3, cup=[0.485] * 3)).status == "published"


def test_groups_are_paired():
    parent = {"disc": {"a": 0.9, "b": 0.1, "c": 0.5}}
    assert judge(parent, {"disc": {"b": 0.1, "c": 0.5, "a": 0.9}}).gain == pytest.approx(0)
    with pytest.raises(ValueError, match="same structures and groups"):
        judge(parent, {"disc": {"a": 0.9, "b": 0.1}})


def test_few_groups_prove_nothing_whatever_they_say():
    for child in (0.9, 0.1):
        decision = judge(scores(disc=[0.5, 0.5]), scores(disc=[child] * 2))
        assert decision.status == "unproven" and "at least 3 held-out groups" in decision.reason
    none = judge({}, {})
    assert none.status == "unproven" and none.gain is None and none.groups == 0


def test_a_score_that_is_no_number_is_refused():
    assert judge(scores(disc=[0.5] * 3), scores(disc=[math.nan] * 3)).status == "refused"
