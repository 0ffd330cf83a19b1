"""The ``mamba_ssm`` package's selective scan, where it is installed and works: an optional extra of CUDA machines."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from .selective_scan_chunked import SelectiveScanChunked

logger = logging.getLogger(__name__)


def mamba_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The package's kernel.

    Args:
        x: as for :func:`proxyprompt.prompt_generator.ops.selective_scan.selective_scan`, as all others; on CUDA.
        dt: step sizes.
        A: decay rates.
        B: input weights.
        C: output weights.
        D: weights past the state.

    Returns:
        y, as there.

    Raises:
        ImportError: without mamba_ssm.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    x, dt, B, C = (t.transpose(1, 2).contiguous() for t in (x, dt, B, C))
    return selective_scan_fn(x, dt, A.contiguous(), B, C, D.contiguous()).transpose(1, 2)


@functools.cache
def why_not_mamba(device: torch.device) -> str | None:
    """Whether the kernel can be used; asked once for each device, and logged.

    Args:
        device: where it would run.

    Returns:
        None where ``mamba_ssm`` imports and agrees with the torch scan there, else the reason.
    """
    reason = _probe(device)
    if reason is None:
        logger.info("selective scan on %s: mamba_ssm", device)
    else:
        logger.info("selective scan on %s: torch, in chunks (mamba_ssm: %s)", device, reason)
    return reason


def _probe(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "runs on CUDA only"
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 33, 32), (1, 33, 32), (32, 16), (1, 33, 16), (1, 33, 16), (32,))
    tensors = [torch.rand(shape, generator=generator) for shape in shapes]
    tensors[2] = -4 * tensors[2]
    tensors = [t.to(device).requires_grad_() for t in tensors]
    try:
        with torch.enable_grad():
            found, expected = (
                (y := scan(*tensors), *torch.autograd.grad(y.sum(), tensors))
                for scan in (mamba_scan, SelectiveScanChunked.apply)
            )
    except Exception as error:  # whatever a foreign extension raises: without it the app still works
        return f"{type(error).__name__}: {error}"
    if all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(found, expected, strict=True)):
        return None
    return "its numbers differ from the torch scan's"
