"""Descriptors: what they hold, that they are computed once per content, and the background index."""

import logging
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from proxyprompt.foundation.atto import build_atto
from proxyprompt.foundation.base import Features, Foundation, Geometry
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import read_study
from proxyprompt.supports.descriptors import DescriptorIndex, describe


class Tiles(Foundation):
    """Embeds an image as its colours on a 4 x 4 grid: what a descriptor must hold can be worked out by hand."""

    name, image_size, dim = "tiles", 64, 3

    def __init__(self, padded_rows=0):
        super().__init__()
        self.padded_rows = padded_rows

    def preprocess(self, images):
        return F.interpolate(images, (64, 64)), Geometry(tuple(images.shape[-2:]), (64, 64), 64)

    def padding(self, geometry, batch, device="cpu"):
        if not self.padded_rows:
            return None
        mask = torch.zeros(batch, 4, 4, dtype=torch.bool)
        mask[:, 4 - self.padded_rows :] = True
        return mask

    def encode(self, images):
        return Features(F.avg_pool2d(images, 16))


@pytest.fixture(scope="module")
def atto():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_atto({"dim": 32, "blocks": 1, "memory_layers": 1, "feed_forward": 32}, image_size=64)


@pytest.fixture
def cache(tmp_path):
    return ContentCache(tmp_path / "cache", memory_bytes=1 << 20, disk_bytes=1 << 20)


def volume(path, slices=5, seed=0):
    """A study of colour frames is as good as any: a TIFF with several pages."""
    rng = np.random.default_rng(seed)
    pages = [Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)) for _ in range(slices)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return read_study(path)


def test_a_descriptor_is_mean_spread_and_layout():
    image = torch.rand(2, 3, 64, 64)
    grid = F.avg_pool2d(image, 16)
    mean, spread = grid.mean((2, 3)), grid.std((2, 3), unbiased=False)
    layout = torch.cat([grid[:, :, y : y + 2, x : x + 2].mean((2, 3)) for y in (0, 2) for x in (0, 2)], dim=1)
    expected = torch.cat([F.normalize(p, dim=1) for p in (mean, spread, layout)], dim=1) / 3**0.5
    assert torch.allclose(describe(Tiles(), image), expected, atol=1e-6)


def test_layout_tells_mirror_images_apart_which_pooling_alone_cannot():
    image = torch.rand(1, 3, 64, 64)
    image[..., :32] *= 0.2
    a, b = describe(Tiles(), image), describe(Tiles(), image.flip(-1))
    assert torch.allclose(a[:, :6], b[:, :6], atol=1e-5)
    assert (a[:, 6:] - b[:, 6:]).abs().max() > 0.05


def test_padding_counts_nowhere():
    image = torch.rand(1, 3, 64, 64)
    other = image.clone()
    other[..., 48:, :] = 9.0
    assert torch.allclose(describe(Tiles(1), image), describe(Tiles(1), other), atol=1e-6)
    assert not torch.allclose(describe(Tiles(), image), describe(Tiles(), other), atol=1e-2)


