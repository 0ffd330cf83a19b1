"""Versions of the model: built once, shared, few kept."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import nn

from proxyprompt.infers.models import MAX_KEPT, Models
from proxyprompt.predictor.adapters import AdapterError


class Model(nn.Module):
    def __init__(self, version):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.version, self.weights_sha256 = version, "0" * 64


class Builder:
    def __init__(self):
        self.built, self.fail, self.lock = [], False, threading.Lock()

    def __call__(self, version):
        if self.fail:
            raise OSError("no weights")
        time.sleep(0.05)
        with self.lock:
            self.built.append(version)
        return Model(version)


@pytest.fixture
def builder():
    return Builder()


def models(builder, default=None):
    return Models(builder, lambda: ["a", "b", "c"], default)


def test_the_first_version_serves_by_default(builder):
    assert models(builder).get().version == "a"
    assert models(builder, "b").get().version == "b"
    assert models(builder, "b").versions() == ["b", "a", "c"]


def test_requests_at_once_share_one_model(builder):
    served = models(builder)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: served.get("a"), range(8)))
    assert builder.built == ["a"]
    assert all(model is got[0] for model in got)


def test_a_served_model_is_frozen(builder):
    model = models(builder).get()
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_the_version_asked_for_least_recently_goes(builder):
    served = models(builder)
    first = served.get("a")
    served.get("b")
    assert served.get("a") is first
    served.get("c")
    assert MAX_KEPT == 2
    assert served.get("a") is first
    assert builder.built == ["a", "b", "c"]
    served.get("b")
    assert builder.built == ["a", "b", "c", "b"]


def test_a_build_that_failed_is_tried_again(builder):
    served = models(builder)
    builder.fail = True
    with pytest.raises(OSError, match="no weights"):
        served.get()
    builder.fail = False
    assert served.get().version == "a"


def test_a_version_published_meanwhile_serves_the_next_request_and_the_old_one_ends_its_own(builder):
    versions = ["shipped"]
    served = Models(builder, lambda: versions)
    running = served.get()
    versions.insert(0, "better")
    assert served.get().version == "better"
    assert running.version == "shipped"
    assert served.get("shipped") is running


def test_the_version_that_the_operator_chose_stays(builder):
    served = models(builder, "old")
    assert served.versions() == ["old", "a", "b", "c"]
    assert served.get().version == "old"


def test_a_damaged_version_does_not_end_the_service():
    def build(version):
        if version != "c":
            raise AdapterError(f"{version} is damaged")
        return Model(version)

    assert models(build).get().version == "c"
    with pytest.raises(AdapterError, match="a is damaged"):
        models(build).get("a")
    with pytest.raises(AdapterError, match="b is damaged"):
        models(build, "b").get()
