"""When structures are looked at piece by piece, and how images are cut and put together."""

import numpy as np
import pytest

from proxyprompt.extensions.pieces import MOST, SUPPORTS, Tiles, mean_width, most_telling, spread, tiles_along_a_side


def grating(period, width, size=240):
    """Bars all over the image."""
    return np.broadcast_to((np.arange(size) % period < width)[:, None], (size, size)).copy()


def disc(radius, centre=(120, 120), size=240):
    rows, columns = np.ogrid[:size, :size]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2


def test_the_width_of_a_bar_is_its_width():
    """An outline is as many pixels as it has, so that bars of one and two pixels look alike."""
    assert mean_width(grating(40, 10)) == pytest.approx(10 / 240, rel=0.1)
    assert mean_width(np.kron(grating(40, 10), np.ones((2, 2), bool))) == pytest.approx(10 / 240, rel=0.1)
    assert mean_width(disc(60)) == pytest.approx(60 / 240, rel=0.3)


def test_the_thinner_the_more_pieces_and_none_for_what_is_compact_or_lies_in_one_place():
    assert tiles_along_a_side([grating(40, 3)]) == MOST
    assert tiles_along_a_side([grating(40, 6)]) == 2
    assert tiles_along_a_side([grating(60, 20)]) == 1
    assert tiles_along_a_side([disc(60)]) == 1
    assert tiles_along_a_side([disc(4)]) == 1  # small, but not all over
    assert tiles_along_a_side([]) == 1
    half = grating(40, 3)
    half[:, 120:] = False
    assert spread(half) == 0.5
    assert tiles_along_a_side([half]) == 1


@pytest.mark.parametrize("shape", [(240, 240), (101, 67), (5, 3)])
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_what_is_cut_is_put_together_again(shape, side):
    values = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float16)
    tiles = Tiles.of(shape, side)
    cut = tiles.cut(values)
    assert cut.shape == (side**2, 2, *tiles.size)
    np.testing.assert_allclose(tiles.join(cut), values, rtol=2e-3)


def test_supports_are_the_tiles_that_show_most_of_each_structure_in_turn():
    shares = np.zeros((40, 2))
    shares[:, 0] = np.linspace(0.1, 0.5, 40)
    shares[3, 1] = 0.001
    chosen = most_telling(shares)
    assert len(chosen) == SUPPORTS and 3 in chosen and {39, 38, 37} <= set(chosen)
    assert most_telling(np.zeros((4, 1))) == []
