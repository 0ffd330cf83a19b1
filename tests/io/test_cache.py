"""ContentCache: found by content, bounded, computed once, purged by tag, never broken by a damaged file."""

import logging
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from proxyprompt.io.cache import ContentCache, Entry, content_key

KIB = 1024


def make(folder, memory=1 << 20, disk=1 << 20):
    return ContentCache(folder, memory_bytes=memory, disk_bytes=disk)


def key(name):
    return content_key(name)


def kib(n, value=0):
    return {"x": torch.full((n * KIB,), value, dtype=torch.uint8)}


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_keys_tell_apart_what_differs():
    array = np.arange(6, dtype=np.int16)
    parts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (b"abc",),
        (1,),
        (1.5,),
        ("1",),
        (True,),
        (None,),
        (array,),
        (array.reshape(2, 3),),
        (array.astype(np.int32),),
        (array.tobytes(),),
        ([1, 2],),
        (1, 2),
    ]
    assert len({content_key(*p) for p in parts}) == len(parts)
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key(torch.arange(6, dtype=torch.int16)) == content_key(array)
    assert len(content_key("x")) == 64
    with pytest.raises(TypeError, match="set"):
        content_key({1, 2})


@pytest.mark.parametrize("bad", ["", "../x", "ABCDEF0123456789", "0123", "0123456789abcdef/", 64 * "g"])
def test_only_digests_are_keys(tmp_path, bad):
    cache = make(tmp_path)
    with pytest.raises(ValueError, match="hex digits"):
        cache.get(bad)
    with pytest.raises(ValueError, match="hex digits"):
        cache.put(bad, kib(1))


def test_round_trip_of_types_and_meta_through_the_disk(tmp_path):
    tensors = {
        "half": torch.randn(3, 4).half(),
        "bf": torch.randn(2).bfloat16(),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 5),
        "strided": torch.arange(12).reshape(3, 4).T,
    }
    make(tmp_path).put(key("a"), tensors, meta={"names": ["disc"], "n": 2}, tags=["t1", "t2"])
    again = make(tmp_path).get(key("a"))
    assert again.meta == {"names": ["disc"], "n": 2}
    assert again.tags == {"t1", "t2"}
    assert set(again.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert again.tensors[name].dtype == tensor.dtype
        assert torch.equal(again.tensors[name], tensor)


def test_a_view_does_not_keep_its_base_alive(tmp_path):
    base = torch.zeros(100, 1000)
    entry = make(tmp_path).put(key("a"), {"row": base[3]})
    assert entry.tensors["row"].untyped_storage().nbytes() == 4000


def test_maps_keep_the_order_of_their_numbers_in_memory_and_come_whole_from_the_disk(tmp_path):
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    kept = make(tmp_path).put(key("map"), {"x": x, "part": x[:1]}).tensors
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in kept.values())
    read = make(tmp_path).get(key("map")).tensors
    assert torch.equal(read["x"], x) and torch.equal(read["part"], x[:1])


def test_a_single_number_out_of_a_table_is_kept(tmp_path):
    one = torch.tensor([[0.25, 1.5]]).unbind(1)[0]  # contiguous to torch, with a stride of 2
    make(tmp_path).put(key("a"), {"x": one})
    assert torch.equal(make(tmp_path).get(key("a")).tensors["x"], torch.tensor([0.25]))


def test_one_tensor_under_two_names_is_kept(tmp_path):
    tensor = torch.arange(4)
    make(tmp_path).put(key("a"), {"one": tensor, "two": tensor, "three": tensor.view(2, 2)})
    again = make(tmp_path).get(key("a"))
    assert torch.equal(again.tensors["two"], tensor)
    assert torch.equal(again.tensors["three"], tensor.view(2, 2))


def test_memory_drops_the_least_recently_used(tmp_path):
    cache = make(None, memory=3 * KIB)
    for name in "abc":
        cache.put(key(name), kib(1))
    cache.get(key("a"))
    cache.put(key("d"), kib(1))
    assert [cache.get(key(n)) is not None for n in "abcd"] == [True, False, True, True]
    assert cache.stats()["memory_bytes"] == 3 * KIB
    cache.put(key("big"), kib(4))  # exceeds the bound by itself: pushes nothing out
    assert cache.get(key("big")) is None
    assert cache.get(key("a")) is not None


