"""The train task on a real datastore with a tiny model: what is served before, while and after."""

import json
import shutil
from types import SimpleNamespace

import pytest
from app_in_process import build_app
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from tiny_atto import write_tiny_atto

from proxyprompt.server.background import check_request
from proxyprompt.trainers import proxyprompt as train_task
from proxyprompt.trainers.options import ALWAYS

QUICK = {"model": "proxyprompt", "max_epochs": 1}


def folder_of(samples, folder, *names):
    """Some of the ultrasound samples, labelled and not."""
    studies = folder / "studies"
    shutil.copytree(samples, studies, ignore=shutil.ignore_patterns("rgb_*", "mr_*", ".proxyprompt"))
    for name in {f"us_{n:02d}" for n in range(1, 7)} - set(names):
        (studies / "labels" / "final" / f"{name}.png").unlink()
    return studies


def app_of(studies, weights):
    """The app with trainings of few and small steps."""
    app = build_app(studies, weights)
    task = app._trainers["proxyprompt"]
    task._defaults = task._defaults.with_options(steps_per_epoch=4, members=3, validation_supports=2)
    return app


def infer(app, image="us_08", **options):
    result = app.infer({"model": "proxyprompt", "image": image, **options})
    with open(result["file"], "rb") as file:
        return file.read(), result["params"]


def refused(app, **request):
    with pytest.raises(MONAILabelException) as caught:
        app.train({"model": "proxyprompt", **request})
    return caught.value


@pytest.fixture(scope="module")
def story(samples, weights, tmp_path_factory):
    """One training and the publication of what came of it, with what the app said on the way."""
    studies = folder_of(samples, tmp_path_factory.mktemp("trained"), *(f"us_{n:02d}" for n in range(1, 7)))
    app = app_of(studies, weights)
    outcome = SimpleNamespace(app=app, before=infer(app))
    outcome.result = app.train(QUICK)
    outcome.kept, outcome.kept_info = infer(app), app.info()
    outcome.publication = app.train({"model": "proxyprompt", "publish": outcome.result["version"]})
    return outcome


def test_a_version_that_could_not_be_proven_is_kept_but_not_served(story):
    assert story.result["status"] == "unproven" and "label more" in story.result["reason"]
    assert story.result["version"].startswith("adapter-") and story.result["parent"] == "atto-1"
    assert story.kept[0] == story.before[0]
    assert story.kept_info["models"]["proxyprompt"]["config"]["adapter"] == ["atto-1"]
    assert story.result["version"] in story.kept_info["trainers"]["proxyprompt"]["config"]["publish"]


def test_the_statistics_and_the_dialog_are_what_viewers_read(story):
    json.dumps(story.kept_info)
    stats = story.kept_info["train_stats"]["proxyprompt"]
    assert stats["total_time"] == story.result["total_time"]
    assert (stats["epoch"], stats["total_epochs"]) == (1, 1)
    assert 0 <= stats["best_metric"] <= 1
    assert len(stats["held_out"]) == 1
    dialog = story.kept_info["trainers"]["proxyprompt"]["config"]
    assert set(dialog["structures"]) == {"all", "head", "symphysis"}
    assert dialog["parent"] == ["atto-1"]


def test_published_it_serves_the_next_request_and_the_old_one_comes_back_bit_for_bit(story):
    app, version = story.app, story.result["version"]
    assert story.publication["status"] == "published"
    new, answer = infer(app)
    assert answer["adapter"] == version
    assert answer["weights_sha256"] != story.before[1]["weights_sha256"]
    assert app.info()["models"]["proxyprompt"]["config"]["adapter"] == [version, "atto-1"]
    back, answer = infer(app, adapter="atto-1")
    assert back == story.before[0] and answer["weights_sha256"] == story.before[1]["weights_sha256"]
    # nothing that was computed with the old weights went into the new answer
    app.cache.clear()
    assert infer(app)[0] == new


def test_what_was_cached_under_the_old_version_is_not_asked_for(story, monkeypatch):
    app, keys = story.app, []
    get = app.cache.get
    monkeypatch.setattr(app.cache, "get", lambda key: keys.append(key) or get(key))
    infer(app, adapter="atto-1")
    old, keys[:] = set(keys), []
    infer(app)
    shared = [get(key).tensors for key in old & set(keys)]
    assert shared  # what pixels alone decide: the support slices, their descriptors
    assert not any({"embedding", "context", "values"} & set(tensors) for tensors in shared)


