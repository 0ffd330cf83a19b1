"""The same targets and supports for every method; nothing learnt is scored on; an interruption costs nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from labelled_folders import write_plain_images, write_volumes

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.episodes import EpisodeConfig
from proxyprompt.evaluation.methods import Copy, Fitted, Method
from proxyprompt.evaluation.record import Record, RecordError
from proxyprompt.evaluation.run import EvalConfig, LeakError, evaluate
from proxyprompt.io.errors import StudyError


class Spy(Method):
    """Draws everything above a gray level; remembers what it was asked."""

    name = "spy"

    def __init__(self, level=0.3, *, seen=(), stop_after=None):
        self.settings, self.level = {"level": level}, level
        self.fitted, self.predicted = [], []
        self._seen, self._stop_after = set(seen), stop_after

    def has_seen(self, collection, group):
        return (collection, group) in self._seen

    def fit(self, supports, *, seed):
        if self._stop_after is not None and len(self.fitted) == self._stop_after:
            raise KeyboardInterrupt
        self.fitted.append((seed, [(s.study_id, s.index) for s in supports.slices]))

        def predict(slices):
            self.predicted.append((slices.study.content_hash, tuple(slices.indices)))
            return slices.images(range(len(slices)))[:, 0] > self.level

        return Fitted(predict, {"curve": [1.0, 0.5]})


@pytest.fixture
def plan(tmp_path):
    folders = [write_plain_images(tmp_path / "rings"), write_volumes(tmp_path / "stacks")]
    collections = tuple(read_collection(folder) for folder in folders)
    return EvalConfig(collections, EpisodeConfig(), counts=(1, 2), seeds=2)


def test_no_method_is_asked_where_the_supports_volumes_never_show_the_structure(plan):
    measured = evaluate(plan, [Spy(-1.0)], Record(None))  # draws everywhere
    scores = [score for unit in measured.units if unit.collection == "stacks" for score in unit.scores]
    assert scores and all(score.absent_slices == 2 and score.false_slices == 0 for score in scores)
    assert all(score.missed_slices == 0 for score in scores)


def test_every_method_gets_the_same(plan):
    one, other = Spy(), Spy(0.6)
    other.name = "other"
    measured = evaluate(plan, [one, other], Record(None))
    assert one.fitted == other.fitted and one.predicted == other.predicted and one.fitted
    assert len(measured.units) == 2 * 2 * 2 * 2 * 2  # methods, K, seeds, collections, structures
    of_targets = {(u.collection, tuple(u.cases)) for u in measured.units}
    assert len(of_targets) == 2  # for all structures, K and seeds
    volume = next(u for u in measured.units if u.collection == "stacks")
    assert volume.scores[0].hd95 is not None and volume.scores[0].absent_slices == 2
    plain_image = next(u for u in measured.units if u.collection == "rings")
    assert plain_image.scores[0].hd95 is None and plain_image.notes["curve"] == [1.0, 0.5]
    assert [len(u.notes.get("support_mse", ())) for u in measured.units[:8:2]] == [4, 4, 0, 0]  # K = 1, 1, 2, 2


def test_dice_is_that_of_the_masks(plan):
    (unit, *_) = evaluate(plan, [Spy()], Record(None)).units
    collection = plan.collections[0]
    for case_id, score in zip(unit.cases, unit.scores, strict=True):
        case = next(case for case in collection.cases if case.id == case_id)
        study, labels = collection.open(case)
        drawn, truth = study.images([0])[0, 0] > 0.3, labels[0] == 1
        assert score.dice == pytest.approx(2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()))


def test_an_interrupted_run_goes_on(plan, tmp_path):
    path = tmp_path / "record.json"
    broken = Spy(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(plan, [broken], Record(path))
    assert len(json.loads(path.read_text())["units"]) == 3
    again = Spy()
    resumed = evaluate(plan, [again], Record(path))
    whole = evaluate(plan, [Spy()], Record(None))
    assert len(again.fitted) == len(whole.units) - 3
    for one, other in zip(resumed.units, whole.units, strict=True):
        assert one.key == other.key and one.cases == other.cases
        assert [s.dice for s in one.scores] == pytest.approx([s.dice for s in other.scores], abs=1e-4)
    untouched = Spy()
    evaluate(plan, [untouched], Record(path))
    assert not untouched.fitted
    more = Spy()
    evaluate(replace(plan, seeds=3), [more], Record(path))
    assert {seed for seed, _ in more.fitted} == {2}


def test_other_settings_or_targets_are_measured_anew_and_others_stay(plan, tmp_path):
    path = tmp_path / "record.json"
    evaluate(plan, [Copy(), Spy()], Record(path))
    changed = Spy(0.6)
    units = evaluate(plan, [Copy(), changed], Record(path)).units
    assert len(changed.fitted) == len(units) / 2
    fewer = Spy(0.6)
    limited = replace(plan, episodes=EpisodeConfig(limit_targets=2))
    units = evaluate(limited, [fewer], Record(path)).units
    assert fewer.fitted and {len(u.cases) for u in units} == {2}


def test_a_method_is_never_scored_on_a_group_it_was_trained_on(plan, tmp_path):
    (unit, *_) = evaluate(plan, [Spy()], Record(None)).units
    trained = Spy(seen={("rings", unit.groups[0])})
    with pytest.raises(LeakError, match=rf"rings: spy was trained on group '{unit.groups[0]}'"):
        evaluate(plan, [trained], Record(tmp_path / "record.json"))
    assert not trained.fitted
    unseen = evaluate(replace(plan, unseen=True), [Copy(), trained], Record(None)).units
    assert trained.fitted and all(unit.groups[0] not in u.groups for u in unseen if u.collection == "rings")
    assert len({tuple(u.cases) for u in unseen if u.collection == "rings"}) == 1
    elsewhere = Spy(seen={("another", unit.groups[0])})
    assert evaluate(plan, [elsewhere], Record(None)).units


def test_what_cannot_be_measured_is_told_and_the_rest_is(plan):
    measured = evaluate(replace(plan, counts=(1, 5)), [Copy()], Record(None))
    assert {u.supports for u in measured.units if u.collection == "rings"} == {1}
    assert any("shows 'label_1' on 2 slices, 5 are asked for" in reason for reason in measured.skipped.values())
    with pytest.raises(ValueError, match="nothing to measure"):
        replace(plan, counts=())
    with pytest.raises(ValueError, match="same name"):
        EvalConfig((plan.collections[0],) * 2, EpisodeConfig(), (1,), 1)


def test_a_damaged_image_stops_the_run_and_what_was_measured_is_kept(plan, tmp_path):
    for case in plan.collections[1].cases:
        case.image_path.write_bytes(b"no image")
    with pytest.raises(StudyError, match="cannot be read"):
        evaluate(plan, [Copy()], Record(tmp_path / "record.json"))
    assert len(json.loads((tmp_path / "record.json").read_text())["units"]) == 8


@pytest.mark.parametrize("content", ["", "[]", '{"format": 99, "units": []}', '{"format": 1, "units": [{}]}'])
def test_a_file_that_is_no_record_is_left_alone(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(RecordError, match="name another file"):
        Record(path)
    assert path.read_text() == content


def test_scores_survive_the_file(plan, tmp_path):
    path = tmp_path / "record.json"
    units = evaluate(plan, [Spy()], Record(path)).units
    read = Record(path).units(u.key for u in units)
    for one, other in zip(units, read, strict=True):
        assert (one.key, one.decides, one.drawn, one.cases) == (other.key, other.decides, other.drawn, other.cases)
        for a, b in zip(one.scores, other.scores, strict=True):
            assert [x is None for x in vars(a).values()] == [x is None for x in vars(b).values()]
            assert np.allclose([x or 0 for x in vars(a).values()], [x or 0 for x in vars(b).values()], atol=1e-4)
