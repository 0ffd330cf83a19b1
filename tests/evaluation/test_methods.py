"""Methods are the app's own parts on the supports given, and nothing is encoded twice."""

import numpy as np
import pytest
import torch
from labelled_folders import write_plain_images, write_volumes
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.baselines import copy_support_mask, nearest_feature, prototype
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.methods import Copy, EncodeOnce, FeatureMethod, ProxyPromptMethod
from proxyprompt.io.cache import ContentCache
from proxyprompt.predictor.segmenter import Segmenter, build_segmenter


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return build_segmenter(weights_dir=write_tiny_atto(tmp_path_factory.mktemp("model")))


@pytest.fixture(params=[write_plain_images, write_volumes])
def episode(request, tmp_path):
    collection = read_collection(request.param(tmp_path / "data"))
    episodes = EvalEpisodes(collection, EpisodeConfig())
    structure = next(iter(collection.structures))
    slices, _ = episodes.target(episodes.targets[0], structure)
    return episodes.supports(structure, 2, 0), slices


def counted(segmenter, monkeypatch):
    encoded = []
    encode = segmenter.foundation.encode
    monkeypatch.setattr(segmenter.foundation, "encode", lambda images: encoded.append(len(images)) or encode(images))
    return encoded


def test_proxy_prompt_is_the_segmenter_gated_by_presence_and_place(segmenter, episode):
    supports, slices = episode
    ours = ProxyPromptMethod(segmenter, classify=False, mode="slice by slice")
    masks = ours.fit(supports, seed=0).predict(slices)
    foundation = segmenter.foundation
    with torch.inference_mode():
        images, geometry = foundation.preprocess(torch.from_numpy(np.stack(supports.images)))
        laid = foundation.preprocess_masks(torch.from_numpy(np.stack(supports.masks)), geometry)
        memory = segmenter.encode_support(
            segmenter.encode(images), segmenter.encode_pair(images, laid), torch.from_numpy(supports.valid)
        )
        targets, geometry = foundation.preprocess(torch.from_numpy(slices.images(range(len(slices)))))
        decoded = segmenter.segment(segmenter.encode(targets), memory)
        expected = foundation.postprocess(decoded.mask_logits, geometry)[:, 0] > 0
        expected &= (decoded.presence_logit[:, 0] >= 0)[:, None, None]
        if slices.study.kind == "volume":  # no support's volume shows the structure on its first and last slice
            expected[[0, -1]] = False
    assert masks.shape == (len(slices), *slices.slice_shape) and masks.any()
    assert (masks == expected.numpy()).mean() > 0.999


def test_training_free_methods_are_the_baselines(segmenter, episode):
    supports, slices = episode
    images = [torch.from_numpy(image) for image in supports.images]
    masks = [torch.from_numpy(mask) for mask in supports.masks]
    targets = torch.from_numpy(slices.images(range(len(slices))))
    copied = Copy().fit(supports, seed=0).predict(slices)
    assert np.array_equal(copied[-1], copy_support_mask(masks, slices.slice_shape)[0].numpy())
    for baseline in (nearest_feature, prototype):
        expected = baseline(segmenter.foundation, targets, images, masks)[:, 0].numpy()
        shared = EncodeOnce(segmenter.foundation, memory())
        predict = FeatureMethod("x", baseline, shared).fit(supports, seed=0).predict
        assert np.array_equal(predict(slices), expected) and np.array_equal(predict(slices), expected)


def memory():
    return ContentCache(None, memory_bytes=2**28, disk_bytes=0)


def test_an_image_is_encoded_once_for_all_methods_and_draws(segmenter, episode, monkeypatch):
    supports, slices = episode
    encoded = counted(segmenter, monkeypatch)
    shared = EncodeOnce(segmenter.foundation, memory())
    served = Segmenter(foundation=shared, generator=segmenter.generator).eval()
    methods = [
        ProxyPromptMethod(served),
        *(FeatureMethod("x", label, shared) for label in (nearest_feature, prototype)),
    ]
    for seed in range(2):
        for method in methods:
            method.fit(supports, seed=seed).predict(slices)
    assert sum(encoded) == len(supports) + len(slices)


def test_encode_once_gives_what_the_foundation_gives(segmenter):
    images = torch.rand(3, 3, 128, 128)
    once, plain = EncodeOnce(segmenter.foundation, memory()), segmenter.foundation.encode(images)
    once.encode(images[1:2])
    for features in (once.encode(images), once.encode(images)):
        assert torch.allclose(features.embedding, plain.embedding, atol=1e-5)
        assert len(features.high_res) == len(plain.high_res) == 2
        for given, expected in zip(features.high_res, plain.high_res, strict=True):
            assert torch.allclose(given, expected, atol=1e-5)
    assert (once.dim, once.grid, once.name) == (32, 8, segmenter.foundation.name)
    with pytest.raises(AttributeError):
        once.nothing  # noqa: B018


def test_identity_follows_what_decides(segmenter, tmp_path):
    other = build_segmenter(weights_dir=write_tiny_atto(tmp_path, number=2, seed=9))
    larger = build_segmenter(weights_dir=write_tiny_atto(tmp_path, number=3), image_size=192)
    names = {ProxyPromptMethod(model).identity for model in (segmenter, other, larger)}
    assert len(names) == 3 and ProxyPromptMethod(segmenter).identity in names
    features = {FeatureMethod("x", prototype, model.foundation).identity for model in (segmenter, other)}
    assert len(features) == 2
