"""SiLU of a causal depthwise convolution along a sequence, channels last: the first half of a Mamba direction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = 4  # what the compiled kernel is made for


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor, *, reverse: bool = False) -> Tensor:
    """silu(conv(x)), every position seeing itself and the positions before it (after it, with ``reverse``).

    x: (batch, length, channels). weight: (channels, 1, taps), the position itself last, as in ``nn.Conv1d``. bias:
    (channels,). Returns (batch, length, channels). Float32 on the CPU runs compiled, everything else as torch's own
    convolution.
    """
    compiled = weight.shape[2] == TAPS and x.shape[2] % 16 == 0 and not torch.is_autocast_enabled(x.device.type)
    if compiled and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (x, weight, bias)):
        return _CausalConvSiluCPU.apply(x, weight, bias, reverse)
    return reference_conv_silu(x, weight, bias, reverse=reverse)


def reference_conv_silu(x: Tensor, weight: Tensor, bias: Tensor, *, reverse: bool = False) -> Tensor:
    """By torch; arguments as :func:`causal_conv_silu`."""
    x = x.flip(1) if reverse else x
    padded = F.pad(x.transpose(1, 2), (weight.shape[2] - 1, 0))
    y = F.silu(F.conv1d(padded, weight, bias, groups=x.shape[2])).transpose(1, 2)
    return y.flip(1) if reverse else y


class _CausalConvSiluCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        from lib.cpu_threads import flat, run_blocks
        from lib.prompt.cpu_lanes import LANES
        from lib.prompt.cpu_vision_mamba import convolve

        x, taps, bias = x.contiguous(), weight[:, 0].t().contiguous(), bias.contiguous()
        batch, length, channels = x.shape
        y = torch.empty_like(x)
        run_blocks(convolve, (*flat(x, taps, bias, y), length, channels, reverse), batch, channels, LANES)
        ctx.save_for_backward(x, taps, bias)
        ctx.reverse = reverse
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gy: Tensor) -> tuple[Tensor | None, ...]:
        from lib.cpu_threads import flat, run_blocks
        from lib.prompt.cpu_lanes import LANES
        from lib.prompt.cpu_vision_mamba import convolve_backward

        x, taps, bias = ctx.saved_tensors
        batch, length, channels = x.shape
        gx, gw, gb = torch.empty_like(x), x.new_empty(batch, TAPS, channels), x.new_empty(batch, channels)
        arrays = flat(gy.contiguous(), x, taps, bias, gx, gw, gb)
        run_blocks(convolve_backward, (*arrays, length, channels, ctx.reverse), batch, channels, LANES)
        return gx, gw.sum(0).t()[:, None], gb.sum(0), None
