"""The parts of the Proxy Prompt Generator by themselves: scan backends, Vision Mamba, the selective map."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from proxyprompt.prompt_generator.contextual_selection import SupportEncoding, select_context, selective_map
from proxyprompt.prompt_generator.ops.selective_scan import selective_scan
from proxyprompt.prompt_generator.ops.selective_scan_mamba_ssm import why_not_mamba
from proxyprompt.prompt_generator.vision_mamba import VisionMamba

from .measure import BenchmarkRow, compare, peak_bytes


def scan_rows(device: torch.device, *, length: int, budget: float) -> Iterator[BenchmarkRow]:
    """Every backend that runs here over the loop, at (1, length, 384, 16)."""
    channels, state = 384, 16
    g = torch.Generator().manual_seed(0)
    x, B, C = (torch.randn(1, length, n, generator=g) for n in (channels, state, state))
    dt = torch.rand(1, length, channels, generator=g) * 0.1
    A = -torch.rand(channels, state, generator=g) * state
    tensors = [t.to(device).requires_grad_() for t in (x, dt, A, B, C, torch.ones(channels))]

    def forward(backend: str) -> Tensor:
        with torch.no_grad():
            return selective_scan(*tensors, backend=backend)

    def both(backend: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(selective_scan(*tensors, backend=backend).sum(), tensors)

    backends = ["numba", "chunked"] if device.type == "cpu" else ["chunked"]
    if device.type == "cuda" and why_not_mamba(device) is None:
        backends.append("mamba_ssm")
    for kind, run in (("forward", forward), ("forward and backward", both)):
        loop, *others = compare(*(lambda b=b, run=run: run(b) for b in ("reference", *backends)), budget=budget)
        for backend, spent in zip(backends, others, strict=True):
            aim = 20.0 if (backend, kind) == ("numba", "forward and backward") else None
            note = f"{_ms(spent)} against {_ms(loop)} at (1, {length}, {channels}, {state})"
            yield BenchmarkRow("scan", f"{backend} over the loop, {kind}", loop / spent, "x", aim, True, note)


@torch.inference_mode()
def vision_mamba_rows(
    device: torch.device, *, grid: int, width: int, depth: int, budget: float
) -> Iterator[BenchmarkRow]:
    """Vision Mamba's forward pass over its matrix products alone."""
    torch.manual_seed(0)
    model = VisionMamba(width=width, depth=depth, grid=grid).to(device).eval()
    images = torch.randn(1, 3, grid * 16, grid * 16, device=device)
    masks = torch.rand(1, grid * 16, grid * 16, device=device)
    block = model.blocks[0]
    tokens, channels = torch.randn(1, grid**2, width, device=device), block.out_proj.in_features
    inner = torch.randn(1, grid**2, channels, device=device)
    low = torch.randn(1, grid**2, block.scan.dt_rank, device=device)

    def products() -> None:
        for block in model.blocks:
            block.in_proj(tokens)
            for direction in (block.scan, block.scan_backward):
                direction.x_proj(inner)
                direction.dt_proj(low)
            block.out_proj(inner)

    whole, alone = compare(lambda: model(images, masks), products, budget=budget)
    note = f"{_ms(whole)} against {_ms(alone)}; width {width}, depth {depth}, {grid**2} positions"
    yield BenchmarkRow("vision mamba", "forward over its matrix products", whole / alone, "x", 2.5, note=note)


@torch.inference_mode()
def selective_map_rows(
    device: torch.device, *, grid: int, counts: tuple[int, ...], budget: float
) -> Iterator[BenchmarkRow]:
    """The explicit selective map over its attention form, for K supports of one object."""
    dim, positions = 256, grid**2
    g = torch.Generator().manual_seed(0)
    target = torch.randn(1, dim, grid, grid, generator=g).to(device)
    for count in counts:
        keys = torch.randn(1, count * positions, dim, generator=g).to(device)
        values = torch.randn(1, 1, count * positions, dim, generator=g).to(device)
        memory = SupportEncoding(keys, values, torch.ones(1, 1, count * positions, dtype=torch.bool, device=device))

        def explicit(keys: Tensor = keys, values: Tensor = values) -> Tensor:
            return values[0].mT @ selective_map(target.flatten(2), keys)

        def attention(memory: SupportEncoding = memory) -> Tensor:
            return select_context(target, memory)

        slow, fast = compare(explicit, attention, budget=budget)
        more, less = peak_bytes(explicit), max(peak_bytes(attention), 2**20)
        where = f"{grid} x {grid} positions"
        note = f"{_ms(slow)} against {_ms(fast)}, {where}"
        yield BenchmarkRow("selective map", f"explicit over attention, time, K={count}", slow / fast, "x", note=note)
        note = f"{more / 2**20:.0f} MB against {less / 2**20:.0f} MB, {where}"
        yield BenchmarkRow(
            "selective map", f"explicit over attention, peak memory, K={count}", more / less, "x", note=note
        )


def _ms(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
