"""The pixel classifier against a regression written out pixel by pixel, and what is mixed of it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from proxyprompt.extensions import pixel_classifier as module
from proxyprompt.extensions.pixel_classifier import (
    LOGIT,
    OFFSETS,
    SHARES,
    SINGLE,
    PixelClassifier,
    best_mixture,
    can_classify,
    dice_of_mixtures,
    fit,
    moments,
)
from proxyprompt.foundation.base import Features

SIDE = 24


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    fine = tuple(torch.randn(2, c, side, side, generator=generator).half() for c, side in ((3, SIDE), (4, 12), (5, 6)))
    return Features(torch.randn(2, 7, 3, 3, generator=generator), fine=fine)


@pytest.fixture
def masks():
    """Two structures on 48 x 48 pixels, the second small, and one that is not there."""
    masks = torch.zeros(2, 3, 48, 48)
    masks[:, 0, 5:30, 8:40] = 1
    masks[:, 1, 20:25, 30:36] = 1
    return masks


def columns(features, image):
    maps = [F.interpolate(x.float(), (SIDE, SIDE), mode="bilinear", align_corners=False)[image] for x in features.fine]
    return torch.cat(maps).flatten(1).mT.double().numpy()  # (pixels, F)


def by_hand(features, masks, structure):
    """Ridge regression with an unpenalised bias, the design matrix written out."""
    x, y, w = [], [], []
    for image in range(2):
        inside = F.adaptive_avg_pool2d(masks[image : image + 1], SIDE)[0, structure].flatten().double().numpy()
        weight = np.ones_like(inside)
        if inside.any():
            weight += inside * (np.sqrt(max(1.0, (1 - inside.mean()) / inside.mean())) - 1)
        x.append(columns(features, image))
        y.append(2 * inside - 1)
        w.append(weight / weight.sum())
    x, y, w = np.concatenate(x), np.concatenate(y), np.concatenate(w) / 2
    mean, middle = w @ x, w @ y
    deviation = np.sqrt(w @ (x - mean) ** 2) + 1e-4
    z = (x - mean) / deviation
    weights = np.linalg.solve(
        (z * w[:, None]).T @ z + module.RIDGE * np.eye(z.shape[1]), (z * w[:, None]).T @ (y - middle)
    )
    weights = weights / deviation
    return weights, middle - weights @ mean


def test_it_is_weighted_ridge_regression(features, masks):
    described = torch.stack([moments(features[k : k + 1], masks[k : k + 1]) for k in range(2)]).sum(0)
    fitted = fit(described)
    weights, bias = fitted.weights, fitted.bias
    assert weights.shape == (3, 12) and bias.shape == (3,)
    for structure in range(3):
        expected, offset = by_hand(features, masks, structure)
        np.testing.assert_allclose(weights[structure], expected, atol=2e-4)
        assert bias[structure].item() == pytest.approx(offset, abs=2e-4)
    assert bias[2].item() == pytest.approx(-1, abs=1e-3)  # of what is nowhere it says so everywhere


def test_the_score_is_the_product_with_every_pixels_features(features):
    generator = torch.Generator().manual_seed(1)
    weights, bias = torch.randn(2, 12, generator=generator), torch.tensor([0.3, -0.2])
    classifier = PixelClassifier(weights, bias, torch.ones(2), torch.zeros(2))
    score = classifier.score(features)
    for image in range(2):
        expected = columns(features, image) @ classifier.weights.double().numpy().T + classifier.bias.numpy()
        np.testing.assert_allclose(score[image].flatten(1).mT, expected, atol=1e-3)
    torch.testing.assert_close(classifier.only(1).score(features), score[:, 1:])


def test_what_lies_in_the_features_is_found(masks):
    """A map that shows the structure, among noise: learnt on one image, found in another."""
    generator = torch.Generator().manual_seed(2)
    shown = F.adaptive_avg_pool2d(masks[:, :1].roll(3, -1), SIDE)
    fine = torch.cat([shown, torch.randn(2, 6, SIDE, SIDE, generator=generator)], 1)
    features = Features(torch.randn(2, 2, 6, 6, generator=generator), fine=(fine.half(),))
    score = fit(moments(features[:1], masks[:1, :1].roll(3, -1))).score(features[1:])
    assert (((score > 0) == (shown[1:] > 0.5)).float().mean()).item() > 0.99


def test_shares(features):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 2, 12, 12, generator=generator)
    made = torch.randn(2, 12, generator=generator), torch.zeros(2)
    offset = torch.tensor([0.5, -1.0])
    none, mixed, whole = (PixelClassifier(*made, torch.full((2,), share), offset) for share in (0.0, 0.25, 1.0))
    offset = offset[None, :, None, None]
    torch.testing.assert_close(none.mix(logits, features), logits + offset)
    score = F.interpolate(whole.score(features), (12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(whole.mix(logits, features), LOGIT * score + offset)
    torch.testing.assert_close(mixed.mix(logits, features), 0.75 * logits + 0.25 * LOGIT * score + offset)


def test_the_supports_say_how_much(masks):
    truth = F.adaptive_avg_pool2d(masks[:1, :2], SIDE)
    right, wrong = 8 * truth - 4, 4 - 8 * truth
    both = torch.cat([right[:, :1], wrong[:, 1:]], 1)
    dice = dice_of_mixtures(both, truth * 2 - 1, masks[:1, :2])
    assert dice.shape == (len(SHARES), len(OFFSETS), 2)
    share, offset = best_mixture([dice[..., 0]])
    assert share == 0.0 and abs(offset) <= 0.5  # the decoder is right, but for the corners: nothing is mixed in
    assert best_mixture([dice[..., 1]])[0] > 0.5
    assert best_mixture([]) == SINGLE


def test_thin_structures_get_more(masks):
    """Every fourth of 48 columns, of which every other one of 24 has half: by hand, its pixels have a logit of -1.5."""
    masks = torch.zeros(1, 1, 48, 48)
    masks[..., ::4] = 1
    share = F.adaptive_avg_pool2d(masks, SIDE)
    dice = dice_of_mixtures(8 * share - 4.5, share.new_zeros(share.shape), masks)
    assert best_mixture([dice[..., 0]]) == (0.0, 2.0)
    assert dice[0, OFFSETS.index(0.0)].item() == 0.0


def test_the_smallest_share_that_is_as_good_as_the_best():
    """By hand: the best mean is that of the last share; what it gains on one is as much as it varies."""
    zeros, gains = [0.5, 0.5, 0.5, 0.5], [0.1, 0.14, 0.06, 0.1]

    def dice(base, gain):
        found = torch.full((len(SHARES), len(OFFSETS)), base)
        found[-1] += gain
        return found

    sure = [dice(a, b) for a, b in zip(zeros, gains, strict=True)]
    assert best_mixture(sure) == (SHARES[-1], 0.0)  # 0.1 on the mean, standard error 0.016
    doubtful = [dice(a, b) for a, b in zip(zeros, (0.3, -0.2, 0.1, -0.1), strict=True)]
    assert best_mixture(doubtful) == (0.0, 0.0)  # 0.025 on the mean, standard error 0.11
    assert best_mixture(sure[:1]) == (SHARES[-1], 0.0)  # of a single one nothing is known but the best


def test_without_fine_maps_there_is_none(features):
    assert can_classify(features) and not can_classify(Features(features.embedding, features.high_res))
