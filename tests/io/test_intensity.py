"""Which values become black and white."""

import numpy as np
import pytest

from proxyprompt.io.errors import StudyError
from proxyprompt.io.intensity import CT_WINDOWS, IntensitySettings, names, normalise

RNG = np.random.default_rng(4)
CT = RNG.integers(-1024, 1500, (4, 20, 20)).astype(np.int16)
MR = RNG.gamma(2, 200, (4, 20, 20)).astype(np.float32)
PERCENTILES = tuple(np.percentile(MR, (0.5, 99.5)))


def bounds(window, voxels, modality=None, colour=False):
    return IntensitySettings(window).bounds(voxels, modality=modality, colour=colour)


def test_auto_takes_soft_tissue_for_ct_and_for_what_looks_like_it():
    assert bounds("auto", CT, "CT") == bounds("auto", CT) == bounds("auto", CT, "OT") == (-160, 240)
    assert bounds("auto", CT.clip(0), "CT") == (-160, 240)
    assert bounds("auto", CT, "MR") != (-160, 240)
    assert np.allclose(bounds("auto", MR), PERCENTILES)


def test_named_windows_are_for_ct_only():
    assert bounds("lung", CT, "CT") == (-1350, 150)
    assert np.allclose(bounds("lung", MR, "MR"), PERCENTILES)
    for name, (centre, width) in CT_WINDOWS.items():
        assert bounds(name, CT, "CT") == (centre - width / 2, centre + width / 2)


def test_percentile_and_numbers_are_for_every_gray_study():
    assert np.allclose(bounds("percentile", CT, "CT"), np.percentile(CT, (0.5, 99.5)))
    assert bounds((300, 200), MR, "MR") == bounds((300, 200), CT, "CT") == (200, 400)


@pytest.mark.parametrize("window", ["auto", "percentile", "lung", (40, 400)])
def test_colour_stays_as_it_is(window):
    colour = RNG.integers(20, 90, (1, 9, 9, 3))
    assert bounds(window, colour.astype(np.uint8), "US", colour=True) == (0, 255)


@pytest.mark.parametrize("window", ["auto", "lung"])
@pytest.mark.parametrize(
    ("brightest", "white"),
    [(90, 255), (255, 255), (256, 1023), (1023, 1023), (1024, 4095), (4000, 4095), (9000, 16383), (16384, 65535)],
)
def test_deep_colour_goes_by_the_bits_that_it_uses(window, brightest, white):
    colour = RNG.integers(0, brightest, (1, 9, 9, 3)).astype(np.uint16)
    colour[0, 0, 0, 0] = brightest
    assert bounds(window, colour, None, colour=True) == (0, white)


def test_few_bright_pixels_fall_back_to_the_whole_range():
    voxels = np.zeros((1, 100, 100), np.uint8)
    voxels[0, 0, 0] = 200
    assert bounds("auto", voxels) == (0, 200)


def test_percentiles_of_a_sample_are_close(monkeypatch):
    monkeypatch.setattr("proxyprompt.io.intensity.SAMPLE", 1000)
    voxels = RNG.random((10, 100, 100)).astype(np.float32)
    assert np.allclose(bounds("auto", voxels), (0.005, 0.995), atol=0.01)


def test_normalise_clips():
    values = np.array([-500, -160, 40, 240, 9999], np.int16)
    assert np.allclose(normalise(values, bounds("auto", CT, "CT")), (0, 0, 0.5, 1, 1))


@pytest.mark.parametrize("window", ["Lung ", "", "softtissue"])
def test_unknown_window_lists_the_valid_ones(window):
    with pytest.raises(StudyError) as refused:
        IntensitySettings(window)
    assert all(name in str(refused.value) for name in names())


@pytest.mark.parametrize("window", [(1,), (1, 0), (1, -5), (float("nan"), 5), (1, float("inf")), ("a", 2), 7, None])
def test_windows_that_are_no_numbers(window):
    with pytest.raises(StudyError, match="window"):
        IntensitySettings(window)


def test_from_an_options_text():
    assert IntensitySettings.parse(" lung ") == IntensitySettings("lung")
    assert IntensitySettings.parse("40,400") == IntensitySettings((40.0, 400.0))
    for text in ("40,x", "40,400,3", "40;400"):
        with pytest.raises(StudyError):
            IntensitySettings.parse(text)
