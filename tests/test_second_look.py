"""The second look: what it learns from supports that are segmented by the others, and when it learns nothing."""

from types import SimpleNamespace

import pytest
import torch

from lib.foundation.base import Features
from lib.prompt.context import SupportMemory
from lib.prompt.readout import FineReadout, Pyramid
from lib.second_look import SHARE, enlarged, learn, look_again, surroundings
from lib.training.metrics import overlap

SIDE, DIM = 128, 16


@pytest.fixture
def readout():
    return FineReadout(DIM)


def scene(pairs, objects=1, seed=0):
    """Noise, and rectangles in it that no pixel tells of."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(pairs, objects, SIDE, SIDE)
    for k in range(pairs):
        top, left = torch.randint(10, 50, (2,), generator=random).tolist()
        masks[k, :, top : top + 50, left : left + 40] = 1
    picture = torch.randn(pairs, 1, SIDE, SIDE, generator=random).expand(-1, 3, -1, -1)
    maps = Pyramid(
        picture,
        torch.zeros(pairs, DIM // 8, SIDE // 4, SIDE // 4),
        torch.zeros(pairs, DIM // 4, SIDE // 8, SIDE // 8),
        torch.zeros(pairs, DIM, SIDE // 16, SIDE // 16),
    )
    return maps, *support_set(pairs, objects), masks


def support_set(pairs, objects=1):
    """Features that say which row they are, and their memory."""
    memory = SupportMemory(
        keys=torch.zeros(1, pairs, 4), values=torch.zeros(1, objects, pairs, 4), valid=torch.ones(1, objects, pairs) > 0
    )
    return Features(torch.arange(float(pairs)).reshape(pairs, 1, 1, 1)), memory


def learnt_of_all_but_the_last(readout, maps, masks, segment):
    maps, masks = Pyramid(*(level[:-1] for level in maps)), masks[:-1]
    return learn(segment, readout, maps, *support_set(len(masks)), declared(masks), masks).solution


def answering(masks, drawn, first, asked=None):
    """A segmenter that draws ``drawn`` and reads ``first``, both (K, N, SIDE, SIDE); notes who was asked with whom."""

    def segment(features, memory):
        rows = features.embedding.flatten().long()
        if asked is not None:
            asked.append((rows.tolist(), memory.valid[0, 0].nonzero().flatten().tolist()))
        return SimpleNamespace(mask_logits=drawn[rows][..., ::2, ::2]), first[rows]

    return segment


def declared(masks):
    return torch.ones(masks.shape[:2], dtype=torch.bool)


@torch.no_grad()
def test_a_tuned_decoder_that_is_the_better_one_speaks_for_itself(readout):
    maps, features, memory, masks = scene(4)
    right, wrong = 4 * (2 * masks - 1), torch.randn(4, 1, SIDE, SIDE)

    def solution(drawn, first, tuned):
        segment = answering(masks, drawn=drawn, first=first)
        return learn(segment, readout, maps, features, memory, declared(masks), masks, tuned=tuned).solution

    torch.testing.assert_close(solution(wrong, right, tuned=True), solution(wrong, right, tuned=False))
    of_decoder = solution(right, wrong, tuned=True)
    assert not of_decoder[..., : readout.width].any()
    drawn = torch.randn(2, 1, SIDE, SIDE)
    mask = look_again(readout, wrong[:2], drawn, torch.zeros(2, 1, SIDE, SIDE), of_decoder)
    torch.testing.assert_close(mask, drawn, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("right", ["drawn", "first"])
def test_the_guess_that_is_right_is_believed(readout, right):
    maps, _, _, masks = scene(4)
    guesses = {"drawn": torch.randn(4, 1, SIDE, SIDE), "first": torch.randn(4, 1, SIDE, SIDE)}
    guesses[right] = 4 * (2 * masks - 1)
    solution = learnt_of_all_but_the_last(readout, maps, masks, answering(masks, **guesses))
    first, drawn = (guesses[name][3:] for name in ("first", "drawn"))
    image = readout(Pyramid(*(level[3:] for level in maps)), solution[..., : readout.width])
    found = look_again(readout, first, enlarged(drawn[..., ::2, ::2], first), image, solution) > 0
    assert overlap(found.numpy(), masks[3:].numpy() > 0).dice > 0.9


@torch.no_grad()
def test_what_lies_around_corrects_a_first_guess_with_holes(readout):
    """A third of the pixels are wrong, wherever they lie: smoothing is learnt."""
    maps, _, _, masks = scene(4)
    torch.manual_seed(1)
    first = 4 * (2 * masks - 1) * (1 - 2 * (torch.rand_like(masks) < 0.35).float())
    drawn = torch.zeros_like(first)
    solution = learnt_of_all_but_the_last(readout, maps, masks, answering(masks, drawn, first))
    image = readout(Pyramid(*(level[3:] for level in maps)), solution[..., : readout.width])
    mask = look_again(readout, first[3:], drawn[3:], image, solution)
    truth = masks[3:].numpy() > 0
    before, after = overlap(first[3:].numpy() > 0, truth).dice, overlap(mask.numpy() > 0, truth).dice
    assert before < 0.6 and after > 0.85


@torch.no_grad()
def test_no_support_is_judged_with_itself_among_the_supports(readout):
    maps, features, memory, masks = scene(6)
    asked = []
    noise = torch.randn_like(masks)
    learn(answering(masks, noise, noise, asked), readout, maps, features, memory, declared(masks), masks)
    assert sorted(row for rows, _ in asked for row in rows) == list(range(6))
    assert all(not set(rows) & set(supports) and len(rows) + len(supports) == 6 for rows, supports in asked)


@torch.no_grad()
@pytest.mark.parametrize("pairs", [1, 2])
def test_few_supports_teach_nothing_and_both_guesses_count(readout, pairs):
    maps, features, memory, masks = scene(pairs)
    noise = torch.randn_like(masks)
    solution = learn(answering(masks, noise, noise), readout, maps, features, memory, declared(masks), masks).solution
    drawn, first = 20 * torch.randn(2, 1, 64, 64), torch.randn(2, 1, SIDE, SIDE)
    drawn = enlarged(drawn, first)
    assert drawn.shape == first.shape and drawn.abs().max() == 10
    found = look_again(readout, first, drawn, torch.zeros_like(first), solution)
    torch.testing.assert_close(found, (first + drawn) / 2)


@torch.no_grad()
def test_objects_learn_each_from_those_that_show_it(readout):
    """The second object is shown by one support alone, the third by none but empty masks."""
    maps, features, memory, masks = scene(3, objects=3)
    valid = declared(masks)
    valid[1:, 1] = False
    masks[:, 2] = 0
    guess = 4 * (2 * masks - 1)
    found = learn(answering(masks, guess, guess), readout, maps, features, memory, valid, masks).solution[0]
    maps, features, memory, masks = scene(1)
    nothing = learn(answering(masks, masks, masks), readout, maps, features, memory, declared(masks), masks).solution[
        0, 0
    ]
    assert not torch.equal(found[0], nothing) and found[0].isfinite().all()
    assert torch.equal(found[1], nothing) and torch.equal(found[2], nothing)


@torch.no_grad()
def test_an_empty_guess_and_a_full_one_are_looked_at_like_others(readout):
    maps, features, memory, masks = scene(3)
    for value in (-1e4, 1e4):
        guess = torch.full_like(masks, value)
        solution = learn(
            answering(masks, guess, guess), readout, maps, features, memory, declared(masks), masks
        ).solution
        found = look_again(readout, guess, enlarged(guess, guess), torch.zeros_like(guess), solution)
        assert solution.isfinite().all() and found.isfinite().all()


@torch.no_grad()
def test_what_is_seen_is_what_was_learnt_from(readout):
    """Surroundings times solution, interpolated, without ever making the surroundings."""
    first, drawn, of_image = 8 * torch.randn(3, 2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    fine, coarse = surroundings(first, drawn)
    solution = torch.randn(1, 3, readout.width + fine.shape[2] + coarse.shape[2])
    weights = solution[0, :, readout.width :].split([fine.shape[2], coarse.shape[2]], 1)
    near, around = (torch.einsum("bnchw,nc->bnhw", *both) for both in zip((fine, coarse), weights, strict=True))
    around = torch.nn.functional.interpolate(around, (SIDE, SIDE), mode="bilinear", align_corners=False)
    second = of_image + readout.log_scale.exp() * (near + around)
    expected = torch.lerp(first.clamp(-10, 10), second, SHARE)
    torch.testing.assert_close(look_again(readout, first, drawn, of_image, solution), expected, rtol=1e-3, atol=1e-3)
