"""Leave-one-out: which of the two guesses is right on the supports themselves."""

from types import SimpleNamespace

import torch

from lib.foundation.base import Features
from lib.prompt.context import SupportMemory
from lib.trust import UNKNOWN, blend, cross_validate

SIDE = 16


def scene(pairs, objects=1):
    masks = torch.zeros(pairs, objects, SIDE, SIDE)
    for k in range(pairs):
        masks[k, :, 2 : 8 + k, 3:9] = 1
    memory = SupportMemory(
        keys=torch.zeros(1, 4, pairs), values=torch.zeros(1, objects, 4, pairs), valid=torch.ones(1, objects, pairs) > 0
    )
    return Features(torch.arange(float(pairs)).reshape(pairs, 1, 1, 1)), memory, masks


def answering(masks, decoder_right, readout_right, asked=None):
    """A segmenter that is right or wrong; notes which images were asked with which supports."""

    def segment(features, memory):
        rows = features.embedding.flatten().long()
        if asked is not None:
            asked.append((rows.tolist(), memory.valid[0, 0].nonzero().flatten().tolist()))
        truth = 4 * (2 * masks[rows] - 1)
        drawn = truth[..., ::2, ::2] if decoder_right else -truth[..., ::2, ::2]
        return SimpleNamespace(mask_logits=drawn), truth if readout_right else -truth

    return segment


def test_the_one_that_is_right_is_trusted():
    features, memory, masks = scene(3)
    valid = torch.ones(3, 1, dtype=torch.bool)
    assert cross_validate(answering(masks, True, False), features, memory, valid, masks).item() < 0.5
    assert cross_validate(answering(masks, False, True), features, memory, valid, masks).item() > 0.5


def test_no_support_is_judged_with_itself_among_the_supports():
    features, memory, masks = scene(6)
    asked = []
    cross_validate(answering(masks, True, True, asked), features, memory, torch.ones(6, 1, dtype=torch.bool), masks)
    assert sorted(row for rows, _ in asked for row in rows) == list(range(6))
    assert all(not set(rows) & set(supports) and len(rows) + len(supports) == 6 for rows, supports in asked)


def test_of_one_support_nothing_is_known():
    features, memory, masks = scene(1)
    trust = cross_validate(answering(masks, True, False), features, memory, torch.ones(1, 1, dtype=torch.bool), masks)
    assert trust.tolist() == [[UNKNOWN]]


def test_objects_are_judged_each_by_those_that_show_it():
    """The second object is shown by one support alone, the third by none but empty masks."""
    features, memory, masks = scene(3, objects=3)
    valid = torch.ones(3, 3, dtype=torch.bool)
    valid[1:, 1] = False
    masks[:, 2] = 0
    trust = cross_validate(answering(masks, False, True), features, memory, valid, masks)
    assert trust[0, 0] > UNKNOWN and trust[0, 1] == UNKNOWN and trust[0, 2] == UNKNOWN


def test_a_blend_goes_from_one_to_the_other():
    drawn, prior = torch.full((1, 2, 4, 4), -30.0), torch.full((1, 2, 8, 8), 5.0)
    found = blend(drawn, prior, torch.tensor([[0.0, 1.0]]))
    assert found.shape == prior.shape and (found[:, 0] == -10).all() and (found[:, 1] == 5).all()
