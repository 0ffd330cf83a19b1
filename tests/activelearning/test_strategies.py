"""Which study is proposed next."""

import time

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore
from PIL import Image

from proxyprompt.activelearning.strategies import Chosen, FirstUnlabelled, MostDisagreement, RandomUnlabelled
from proxyprompt.datastores.notes import DISAGREEMENT, write_note


@pytest.fixture
def datastore(tmp_path):
    for name in ("b", "a", "c"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    store = LocalDatastore(str(tmp_path), extensions=["*.png"])
    store.save_label("a", str(tmp_path / "a.png"), "final", {})
    return store


def propose(strategy, datastore, ts=None, name="random"):
    """As the server does: the strategy's answer, and when it was given."""
    image = strategy({"strategy": name}, datastore)["id"]
    datastore.update_image_info(image, {"strategy": {name: {"ts": int(time.time()) if ts is None else ts}}})
    return image


def test_first_is_the_first_name_without_a_label(datastore):
    assert FirstUnlabelled()({"strategy": "first"}, datastore) == {"id": "b"}


def test_random_never_proposes_a_labelled_study_and_moves_on(datastore):
    proposed = [propose(RandomUnlabelled(), datastore, ts) for ts in (1, 2)]
    assert sorted(proposed) == ["b", "c"]
    assert RandomUnlabelled()({"strategy": "random"}, datastore)["id"] == proposed[0]


def test_nothing_left_to_label(datastore, tmp_path):
    for name in ("b", "c"):
        datastore.save_label(name, str(tmp_path / "a.png"), "final", {})
    assert FirstUnlabelled()({}, datastore) is None
    assert RandomUnlabelled()({}, datastore) is None
    assert MostDisagreement(Described({}, datastore))({}, datastore) is None


class Described:
    """What the strategy asks of the library: descriptors, and the labelled studies."""

    def __init__(self, rows, datastore):
        self._rows, self._datastore = rows, datastore

    def describe(self, content_hash):
        return self._rows.get(content_hash)

    def studies(self):
        return {i: type("Study", (), {"content_hash": i}) for i in self._datastore.get_labeled_images()}


@pytest.fixture
def described(datastore, tmp_path):
    """a is labelled; b, b2 and b3 are nearly the same and unsure; c is another kind, less unsure; d is not scored."""
    rng = np.random.default_rng(0)
    directions = {"a": [1, 0, 0, 0], "b": [0, 1, 0, 0], "b2": [0, 1, 0, 0], "b3": [0, 1, 0, 0], "c": [0, 0, 1, 0]}
    rows = {name: np.array(row) + 0.02 * rng.normal(size=4) for name, row in directions.items()}
    for name in ("b2", "b3", "d"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    datastore.refresh()
    for name, score in {"b": 0.8, "b2": 0.8, "b3": 0.8, "c": 0.4}.items():
        write_note(datastore, name, DISAGREEMENT, {"score": score, "content": name})
    return Described(rows, datastore)


def test_near_duplicates_are_not_proposed_in_a_row(described, datastore):
    strategy = MostDisagreement(described)
    first, second = (propose(strategy, datastore) for _ in range(2))
    assert first.startswith("b") and second == "c"


def test_where_supports_agree_nothing_is_proposed_first(described, datastore):
    for name in ("b", "b2", "b3"):
        write_note(datastore, name, DISAGREEMENT, {"score": 0.0, "content": name})
    assert MostDisagreement(described)({}, datastore)["id"] == "c"


def test_a_proposal_is_forgotten_after_a_day(described, datastore):
    for name in ("b", "b2", "b3"):
        datastore.update_image_info(name, {"strategy": {"random": {"ts": int(time.time()) - 2 * 24 * 3600}}})
    assert MostDisagreement(described)({}, datastore)["id"].startswith("b")


def test_without_scores_any_study_is_proposed(datastore):
    proposed = {propose(MostDisagreement(Described({}, datastore)), datastore, ts) for ts in (1, 2)}
    assert proposed == {"b", "c"}


def test_the_viewers_button_gets_the_chosen_strategy(datastore):
    strategies = {"random": RandomUnlabelled(), "first": FirstUnlabelled()}
    chosen = Chosen(strategies, "first")
    assert chosen({"strategy": "random"}, datastore) == {"id": "b"}
    assert "First" in chosen.info()["description"]
