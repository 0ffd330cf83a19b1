"""Both scoring methods on a real datastore: what they note, when they work, and what follows from a flag."""

import json
import shutil
import time

import numpy as np
import pytest
from app_in_process import build_app
from monailabel.interfaces.exception import MONAILabelException

from proxyprompt.activelearning.disagreement import disagreement
from proxyprompt.activelearning.quality import flagged
from proxyprompt.datastores.notes import DISAGREEMENT, QUALITY, read_note, write_note
from proxyprompt.predictor.masks import Alone

LABELLED = ("us_01", "us_02", "us_03", "us_04")
UNLABELLED = ("us_07", "us_08", "mr_06")


@pytest.fixture
def app(samples, weights, tmp_path):
    final = tmp_path / "labels" / "final"
    final.mkdir(parents=True)
    for name in (*LABELLED, *UNLABELLED):
        shutil.copy(next(samples.glob(f"{name}.*")), tmp_path)
    for name in LABELLED:
        shutil.copy(samples / "labels" / "final" / f"{name}.png", final)
    return build_app(tmp_path, weights, labels="head=1,symphysis=2")


def score(app, method, **options):
    return app.scoring({"method": method, **options})


def notes(app, key):
    store = app.datastore()
    return {image_id: read_note(store, image_id, key) for image_id in store.list_images()}


def test_every_unlabelled_study_gets_its_score(app, tmp_path):
    assert score(app, DISAGREEMENT) == {"total": 3, "scored": 3, "remaining": 0}
    found = notes(app, DISAGREEMENT)
    for name in ("us_07", "us_08"):
        assert 0 < found[name]["score"] <= 1
        assert set(found[name]["structures"]) == {"head", "symphysis"}
    assert "score" not in found["mr_06"] and "label one" in found["mr_06"]["error"]
    assert not any(found[name] for name in LABELLED)
    index = json.loads((tmp_path / "datastore_v2.json").read_text())
    assert index["objects"]["us_07"]["image"]["info"][DISAGREEMENT] == found["us_07"]


def test_it_goes_on_where_it_stopped(app):
    assert score(app, DISAGREEMENT, seconds=1e-9) == {"total": 3, "scored": 0, "remaining": 3}
    score(app, DISAGREEMENT)
    assert score(app, DISAGREEMENT) == {"total": 3, "scored": 0, "remaining": 0}


@pytest.mark.parametrize("seconds", ["soon", -1, [1]])
@pytest.mark.parametrize("method", [DISAGREEMENT, QUALITY])
def test_a_time_that_is_none_is_refused(app, method, seconds):
    with pytest.raises(MONAILabelException):
        score(app, method, seconds=seconds)


def test_only_what_changed_is_computed_again(app, samples, tmp_path):
    score(app, DISAGREEMENT)
    before, decoded = notes(app, DISAGREEMENT), app.cache.stats()["misses"]
    assert score(app, DISAGREEMENT)["scored"] == 0 and app.cache.stats()["misses"] == decoded
    app.datastore().save_label("us_08", str(samples / "labels" / "final" / "us_05.png"), "final", {})
    app.on_save_label("us_08", "us_08")
    score(app, DISAGREEMENT)
    after = notes(app, DISAGREEMENT)
    assert after["us_07"]["pool"] != before["us_07"]["pool"]
    assert after["us_07"]["state"] != before["us_07"]["state"]  # four supports of five: another set
    assert after["us_08"] == before["us_08"]  # labelled: no business of this method any more


def test_a_score_stands_as_long_as_its_supports(app, samples):
    score(app, DISAGREEMENT, seconds=600)
    before = notes(app, DISAGREEMENT)["us_07"]
    time.sleep(1.1)
    write_note(app.datastore(), "us_07", DISAGREEMENT, {**before, "pool": "another"})
    score(app, DISAGREEMENT)
    assert notes(app, DISAGREEMENT)["us_07"] == before  # looked at again, not computed again


