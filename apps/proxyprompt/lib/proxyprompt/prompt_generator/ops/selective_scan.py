"""The selective scan of a state space model (paper, eqs. 1 and 2): one operator, interchangeable backends.

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t        y_t = C_t h_t + D x_t

The paper's short form leaves out D x, Mamba's direct term. Every channel runs its own recurrence of ``state`` numbers;
dt, B and C depend on the input, which is what makes the scan selective. ``reference`` is the plain loop that every
other backend is tested against; ``numba`` is a compiled CPU kernel with its own backward, one torch operator
(:mod:`proxyprompt.prompt_generator.ops.selective_scan_numba`); ``chunked`` is plain torch with few sequential steps,
for CUDA (:mod:`proxyprompt.prompt_generator.ops.selective_scan_chunked`); ``mamba_ssm`` is the package's kernel, where
it works.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .selective_scan_chunked import SelectiveScanChunked
from .selective_scan_mamba_ssm import mamba_scan, why_not_mamba

BACKENDS = ("auto", "reference", "numba", "chunked", "mamba_ssm")


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Run the scan along the length.

    Args:
        x: (batch, length, channels).
        dt: as x, positive.
        A: (channels, state), negative.
        B: (batch, length, state).
        C: as B.
        D: (channels,).
        reverse: from the end to the start.
        backend: one of BACKENDS; "auto" takes the fastest that fits the tensors.

    Returns:
        y, (batch, length, channels), float32 whatever autocast says (float64 stays float64: the recurrence loses too
        much in half precision).

    Raises:
        ValueError: when shapes disagree, or the backend is unknown or does not fit the tensors.
    """
    _check(x, dt, A, B, C, D)
    if backend not in BACKENDS:
        raise ValueError(f"unknown selective_scan backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    tensors = [x, dt, A, B, C, D]
    if any(t.dtype in (torch.float16, torch.bfloat16) for t in tensors):
        tensors = [t.float() for t in tensors]
    device = tensors[0].device
    fits_numba = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    if backend == "auto":
        backend = "numba" if fits_numba else _fastest_elsewhere(device, tensors[0].dtype)
    if backend == "numba":
        if not fits_numba:
            raise ValueError("the numba backend takes float32 tensors on the CPU; use backend='auto' or 'reference'")
        from .selective_scan_numba import scan_cpu  # numba is slow to import

        return scan_cpu(*tensors, reverse=reverse)
    if backend == "mamba_ssm" and (reason := why_not_mamba(device)):
        raise ValueError(f"the mamba_ssm backend does not work on {device}: {reason}; use backend='auto'")
    scan = {"reference": reference_scan, "chunked": SelectiveScanChunked.apply, "mamba_ssm": mamba_scan}[backend]
    if not reverse:
        return scan(*tensors)
    x, dt, A, B, C, D = tensors
    return scan(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1), D).flip(1)


def _fastest_elsewhere(device: torch.device, dtype: torch.dtype) -> str:
    """The backend for tensors that the CPU kernel does not take."""
    if device.type == "cpu":
        return "reference"
    if device.type == "cuda" and dtype == torch.float32 and why_not_mamba(device) is None:
        return "mamba_ssm"
    return "chunked"


def reference_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The plain loop over the length; differentiable by autograd.

    Args:
        x: as for :func:`selective_scan`, as all others.
        dt: step sizes.
        A: decay rates.
        B: input weights.
        C: output weights.
        D: weights past the state.

    Returns:
        y, as :func:`selective_scan`.
    """
    h = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])
    outputs = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t, :, None] * A)
        h = decay * h + (dt[:, t] * x[:, t])[..., None] * B[:, t, None, :]
        outputs.append((h * C[:, t, None, :]).sum(-1))
    y = torch.stack(outputs, 1) if outputs else torch.zeros_like(x)
    return y + D * x


def _check(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> None:
    if x.ndim != 3 or A.ndim != 2:
        raise ValueError(
            f"expected x (batch, length, channels) and A (channels, state), got {tuple(x.shape)} and {tuple(A.shape)}"
        )
    batch, length, channels = x.shape
    state = A.shape[1]
    expected = {
        "dt": (dt, (batch, length, channels)),
        "A": (A, (channels, state)),
        "B": (B, (batch, length, state)),
        "C": (C, (batch, length, state)),
        "D": (D, (channels,)),
    }
    wrong = {name: (tuple(t.shape), shape) for name, (t, shape) in expected.items() if tuple(t.shape) != shape}
    if wrong:
        raise ValueError(f"selective_scan: x is {tuple(x.shape)}; shapes given and expected differ: {wrong}")