def test_disk_drops_the_least_recently_used_and_keeps_its_bound(tmp_path):
    cache = make(tmp_path, memory=0, disk=10 * KIB)
    for age, name in enumerate("abc"):
        cache.put(key(name), kib(3))
        os.utime(cache._path(key(name)), (1000 + age, 1000 + age))
    cache.get(key("a"))  # touched: now the newest
    cache.put(key("d"), kib(3))
    assert [cache.get(key(n)) is not None for n in "abcd"] == [True, False, True, True]
    for i in range(20):
        cache.put(key(f"more{i}"), kib(1))
        assert sum(f.stat().st_size for f in files(tmp_path)) <= 10 * KIB
    cache.put(key("big"), kib(11))
    assert cache.get(key("big")) is None


def test_a_smaller_bound_holds_from_the_start(tmp_path):
    first = make(tmp_path)
    for i in range(10):
        first.put(key(i), kib(2))
    second = make(tmp_path, disk=7 * KIB)
    assert 0 < sum(f.stat().st_size for f in files(tmp_path)) <= 7 * KIB
    assert second.stats()["disk_bytes"] <= 7 * KIB


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "garbage", "foreign"])
def test_a_damaged_file_is_dropped_with_a_warning(tmp_path, caplog, damage):
    make(tmp_path).put(key("a"), kib(2, value=7))
    (path,) = files(tmp_path)
    raw = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(raw[:-100])
    elif damage == "flip":
        path.write_bytes(raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(b"\xff" * 500)
    else:
        from safetensors.torch import save_file

        save_file(kib(1), path)  # sound, but without our header
    cache = make(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert cache.get(key("a")) is None
    assert "damaged" in caplog.text
    assert files(tmp_path) == []
    assert cache.stats()["dropped"] == 1
    assert torch.equal(cache.get_or_compute(key("a"), (), lambda: kib(1, value=3)).tensors["x"], kib(1, value=3)["x"])


def test_an_unwritable_folder_does_not_fail_the_request(tmp_path, caplog):
    cache = make(tmp_path)
    (tmp_path / key("a")[:2]).write_text("a file where the cache wants a folder")
    with caplog.at_level(logging.WARNING):
        assert cache.get_or_compute(key("a"), (), lambda: kib(1)).nbytes == KIB
    assert "could not write" in caplog.text
    assert cache.get(key("a")) is not None  # from memory


def test_purge_removes_what_carries_the_tag_from_memory_and_disk(tmp_path):
    cache = make(tmp_path)
    cache.put(key("a"), kib(1), tags=["label1", "study1"])
    cache.put(key("b"), kib(1), tags=["label2", "study1"])
    make(tmp_path).put(key("c"), kib(1), tags=["label1"])  # another process: on disk only
    assert cache.purge("label1") == 2
    assert cache.get(key("a")) is None
    assert cache.get(key("c")) is None
    assert make(tmp_path).get(key("a")) is None
    assert cache.get(key("b")) is not None
    assert cache.purge("unknown") == 0
    assert cache.stats()["memory_bytes"] == KIB


def test_what_was_purged_while_it_was_computed_is_not_kept(tmp_path):
    cache = make(tmp_path)

    def compute():
        cache.purge("label1")
        return kib(1)

    assert cache.get_or_compute(key("a"), ["label1"], compute).nbytes == KIB
    assert cache.get(key("a")) is None
    assert files(tmp_path) == []


def test_threads_that_ask_for_one_key_share_one_computation(tmp_path):
    cache = make(tmp_path)
    calls, start = [], threading.Barrier(8)
    results = []

    def compute():
        calls.append(threading.get_ident())
        time.sleep(0.1)
        return Entry(kib(1, value=5), {"by": "compute"}, frozenset({"extra"}))

    def ask():
        start.wait()
        results.append(cache.get_or_compute(key("a"), ["tag"], compute))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(calls) == 1
    assert len(results) == 8
    assert all(r.tags == {"tag", "extra"} and r.meta["by"] == "compute" for r in results)


def test_a_failed_computation_fails_those_who_wait_and_is_tried_again():
    cache = make(None)
    entered, release = threading.Event(), threading.Event()
    errors = []

    def fail():
        entered.set()
        release.wait(5)
        raise RuntimeError("no such slice")

    def ask():
        try:
            cache.get_or_compute(key("a"), (), fail)
        except RuntimeError as error:
            errors.append(str(error))

    first = threading.Thread(target=ask)
    first.start()
    entered.wait(5)
    second = threading.Thread(target=ask)
    second.start()
    release.set()
    first.join()
    second.join()
    assert errors == ["no such slice"] * 2
    assert cache.get_or_compute(key("a"), (), lambda: kib(1)).nbytes == KIB


def test_a_computation_may_ask_the_cache():
    cache = make(None)

    def outer():
        return {"y": cache.get_or_compute(key("inner"), (), lambda: kib(1, value=2)).tensors["x"] + 1}

    assert int(cache.get_or_compute(key("outer"), (), outer).tensors["y"][0]) == 3


def test_many_threads_under_tight_bounds_keep_the_books(tmp_path):
    cache = make(tmp_path, memory=8 * KIB, disk=24 * KIB)
    problems = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            n = int(rng.integers(20))
            entry = cache.get_or_compute(key(n), [f"tag{n % 3}"], lambda n=n: kib(1, value=n))
            if int(entry.tensors["x"][0]) != n:
                problems.append(n)
            if rng.random() < 0.05:
                cache.purge(f"tag{int(rng.integers(3))}")

    threads = [threading.Thread(target=work, args=(s,)) for s in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert problems == []
    held = sum(e.nbytes for e in cache._memory.values())
    assert cache.stats()["memory_bytes"] == held <= 8 * KIB
    assert sum(f.stat().st_size for f in files(tmp_path)) <= 24 * KIB


OTHER_PROCESS = """
import sys
import numpy as np
import torch
from proxyprompt.io.cache import ContentCache, content_key

folder, seed = sys.argv[1], int(sys.argv[2])
cache = ContentCache(folder, memory_bytes=2048, disk_bytes=16384)
print("ready", flush=True)
sys.stdin.readline()
rng = np.random.default_rng(seed)
wrong = 0
for _ in range(300):
    n = int(rng.integers(25))
    made = {"x": torch.full((1024,), n, dtype=torch.uint8)}
    entry = cache.get_or_compute(content_key(n), [f"tag{n % 3}"], lambda made=made: made)
    wrong += int(not bool((entry.tensors["x"] == n).all()))
    if rng.random() < 0.03:
        cache.purge(f"tag{int(rng.integers(3))}")
print(wrong, cache.stats()["dropped"], cache.stats()["hits_disk"] > 0)
"""


def test_two_processes_share_a_folder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "cache"), str(seed)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # both are up: now at once
        process.stdin.write("\n")
        process.stdin.flush()
    results = [process.communicate(timeout=120)[0].split() for process in processes]
    assert results == [["0", "0", "True"]] * 2  # no wrong content, no half-written file seen, and they did share
    assert list(tmp_path.rglob("*.tmp")) == []


def test_abandoned_temporary_files_are_cleared(tmp_path):
    cache = make(tmp_path)
    cache.put(key("a"), kib(1))
    folder = files(tmp_path)[0].parent
    old, young = folder / ".old.tmp", folder / ".young.tmp"
    old.write_text("x")
    young.write_text("x")
    os.utime(old, (1000, 1000))
    make(tmp_path)
    assert not old.exists()
    assert young.exists()


def test_stats_count(tmp_path):
    cache = make(tmp_path)
    cache.get(key("a"))
    cache.put(key("a"), kib(1))
    cache.get(key("a"))
    other = make(tmp_path)
    other.get(key("a"))
    assert (cache.stats()["misses"], cache.stats()["hits_memory"]) == (1, 1)
    assert other.stats()["hits_disk"] == 1
    assert cache.stats()["disk_bytes"] == files(tmp_path)[0].stat().st_size
    cache.clear()
    assert cache.get(key("a")) is None
    assert cache.stats()["memory_bytes"] == 0


def test_negative_bounds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="memory -1"):
        make(tmp_path, memory=-1)
