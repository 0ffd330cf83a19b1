"""One step: the generator as it serves, supports, prompts, probes."""

import pytest
import torch

from proxyprompt.pretraining.episode import BESIDE_PROXY, Probes, begin, beside_proxy, draw_supports, generate, prompted
from proxyprompt.pretraining.trainer import Model, decode_proxy, next_ones, request_share
from proxyprompt.training.losses import grid_loss


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    return Model(config).eval()


@pytest.fixture
def episode(model, pool):
    return begin(
        model.foundation, pool.draw(2, torch.Generator().manual_seed(0)), 4, 2, torch.Generator().manual_seed(1)
    )


@torch.no_grad()
def test_it_makes_the_very_prompt_that_the_generator_serves(model, episode):
    supports = draw_supports(episode, 0.3, torch.Generator().manual_seed(2))
    made = generate(model.generator, episode, supports)
    contexts = model.generator.encode_pair(episode.images, episode.full_masks)
    for target in range(8):
        group, member = divmod(target, 4)
        rows = 4 * group + supports[group, member].nonzero()[:, 0]
        valid = torch.ones(1, len(rows), 2, dtype=torch.bool)
        memory = model.generator.encode_support(episode.features.embedding[rows][None], contexts[rows][None], valid)
        served = model.generator(episode.features.embedding[target : target + 1], memory)
        torch.testing.assert_close(made.tokens[target], served.tokens[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(made.context[target], served.context[0], atol=1e-4, rtol=1e-3)


def test_supports_show_the_structure_first_and_a_target_seldom_supports_itself(episode):
    random = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_supports(episode, 0.2, random) for _ in range(200)])
    counts = (drawn & ~torch.eye(4, dtype=torch.bool)).sum(-1)
    assert counts.min() == 1 and counts.max() == 3
    assert 0.15 < drawn.diagonal(dim1=-2, dim2=-1).float().mean() < 0.25
    shows = episode.by_group(episode.masks.flatten(2).any(-1).float().mean(1))
    alone = drawn & (drawn.sum(-1, keepdim=True) == 1) & ~torch.eye(4, dtype=torch.bool)
    for group in range(2):
        for target in range(4):
            best = max(shows[group, m] for m in range(4) if m != target)
            chosen = alone[:, group, target].any(0).nonzero()[:, 0]
            assert all(shows[group, m] == best for m in chosen)


@torch.no_grad()
def test_the_map_carries_a_targets_own_mask_to_itself(model, episode):
    itself = torch.eye(4, dtype=torch.bool).expand(2, 4, 4)
    carried = generate(model.generator, episode, itself).carried
    shares = torch.nn.functional.adaptive_avg_pool2d(episode.masks, carried.shape[-2:])
    assert (carried - shares).abs().mean() < (carried.flip(0) - shares).abs().mean()
    assert carried.min() >= 0 and carried.max() <= 1 + 1e-5


@pytest.mark.parametrize("kind", ["box", "points", "correction", "mask", "clip", *BESIDE_PROXY])
def test_every_kind_of_prompt_gives_masks_and_gradients(model, episode, kind):
    random = torch.Generator().manual_seed(0)
    if kind in BESIDE_PROXY:
        made = generate(model.generator, episode, next_ones(4, 2).expand(2, -1, -1))
        first = decode_proxy(model, episode, made)
        answers = [beside_proxy(model.foundation, episode, kind, random, made, first)]
        assert not torch.equal(answers[0][0].mask_logits, first.mask_logits)
    else:
        answers = prompted(model.foundation, episode, kind, random)
    assert sum(len(masks) for _, masks in answers) >= 6
    for decoded, masks in answers:
        assert decoded.mask_logits.shape == masks.shape and decoded.presence_logit.shape == masks.shape[:2]
    model.zero_grad()
    sum(decoded.mask_logits.square().mean() for decoded, _ in answers).backward()
    assert model.foundation.model.sam_mask_decoder.mask_tokens.weight.grad.abs().sum() > 0


def test_an_unknown_kind_of_prompt_is_refused(model, episode):
    with pytest.raises(ValueError, match="unknown kind of prompt 'scribble'"):
        prompted(model.foundation, episode, "scribble", torch.Generator())


def test_probes_lie_where_the_grid_does():
    """A probe whose weights read one channel shows it at its place, at stride 4."""
    probes = Probes(4, cells=2)
    torch.nn.init.zeros_(probes.context.bias)
    torch.nn.init.zeros_(probes.token.bias)
    torch.nn.init.ones_(probes.context.weight)
    torch.nn.init.ones_(probes.token.weight)
    context, tokens = torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4)
    context[0, 0, 0, 1, 2] = 1.0
    tokens[0, 0, 1] = 1.0  # row 0, column 1 of a 2 x 2 grid
    of_context, of_tokens = (x.detach()[0, 0] for x in probes(context, tokens))
    assert of_context.nonzero().amin(0).tolist() == [4, 8] and of_context.nonzero().amax(0).tolist() == [7, 11]
    assert of_tokens.nonzero().amin(0).tolist() == [0, 8] and of_tokens.nonzero().amax(0).tolist() == [7, 15]


def test_grid_loss_heeds_only_what_is_present():
    masks = torch.zeros(1, 2, 16, 16)
    masks[0, 0, 4:12, 4:12] = 1
    right = 20 * torch.nn.functional.adaptive_avg_pool2d(masks, 8) - 10
    wrong_where_absent = right.clone()
    wrong_where_absent[0, 1] = 5
    assert grid_loss(right, masks) < 0.01
    assert grid_loss(wrong_where_absent, masks) == grid_loss(right, masks)
    assert grid_loss(-right, masks) > 1


def test_request_share_is_none_for_a_constant_and_all_for_noise():
    constant = torch.randn(1, 1, 9, 8).expand(5, 2, -1, -1)
    assert request_share(constant) < 1e-9
    assert request_share(torch.randn(40, 1, 9, 8)) > 0.9