def test_what_disagreement_measures():
    mask, none = np.ones((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    half = mask.copy()
    half[:, :2] = False
    same = [Alone(0, mask, np.array([0.9])), Alone(0, mask, np.array([0.9]))]
    assert disagreement(same) == {0: 0.0}
    assert disagreement([Alone(3, mask, np.array([1.0])), Alone(3, none, np.array([0.0]))]) == {3: 1.0}
    assert disagreement([*same, Alone(1, mask, np.array([0.8])), Alone(1, half, np.array([0.6]))])[1] == pytest.approx(
        (1 / 3 + 0.2) / 2
    )


def test_each_labelled_study_is_tried_as_support(app):
    summary = score(app, QUALITY)
    assert (summary["total"], summary["scored"], summary["remaining"]) == (4, 4, 0)
    found = notes(app, QUALITY)
    for name in LABELLED:
        assert set(found[name]["dice"]) == {"head", "symphysis"}
        assert all(0 <= value <= 1 for value in found[name]["dice"].values())
    assert score(app, QUALITY)["scored"] == 0


def test_a_new_label_is_tried_and_tries_the_others(app, samples):
    score(app, QUALITY)
    shutil.copy(samples / "labels" / "final" / "us_02.png", app.studies + "/labels/final/us_01.png")
    app.library.refresh()
    assert score(app, QUALITY)["scored"] == 4


@pytest.mark.parametrize(
    ("dice", "found"),
    [
        ([0.8, 0.82, 0.79, 0.81, 0.2], {"4": ["head"]}),
        ([0.8, 0.82, 0.79, 0.2], {"3": ["head"]}),
        ([0.8, 0.82, 0.2], {}),  # too few to tell
        ([0.8, 0.6, 0.7, 0.5, 0.9], {}),
        ([0.1, 0.12, 0.05, 0.0, 0.1], {}),  # nothing works
        ([0.8] * 9 + [0.7], {}),
    ],
)
def test_who_falls_out_of_the_row(dice, found):
    assert flagged({str(n): {"head": value} for n, value in enumerate(dice)}) == found


def test_a_flag_is_said_and_changes_nothing_until_a_person_decides(app):
    study = app.library.studies()["us_02"]
    note = {"label": study.label_hash, "flagged": ["head"]}

    def infer(**options):
        answer = app.infer({"model": "proxyprompt", "image": "us_07", "structure": "head", **options})["params"]
        warned = [warning for warning in answer["warnings"] if "us_02" in warning and "flagged" in warning]
        return {used["id"] for used in answer["supports"]}, warned, answer["left_out"]

    before = infer()[0]
    assert "us_02" in before
    write_note(app.datastore(), "us_02", QUALITY, note)
    used, warned, left_out = infer()
    assert used == before and len(warned) == 1 and "check it" in warned[0] and not left_out
    decision = {"leave_out": True, "by": "anna", "time": "2025-01-01T00:00:00+00:00"}
    write_note(app.datastore(), "us_02", QUALITY, {**note, "decision": decision})
    used, warned, left_out = infer()
    assert used == before - {"us_02"} and len(warned) == 1 and "was not used" in warned[0]
    assert "head" in left_out["us_02"] and "anna" in left_out["us_02"]
    used, warned, left_out = infer(support="us_02")  # a support that was named stays
    assert used == {"us_02"} and len(warned) == 1 and not left_out
    for name in ("us_01", "us_03", "us_04"):
        app.datastore().remove_label(name, "final")
    assert infer()[0] == {"us_02"}  # there is nothing else
    write_note(app.datastore(), "us_02", QUALITY, {"label": "of an older label", "flagged": ["head"]})
    assert infer()[1] == []


def test_the_button_of_viewers_uses_the_scores(app):
    score(app, DISAGREEMENT)
    first = app.next_sample({"strategy": "random"})
    assert first["id"] in ("us_07", "us_08") and first[DISAGREEMENT] > 0
    assert set(app.info()["strategies"]) == {"random", "first", "disagreement"}
    assert set(app.info()["scoring"]) == {DISAGREEMENT, QUALITY}
