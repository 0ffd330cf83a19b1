"""Versions of the model: built once, shared, few kept."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import nn

from lib.tasks.models import MAX_KEPT, Models


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
