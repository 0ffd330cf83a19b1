"""Clicks and boxes are decoded with a first mask of theirs."""

import pytest
import torch
from tiny_atto import write_tiny_atto

from proxyprompt.extensions.refinement import GAIN, SURE, mask_prompt, refined
from proxyprompt.foundation.base import Points, Prompts
from proxyprompt.predictor.segmenter import build_segmenter


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return build_segmenter(weights_dir=write_tiny_atto(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def said(segmenter):
    """(features, support, clicks, box)."""
    foundation = segmenter.foundation
    random = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, foundation.image_size, foundation.image_size, generator=random)
    masks = (torch.rand(1, 1, *images.shape[2:], generator=random) > 0.5).float()
    with torch.no_grad():
        features = foundation.encode(images)
        context = segmenter.encode_pair(images[:1], masks)
        support = segmenter.encode_support(features[:1], context, torch.ones(1, 1, dtype=torch.bool))
    clicks = Points(torch.tensor([[[[20.0, 30.0]]]]), torch.ones(1, 1, 1, dtype=torch.int32))
    return features[1:], support, clicks, torch.tensor([[[8.0, 8.0, 40.0, 48.0]]])


@pytest.fixture
def decoded(segmenter, said):
    """Prompts -> logits, by the foundation itself."""
    return lambda prompts: segmenter.foundation.decode(said[0], prompts).mask_logits


@torch.no_grad()
def test_a_click_is_decoded_with_what_the_proxy_draws_without_and_with_it(segmenter, said, decoded):
    features, support, clicks, _ = said
    proxy = segmenter.generator(features.embedding, support).tokens
    without, with_click = decoded(Prompts(proxy=proxy)), decoded(Prompts(proxy=proxy, points=clicks))
    expected = decoded(Prompts(proxy=proxy, points=clicks, masks=mask_prompt((without + with_click) / 2)))
    found = segmenter.segment(features, support, clicks, refine=True).mask_logits
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, with_click)
    torch.testing.assert_close(segmenter.segment(features, support, clicks).mask_logits, with_click)


@torch.no_grad()
def test_a_box_is_decoded_with_what_it_draws_alone(segmenter, said, decoded):
    features, support, _, box = said
    proxy = segmenter.generator(features.embedding, support).tokens
    masks = mask_prompt(decoded(Prompts(boxes=box)))
    found = segmenter.segment(features, support, None, box, refine=True).mask_logits
    torch.testing.assert_close(found, decoded(Prompts(proxy=proxy, boxes=box, masks=masks)))
    alone = segmenter.segment(features, None, None, box, refine=True).mask_logits
    torch.testing.assert_close(alone, decoded(Prompts(boxes=box, masks=masks)))


@torch.no_grad()
def test_the_proxy_alone_and_clicks_alone_are_decoded_once(segmenter, said, decoded):
    features, support, clicks, _ = said
    calls = []

    def decode(prompts):
        calls.append(prompts)
        return segmenter.foundation.decode(features, prompts)

    proxy = segmenter.generator(features.embedding, support).tokens
    for prompts in (Prompts(proxy=proxy), Prompts(points=clicks)):
        calls.clear()
        torch.testing.assert_close(refined(decode, prompts).mask_logits, decoded(prompts))
        assert calls == [prompts]


def test_a_mask_prompt_is_as_sure_as_those_of_training_at_most():
    assert mask_prompt(torch.tensor([-100.0, -1.0, 0.0, 3.0, 100.0])).tolist() == [-SURE, -GAIN, 0, 3 * GAIN, SURE]
