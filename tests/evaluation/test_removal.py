"""Parts taken away at inference."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from labelled_folders import write_plain_images
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.methods import ProxyPromptMethod
from proxyprompt.evaluation.removal import REMOVALS, Removal
from proxyprompt.extensions import PAPER
from proxyprompt.predictor.segmenter import build_segmenter


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return build_segmenter(weights_dir=write_tiny_atto(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    episodes = EvalEpisodes(
        read_collection(write_plain_images(tmp_path_factory.mktemp("a") / "rings")), EpisodeConfig()
    )
    slices, _ = episodes.target(episodes.targets[0], "label_2")
    return episodes.supports("label_2", 2, 0), slices


def test_the_proxy_alone_is_what_ships_where_there_is_nothing_else(segmenter, episode):
    supports, slices = episode
    shipped = ProxyPromptMethod(segmenter, extensions=PAPER).fit(supports, seed=0).predict(slices)
    alone = Removal("proxyprompt:p-only", segmenter).fit(supports, seed=0).predict(slices)
    assert shipped.any() and (shipped != alone).mean() < 1e-3


def test_each_removal_changes_the_mask_and_says_so(segmenter, episode):
    supports, slices = episode
    methods = [Removal(name, segmenter) for name in REMOVALS]
    assert len({method.identity for method in methods}) == len(REMOVALS)
    logits = []
    support = methods[0]._encode(supports)
    with torch.inference_mode():
        images, _ = segmenter.foundation.preprocess(torch.from_numpy(slices.images([0])))
        features = segmenter.encode(images)
        for prompts in REMOVALS.values():
            logits.append(segmenter.foundation.decode(features, prompts(segmenter, features, support)).mask_logits)
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in pairwise(logits))


def test_without_the_proxy_the_supports_say_nothing(segmenter, episode):
    supports, slices = episode
    inverted = type(supports)(**{**vars(supports), "masks": [~mask for mask in supports.masks]})
    method = Removal("proxyprompt:unprompted", segmenter)
    one, other = (method.fit(chosen, seed=0).predict(slices) for chosen in (supports, inverted))
    assert np.array_equal(one, other)
