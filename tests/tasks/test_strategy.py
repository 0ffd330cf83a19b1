"""Which study is proposed next."""

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore
from PIL import Image

from lib.tasks.strategy import FirstUnlabelled, RandomUnlabelled


@pytest.fixture
def datastore(tmp_path):
    for name in ("b", "a", "c"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    store = LocalDatastore(str(tmp_path), extensions=["*.png"])
    store.save_label("a", str(tmp_path / "a.png"), "final", {})
    return store


def test_first_is_the_first_name_without_a_label(datastore):
    assert FirstUnlabelled()({"strategy": "first"}, datastore) == {"id": "b"}


def test_random_never_proposes_a_labelled_study_and_moves_on(datastore):
    proposed = []
    for second in (1, 2):
        image = RandomUnlabelled()({"strategy": "random"}, datastore)["id"]
        datastore.update_image_info(image, {"strategy": {"random": {"ts": second}}})
        proposed.append(image)
    assert sorted(proposed) == ["b", "c"]
    assert RandomUnlabelled()({"strategy": "random"}, datastore)["id"] == proposed[0]


def test_nothing_left_to_label(datastore, tmp_path):
    for name in ("b", "c"):
        datastore.save_label(name, str(tmp_path / "a.png"), "final", {})
    assert FirstUnlabelled()({}, datastore) is None
    assert RandomUnlabelled()({}, datastore) is None
