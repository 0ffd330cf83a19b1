"""The forward pass of a step: each target with its own supports gives what the served path gives for them."""

import pytest
import torch
from tiny_training import make_bench

from proxyprompt.foundation.base import Features
from proxyprompt.training.cases import read_slices
from proxyprompt.training.episode_model import ProxyPromptEpisodeModel
from proxyprompt.training.episodes import EpisodeSource


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"), groups=4)


@pytest.fixture(scope="module")
def episodes(bench):
    slices = [s for case in bench.cases() for s in read_slices(case, ["core", "ring"], most=1)]
    source = EpisodeSource(slices, ["core", "ring"], members=4, supports=3, objects=2, augmented=False)
    segmenter = bench.segmenter()
    return next(e for e in (source.draw(step, segmenter.foundation) for step in range(20)) if e.asked.shape[1] == 2)


@torch.no_grad()
def test_each_target_is_prompted_by_its_own_supports(bench, episodes):
    segmenter = bench.segmenter()
    together = ProxyPromptEpisodeModel(segmenter)(episodes)
    for target, sample in enumerate(episodes.samples):
        chosen = [episodes.samples[int(i)] for i in episodes.supports[target].nonzero()]
        images, masks = torch.stack([p.image for p in chosen]), torch.stack([p.masks for p in chosen])
        memory = segmenter.encode_support(
            segmenter.encode(images),
            segmenter.encode_pair(images, masks),
            torch.ones(masks.shape[:2], dtype=torch.bool),
        )
        alone = segmenter.segment(segmenter.encode(sample.image[None]), memory)
        torch.testing.assert_close(together.mask_logits[target], alone.mask_logits[0], rtol=1e-3, atol=1e-3)


def test_saving_memory_changes_no_gradient(bench, episodes):
    gradients = []
    for save_memory in (False, True):
        segmenter = bench.segmenter().requires_grad_(True)
        ProxyPromptEpisodeModel(segmenter, save_memory=save_memory)(episodes).mask_logits.square().mean().backward()
        gradients.append(segmenter.foundation.model.image_encoder.neck.lateral16.weight.grad)
    torch.testing.assert_close(*gradients, rtol=2e-2, atol=2e-3)


def test_frozen_features_are_computed_once(bench, episodes):
    segmenter = bench.segmenter()
    model, calls = ProxyPromptEpisodeModel(segmenter, frozen_encoder=True), []
    encode = segmenter.foundation.encode
    segmenter.foundation.encode = lambda images: calls.append(len(images)) or encode(images)
    first = model.features(episodes.samples)
    again = model.features(episodes.samples)
    assert isinstance(first, Features) and torch.equal(first.embedding, again.embedding)
    assert calls == [1] * len(episodes.samples)
