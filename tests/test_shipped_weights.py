"""The weights in the repository: the proxy prompt lives, and it alone leads to better masks than the supports' own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.baselines import nearest_feature
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.methods import Copy, FeatureMethod
from proxyprompt.evaluation.removal import Removal
from proxyprompt.foundation.base import Features
from proxyprompt.metrics.segmentation import overlap
from proxyprompt.predictor.segmenter import build_segmenter
from proxyprompt.pretraining.trainer import request_share

MODEL = Path(__file__).resolve().parents[1] / "apps" / "proxyprompt" / "model"
STRUCTURES = ("head", "disc")


@pytest.fixture(scope="module")
def segmenter():
    return build_segmenter(weights_dir=MODEL)


@pytest.fixture(scope="module")
def episodes(drawn_samples):
    """The labelled sample studies, which are drawn by other code than pretraining's."""
    return EvalEpisodes(read_collection(drawn_samples), EpisodeConfig(supports_share=0.7, limit_targets=8))


def encoded(segmenter, selection):
    """Features, images and masks of the supports, as the network sees them."""
    foundation, parts = segmenter.foundation, []
    for image, mask in zip(selection.images, selection.masks, strict=True):
        prepared, geometry = foundation.preprocess(torch.from_numpy(image)[None])
        parts.append((prepared, foundation.preprocess_masks(torch.from_numpy(mask)[None], geometry)))
    images, masks = (torch.cat(x) for x in zip(*parts, strict=True))
    return Features.join([segmenter.encode(image[None]) for image in images]), images, masks


@torch.inference_mode()
@pytest.mark.parametrize("what", ["supports", "masks", "targets"])
def test_the_proxy_prompt_depends_on_what_it_is_made_of(segmenter, episodes, what):
    chosen = episodes.supports("head", 3, 0)
    features, images, masks = encoded(segmenter, chosen)
    other = encoded(segmenter, episodes.supports("disc", 2, 0))
    valid = torch.ones(1, 1, dtype=torch.bool)

    def prompt(support, mask, target):
        context = segmenter.encode_pair(images[support : support + 1], mask)
        encoding = segmenter.encode_support(features[support : support + 1], context, valid)
        return segmenter.generator(target, encoding).tokens

    own = features.embedding[2:3]
    if what == "supports":
        tokens = [prompt(k, masks[k : k + 1], own) for k in range(2)]
    elif what == "masks":
        tokens = [prompt(0, mask, own) for mask in (masks[:1], 1 - masks[:1], torch.roll(masks[:1], 60, -1))]
    else:
        targets = [features.embedding[1:2], own, other[0].embedding[:1]]
        tokens = [prompt(0, masks[:1], target) for target in targets]
    assert request_share(torch.cat(tokens)) > 0.05


def dice(method, episodes, structure, *, supports=2):
    """Mean over the targets."""
    learned = method.fit(episodes.supports(structure, supports, 0), seed=0)
    found = []
    for case in episodes.targets_of(structure):
        slices, truth = episodes.target(case, structure)
        shown = np.flatnonzero(truth.any(axis=(1, 2)))
        slices = type(slices)(slices.study, [slices.indices[row] for row in shown])
        found.append(overlap(learned.predict(slices), truth[shown]).dice)
    return float(np.mean(found))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_alone_it_leads_to_better_masks_than_the_supports_laid_on_and_their_nearest_features(
    segmenter, episodes, structure
):
    foundation = segmenter.foundation
    alone, without = (
        dice(Removal(f"proxyprompt:{name}", segmenter), episodes, structure) for name in ("p-only", "unprompted")
    )
    copied = dice(Copy(), episodes, structure)
    nearest = dice(FeatureMethod("nearest", nearest_feature, foundation), episodes, structure)
    assert alone > max(copied, nearest), (alone, copied, nearest)
    assert alone > without + 0.3, (alone, without)
