"""Vision Mamba: its size, its two directions, any resolution."""

import pytest
import torch
import torch.nn.functional as F

from proxyprompt.prompt_generator.vision_mamba import VisionMamba, VisionMambaBlock


def test_vim_tiny_has_the_papers_number_of_parameters():
    with torch.device("meta"):
        model = VisionMamba(width=192, depth=24, patch=16, grid=1024 // 16, in_channels=4)
    assert sum(p.numel() for p in model.parameters()) == 7_752_576


def block_by_hand(block: VisionMambaBlock, tokens):
    """One block, token by token and channel by channel, in float64."""
    tokens = tokens.double()
    p = {k: v.double() for k, v in block.state_dict().items()}
    normed = tokens / (tokens.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p["norm.weight"]
    x, gate = (normed @ p["in_proj.weight"].T).chunk(2, -1)

    def direction(x, name):
        length, channels = x.shape
        kernel = p[f"{name}.conv.weight"][:, 0]
        convolved = torch.zeros_like(x)
        for t in range(length):
            for lag in range(kernel.shape[1]):
                if t - lag >= 0:
                    convolved[t] += kernel[:, -1 - lag] * x[t - lag]
        u = F.silu(convolved + p[f"{name}.conv.bias"])
        state = p[f"{name}.A_log"].shape[1]
        rank = p[f"{name}.dt_proj.weight"].shape[1]
        A = -p[f"{name}.A_log"].exp()
        h, out = torch.zeros(channels, state, dtype=torch.float64), torch.zeros_like(x)
        for t in range(length):
            made = p[f"{name}.x_proj.weight"] @ u[t]
            dt = F.softplus(p[f"{name}.dt_proj.weight"] @ made[:rank] + p[f"{name}.dt_proj.bias"])
            B, C = made[rank : rank + state], made[rank + state :]
            h = (dt[:, None] * A).exp() * h + dt[:, None] * B * u[t][:, None]
            out[t] = h @ C + p[f"{name}.D"] * u[t]
        return out

    both = [direction(s, "scan") + direction(s.flip(0), "scan_backward").flip(0) for s in x]
    return tokens + (torch.stack(both) / 2 * F.silu(gate)) @ p["out_proj.weight"].T


def test_block_is_the_formula_in_float64():
    torch.manual_seed(0)
    block = VisionMambaBlock(8, d_state=4, expand=2, d_conv=4, dt_rank=2)
    tokens = torch.randn(2, 9, 8)
    torch.testing.assert_close(block(tokens), block_by_hand(block, tokens).float(), rtol=1e-4, atol=1e-5)


def test_both_directions_reach_every_token():
    torch.manual_seed(0)
    block = VisionMambaBlock(8, d_state=4, expand=2, d_conv=4, dt_rank=2)
    tokens = torch.randn(1, 12, 8, requires_grad=True)
    for position in (0, 11):
        (gradient,) = torch.autograd.grad(block(tokens)[0, position].sum(), tokens)
        assert (gradient[0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("size", [64, 128, 192])
def test_any_resolution_keeps_the_foundations_grid(size):
    model = VisionMamba(width=16, depth=2, grid=8)
    assert model(torch.randn(2, 3, size, size), torch.rand(2, size, size)).shape == (2, 16, size // 16, size // 16)


def test_the_mask_decides():
    torch.manual_seed(0)
    model, image = VisionMamba(width=16, depth=2, grid=4), torch.randn(1, 3, 64, 64)
    empty, full = (model(image, torch.full((1, 64, 64), v)) for v in (0.0, 1.0))
    assert (empty - full).abs().max() > 1e-3


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="one mask of its size an image"):
        VisionMamba(width=16, depth=1, grid=4)(torch.randn(1, 3, 64, 64), torch.rand(1, 32, 32))
