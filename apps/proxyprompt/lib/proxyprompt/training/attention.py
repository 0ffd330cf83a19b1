"""Which of PyTorch's attention kernels a training step uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def trainable_attention(device: torch.device) -> Iterator[None]:
    """Attention whose backward is fast on ``device``.

    On a CPU the fused kernel's backward takes most of a step (34 % of one was measured); products and a softmax in the
    autocast precision take a tenth of that.

    Args:
        device: that is trained on. Others than a CPU keep PyTorch's own choice.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
