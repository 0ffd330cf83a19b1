"""Filter responses against scipy's, and what they must not depend on."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from lib.prompt.filters import CHANNELS, SCALES, filter_responses

OF_CHANNEL = 2 + 5 * len(SCALES)


def picture(seed=0, side=96):
    return torch.from_numpy(np.random.default_rng(seed).random((1, 3, side, side), dtype=np.float32))


def standardised(x):
    return (x - x.mean()) / x.std()


@pytest.mark.parametrize("place", range(2))
def test_mean_slope_and_curvature_are_those_of_scipy(place):
    """The two finest scales; wider ones are computed on a smaller picture."""
    image = picture()
    found = filter_responses(image)[0, 1 * OF_CHANNEL + 2 + 5 * place :][:4].numpy()
    x, scale = standardised(image[0, 1].numpy().astype(np.float64)), SCALES[place]
    mean = ndimage.gaussian_filter(x, scale, truncate=3, mode="nearest")
    down, across = np.gradient(mean)
    (yy, yx), (_, xx) = (np.gradient(g) for g in (down, across))
    half = np.sqrt((xx - yy) ** 2 / 4 + yx**2)
    for got, expected in zip(
        found, [mean, np.hypot(down, across), (xx + yy) / 2 + half, (xx + yy) / 2 - half], strict=True
    ):
        inner = (slice(12, -12), slice(12, -12))
        assert np.corrcoef(got[inner].ravel(), expected[inner].ravel())[0, 1] > 0.99


def test_wide_means_agree_with_scipy_where_they_are_smooth():
    image = picture(side=160)
    found = filter_responses(image)[0, 2 + 5 * (len(SCALES) - 1)].numpy()
    expected = ndimage.gaussian_filter(standardised(image[0, 0].numpy()), SCALES[-1], truncate=3, mode="nearest")
    inner = (slice(32, -32), slice(32, -32))  # beside the border, where a wider border is repeated
    assert np.corrcoef(found[inner].ravel(), expected[inner].ravel())[0, 1] > 0.98


@pytest.mark.parametrize("size", [(64, 64), (50, 131), (129, 16), (5, 7)])
def test_gradients_do_not_change_what_is_seen(size):
    coloured = torch.from_numpy(np.random.default_rng(0).random((2, 3, *size), dtype=np.float32))
    for image in (coloured, coloured[:, :1].expand(-1, 3, -1, -1)):
        found = filter_responses(image.clone().requires_grad_())
        assert found.requires_grad
        torch.testing.assert_close(filter_responses(image), found.detach(), rtol=1e-4, atol=1e-4)


def test_brightness_and_contrast_of_the_image_count_for_nothing():
    image = picture()
    torch.testing.assert_close(filter_responses(3 * image + 5), filter_responses(image), rtol=1e-2, atol=1e-2)


def test_a_gray_image_is_one_channel_three_times():
    """And what is computed once is what each channel by itself gives."""
    gray = picture()[:, :1].expand(-1, 3, -1, -1)
    found = filter_responses(gray)
    coloured = filter_responses(gray + torch.tensor([0.0, 1e-7, 0.2])[None, :, None, None] * picture(1)[:, :1])
    assert found.shape == (1, CHANNELS, 96, 96)
    torch.testing.assert_close(found[:, :OF_CHANNEL], found[:, 2 * OF_CHANNEL : 3 * OF_CHANNEL])
    torch.testing.assert_close(found[:, :OF_CHANNEL], coloured[:, :OF_CHANNEL])
    assert not found[:, 3 * OF_CHANNEL :].any() and coloured[:, 3 * OF_CHANNEL :].any()


@pytest.mark.parametrize("side", [1, 5, 24, 64])
def test_small_and_flat_pictures_give_finite_numbers(side):
    assert filter_responses(torch.ones(2, 3, side, side)).isfinite().all()
    assert filter_responses(picture(side=side)).isfinite().all()


def test_each_picture_of_a_batch_stands_alone():
    both = torch.cat([picture(0), picture(1)])
    torch.testing.assert_close(filter_responses(both)[1:], filter_responses(both[1:]))


def test_what_inference_left_behind_can_be_trained_with():
    with torch.inference_mode():
        filter_responses(picture())
    image = picture().requires_grad_()
    filter_responses(image).square().sum().backward()
    assert image.grad.any()
