"""The procedural generator of in-context tasks."""

import pytest
import torch

from proxyprompt.datasets.procedural import draw_groups


def draw(*, groups=12, members=4, size=96, objects=2, seed=0):
    return draw_groups(groups, members, size, objects=objects, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def many():
    return draw(groups=40, seed=1)


def test_shapes_types_and_range(many):
    assert many.images.shape == (40, 4, 3, 96, 96) and many.images.dtype == torch.float32
    assert many.masks.shape == (40, 4, 2, 96, 96) and many.masks.dtype == torch.bool
    assert many.present.shape == (40, 4, 2) and many.present.dtype == torch.bool
    assert torch.isfinite(many.images).all()
    assert many.images.min() >= 0 and many.images.max() <= 1
    assert (many.images.std((-2, -1)).mean(2) > 1e-3).float().mean() > 0.98, "blank images"


def test_the_generator_decides_everything():
    first, again, other = draw(groups=4, seed=7), draw(groups=4, seed=7), draw(groups=4, seed=8)
    assert torch.equal(first.images, again.images) and torch.equal(first.masks, again.masks)
    assert not torch.equal(first.images, other.images)


def test_the_global_random_state_is_neither_used_nor_touched():
    state = torch.get_rng_state()
    first = draw(groups=3, seed=7)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(123)
    assert torch.equal(first.images, draw(groups=3, seed=7).images)


def test_presence_is_what_the_masks_say_and_two_members_hold_each_object(many):
    assert torch.equal(many.present, many.masks.flatten(3).any(-1))
    assert (many.present.sum(1) >= 2).all()
    absent = 1 - many.present.float().mean().item()
    assert 0.05 < absent < 0.3


def test_objects_differ_within_a_group(many):
    same = (many.masks[:, :, 0] == many.masks[:, :, 1]).flatten(1).all(1)
    assert same.float().mean() < 0.1


def test_areas_go_from_tiny_to_large(many):
    area = many.masks.float().mean((-2, -1))[many.present]
    assert (area < 0.01).float().mean() > 0.1
    assert (area > 0.1).float().mean() > 0.1
    assert (area > 0.8).float().mean() < 0.05


def test_copying_a_mask_to_another_member_scores_low(many):
    first, second = many.masks[:, 0].float(), many.masks[:, 1].float()
    both = many.present[:, 0] & many.present[:, 1]
    dice = 2 * (first * second).sum((-2, -1)) / (first + second).sum((-2, -1)).clamp_min(1)
    assert dice[both].mean() < 0.5


def test_gray_and_colour_groups(many):
    gray = (many.images[:, :, 0] == many.images[:, :, 2]).flatten(1).all(1).float().mean()
    assert 0.35 < gray < 0.75


def test_members_differ_in_their_images(many):
    assert (many.images[:, 0] - many.images[:, 1]).abs().mean((1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize(("groups", "members", "size", "objects"), [(1, 2, 128, 1), (2, 3, 100, 12), (1, 9, 256, 3)])
def test_other_sizes_and_counts(groups, members, size, objects):
    drawn = draw(groups=groups, members=members, size=size, objects=objects)
    assert drawn.images.shape == (groups, members, 3, size, size)
    assert drawn.masks.shape == (groups, members, objects, size, size)
    assert (drawn.present.sum(1) >= 2).all()


@pytest.mark.parametrize("wrong", [{"groups": 0}, {"members": 1}, {"objects": 0}, {"size": 16}])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(ValueError, match=r"expected at least"):
        draw(**wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_draws_on_the_device_that_is_asked_for():
    drawn = draw_groups(4, 3, 128, objects=2, generator=torch.Generator().manual_seed(0), device="cuda")
    assert drawn.images.is_cuda and drawn.masks.is_cuda and (drawn.present.sum(1) >= 2).all()
