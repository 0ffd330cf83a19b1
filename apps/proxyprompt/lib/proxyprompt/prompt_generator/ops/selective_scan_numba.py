"""The selective scan on the CPU as one torch operator, ``proxyprompt::selective_scan``, with its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .cpu_threads import run_blocks
from .numba_kernels import BLOCK, CHUNK, scan, scan_backward


def scan_cpu(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, reverse: bool = False) -> Tensor:
    """Run the compiled kernel.

    Args:
        x: (batch, length, channels), float32 on the CPU as all others, which are as in
            :func:`proxyprompt.prompt_generator.ops.selective_scan.selective_scan`.
        dt: as x.
        A: (channels, state).
        B: (batch, length, state).
        C: as B.
        D: (channels,).
        reverse: from the end to the start.

    Returns:
        y, as x.
    """
    tensors = [x, dt, A, B, C, D]
    trains = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return _scan(*tensors, reverse, trains)[0]


@torch.library.custom_op("proxyprompt::selective_scan", mutates_args=(), device_types="cpu")
def _scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, reverse: bool, trains: bool
) -> tuple[Tensor, Tensor]:
    """y, and the states that the backward pass starts from, (batch, chunks, state, channels); none unless it trains."""
    x, dt, A, B, C, D = _laid(x, dt, A, B, C, D)
    batch, length, channels = x.shape
    y, starts = torch.empty_like(x), x.new_empty(batch, -(-length // CHUNK) if trains else 0, len(A), channels)
    run_blocks(scan, (*_arrays(x, dt, A, B, C, D, y, starts), reverse), _blocks(batch, channels))
    return y, starts


@torch.library.custom_op("proxyprompt::selective_scan_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    gy: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, starts: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C and D."""
    x, dt, A, B, C, D = _laid(x, dt, A, B, C, D)
    (batch, length, channels), state, blocks = x.shape, len(A), _blocks(*x.shape[::2])
    gx, gdt, gA, gD = torch.empty_like(x), torch.empty_like(x), x.new_zeros(batch, *A.shape), x.new_zeros(x.shape[::2])
    gB, gC = (x.new_empty(-(-channels // BLOCK), batch, length, state) for _ in range(2))
    arrays = _arrays(gy.contiguous(), x, dt, A, B, C, D, starts, gx, gdt, gA, gB, gC, gD)
    run_blocks(scan_backward, (*arrays, reverse), blocks)
    return gx, gdt, gA.sum(0).T.contiguous(), gB.sum(0), gC.sum(0), gD.sum(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx: Any, gy: Tensor, _: object) -> tuple[Tensor | None, ...]:
    return *_scan_backward(gy, *ctx.saved_tensors, ctx.reverse), None, None


_scan.register_autograd(_differentiate, setup_context=_keep)


def _laid(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> list[Tensor]:
    """As the kernels take them."""
    return [t.contiguous() for t in (x, dt, A.T, B, C, D)]


def _arrays(*tensors: Tensor) -> list[object]:
    return [t.detach().numpy() for t in tensors]


def _blocks(batch: int, channels: int) -> list[tuple[int, int, int]]:
    """The sequences, and of each the channels that are one thread's work."""
    return [(b, d, min(d + BLOCK, channels)) for b in range(batch) for d in range(0, channels, BLOCK)]
