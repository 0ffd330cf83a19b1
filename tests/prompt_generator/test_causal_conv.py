"""The convolution, channels last, against torch's own along a sequence."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyprompt.prompt_generator.ops.causal_conv import causal_conv_silu


def along_the_sequence(x, weight, bias, *, reverse):
    x = x.flip(1) if reverse else x
    y = F.silu(F.conv1d(F.pad(x.mT, (weight.shape[2] - 1, 0)), weight, bias, groups=x.shape[2])).mT
    return y.flip(1) if reverse else y


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 40),
    channels=st.sampled_from([7, 16, 96]),
    taps=st.sampled_from([3, 4]),
    reverse=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_are_those_of_a_convolution_along_the_sequence(
    batch, length, channels, taps, reverse, seed
):
    g = torch.Generator().manual_seed(seed)
    shapes = ((batch, length, channels), (channels, 1, taps), (channels,))
    tensors = [(3 * torch.randn(shape, generator=g)).requires_grad_() for shape in shapes]
    weight, results = torch.randn(shapes[0], generator=g), []
    for function in (causal_conv_silu, along_the_sequence):
        y = function(*tensors, reverse=reverse)
        results.append((y, *torch.autograd.grad((y * weight).sum(), tensors)))
    for name, found, expected in zip(["y", "x", "weight", "bias"], *results, strict=True):
        scale = expected.abs().max().item() + 1.0
        torch.testing.assert_close(
            found / scale, expected / scale, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("reverse", [False, True])
def test_no_position_sees_what_comes_after_it(reverse):
    x, weight, bias = torch.randn(1, 9, 8), torch.randn(8, 1, 4), torch.randn(8)
    changed = x.clone()
    changed[:, 4] += 1
    same = torch.isclose(*(causal_conv_silu(y, weight, bias, reverse=reverse) for y in (x, changed))).all((0, 2))
    assert same.tolist() == [not (4 - 3 <= i <= 4 if reverse else 4 <= i <= 4 + 3) for i in range(9)]
