"""Requests for background tasks are checked before a process is started for them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelException
from monailabel.utils.async_tasks.task import AsyncTask
from PIL import Image

from proxyprompt.datastores.folder import StudyFolder
from proxyprompt.requests.safety import guard
from proxyprompt.server.background import WAITED_SECONDS, check_request, install_checks


@pytest.fixture
def app(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "one.png")
    store = guard(StudyFolder(str(tmp_path), extensions=["*.png"]))
    tasks = {"_trainers": {"proxyprompt": None}, "_scoring_methods": {"spread": None}, "_infers": {"proxyprompt": None}}
    return SimpleNamespace(datastore=lambda: store, **tasks)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("train", {"model": "proxyprompt", "epochs": 3, "adapter": "adapter-20260101T000000Z", "gpus": "0,1"}),
        ("train", {"model": "proxyprompt", "proxyprompt": {"epochs": 3}}),
        ("scoring", {"method": "spread"}),
        ("batch_infer", {"model": "proxyprompt", "images": "unlabeled", "label_tag": "original", "gpus": "all"}),
        ("batch_infer", {"model": "proxyprompt", "images": ["one"]}),
    ],
)
def test_what_viewers_send_passes(app, method, request_):
    check_request(app, method, request_)


@pytest.mark.parametrize(
    ("method", "request_", "word"),
    [
        ("train", {"model": "spleen"}, "proxyprompt"),
        ("train", {"model": ["proxyprompt"]}, "proxyprompt"),
        ("scoring", {"method": "dice"}, "spread"),
        ("scoring", {"method": "spread", "model": []}, "not a name"),
        ("train", {"model": "proxyprompt", "bundle_path": "here"}, "bundle_path"),
        ("train", {"model": "proxyprompt", "weights": "/etc/passwd"}, "path"),
        ("train", {"model": "proxyprompt", "proxyprompt": {"run": ["../../out"]}}, "path"),
        ("train", {"model": "proxyprompt", "weights": ".."}, "path"),
        ("train", {"model": "proxyprompt", "gpus": {"a": 1}}, "gpus"),
        ("train", {"model": "proxyprompt", "gpus": "0; rm"}, "gpus"),
        ("batch_infer", {"model": "proxyprompt", "images": ["../one"]}, "path"),
        ("batch_infer", {"model": "proxyprompt", "images": "some"}, "labeled"),
        ("batch_infer", {"model": "proxyprompt", "label_tag": ".."}, "path"),
        ("batch_infer", {"model": "proxyprompt", "label_tag": ".final"}, "label tag"),
        ("batch_infer", {"model": "proxyprompt", "max_workers": "two"}, "max_workers"),
        ("batch_infer", {"model": "proxyprompt", "max_workers": True}, "max_workers"),
        ("batch_infer", {"model": "proxyprompt", "max_batch_size": -1}, "max_batch_size"),
        ("batch_infer", {"model": "proxyprompt", "max_batch_size": 1.5}, "max_batch_size"),
        ("batch_infer", {"model": "proxyprompt", "device": {"a": 1}}, "device"),
        ("batch_infer", {"model": "proxyprompt", "device": [3]}, "device"),
        ("batch_infer", {"model": "proxyprompt", "multi_gpu": []}, "multi_gpu"),
        ("train", {"model": "proxyprompt", "max_epochs": float("nan")}, "number"),
        ("scoring", {"method": "spread", "note": "\ud800"}, "Unicode"),
    ],
)
def test_what_is_refused_at_once(app, method, request_, word):
    with pytest.raises(MONAILabelException) as caught:
        check_request(app, method, request_)
    assert word in caught.value.msg


def test_an_image_that_is_not_there(app):
    with pytest.raises(ImageNotFoundException):
        check_request(app, "batch_infer", {"model": "proxyprompt", "images": ["two"]})


def test_one_scoring_at_a_time_is_waited_for_and_not_for_long(app, monkeypatch):
    asked, began, go_on = [], threading.Event(), threading.Event()

    def start(method, request, params, *, force_sync=False):
        asked.append(params)
        began.set()
        go_on.wait(30)
        return "scored", None

    monkeypatch.setattr(AsyncTask, "run", staticmethod(start))
    install_checks(app)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(AsyncTask.run, "scoring", {"method": "spread"}, {}, force_sync=True)
        assert began.wait(30)
        answer, why = AsyncTask.run("scoring", {"method": "spread"}, {}, force_sync=True)
        assert answer is None
        assert "already" in why
        go_on.set()
        assert first.result(30) == ("scored", None)
    AsyncTask.run("scoring", {"method": "spread"}, {"seconds": 900}, force_sync=True)
    AsyncTask.run("scoring", {"method": "spread"}, {})  # of its own process: takes the time that it takes
    assert asked == [{"seconds": WAITED_SECONDS}, {"seconds": 900}, {}]
