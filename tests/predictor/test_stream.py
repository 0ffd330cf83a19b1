"""Frames that come one after the other."""

import numpy as np
import pytest

from proxyprompt import ProxyPromptPredictor
from proxyprompt.io.study import StudyError
from proxyprompt.predictor.stream import BEFORE
from proxyprompt.supports.selection import SupportError


@pytest.fixture(scope="module")
def predictor(weights):
    made = ProxyPromptPredictor.from_pretrained("atto", weights_dir=weights, image_size=128, device="cpu")
    image, labels = frame(0)
    made.set_support(image, labels, ["ball"])
    return made


def frame(seed, size=48):
    """A bright ball that moves, on noise."""
    rows, columns = np.mgrid[:size, :size]
    labels = ((rows - 20) ** 2 + (columns - 20 - seed) ** 2 < 80).astype(np.uint8)
    return (np.random.default_rng(seed).normal(100, 5, labels.shape) + 80 * labels).astype(np.float32), labels


def test_a_frame_is_what_it_is_alone_and_the_frames_before_count(predictor):
    frames = [frame(n)[0] for n in range(1, 4)]
    alone = [predictor.predict(each) for each in frames]
    each = predictor.stream(mode="slice by slice")
    for image, expected in zip(frames, alone, strict=True):
        found = each(image)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=5e-3, atol=5e-3)
        np.testing.assert_array_equal(found.masks, found.logits > 0 if found.presence[0, 0] >= 0.5 else found.masks * 0)
    stream = predictor.stream()
    mean = alone[0].logits.astype(np.float32)
    np.testing.assert_allclose(stream(frames[0]).logits, mean, rtol=5e-3, atol=5e-3)
    for image, own in zip(frames[1:], alone[1:], strict=True):
        mean = (1 - BEFORE) * own.logits.astype(np.float32) + BEFORE * mean
        np.testing.assert_allclose(stream(image).logits, mean, rtol=0.02, atol=0.02)


def test_another_size_begins_anew_and_a_bad_frame_ends_nothing(predictor):
    stream, small = predictor.stream(), frame(2, size=32)[0]
    stream(frame(1)[0])
    np.testing.assert_allclose(stream(small).logits, predictor.predict(small).logits, rtol=5e-3, atol=5e-3)
    with pytest.raises(StudyError, match="constant"):
        stream(np.zeros((32, 32), np.uint8))
    with pytest.raises(StudyError, match="has 4 slices; use predict_volume"):
        stream(np.zeros((4, 32, 32), np.float32) + np.arange(4)[:, None, None])
    assert stream(small).masks.shape == (1, 32, 32)


def test_nothing_is_kept_of_frames(predictor):
    stream = predictor.stream()
    before = predictor._cache.stats()
    for n in range(5):
        stream(frame(n)[0])
    after = predictor._cache.stats()
    assert (after["memory_bytes"], after["misses"]) == (before["memory_bytes"], before["misses"])


def test_a_stream_needs_a_support_and_a_mode_that_there_is(predictor):
    with pytest.raises(ValueError, match="mode is 'quick'"):
        predictor.stream(mode="quick")
    with pytest.raises(SupportError, match="call set_support before stream"):
        ProxyPromptPredictor(predictor.segmenter).stream()
