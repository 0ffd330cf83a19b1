"""Frames of a group as one clip, and what a memory makes of one prompted frame."""

import numpy as np
import pytest
from PIL import Image

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.clips import as_clips
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.methods import ProxyPromptMethod
from proxyprompt.evaluation.scoring import score
from proxyprompt.evaluation.tracking import FrameZero, MemoryVideo
from proxyprompt.foundation import build_foundation
from proxyprompt.io.errors import StudyError
from proxyprompt.predictor.segmenter import build_segmenter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three clips of three frames, a bright ball that moves; frames are numbered backwards in the table."""
    folder, rows = tmp_path_factory.mktemp("clips") / "clips", ["case,group"]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    y, x = np.mgrid[:40, :40]
    for clip in range(3):
        for n in (2, 1, 0):
            ball = (y - 18 - clip) ** 2 + (x - 14 - 2 * n) ** 2 < 60
            image = np.random.default_rng(n).normal(90, 5, ball.shape) + 80 * ball
            Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"c{clip}_{n}.png")
            Image.fromarray(ball.astype(np.uint8)).save(folder / "masks" / f"c{clip}_{n}.png")
            rows.append(f"c{clip}_{n},c{clip}")
    (folder / "groups.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def episode(folder):
    episodes = EvalEpisodes(as_clips(read_collection(folder)), EpisodeConfig())
    slices, truth = episodes.target(episodes.targets_of("label_1")[0], "label_1")
    return episodes.supports("label_1", 1, 0), slices, truth


def test_frames_of_a_group_are_one_clip(folder):
    clips = as_clips(read_collection(folder))
    assert [case.id for case in clips.cases] == ["c0", "c1", "c2"]
    study, labels = clips.open(clips.cases[1])
    assert study.kind == "cine" and labels.shape == (3, 40, 40)
    centres = [np.nonzero(labels[n])[1].mean() for n in range(3)]
    assert np.allclose(np.diff(centres), 2, atol=0.2)
    (folder / "groups.csv").rename(folder / "kept.csv")
    try:
        with pytest.raises(StudyError, match="no group has a second image"):
            as_clips(read_collection(folder))
    finally:
        (folder / "kept.csv").rename(folder / "groups.csv")


def test_smoothness_is_the_overlap_of_neighbours():
    masks = np.zeros((4, 2, 2), bool)
    masks[0, 0, 0] = masks[1, 0, 0] = masks[1, 0, 1] = True
    found = score(masks, np.ones_like(masks))
    assert found.smoothness == pytest.approx((2 / 3 + 0) / 2)
    assert found.truth_smoothness == 1
    assert score(masks[:1], masks[:1]).smoothness is None


def test_modes_are_methods_of_their_own(episode, weights):
    supports, slices, _ = episode
    ours = ProxyPromptMethod(build_segmenter(weights_dir=weights, image_size=128))
    alone = ours.in_mode("slice by slice")
    assert alone.name == "proxyprompt:slice-by-slice" and alone.identity != ours.identity
    logits = [
        ours.pipeline.run(slices.study, supports, agreement=False, mode=mode).logits
        for mode in ("slice by slice", "neighbours")
    ]
    assert not np.array_equal(*logits)
    for method, expected in ((alone, logits[0]), (ours.in_mode("neighbours"), logits[1])):
        drawn = method.fit(supports, seed=0).predict(slices)
        assert np.array_equal(drawn, (expected[:, 0] > 0) & drawn.any((1, 2))[:, None, None])


@pytest.mark.parametrize("kind", ["mask", "box", "point"])
def test_the_first_frame_is_prompted_by_the_truth(episode, weights, kind):
    _, slices, truth = episode
    foundation = build_foundation("atto", weights_dir=weights, image_size=128)
    fitted = FrameZero(foundation, kind).fit(episode[0], seed=0)
    found = fitted.segment(slices, truth)
    assert fitted.sees_truth and found.shape == truth.shape
    assert np.array_equal(found[0], truth[0]) == (kind == "mask")
    moved = truth.copy()
    moved[1:] = False  # the truth of later frames is not looked at
    np.testing.assert_array_equal(fitted.segment(slices, moved), found)
    assert not fitted.segment(slices, np.zeros_like(truth)).any()


def test_another_patients_frame_is_frame_0(episode, weights):
    """The first frame is what the memory of the supports alone gives; the second remembers it, too."""
    supports, slices, _ = episode
    foundation = build_foundation("atto", weights_dir=weights, image_size=128)
    banks, decode = [], foundation.decode

    def watched(features, prompts, memory=None):
        banks.append(memory)
        return decode(features, prompts, memory)

    foundation.decode = watched
    MemoryVideo(foundation).fit(supports, seed=0).predict(slices)
    assert [bank and bank.conditioning for bank in banks] == [None, (True,), (True, False), (True, False, False)]
    assert banks[-1].distances == (3, 2, 1)
