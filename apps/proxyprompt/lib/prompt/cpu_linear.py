"""Large matrix products on a CPU: oneDNN's, which keep the vector units busier than the BLAS that PyTorch calls."""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGE = 1 << 26  # multiplications; a smaller product is done as soon by either
_ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As :func:`torch.nn.functional.linear`, which it is for small products, with gradients and on other devices.

    x: (..., C). weight: (D, C), in any layout: none is copied. bias: (D,). Returns (..., D).
    """
    if _ONEDNN and x.numel() * len(weight) >= _LARGE and not torch.is_grad_enabled() and _plain(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def _plain(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
