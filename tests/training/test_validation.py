"""The score by which versions are judged: held-out studies support each other, a perfect model scores 1."""

from dataclasses import replace

import pytest
import torch
from tiny_training import STRUCTURES, make_bench
from torch import nn
from torch.nn import functional as F

from proxyprompt.foundation.base import Decoded, Features
from proxyprompt.training.cases import read_slices
from proxyprompt.training.episode_model import ProxyPromptEpisodeModel
from proxyprompt.training.validation import Validation, choose_supports, mean_scores

NAMES = list(STRUCTURES)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"), groups=6)


@pytest.fixture(scope="module")
def slices(bench):
    return [s for case in bench.cases() for s in read_slices(case, NAMES, most=4)]


class Oracle(nn.Module):
    """A segmenter that reads the structures off the brightness (ring 130, core 200), and notes what supported it."""

    def __init__(self, foundation, *, present=5.0):
        super().__init__()
        self.foundation, self.present, self.supported = foundation, present, []

    def encode(self, images):
        return Features(F.avg_pool2d(images, 16), (images,))

    def encode_pair(self, images, masks):
        return masks.mean((-2, -1), keepdim=True)[:, :, None]

    def encode_support(self, features, contexts, valid):
        self.supported.append((len(valid), contexts.shape[1], bool((contexts > 0).any())))
        return valid

    def segment(self, features, memory):
        foundation = self.foundation
        gray = 255 * (features.high_res[0] * foundation.std + foundation.mean)[:, :1]
        logits = torch.cat([gray - 95, gray - 165], 1)
        there = torch.full(logits.shape[:2], self.present)
        return Decoded(logits, there, there, there)


def validation(held, spare, supports=4, **more):
    return Validation(held, spare, NAMES, [0, 1], supports=supports, hash_of=lambda group: f"#{group}", **more)


def oracle(bench, **options):
    return ProxyPromptEpisodeModel(Oracle(bench.segmenter().foundation, **options))


def test_a_model_that_sees_it_all_scores_one_for_each_group(bench, slices):
    model = oracle(bench)
    scores = validation(slices[:4], slices[4:], supports=3).scores(model)
    assert set(scores) == set(NAMES) and set(scores["ring"]) == {"#p0", "#p1", "#p2", "#p3"}
    assert min(mean_scores(scores).values()) > 0.97
    assert model.segmenter.supported == [(3, 2, True)] * 4, "the three others, and nothing of the training studies"
    more = oracle(bench)
    validation(slices[:4], slices[4:], supports=4).scores(more)
    assert more.segmenter.supported == [(4, 2, True)] * 4, "as many as a request has: one of a training study"
    few = oracle(bench)
    validation(slices[:4], slices[4:], supports=4, enough=1).scores(few)
    assert few.segmenter.supported == [(3, 2, True)] * 4, "for what does not need more"
    validation(slices[:1], slices[4:], supports=4, enough=1).scores(few)
    assert few.segmenter.supported[4:] == [(2, 2, True)], "but one cannot support itself"


def test_presence_decides_as_it_does_when_served(bench, slices):
    scores = validation(slices[:3], []).scores(oracle(bench, present=-1.0))
    assert mean_scores(scores) == {"ring": 0.0, "core": 0.0}


def test_training_studies_support_where_too_few_are_held_out(bench, slices):
    model = oracle(bench)
    scores = validation(slices[:1], slices[1:], supports=2).scores(model)
    assert set(scores["core"]) == {"#p0"} and model.segmenter.supported == [(2, 2, True)]
    assert validation([], slices).scores(model) == {}


def test_held_out_studies_of_different_kinds_are_scored_too(bench, slices):
    def only(n, s):
        kind = torch.tensor([n == 0, n == 1])
        return replace(s, masks=s.masks * kind[:, None, None], declared=kind, shown=s.shown & kind)

    held = [only(0, slices[0]), *(only(1, s) for s in slices[1:4])]
    scores = validation(held, slices[4:]).scores(oracle(bench))
    assert set(scores["ring"]) == {"#p0"} and set(scores["core"]) == {"#p1", "#p2", "#p3"}


def test_supports_are_of_many_groups_and_show_each_structure(slices):
    assert choose_supports(slices, [0, 1], 3) == [0, 1, 2]
    same = [slices[0], slices[0], slices[1]]
    assert choose_supports(same, [0], 2) == [0, 2]
    assert choose_supports(slices, [], 3) == []