def test_atto_descriptors_have_length_one_and_do_not_depend_on_the_batch(atto):
    images = np.random.default_rng(0).random((5, 3, 40, 60), dtype=np.float32)
    together = describe(atto, images)
    assert together.shape == (5, 6 * atto.dim)
    assert torch.allclose(together.norm(dim=1), torch.ones(5), atol=1e-5)
    alone = torch.cat([describe(atto, images[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-4)
    assert not together.requires_grad


def test_a_single_image_without_batch_is_refused(atto):
    with pytest.raises(ValueError, match=r"\(3, 20, 20\)"):
        describe(atto, np.zeros((3, 20, 20), np.float32))


def test_each_slice_is_described_once(atto, cache, tmp_path, monkeypatch):
    study = volume(tmp_path / "a.tif")
    index = DescriptorIndex(atto, cache)
    seen = []
    encode = type(atto).encode
    monkeypatch.setattr(type(atto), "encode", lambda self, x: seen.append(len(x)) or encode(self, x))
    some = index.of(study, [3, 1])
    assert sum(seen) == 2
    rest = index.of(study)
    assert sum(seen) == 5
    assert torch.equal(rest[[3, 1]], some)
    assert torch.allclose(rest, describe(atto, study.images(range(5))), atol=1e-4)
    seen.clear()
    assert torch.equal(index.of(study, [1, 1, 4]), rest[[1, 1, 4]])
    assert seen == []
    assert index.known(study.content_hash, [0, 4]) is not None
    with pytest.raises(IndexError, match=r"\[5\]"):
        index.of(study, [5])


def test_another_process_finds_them_by_content_and_weights(atto, tmp_path):
    def open_cache():
        return ContentCache(tmp_path / "cache", memory_bytes=1 << 20, disk_bytes=1 << 20)

    study = volume(tmp_path / "a.tif")
    copy = tmp_path / "another-name.tif"
    copy.write_bytes((tmp_path / "a.tif").read_bytes())
    atto.weights_sha256 = "aa"
    try:
        rows = DescriptorIndex(atto, open_cache()).of(study)
        again = DescriptorIndex(lambda: atto, open_cache())
        assert torch.equal(again.known(read_study(copy).content_hash, range(5)), rows)
        atto.weights_sha256 = "bb"
        assert again.known(study.content_hash, range(5)) is None
    finally:
        atto.weights_sha256 = ""
    random_weights = DescriptorIndex(atto, open_cache())
    random_weights.of(study)
    assert DescriptorIndex(atto, open_cache()).known(study.content_hash, [0]) is None


def test_they_go_with_their_tag(atto, cache, tmp_path):
    study = volume(tmp_path / "a.tif")
    index = DescriptorIndex(atto, cache)
    index.of(study, [0], tags=["label1"])
    index.of(study, [1])
    cache.purge("label1")
    assert index.known(study.content_hash, [0]) is None


def test_threads_that_index_one_study_lose_no_rows(atto, cache, tmp_path):
    study = volume(tmp_path / "a.tif", slices=12)
    index = DescriptorIndex(atto, cache)
    threads = [threading.Thread(target=index.of, args=(study, range(i, 12, 4))) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    rows = index.known(study.content_hash, range(12))
    assert torch.allclose(rows, describe(atto, study.images(range(12))), atol=1e-4)


def test_background_indexes_all_and_survives_a_bad_study(atto, cache, tmp_path, caplog):
    studies = [volume(tmp_path / f"{i}.tif", seed=i) for i in range(3)]
    index = DescriptorIndex(atto, cache)

    def bad():
        raise ValueError("truncated file")

    with caplog.at_level(logging.INFO):
        index.index_in_background({"bad": bad} | {s.content_hash: partial(index.of, s) for s in studies})
        assert index.wait(30)
    assert all(index.known(s.content_hash, range(5)) is not None for s in studies)
    assert "truncated file" in caplog.text
    assert "indexed 4/4 studies" in caplog.text
    index.stop()


def test_stop_ends_the_thread_after_the_job_at_hand(atto, cache):
    index = DescriptorIndex(atto, cache)
    started, release, ran = threading.Event(), threading.Event(), []

    def first():
        started.set()
        release.wait(10)
        ran.append("first")

    index.index_in_background({"first": first, "second": lambda: ran.append("second")})
    assert started.wait(10)
    index.index_in_background({"second": lambda: ran.append("second, again")})
    assert index._worker._total == 2
    assert not index.wait(0.05)
    worker = index._worker
    stopper = threading.Thread(target=index.stop)
    stopper.start()
    while not worker._stopping:
        time.sleep(0.01)
    release.set()
    stopper.join(10)
    assert ran == ["first"]
    assert not worker._thread.is_alive()
    index.index_in_background({"third": lambda: ran.append("third")})  # starts again
    assert index.wait(10)
    assert ran == ["first", "third"]
    index.stop()
