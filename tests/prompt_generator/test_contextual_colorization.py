"""Dual-reverse cross-attention: equations 8 to 11, the halving, the number of tokens."""

import pytest
import torch

from proxyprompt.prompt_generator.contextual_colorization import (
    ColorizationBlock,
    ContextualColorization,
    sine_position,
)


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


@pytest.mark.parametrize("norm_first", [False, True])
def test_block_is_the_formula_in_float64(norm_first):
    torch.manual_seed(0)
    block = ColorizationBlock(16, stride=(2, 1), heads=2, norm_first=norm_first).double()
    target, context = torch.randn(2, 16, 4, 4).double(), torch.randn(2, 16, 4, 4).double()
    found_target, found_context = block(target, context)
    f = block.project_target(target).flatten(2).transpose(1, 2)
    e = block.project_context(context).flatten(2).transpose(1, 2)
    assert f.shape == (2, 8, 16)
    p = sine_position(2, 4, 16).double()

    def after(read, x, source):
        x = read.norm1(x + attention(read.attention, x + p, source + p, source))
        return read.norm2(x + read.feed_forward(x))

    def before(read, x, source):
        source = read.norm_source(source)
        x = x + attention(read.attention, read.norm1(x) + p, source + p, source)
        return x + read.feed_forward(read.norm2(x))

    step = before if norm_first else after
    f = step(block.colour, f, e)
    e = step(block.reverse, e, f)
    torch.testing.assert_close(found_target.flatten(2).transpose(1, 2), f)
    torch.testing.assert_close(found_context.flatten(2).transpose(1, 2), e)


@pytest.mark.parametrize("grid", [(8, 8), (16, 16), (12, 8)])
@pytest.mark.parametrize("halvings", [0, 2, 4])
def test_each_halving_leaves_half_of_the_positions(grid, halvings):
    module = ContextualColorization(16, heads=2, halvings=halvings)
    found = module(torch.randn(2, 16, *grid), torch.randn(2, 3, 16, *grid))
    assert found.shape == (2, 3, grid[0] * grid[1] // 2**halvings, 16)


def test_other_numbers_of_halvings_are_refused():
    with pytest.raises(ValueError, match="3 halvings of the positions: expected 0, 2 or 4"):
        ContextualColorization(16, heads=2, halvings=3)


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


def test_precision_and_memory_order_of_what_comes_in_change_nothing():
    torch.manual_seed(0)
    module = ContextualColorization(32, heads=4).eval()
    target, context = torch.randn(2, 32, 8, 12), torch.randn(2, 3, 32, 8, 12)
    with torch.no_grad():
        expected = module.double()(target.double(), context.double())
        target = target.to(memory_format=torch.channels_last)
        context = context.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        torch.testing.assert_close(module.float()(target, context).double(), expected, rtol=1e-4, atol=2e-5)
        assert module.bfloat16()(target.bfloat16(), context.bfloat16()).dtype == torch.bfloat16
