"""Adapter files: whole or not at all, bound to their weights, damage is seen, and nothing is ever overwritten."""

import os
import resource
import stat
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from proxyprompt.predictor.adapters import AdapterError, AdapterHeader, AdapterStore, tensors_sha256

STATE = {"generator.a": torch.arange(6.0).view(2, 3), "foundation.b": torch.ones(4, dtype=torch.float16)}


def header(name="adapter-1", **changes):
    known = AdapterHeader(
        name=name,
        foundation="atto-1",
        foundation_sha256="aa",
        parent="atto-1",
        config={"foundation": {"kind": "lora", "rank": 4}},
        structures=("disc", "cup"),
        training_groups=("0f", "1e"),
        validation={"disc": {"2d": 0.5}},
        status="published",
        reason="mean Dice +0.1",
        created="2026-11-22T10:00:00Z",
        app_version="0.1.0",
    )
    return replace(known, **changes)


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "adapters", foundation="atto-1", foundation_sha256="aa")


@contextmanager
def files_of_at_most(size):
    """As on a full disk: writing more fails half way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_saved_comes_back(store):
    path = store.save(header(), STATE)
    loaded, state = store.load("adapter-1")
    assert loaded == replace(header(), sha256=tensors_sha256(STATE))
    assert state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in store.folder.iterdir()] == ["adapter-1.safetensors"]


def test_published_ones_are_on_offer_the_newest_first(store):
    assert store.versions() == []
    store.save(header("a", created="2026-01-01T00:00:00Z"), STATE)
    store.save(header("c", created="2026-01-02T00:00:00Z"), STATE)
    store.save(header("b", created="2026-01-03T00:00:00Z", status="refused"), STATE)
    store.save(header("d", created="2026-01-04T00:00:00Z", status="unproven"), STATE)
    assert store.versions() == ["c", "a"]
    assert [h.name for h in store.all()] == ["d", "b", "c", "a"]


def test_an_unproven_version_is_served_on_request_a_refused_one_never(store):
    store.save(header("d", status="unproven", reason="2 groups"), STATE)
    store.save(header("b", status="refused", reason="disc -0.1"), STATE)
    assert store.publish("d").reason == "published on request; 2 groups" and store.versions() == ["d"]
    assert all(torch.equal(value, STATE[key]) for key, value in store.load("d")[1].items())
    with pytest.raises(AdapterError, match=r"was refused \(disc -0.1\)"):
        store.publish("b")
    assert store.publish("d").status == "published"


def test_adapters_of_other_weights_are_refused_and_not_on_offer(store):
    store.save(header(), STATE)
    other = AdapterStore(store.folder, foundation="atto-2", foundation_sha256="bb")
    assert other.all() == []
    with pytest.raises(AdapterError, match="trained on atto-1 with weights aa; here is atto-2 with weights bb"):
        other.load("adapter-1")
    with pytest.raises(AdapterError, match="belongs to other weights"):
        other.save(header("adapter-2"), STATE)


def test_damage_is_seen(store, caplog):
    whole = store.save(header(), STATE).read_bytes()
    path = store.path("adapter-1")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(AdapterError, match="tensors do not match the hash"):
        store.load("adapter-1")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AdapterError, match="no readable version"):
        store.load("adapter-1")
    assert store.versions() == [] and "no readable version" in caplog.text
    path.write_bytes(b"")
    assert store.all() == []


def test_a_full_disk_leaves_nothing_behind(store):
    store.save(header(), STATE)
    with files_of_at_most(4096), pytest.raises(AdapterError, match=r"could not be written.*nothing was changed"):
        store.save(header("adapter-2"), {"generator.a": torch.zeros(10_000)})
    assert os.listdir(store.folder) == ["adapter-1.safetensors"] and store.versions() == ["adapter-1"]


def test_versions_are_never_overwritten_and_names_stay_inside(store):
    store.save(header(), STATE)
    with pytest.raises(AdapterError, match="never overwritten"):
        store.save(header(), STATE)
    with pytest.raises(AdapterError, match="no name of a version"):
        store.load("../adapter-1")
    with pytest.raises(AdapterError, match=r"there is no version 'x'.*there are: adapter-1"):
        store.load("x")
    with pytest.raises(AdapterError, match=r"not finite, first in generator\.a"):
        store.save(header("adapter-2"), {"generator.a": torch.tensor([torch.nan])})
    name = store.new_name()
    store.save(header(name), STATE)
    assert store.new_name() != name


def test_a_renamed_file_is_a_version_of_that_name(store):
    store.save(header(), STATE).rename(store.path("best"))
    assert store.versions() == ["best"] and store.load("best")[0].name == "best"
