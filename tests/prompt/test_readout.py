"""The fine readout: the closed form against brute force, additive over supports, learnable."""

import pytest
import torch
import torch.nn.functional as F

from lib.prompt.readout import FineReadout, Pyramid

SIZE, DIM = 64, 16


@pytest.fixture
def readout():
    torch.manual_seed(0)
    return FineReadout(DIM, 8)


def draw(images, objects=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    maps = Pyramid(
        torch.randn(images, DIM // 8, SIZE // 4, SIZE // 4, generator=random),
        torch.randn(images, DIM // 4, SIZE // 8, SIZE // 8, generator=random),
        torch.randn(images, DIM, SIZE // 16, SIZE // 16, generator=random),
    )
    return maps, (torch.rand(images, objects, SIZE, SIZE, generator=random) > 0.8).float()


@torch.no_grad()
def brute_force(readout, maps, masks):
    """Weighted ridge regression, one position and one cell after the other, in float64."""
    features = readout.describe(maps).double().flatten(2).transpose(1, 2).flatten(0, 1)  # (P*h*w, D)
    cells = F.adaptive_avg_pool2d(masks.double(), SIZE // 2)
    inside = F.avg_pool2d(cells, 2).flatten()
    weight = inside / inside.mean().sqrt() + (1 - inside) / (1 - inside).mean().sqrt()
    weight = weight / weight.sum()
    left = features.T @ (weight[:, None] * features) + readout.log_ridge.double().exp() * torch.eye(len(features.T))
    found = []
    for row in range(2):
        for column in range(2):
            wanted = 2 * cells[..., row::2, column::2].flatten() - 1
            found.append(torch.linalg.solve(left, features.T @ (weight * wanted)))
    return torch.stack(found, 1)


@torch.no_grad()
@pytest.mark.parametrize("pairs", [1, 3])
def test_it_is_the_ridge_regression_of_all_positions_of_all_supports(readout, pairs):
    maps, masks = draw(pairs)
    solution = readout.solve(readout.moments(maps, masks).sum(0))
    for n in range(2):
        torch.testing.assert_close(solution[n].double(), brute_force(readout, maps, masks[:, n]), rtol=2e-3, atol=2e-4)


@torch.no_grad()
def test_cells_lie_where_they_belong(readout):
    """With the mask itself among the features, the mask is what is read, cell by cell."""
    maps, masks = draw(1, objects=1)
    masks = F.interpolate(masks[..., ::2, ::2], scale_factor=2)  # one value for each cell
    cells = F.pixel_unshuffle(masks[..., ::2, ::2], 2)[0]
    readout.describe = lambda maps: torch.cat([cells, torch.ones_like(cells[:1])])[None]
    readout.width = 5
    readout.log_ridge.data.fill_(-12.0)
    drawn = readout(maps, readout.solve(readout.moments(maps, masks))) > 0
    assert torch.equal(drawn, masks[..., ::2, ::2] > 0)


@torch.no_grad()
def test_padding_has_no_say(readout):
    maps, masks = draw(1)
    padding = torch.zeros(1, 4, 4, dtype=torch.bool)
    padding[:, 2:] = True
    other = masks.clone()
    other[:, :, SIZE // 2 :] = 1 - other[:, :, SIZE // 2 :]
    with_padding = [readout.moments(maps, m, padding) for m in (masks, other)]
    torch.testing.assert_close(*with_padding)
    assert not torch.allclose(readout.moments(maps, masks), readout.moments(maps, other))


@torch.no_grad()
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_and_a_full_mask_are_read_as_such(readout, value):
    maps, masks = draw(2)
    drawn = readout(maps, readout.solve(readout.moments(maps, masks * 0 + value).sum(0, keepdim=True)))
    assert drawn.isfinite().all() and bool((drawn > 0).all()) == bool(value)


def test_gradients_pass_through_the_solution():
    torch.manual_seed(0)
    readout = FineReadout(DIM, 8)
    optimiser = torch.optim.Adam(readout.parameters(), 3e-2)

    def error(seed):
        maps, _ = draw(2, seed=seed)
        masks = F.interpolate(maps.fine.abs().amin(1, keepdim=True), SIZE, mode="nearest")
        masks = (masks > 0.5).float()  # no linear function of the maps
        solution = readout.solve(readout.moments(Pyramid(*(m[:1] for m in maps)), masks[:1]))
        drawn = readout(Pyramid(*(m[1:] for m in maps)), solution)
        return F.binary_cross_entropy_with_logits(drawn, F.avg_pool2d(masks[1:], 2))

    with torch.no_grad():
        before = sum(error(seed).item() for seed in range(1000, 1004))
    for step in range(120):
        optimiser.zero_grad()
        error(step).backward()
        optimiser.step()
    with torch.no_grad():
        assert sum(error(seed).item() for seed in range(1000, 1004)) < 0.9 * before
    assert all(p.grad is not None and p.grad.any() for p in readout.parameters())
