"""The second network in cascade: what it draws, when it is used, how fine it is."""

from dataclasses import replace

import pytest
import torch

from lib.cascade import SIZES, Cascade, CascadeConfig, suited_size


@pytest.fixture
def cascade():
    torch.manual_seed(0)
    return Cascade(CascadeConfig(size=96, width=4)).eval()


@pytest.fixture
def drawing(cascade):
    """Trained, as far as anybody can tell."""
    with torch.no_grad():
        cascade.network.output_block.conv.conv.bias.fill_(0.1)
    return cascade


def discs(count, size=128, radius=0.3):
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return torch.stack([((x - 0.1 * n).square() + y.square()).sqrt() < radius for n in range(count)])[:, None].float()


def logits(masks):
    return 12 * masks - 6


def test_untrained_it_is_not_used(cascade):
    masks = discs(2)
    asked = {"compared": torch.ones(2, 1).bool(), "honest": torch.ones(1).bool()}
    assert not cascade.trained
    assert not cascade.helps(torch.randn(2, 3, 128, 128), logits(1 - masks), masks, **asked).any()


@torch.no_grad()
def test_objects_and_images_know_nothing_of_each_other_and_any_size_fits(drawing):
    pictures, guesses = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 80, 112)
    together = drawing.redraw(pictures, guesses)
    assert drawing.trained and together.shape == guesses.shape
    for image in range(2):
        for n in range(3):
            alone = drawing.redraw(pictures[image : image + 1], guesses[image : image + 1, n : n + 1])
            torch.testing.assert_close(together[image, n], alone[0, 0], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_brightness_and_contrast_count_for_nothing(drawing):
    picture, guess = torch.randn(1, 3, 96, 96), torch.randn(1, 1, 96, 96)
    torch.testing.assert_close(
        drawing.redraw(picture, guess), drawing.redraw(40 * picture + 7, guess), rtol=0.02, atol=0.02
    )


class Always(Cascade):
    """Draws the same, whatever it sees."""

    drawn = None
    trained = True

    def redraw(self, pictures, guesses):
        return self.drawn


@pytest.mark.parametrize(
    ("drawn", "guess", "honest", "used"),
    [
        ("right", "poor", True, True),
        ("poor", "right", True, False),
        ("right", "right", True, True),
        ("good", "right", True, False),
        ("good", "right", False, True),
        ("poor", "right", False, False),
    ],
    ids=["better", "worse", "alike", "less-and-honest", "less-than-flattered", "far-less"],
)
def test_the_supports_say_whether_it_helps(drawn, guess, honest, used):
    network, masks = Always(CascadeConfig(width=4)), discs(3)
    shapes = {"right": masks, "good": discs(3, radius=0.28), "poor": discs(3, radius=0.15)}
    network.drawn = logits(shapes[drawn])
    helps = network.helps(
        torch.zeros(3, 3, 8, 8),
        logits(shapes[guess]),
        masks,
        compared=torch.tensor([[True], [True], [False]]),
        honest=torch.tensor([honest]),
    )
    assert helps.tolist() == [used]


def test_each_object_is_judged_by_the_supports_that_are_compared():
    network, masks = Always(CascadeConfig(width=4)), discs(2).expand(-1, 3, -1, -1)
    network.drawn = logits(torch.stack([masks[0], 1 - masks[1]]))  # right on the first support, wrong on the second
    compared = torch.tensor([[True, False, False], [False, True, False]])
    helps = network.helps(torch.zeros(2, 3, 8, 8), logits(masks), masks, compared=compared, honest=torch.ones(3).bool())
    assert helps.tolist() == [True, False, False], "nor where nothing can be compared"


@torch.no_grad()
def test_a_network_that_saw_few_patients_is_believed_less(drawing):
    few, many = (CascadeConfig.suited([], groups).share for groups in (2, 12))
    assert 0.3 < few < 0.5 < many == 0.75
    pictures, guesses = torch.randn(1, 3, 96, 96), torch.rand(1, 1, 96, 96)
    away = []
    for share in (0.0, few, many):
        drawing.config = replace(drawing.config, share=share)
        away.append((drawing.redraw(pictures, guesses) - guesses).abs().mean())
    assert away[0] == 0 < away[1] < away[2]


def test_the_grid_is_as_fine_as_the_structures_need():
    lines = torch.zeros(1, 512, 512)
    lines[:, ::16] = lines[:, :, ::16] = 1
    assert suited_size([discs(1, 512)[0]]) == SIZES[0]
    assert suited_size([lines]) == SIZES[-1]
    assert suited_size([torch.zeros(2, 64, 64)]) == suited_size([]) == SIZES[0]
