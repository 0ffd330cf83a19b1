"""The selective scan on the CPU, forward and backward, by a compiled kernel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.cpu_threads import flat, run_blocks
from lib.prompt.cpu_vision_mamba import BLOCK, CHUNK, scan, scan_backward


class SelectiveScanCPU(torch.autograd.Function):
    """Arguments and result as :func:`lib.prompt.selective_scan.selective_scan`; float32, on the CPU."""

    @staticmethod
    def forward(
        ctx, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, reverse: bool = False
    ) -> Tensor:
        channels = x.shape[2]
        spare = -channels % BLOCK  # whole vectors only: channels of zeros, where the number is odd
        if spare:
            x, dt, D, A = (*(F.pad(t, (0, spare)) for t in (x, dt, D)), F.pad(A, (0, 0, 0, spare)))
        x, dt, D = x.contiguous(), dt.contiguous(), D.contiguous()
        scaled = (A.t() * (1 / math.log(2))).contiguous()
        B, C = B.contiguous(), C.contiguous()
        batch, length, padded = x.shape
        state = len(scaled)
        chunks = (length + CHUNK - 1) // CHUNK if any(ctx.needs_input_grad) else 0
        y = torch.empty_like(x)
        starts = x.new_empty(batch, chunks, state, padded)
        arrays = flat(x, dt, scaled, B, C, D, y, starts)
        run_blocks(scan, (*arrays, length, padded, state, reverse), batch, padded, BLOCK)
        ctx.save_for_backward(x, dt, scaled, B, C, D, starts)
        ctx.channels, ctx.reverse = channels, reverse
        return y[..., :channels] if spare else y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, scaled, B, C, D, starts = ctx.saved_tensors
        batch, length, padded = x.shape
        state, channels = len(scaled), ctx.channels
        gy = (F.pad(gy, (0, padded - channels)) if padded > channels else gy).contiguous()
        gx, gdt = torch.empty_like(x), torch.empty_like(x)
        gA, gD = x.new_empty(batch, state, padded), x.new_empty(batch, padded)
        gB, gC = (x.new_empty(padded // BLOCK, batch, length, state) for _ in range(2))
        arrays = flat(gy, x, dt, scaled, B, C, D, starts, gx, gdt, gA, gB, gC, gD)
        run_blocks(scan_backward, (*arrays, length, padded, state, batch, ctx.reverse), batch, padded, BLOCK)
        gx, gdt, gA, gD = (t[..., :channels] for t in (gx, gdt, gA.sum(0), gD.sum(0)))
        return gx, gdt, gA.t(), gB.sum(0), gC.sum(0), gD, None
