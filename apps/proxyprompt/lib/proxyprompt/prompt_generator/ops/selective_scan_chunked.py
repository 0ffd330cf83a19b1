"""The selective scan in plain torch with few sequential steps: what a GPU runs without compiling anything.

The length is cut into chunks of about its square root. All chunks step side by side: once from a state of zeros, for
the state each adds at its end; then the true state at every start follows from chunk to chunk; then once more from
there, for the results. Twice the loop's arithmetic in 3 sqrt(length) instead of ``length`` steps, and every factor is
a decay below one, so that nothing overflows. The backward pass runs the same scheme from the end.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

_KEPT = 2**28  # bytes of states that the backward pass may hold at once; more sequences take turns


class SelectiveScanChunked(torch.autograd.Function):
    """The scan as an operator with a backward pass of its own, on any device, in float32 or float64.

    Arguments and result as :func:`proxyprompt.prompt_generator.ops.selective_scan.selective_scan`.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        """Run the scan; keeps the states at the start of each chunk.

        Args:
            ctx: autograd's.
            x: (batch, length, channels).
            dt: as x, positive.
            A: (channels, state), negative.
            B: (batch, length, state).
            C: as B.
            D: (channels,).

        Returns:
            y, as x.
        """
        length = x.shape[1]
        xs, dts, Bs, Cs = _cut(length, x, dt, B, C)
        h = x.new_zeros(*xs.shape[:2], *A.shape)
        if xs.shape[1] > 1:
            for t in range(xs.shape[2]):
                h = _step(h, xs, dts, A, Bs, t)[1]
        starts = _carry(h, dts, A, reverse=False)
        h, y = starts, torch.empty_like(xs)
        for t in range(xs.shape[2]):
            h = _step(h, xs, dts, A, Bs, t)[1]
            y[:, :, t] = (h * Cs[:, :, t, None]).sum(-1)
        ctx.save_for_backward(x, dt, A, B, C, D, starts)
        return y.flatten(1, 2)[:, :length] + D * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, gy: Tensor) -> tuple[Tensor, ...]:
        """Differentiate the scan.

        Args:
            ctx: autograd's.
            gy: gradient of y.

        Returns:
            Gradients of x, dt, A, B, C and D.
        """
        x, dt, A, B, C, D, starts = ctx.saved_tensors  # type: ignore[attr-defined]  # torch adds it
        each = max(1, x[0].numel() * A.shape[1] * x.element_size())
        at_once = max(1, _KEPT // each)
        parts = [t.split(at_once) for t in (gy, x, dt, B, C, starts)]
        done = [_gradients(gy_, x_, dt_, A, B_, C_, s_) for gy_, x_, dt_, B_, C_, s_ in zip(*parts, strict=True)]
        gx, gdt, gB, gC = (torch.cat([part[i] for part in done]) for i in range(4))
        gA = sum((part[4] for part in done), torch.zeros_like(A))
        return gx + gy * D, gdt, gA, gB, gC, (gy * x).sum((0, 1))


def _cut(length: int, *tensors: Tensor) -> list[Tensor]:
    """(batch, length, n) -> (batch, chunks, steps, n); zeros at the end, where dt = 0 changes no state."""
    steps = max(1, math.isqrt(length))
    spare = -length % steps
    return [F.pad(t, (0, 0, 0, spare)).unflatten(1, (-1, steps)) for t in tensors]


def _step(h: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """The decay of step ``t`` of every chunk, and the states after it, both (batch, chunks, channels, state)."""
    decay = torch.exp(dt[:, :, t, :, None] * A)
    return decay, decay * h + (dt[:, :, t] * x[:, :, t])[..., None] * B[:, :, t, None]


def _carry(ends: Tensor, dt: Tensor, A: Tensor, *, reverse: bool) -> Tensor:
    """From what each chunk adds at its end to what enters it; from the last chunk to the first with ``reverse``."""
    entering = torch.zeros_like(ends)
    decay = torch.exp(dt.sum(2)[..., None] * A)
    state = torch.zeros_like(ends[:, 0])
    chunks = range(ends.shape[1])
    for g in reversed(chunks) if reverse else chunks:
        entering[:, g] = state
        state = decay[:, g] * state + ends[:, g]
    return entering


def _gradients(
    gy: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of x (without D's part), dt, B, C and A."""
    length = x.shape[1]
    gy, x, dt, B, C = _cut(length, gy, x, dt, B, C)
    steps = range(x.shape[2])
    q = torch.zeros_like(starts)  # what reaches the state before step t
    if x.shape[1] > 1:
        for t in reversed(steps):
            q = torch.exp(dt[:, :, t, :, None] * A) * (gy[:, :, t, :, None] * C[:, :, t, None] + q)
    q = _carry(q, dt, A, reverse=True)
    states, decays = [starts], []
    for t in steps:
        decay, h = _step(states[-1], x, dt, A, B, t)
        decays.append(decay)
        states.append(h)
    gx, gdt, gB, gC = (torch.empty_like(tensor) for tensor in (x, dt, B, C))
    gA = torch.zeros_like(A)
    for t in reversed(steps):
        to_h = gy[:, :, t, :, None] * C[:, :, t, None] + q
        gC[:, :, t] = (gy[:, :, t, :, None] * states[t + 1]).sum(2)
        gB[:, :, t] = (to_h * (dt[:, :, t] * x[:, :, t])[..., None]).sum(2)
        to_push = (to_h * B[:, :, t, None]).sum(-1)
        q = to_h * decays[t]
        to_exponent = q * states[t]
        gx[:, :, t] = to_push * dt[:, :, t]
        gdt[:, :, t] = to_push * x[:, :, t] + (to_exponent * A).sum(-1)
        gA += (to_exponent * dt[:, :, t, :, None]).sum((0, 1))
    gx, gdt, gB, gC = (t.flatten(1, 2)[:, :length] for t in (gx, gdt, gB, gC))
    return gx, gdt, gB, gC, gA
