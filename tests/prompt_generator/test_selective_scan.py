"""The scan against its formula in float64, and every backend against the plain loop."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyprompt.prompt_generator.ops.numba_kernels import compiled
from proxyprompt.prompt_generator.ops.selective_scan import selective_scan
from proxyprompt.prompt_generator.ops.selective_scan_mamba_ssm import why_not_mamba


def draw(batch, length, channels, state, *, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x, B, C = (torch.randn(batch, length, n, generator=g, dtype=dtype) for n in (channels, state, state))
    dt = torch.rand(batch, length, channels, generator=g, dtype=dtype) * 0.5 + 1e-3
    A = -torch.rand(channels, state, generator=g, dtype=dtype) * state - 1e-2
    D = torch.randn(channels, generator=g, dtype=dtype)
    return [t.requires_grad_() for t in (x, dt, A, B, C, D)]


def test_reference_is_the_formula_in_float64():
    tensors = draw(2, 7, 3, 4, dtype=torch.float64)
    x, dt, A, B, C, D = (t.detach().numpy() for t in tensors)
    y = np.zeros_like(x)
    for b in range(2):
        for d in range(3):
            h = np.zeros(4)
            for t in range(7):
                for n in range(4):
                    h[n] = np.exp(dt[b, t, d] * A[d, n]) * h[n] + dt[b, t, d] * B[b, t, n] * x[b, t, d]
                y[b, t, d] = sum(C[b, t, n] * h[n] for n in range(4)) + D[d] * x[b, t, d]
    torch.testing.assert_close(selective_scan(*tensors, backend="reference"), torch.from_numpy(y))


def test_reference_gradients():
    assert torch.autograd.gradcheck(lambda *a: selective_scan(*a), draw(1, 5, 2, 3, dtype=torch.float64))


def scanned(tensors, weight, *, reverse=False, backend="reference", device="cpu"):
    """y and the gradients of its weighted sum."""
    moved = [t.detach().to(device).requires_grad_() for t in tensors]
    y = selective_scan(*moved, reverse=reverse, backend=backend)
    return [t.cpu() for t in (y.detach(), *torch.autograd.grad((y * weight.to(device)).sum(), moved))]


def assert_agrees_with_the_loop(backend, tensors, *, reverse=False, device="cpu"):
    """Values and all six gradients, in float32, relative to the greatest of each.

    Gradients of A and D are sums over the samples, which may cancel: there it is the sum of what each sample gives.
    """
    weight = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
    expected = scanned(tensors, weight, reverse=reverse)
    found = scanned(tensors, weight, reverse=reverse, backend=backend, device=device)
    alone = [
        scanned([t[[n]] if t.ndim == 3 else t for t in tensors], weight[[n]], reverse=reverse)
        for n in range(len(weight))
    ]
    for place, name in enumerate(["y", "x", "dt", "A", "B", "C", "D"]):
        greatest = sum if name in "AD" else max
        scale = greatest(one[place].abs().max().item() for one in alone) + 1.0
        torch.testing.assert_close(
            found[place] / scale, expected[place] / scale, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


any_shape = given(
    batch=st.integers(1, 3),
    length=st.integers(1, 70),
    channels=st.integers(1, 130),
    state=st.sampled_from([1, 3, 8, 16]),
    reverse=st.booleans(),
    seed=st.integers(0, 1000),
)


@settings(max_examples=25, deadline=None)
@any_shape
def test_compiled_kernel_agrees_with_the_loop(batch, length, channels, state, reverse, seed):
    assert_agrees_with_the_loop("numba", draw(batch, length, channels, state, seed=seed), reverse=reverse)


@settings(max_examples=15, deadline=None)
@any_shape
def test_chunked_scan_agrees_with_the_loop(batch, length, channels, state, reverse, seed):
    assert_agrees_with_the_loop("chunked", draw(batch, length, channels, state, seed=seed), reverse=reverse)


def test_chunked_gradients_in_float64_and_in_turns(monkeypatch):
    from proxyprompt.prompt_generator.ops import selective_scan_chunked

    monkeypatch.setattr(selective_scan_chunked, "_KEPT", 1)  # one sequence at a time
    tensors = draw(2, 7, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *a: selective_scan(*a, backend="chunked"), tensors)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@settings(max_examples=25, deadline=None)
@any_shape
def test_cuda_default_agrees_with_the_loop(batch, length, channels, state, reverse, seed):
    tensors = draw(batch, length, channels, state, seed=seed)
    assert_agrees_with_the_loop("chunked", tensors, reverse=reverse, device="cuda")


@pytest.mark.gpu
@needs_cuda
@settings(max_examples=25, deadline=None)
@any_shape
def test_mamba_ssm_agrees_with_the_loop(batch, length, channels, state, reverse, seed):
    if reason := why_not_mamba(torch.device("cuda")):
        pytest.skip(f"mamba_ssm: {reason}")
    tensors = draw(batch, length, channels, state, seed=seed)
    assert_agrees_with_the_loop("mamba_ssm", tensors, reverse=reverse, device="cuda")


def test_mamba_ssm_is_refused_with_the_reason_where_it_cannot_run():
    with pytest.raises(ValueError, match="runs on CUDA only; use backend='auto'"):
        selective_scan(*draw(1, 2, 2, 2), backend="mamba_ssm")


def test_states_that_hardly_decay_do_not_drift():
    """The compiled exponential must be exactly one at zero, or thousands of steps add its error up."""
    x, dt, A, B, C, D = (t.detach() for t in draw(1, 5000, 4, 2))
    tensors = (torch.ones_like(x), torch.full_like(dt, 1e-7), A, torch.ones_like(B), torch.ones_like(C), D)
    exact = selective_scan(*(t.double() for t in tensors), backend="reference")
    torch.testing.assert_close(selective_scan(*tensors, backend="numba").double(), exact, rtol=2e-5, atol=1e-7)


def test_extreme_steps_stay_finite():
    x, dt, A, B, C, D = (t.detach() for t in draw(1, 40, 8, 16))
    for step in (1e-8, 50.0, 1e4):  # no decay at all, and states forgotten at once
        tensors = (x, torch.full_like(dt, step), A, B, C, D)
        expected, found = (selective_scan(*tensors, backend=b) for b in ("reference", "numba"))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_concurrent_calls_give_their_own_results():
    threads_before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        inputs = [[t.detach() for t in draw(2, 50, 100, 16, seed=i)] for i in range(6)]
        expected = [selective_scan(*tensors, backend="reference") for tensors in inputs]
        found = [None] * len(inputs)

        def work(i):
            for _ in range(5):
                found[i] = selective_scan(*inputs[i], backend="numba")

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
    finally:
        torch.set_num_threads(threads_before)


def test_half_precision_is_computed_in_float32():
    tensors = [t.detach().bfloat16() for t in draw(1, 9, 4, 4)]
    assert selective_scan(*tensors).dtype == torch.float32


def test_bad_calls_say_what_is_wrong():
    x, dt, A, B, C, D = draw(2, 5, 3, 4)
    with pytest.raises(ValueError, match=r"'B'.*\(2, 5, 3\).*\(2, 5, 4\)"):
        selective_scan(x, dt, A, B[..., :3], C, D)
    with pytest.raises(ValueError, match="unknown selective_scan backend 'fast'; expected one of auto"):
        selective_scan(x, dt, A, B, C, D, backend="fast")
    with pytest.raises(ValueError, match="float32"):
        selective_scan(*draw(1, 2, 2, 2, dtype=torch.float64), backend="numba")


def test_kernels_compile_where_nothing_can_be_written(monkeypatch):
    """Package folder, home and cache folder read-only: numba refuses to cache, the kernel must work all the same."""
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    scope = {}
    exec(compile("def double(x):\n    return 2 * x\n", "/proc/none/kernel.py", "exec"), scope)
    assert compiled(scope["double"])(21) == 42
