"""SAM's attention by rows of the map against the package's own, which makes the whole map."""

import copy

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention
from tiny_sam import build_tiny_sam

from proxyprompt.foundation import sam_attention
from proxyprompt.foundation.sam import Sam
from proxyprompt.foundation.sam_attention import RowsOfAttention, attend_by_rows


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize(("batch", "grid", "known"), [(1, (8, 8), (8, 8)), (3, (7, 5), (7, 5)), (2, (5, 6), (4, 4))])
def test_rows_of_the_map_give_what_the_whole_map_gives(batch, grid, known, rows, monkeypatch):
    """A grid that divides into no whole blocks, several images, relative positions that are interpolated."""
    torch.manual_seed(0)
    package = Attention(32, num_heads=4, use_rel_pos=True, input_size=known)
    for parameter in (package.rel_pos_h, package.rel_pos_w):
        torch.nn.init.normal_(parameter)
    ours = copy.deepcopy(package)
    attend_by_rows(ours)
    monkeypatch.setattr(sam_attention, "_AT_ONCE", rows * batch * 4 * grid[1] * grid[0] * grid[1])
    x = torch.randn(batch, *grid, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), package(x), rtol=1e-5, atol=1e-6)


def test_gradients_are_the_packages():
    torch.manual_seed(0)
    package = Attention(32, num_heads=4, use_rel_pos=True, input_size=(4, 4))
    ours = copy.deepcopy(package)
    attend_by_rows(ours)
    x = torch.randn(1, 4, 4, 32)
    for module in (package, ours):
        module(x).square().sum().backward()
    for one, other in zip(ours.parameters(), package.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_sam_attends_by_rows_and_keeps_its_weights_names():
    foundation = Sam(name="tiny", model=build_tiny_sam())
    attention = [m for m in foundation.model.image_encoder.modules() if isinstance(m, Attention)]
    assert attention and all(type(module) is RowsOfAttention for module in attention)
    assert {"qkv", "proj"} == {name for name, _ in attention[0].named_children()}
