"""The fine readout: the closed form against brute force, additive over supports, learnable."""

import pytest
import torch
import torch.nn.functional as F

from lib.prompt.readout import FineReadout, Pyramid, hats, outer
from lib.training.metrics import overlap

SIZE, DIM = 128, 16


@pytest.fixture
def readout():
    torch.manual_seed(0)
    readout = FineReadout(DIM)
    torch.nn.init.normal_(readout.log_weight, std=0.5)
    return readout


def draw(images, objects=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    maps = Pyramid(
        torch.randn(images, 3, SIZE, SIZE, generator=random),
        torch.randn(images, DIM // 8, SIZE // 4, SIZE // 4, generator=random),
        torch.randn(images, DIM // 4, SIZE // 8, SIZE // 8, generator=random),
        torch.randn(images, DIM, SIZE // 16, SIZE // 16, generator=random),
    )
    return maps, (torch.rand(images, objects, SIZE, SIZE, generator=random) > 0.8).float()


@torch.no_grad()
def brute_force(readout, maps, masks):
    """Weighted ridge regression of every other position, in float64; each picture weighs as much as any other."""
    features = readout.describe(maps).double()[..., ::2, ::2].flatten(2).transpose(1, 2)  # (P, M, D)
    inside = masks.double()[..., ::2, ::2].flatten(1)
    share = inside.mean(1, keepdim=True)
    weight = inside / share.sqrt() + (1 - inside) / (1 - share).sqrt()
    weight = (weight / weight.sum(1, keepdim=True)).flatten()
    features, inside = features.flatten(0, 1), inside.flatten()
    left = features.T @ (weight[:, None] * features)
    left = left + readout.log_ridge.double().exp() * left.diagonal().mean() * torch.eye(len(left))
    return torch.linalg.solve(left, features.T @ (weight * (2 * inside - 1)))


@torch.no_grad()
def test_what_is_read_is_features_times_solution(readout):
    maps, masks = draw(2)
    solution = readout.solve(readout.moments(maps, masks).sum(0, keepdim=True))
    expected = torch.einsum("bdhw,nd->bnhw", readout.describe(maps), solution[0]) * readout.log_scale.exp()
    torch.testing.assert_close(readout(maps, solution), expected, rtol=1e-3, atol=1e-3)


def test_it_reads_the_same_with_gradients_and_on_gray_pictures(readout):
    """Of gray pictures, one channel only."""
    maps, _ = draw(2)
    for picture in (maps.picture, maps.picture[:, :1].expand(-1, 3, -1, -1)):
        maps = maps._replace(picture=picture)
        solution = torch.randn(1, 2, readout.width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = readout(maps, solution)
            expected = torch.einsum("bdhw,nd->bnhw", readout.describe(maps), solution[0]) * readout.log_scale.exp()
        torch.testing.assert_close(readout(maps, solution), found, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_hats_add_up_to_one_and_stand_in_rows():
    places = hats(torch.linspace(-1, 1, 9), 5)
    found = outer(places, places)
    assert found.shape == (25, 9, 9)
    torch.testing.assert_close(found.sum(0), torch.ones(9, 9))
    assert found[1, 0, 2] == 1 and found[5, 2, 0] == 1  # the second of the first row; the first of the second


@torch.no_grad()
def test_fewer_positions_are_some_of_all(readout):
    maps, _ = draw(1)
    torch.testing.assert_close(readout.describe(maps, 2), readout.describe(maps)[..., ::2, ::2])


@torch.no_grad()
@pytest.mark.parametrize("pairs", [1, 3])
def test_it_is_the_ridge_regression_of_all_positions_of_all_supports(readout, pairs):
    maps, masks = draw(pairs)
    solution = readout.solve(readout.moments(maps, masks).sum(0))
    for n in range(2):
        torch.testing.assert_close(solution[n].double(), brute_force(readout, maps, masks[:, n]), rtol=5e-3, atol=5e-4)


@torch.no_grad()
def test_half_covered_pixels_count_half(readout):
    """Soft masks: the squared error to 2 y - 1, weighted by y inside and by 1 - y outside."""
    maps, _ = draw(1)
    masks = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    solution = readout.solve(readout.moments(maps, masks).sum(0))
    torch.testing.assert_close(solution[0].double(), brute_force(readout, maps, masks[:, 0]), rtol=5e-3, atol=5e-4)


@torch.no_grad()
def test_thin_bright_lines_are_found_in_another_image():
    """No encoder: its maps are noise. One support with lines of 2 pixels, another target, an uneven background."""
    readout = FineReadout(DIM)
    maps, _ = draw(2)
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    lines = torch.stack([torch.sin(12 * x + 5 * y).abs() < 0.1, torch.sin(11 * y - 4 * x).abs() < 0.1]).float()[:, None]
    uneven = torch.stack([2 * x + y, y - 2 * x])[:, None]
    noise = 0.2 * torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    maps = maps._replace(picture=(uneven + lines + noise).expand(-1, 3, -1, -1))
    support, target = (Pyramid(*(level[n : n + 1] for level in maps)) for n in (0, 1))
    drawn = readout(target, readout.solve(readout.moments(support, lines[:1]))) > 0
    assert overlap(drawn.numpy(), lines[1:].numpy() > 0).dice > 0.8


@torch.no_grad()
def test_padding_has_no_say(readout):
    maps, masks = draw(1)
    padding = torch.zeros(1, 8, 8, dtype=torch.bool)
    padding[:, 4:] = True
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


def test_what_counts_can_be_learned_through_the_solution():
    """Only one filter response says anything, and the support is too small to find out which: training finds it."""
    torch.manual_seed(0)
    readout = FineReadout(DIM)
    optimiser = torch.optim.Adam(readout.parameters(), 5e-2)

    def error(seed):
        maps, _ = draw(2, seed=seed)
        masks = (maps.picture[:, 1:2] > 0.5).float()
        solution = readout.solve(readout.moments(Pyramid(*(m[:1] for m in maps)), masks[:1]))
        return F.binary_cross_entropy_with_logits(readout(Pyramid(*(m[1:] for m in maps)), solution), masks[1:])

    with torch.no_grad():
        before = sum(error(seed).item() for seed in range(1000, 1003))
    for step in range(40):
        optimiser.zero_grad()
        error(step).backward()
        optimiser.step()
    with torch.no_grad():
        assert sum(error(seed).item() for seed in range(1000, 1003)) < 0.9 * before
    assert all(p.grad is not None and p.grad.any() for p in readout.parameters())


def test_a_readout_that_does_not_train_passes_no_gradients(readout):
    maps, masks = draw(2)
    maps = maps._replace(fine=maps.fine.requires_grad_())
    found = []
    for trains in (True, False):
        readout.requires_grad_(trains)
        found.append(readout(maps, readout.solve(readout.moments(maps, masks).sum(0, keepdim=True))))
    assert [one.requires_grad for one in found] == [True, False]
    torch.testing.assert_close(found[0].detach(), found[1], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_hidden_features_say_nothing_while_they_are_hidden(readout):
    maps, masks = draw(1)
    before = readout.describe(maps)
    hidden = torch.rand(readout.width - 1) > 0.5
    with readout.hiding(hidden):
        described = readout.describe(maps)
        solution = readout.solve(readout.moments(maps, masks))
    assert not described[:, :-1][:, hidden].any() and not solution[..., :-1][..., hidden].any()
    torch.testing.assert_close(described[:, :-1][:, ~hidden], before[:, :-1][:, ~hidden])
    assert torch.equal(readout.describe(maps), before)
