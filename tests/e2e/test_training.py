"""The loop of a radiologist on a real server with a tiny model: label, train, be killed, go on, serve, roll back."""

import time

import pytest
import requests
from labelled_folders import SONOGRAM_NAMES, write_sonograms
from tiny_atto import write_tiny_atto

from proxyprompt.benchmark.server import running_server
from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.client import Client, ServerError
from proxyprompt.evaluation.training_loop import TrainingLoop, plan_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

CASES, FIRST, MORE, TARGETS = 20, 3, 11, 3


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Drawn sonograms, each a group of its own."""
    folder = write_sonograms(tmp_path_factory.mktemp("collection"), count=CASES)
    return read_collection(folder, structures=SONOGRAM_NAMES)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    weights = write_tiny_atto(folder).parent
    studies = folder / "studies"
    studies.mkdir()
    conf = {"weights_dir": weights, "background_scoring": "false"}  # a label that it flags changes who supports whom
    with running_server(studies, log=folder / "server.log", conf=conf) as server:
        yield server


@pytest.fixture(scope="module")
def report(server, collection, tmp_path_factory):
    plan = plan_of(collection, first=FIRST, more=MORE, targets=TARGETS)
    loop = TrainingLoop(
        Client(server.url),
        collection,
        plan,
        folder=tmp_path_factory.mktemp("loop"),
        options={"max_epochs": 6, "learning_rate": 0.001},
        say=print,
    )
    return loop.run()


def test_a_killed_training_changed_nothing_and_went_on(report):
    assert report.untouched
    assert 0 < report.resumed_from <= report.killed_at  # from the last checkpoint
    assert report.training["epoch"] == report.training["total_epochs"] == 6


def test_what_was_trained_is_served_if_and_only_if_it_is_not_worse(report, server):
    training = report.training
    assert training["status"] in ("published", "refused")
    assert training["validation_groups"] >= 3
    assert report.few.version == report.many.version == "atto-1"
    assert report.trained.version == (training["version"] if training["status"] == "published" else "atto-1")
    assert (report.trained.results == report.many.results) == (training["status"] == "refused")
    assert report.rolled_back


def test_wrong_labels_are_judged_by_the_right_ones(report):
    wrong = report.wrong_labels
    assert wrong["served_unchanged"] == (wrong["status"] != "published")
    assert wrong["reason"]


def test_a_second_run_on_the_same_server_is_refused(report, server, collection, tmp_path):
    plan = plan_of(collection, first=FIRST, more=MORE, targets=TARGETS)
    loop = TrainingLoop(Client(server.url), collection, plan, folder=tmp_path, options={}, say=print)
    with pytest.raises(ServerError, match="empty folder"):
        loop.run()


def test_a_training_that_cannot_be_says_why_and_the_server_goes_on(report, server):
    client = Client(server.url)
    client.train(structures="spleen")
    while (status := client.training()[0])["status"] == "SUBMITTED":
        time.sleep(0.1)
    second = requests.post(f"{server.url}/train/proxyprompt", json={}, timeout=60)
    assert second.status_code == 429 and "Already Running" in second.text
    while (status := client.training()[0])["status"] == "RUNNING":
        time.sleep(1)
    assert status["status"] == "ERROR"
    assert "spleen" in status["details"][-1]
    at_once = {"params": {"run_sync": True}, "json": {"structures": "spleen"}, "timeout": 60}
    answer = requests.post(f"{server.url}/train/proxyprompt", **at_once)
    assert answer.status_code == 400 and "spleen" in answer.json()["detail"]
    assert client.versions()


def test_two_processes_train_one_version(report, server):
    client = Client(server.url)
    client.train(max_epochs=1, processes=2)
    while (status := client.training()[0])["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(1)
    assert status["status"] == "DONE", status["details"]
    stats = client.training()[1]
    assert stats["processes"] == 2
    assert stats["status"] in ("published", "refused") and stats["epoch"] == 1
    with pytest.raises(ServerError, match=r"1000 processes.*at most"):
        client.train(processes=1000)
