"""Frames that are a file each, as one clip."""

import numpy as np
import pytest
from PIL import Image

from proxyprompt.io.study import StudyError, read_clip


def frames(folder, *arrays):
    paths = [folder / f"{n}.png" for n in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    return paths


def test_frames_come_in_the_order_that_is_given(tmp_path):
    made = [np.full((6, 9), 10, np.uint8) for _ in range(3)]
    for n, frame in enumerate(made):
        frame[1, n] = 250
    study = read_clip(frames(tmp_path, *made)[::-1])
    assert study.kind == "cine" and len(study) == 3 and study.slice_shape == (6, 9)
    assert [int(study.image(n)[0, 1].argmax()) for n in range(3)] == [2, 1, 0]
    assert study.grid_shape == (3, 6, 9)
    labels = np.zeros((3, 6, 9), np.uint8)
    labels[2, 1, 0] = 1
    assert np.array_equal(study.to_grid(labels), labels)


def test_colour(tmp_path):
    made = [np.random.default_rng(n).integers(0, 255, (6, 9, 3)).astype(np.uint8) for n in range(2)]
    study = read_clip(frames(tmp_path, *made))
    np.testing.assert_allclose(study.image(1), made[1].transpose(2, 0, 1) / 255, atol=1e-6)


def test_one_frame_is_an_image(tmp_path):
    assert read_clip(frames(tmp_path, np.eye(6, dtype=np.uint8) * 200)).kind == "image"


def test_frames_of_different_sizes_are_named(tmp_path):
    gray, large = np.eye(6, dtype=np.uint8), np.eye(7, dtype=np.uint8)
    paths = frames(tmp_path, gray, gray, large)
    with pytest.raises(StudyError, match=r"0.png is 6 x 6 x 1, .*2.png is 7 x 7 x 1; bring them to one size"):
        read_clip(paths)
    colour = frames(tmp_path, gray, np.stack([gray, 0 * gray, gray], 2))
    with pytest.raises(StudyError, match=r"frames of a clip have one size"):
        read_clip(colour)
    with pytest.raises(StudyError, match="a clip of no frames"):
        read_clip([])