def test_too_few_labels_and_what_else_cannot_be_trained_is_refused(samples, weights, tmp_path):
    app = build_app(folder_of(samples, tmp_path), weights)
    before = app.info()["models"]["proxyprompt"]["config"]["adapter"]
    error = refused(app)
    assert error.error is MONAILabelError.INVALID_INPUT
    assert "label" in error.msg
    stats = app.info()["train_stats"]["proxyprompt"]
    assert stats["status"] == "failed" and stats["message"] == error.msg and "total_time" in stats
    assert "'epochs'" in refused(app, epochs=3).msg
    assert "spleen" in refused(app, structures="spleen").msg
    assert app.info()["models"]["proxyprompt"]["config"]["adapter"] == before


def test_options_that_cannot_be_are_refused_before_a_process_is_started(story):
    for request in ({"epochs": 3}, {"max_minutes": -1}, {"parent": "adapter-9"}):
        with pytest.raises(MONAILabelException):
            check_request(story.app, "train", {"model": "proxyprompt", **request})
    check_request(story.app, "train", {"model": "proxyprompt", "proxyprompt": {"max_epochs": 2}, "max_epochs": 2})


def test_labels_accepted_unchanged_do_not_train(samples, weights, tmp_path):
    app = build_app(folder_of(samples, tmp_path, "us_01", "us_02"), weights)
    app.infer({"model": "proxyprompt", "image": "us_09", "save_label": True, "label_tag": "final"})
    task = app._trainers["proxyprompt"]
    parse = train_task.parse_train_options
    rules = {"task": "proxyprompt", "defaults": task._defaults, "parents": ["atto-1"], "unproven": []}
    cases, warnings = task._cases(parse(QUICK, **rules))
    assert [case.id for case in cases] == ["us_01", "us_02"]
    assert "1 of 3 labels" in warnings[0]
    cases, warnings = task._cases(parse({**QUICK, "train_unchanged": True}, **rules))
    assert [case.id for case in cases] == ["us_01", "us_02", "us_09"] and not warnings
    cases, _ = task._cases(parse({**QUICK, "structures": "head"}, **rules))
    assert all(set(case.structures) == {"head"} for case in cases)


def test_a_training_that_was_stopped_goes_on_and_serves_nothing_meanwhile(samples, weights, tmp_path, monkeypatch):
    app = app_of(folder_of(samples, tmp_path, *(f"us_{n:02d}" for n in range(1, 5))), weights)
    before, _ = infer(app)
    steps = iter(range(1000))
    monkeypatch.setattr(train_task, "_starter_is_gone", lambda: lambda: next(steps) >= 3)
    assert "stopped" in refused(app, max_epochs=1).msg
    assert app.info()["train_stats"]["proxyprompt"]["status"] == "interrupted"
    assert infer(app)[0] == before
    monkeypatch.undo()
    result = app.train({**QUICK, "publish": ALWAYS})
    stats = app.info()["train_stats"]["proxyprompt"]
    assert stats["resumed_from"] == 3
    assert result["status"] == stats["status"] == "published"
    assert infer(app)[1]["adapter"] == result["version"]


@pytest.fixture
def with_versions(story, samples, tmp_path):
    """Studies beside which the published version lies, as they would be after a move to another machine."""
    studies = folder_of(samples, tmp_path, *(f"us_{n:02d}" for n in range(1, 7)))
    shutil.copytree(story.app.adapters.folder, studies / ".proxyprompt" / "adapters")
    return studies


def test_a_version_of_other_weights_is_not_on_offer(story, with_versions, tmp_path):
    write_tiny_atto(tmp_path, seed=1)
    other = build_app(with_versions, tmp_path)
    assert other.info()["models"]["proxyprompt"]["config"]["adapter"] == ["atto-1"]
    with pytest.raises(MONAILabelException) as caught:
        infer(other, adapter=story.result["version"])
    assert story.result["version"] in caught.value.msg


def test_a_damaged_version_does_not_end_the_service(story, with_versions, weights):
    path = with_versions / ".proxyprompt" / "adapters" / f"{story.result['version']}.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 0xFF
    path.write_bytes(content)
    served, answer = infer(build_app(with_versions, weights))
    assert answer["adapter"] == "atto-1"
    assert served == story.before[0]
