"""Attention of a training step."""

import torch
import torch.nn.functional as F

from proxyprompt.training.attention import trainable_attention


def test_it_computes_the_same_and_leaves_the_settings_as_they_were():
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed(), torch.backends.cuda.flash_sdp_enabled()
    q, k, v = (torch.randn(2, 3, 20, 8, requires_grad=True) for _ in range(3))
    plain = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v).square().sum(), (q, k, v))
    with trainable_attention(torch.device("cpu")):
        assert not torch.backends.cuda.flash_sdp_enabled()
        within = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v).square().sum(), (q, k, v))
    for a, b in zip(plain, within, strict=True):
        torch.testing.assert_close(a, b)
    after = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed(), torch.backends.cuda.flash_sdp_enabled()
    assert after == before
