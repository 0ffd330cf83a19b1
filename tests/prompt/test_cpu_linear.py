"""Large products by oneDNN are those of torch, and only where they may be."""

import pytest
import torch
import torch.nn.functional as F

from lib.prompt.cpu_linear import Linear, linear

ROWS, INNER, OUTER = 300, 250, 1000  # more than 2^26 multiplications


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_large_product_is_that_of_float64(turned, biased):
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, ROWS, INNER, generator=g), torch.randn(OUTER, INNER, generator=g)
    if turned:  # the same numbers, stored column by column
        x, weight = x.mT.contiguous().mT, weight.mT.contiguous().mT
    bias = torch.randn(OUTER, generator=g) if biased else None
    with torch.inference_mode():
        found = linear(x, weight, bias)
    expected = F.linear(x.double(), weight.double(), bias.double() if biased else None)
    assert found.shape == (2, ROWS, OUTER)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_gradients_pass():
    layer, x = Linear(INNER, OUTER), torch.randn(2 * ROWS, INNER)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(OUTER, -1), rtol=1e-4, atol=1e-3)


def test_autocast_and_other_types_are_left_to_torch():
    layer, x = Linear(INNER, OUTER), torch.randn(2 * ROWS, INNER)
    with torch.inference_mode():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer.double()(x.double()).dtype == torch.float64
