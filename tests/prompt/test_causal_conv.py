"""The compiled convolution against torch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.prompt.causal_conv import causal_conv_silu, reference_conv_silu


def draw(batch, length, channels, *, taps=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((batch, length, channels), (channels, 1, taps), (channels,))
    return [(3 * torch.randn(shape, generator=g)).requires_grad_() for shape in shapes]


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 40),
    channels=st.sampled_from([16, 48, 96]),
    reverse=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_compiled_convolution_agrees_with_torch(batch, length, channels, reverse, seed):
    tensors = draw(batch, length, channels, seed=seed)
    weight = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(seed + 1))
    results = []
    for function in (causal_conv_silu, reference_conv_silu):
        y = function(*tensors, reverse=reverse)
        results.append((y, *torch.autograd.grad((y * weight).sum(), tensors)))
    for name, found, expected in zip(["y", "x", "weight", "bias"], *results, strict=True):
        scale = expected.abs().max().item() + 1.0
        torch.testing.assert_close(
            found / scale, expected / scale, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_large_values_saturate():
    x = torch.tensor([-1e4, -90.0, -1e-6, 0.0, 1e-6, 90.0, 1e4])[None, :, None].expand(1, 7, 16)
    weight = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(16, 1, 4)
    found = causal_conv_silu(x, weight, torch.zeros(16))
    torch.testing.assert_close(found, torch.nn.functional.silu(x), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize(("channels", "taps"), [(7, 4), (16, 3)])
def test_shapes_without_a_kernel_run_by_torch(channels, taps):
    x, weight, bias = draw(2, 9, channels, taps=taps)
    expected = torch.nn.functional.conv1d(x.mT, weight, bias, groups=channels, padding=taps - 1)[..., :9].mT
    torch.testing.assert_close(causal_conv_silu(x, weight, bias), torch.nn.functional.silu(expected))
