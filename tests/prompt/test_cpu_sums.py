"""Sums of products of words: float32 numbers, and pairs of bfloat16 numbers where the processor multiplies them."""

import numpy as np
import pytest
import torch

from lib.prompt.cpu_sums import SUMS, as_words, join_lanes, join_rows, numbers_in, word_type
from lib.prompt.cpu_tiles import multiply, positions_of, project, tiled


def random(*shape, seed=0):
    """Numbers that bfloat16 holds exactly."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16().float()


def test_a_product_is_that_of_the_numbers(halves):
    x, weight, bias = random(1, 32, 16), random(48, 32, seed=1), torch.randn(48)
    tile, words = tiled(x).flatten().numpy(), as_words(weight)
    assert (
        (words.dtype, numbers_in(words)) == ((np.int32, 2) if halves else (np.float32, 1)) == (word_type(), 1 + halves)
    )
    for first, outer in ((0, 48), (16, 2 * SUMS)):
        made = np.zeros(outer * 16, np.float32)
        project(tile, 0, words, first, bias.numpy(), 32, outer, made, 0)
        rows = slice(first, first + outer)
        expected = (weight[rows].double() @ x[0].double() + bias[rows, None].double()).float()
        torch.testing.assert_close(torch.from_numpy(made).view(outer, 16), expected, rtol=1e-5, atol=1e-5)


def test_float32_factors_stay_float32_whatever_the_processor_has():
    """As the logits of the selective map, differences of large squares, must be."""
    x, weight = torch.randn(1, 16, 16), torch.randn(SUMS, 16)
    made = np.zeros(SUMS * 16, np.float32)
    multiply(tiled(x).flatten().numpy(), 0, weight.flatten().numpy(), 0, np.zeros(SUMS, np.float32), 16, SUMS, made, 0)
    expected = (weight.double() @ x[0].double()).float()
    torch.testing.assert_close(torch.from_numpy(made).view(SUMS, 16), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("join", [join_rows, join_lanes])
def test_joined_numbers_are_rounded_to_the_nearest_and_in_order(join):
    x = torch.cat(
        [torch.randn(60 * 16), torch.tensor([0.0, 1.0, -1.0, 3e38, -3e38, 1 + 2**-8, torch.inf, -torch.inf] * 8)]
    )
    words = np.zeros(len(x) // 2, np.int32)
    join(x.numpy(), 0, len(x) // 16, words, 0)
    found = torch.from_numpy(words).view(torch.bfloat16).float()
    if join is join_rows:  # neighbouring rows share a word
        found = found.view(-1, 16, 2).transpose(1, 2).flatten()
    finite, expected = x.isfinite(), x.bfloat16().float()
    assert torch.equal(found[~finite], x[~finite])
    away, least = ((y - x)[finite].abs() for y in (found, expected))
    assert torch.equal(away, least)  # of two that are as near, torch takes the even one


def test_tiles_and_positions_are_each_others_opposite():
    x = torch.randn(2, 8, 37)
    assert torch.equal(positions_of(tiled(x), 37), x.mT)
