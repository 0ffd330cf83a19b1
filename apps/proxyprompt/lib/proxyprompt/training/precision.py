"""In which precision a training computes."""

from __future__ import annotations

import torch


def computes_in_bfloat16(device: torch.device | str) -> bool:
    """Whether bfloat16 is faster than float32 on ``device``, that is: not one of those where torch emulates it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
