"""Dual-reverse cross-attention: equations 8 to 11, the halving, the number of tokens."""

import pytest
import torch

from lib.prompt.colorization import ColorizationBlock, ContextualColorization, sine_position


def attention(module, query, key, value):
    """Multi-head attention in float64 from the module's weights, head by head."""
    heads, dim = module.num_heads, module.embed_dim
    weight, bias = module.in_proj_weight.double(), module.in_proj_bias.double()
    q, k, v = (
        x @ weight[i * dim : (i + 1) * dim].T + bias[i * dim : (i + 1) * dim] for i, x in enumerate((query, key, value))
    )
    width, parts = dim // heads, []
    for h in range(heads):
        s = slice(h * width, (h + 1) * width)
        score = (q[..., s] @ k[..., s].transpose(1, 2) / width**0.5).softmax(-1)
        parts.append(score @ v[..., s])
    return torch.cat(parts, -1) @ module.out_proj.weight.double().T + module.out_proj.bias.double()


def test_block_is_the_formula_in_float64():
    torch.manual_seed(0)
    block = ColorizationBlock(16, over_rows=True, heads=2).double()
    target, context = torch.randn(2, 16, 4, 4).double(), torch.randn(2, 16, 4, 4).double()
    found_target, found_context = block(target, context)
    f = block.project_target(target).flatten(2).transpose(1, 2)
    e = block.project_context(context).flatten(2).transpose(1, 2)
    assert f.shape == (2, 8, 16)
    p = sine_position(2, 4, 16).double()
    read = block.colour
    f = read.norm1(f + attention(read.attention, f + p, e + p, e))
    f = read.norm2(f + read.feed_forward(f))
    read = block.reverse
    e = read.norm1(e + attention(read.attention, e + p, f + p, f))
    e = read.norm2(e + read.feed_forward(e))
    torch.testing.assert_close(found_target.flatten(2).transpose(1, 2), f)
    torch.testing.assert_close(found_context.flatten(2).transpose(1, 2), e)


@pytest.mark.parametrize("grid", [(8, 8), (16, 16), (12, 8)])
def test_a_sixteenth_of_the_positions_remains(grid):
    module = ContextualColorization(16, heads=2)
    found = module(torch.randn(2, 16, *grid), torch.randn(2, 3, 16, *grid))
    assert found.shape == (2, 3, grid[0] * grid[1] // 16, 16)


def test_every_object_is_coloured_by_itself():
    torch.manual_seed(0)
    module = ContextualColorization(16, heads=2).eval()
    target, context = torch.randn(2, 16, 8, 8), torch.randn(2, 3, 16, 8, 8)
    together = module(target, context)
    for n in range(3):
        torch.testing.assert_close(module(target, context[:, n : n + 1])[:, 0], together[:, n], rtol=1e-4, atol=1e-5)


def test_positions_are_distinct_and_relative_to_the_grid():
    coarse, fine = sine_position(4, 4, 32), sine_position(8, 8, 32)
    assert torch.cdist(fine, fine).add(torch.eye(64) * 9).min() > 1e-3
    nearest = torch.cdist(coarse, fine).argmin(1)
    rows, columns = nearest // 8, nearest % 8
    expected = torch.arange(4).repeat_interleave(4)
    assert ((rows // 2) == expected).all() and ((columns // 2) == torch.arange(4).repeat(4)).all()


def test_grids_that_cannot_be_halved_four_times_are_refused():
    with pytest.raises(ValueError, match="6 x 8: expected multiples of 4"):
        ContextualColorization(16, heads=2)(torch.randn(1, 16, 6, 8), torch.randn(1, 1, 16, 6, 8))


@pytest.mark.parametrize("grid", [(4, 4), (8, 12), (16, 16), (12, 100), (36, 32)])
@pytest.mark.parametrize(("batch", "objects"), [(1, 1), (2, 3)])
def test_compiled_code_gives_what_the_modules_give(grid, batch, objects, halves):
    """Small grids are one call for each object, the last one's tiles are shared among threads; tiles are not full."""
    near = {"rtol": 0, "atol": 0.1} if halves else {"rtol": 1e-4, "atol": 2e-5}  # of numbers whose deviation is 1
    torch.manual_seed(0)
    module = ContextualColorization(32, heads=4).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    target = torch.randn(batch, 32, *grid).to(memory_format=torch.channels_last)
    context = torch.randn(batch, objects, *grid, 32).permute(0, 1, 4, 2, 3)
    expected = module(target, context).detach()
    for _ in range(2):  # weights may change between calls
        with torch.no_grad():
            found = module(target, context)
            torch.testing.assert_close(found, expected, **near)
            assert not halves or (found - expected).square().mean().sqrt() < 0.015 * expected.std()
            for parameter in module.parameters():
                parameter.mul_(0.9)
        expected = module(target, context).detach()


def test_without_gradients_it_is_compiled_code_that_runs(monkeypatch):
    def asked(*_):
        raise RuntimeError("compiled")

    monkeypatch.setattr("lib.prompt.cpu_colorization.colour", asked)
    module, target, context = ContextualColorization(32, heads=4), torch.randn(1, 32, 4, 4), torch.randn(1, 1, 32, 4, 4)
    assert module(target, context).requires_grad
    with torch.no_grad(), pytest.raises(RuntimeError, match="compiled"):
        module(target, context)
    for other in (torch.float64, torch.bfloat16):
        with torch.no_grad():
            assert module.to(other)(target.to(other), context.to(other)).dtype == other
