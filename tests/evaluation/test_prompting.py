"""The foundation's own prompts: they lie where they should, and only who may sees the truth."""

import numpy as np
import pytest
import torch
from labelled_folders import write_plain_images, write_volumes
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.prompting import TRUTH_PROMPTS, Memory, PerSam, TruthPrompted
from proxyprompt.foundation import build_foundation
from proxyprompt.foundation.base import MemoryBank, Prompts
from proxyprompt.metrics.segmentation import overlap


class Recorder:
    """The real foundation; keeps the prompts that were decoded."""

    def __init__(self, foundation):
        self._foundation, self.prompts, self.banks = foundation, [], []

    def __getattr__(self, name):
        return getattr(self._foundation, name)

    def decode(self, features, prompts, memory=None):
        self.prompts.append(prompts)
        self.banks.append(memory)
        return self._foundation.decode(features, prompts, memory)


@pytest.fixture
def foundation(tmp_path):
    return Recorder(build_foundation("atto", weights_dir=write_tiny_atto(tmp_path)))


@pytest.fixture
def episode(tmp_path):
    collection = read_collection(write_volumes(tmp_path / "stacks"))
    episodes = EvalEpisodes(collection, EpisodeConfig())
    return episodes.supports("core", 2, 0), *episodes.target(episodes.targets[0], "core")


def on_input(foundation, places, shape):
    """(x, y) in pixels of the image -> of the network's input."""
    return np.asarray(places) * [foundation.image_size / shape[1], foundation.image_size / shape[0]]


def test_a_click_lies_in_the_structure_and_a_box_around_it(foundation, episode):
    supports, slices, truth = episode
    for name in ("point", "box"):
        masks = TruthPrompted(name, TRUTH_PROMPTS[name], foundation).fit(supports, seed=0).segment(slices, truth)
        assert masks.shape == truth.shape and not masks[[0, -1]].any()
    present = np.flatnonzero(truth.any(axis=(1, 2)))
    assert len(foundation.prompts) == 2 * len(present)
    for z, prompts in zip(present, foundation.prompts, strict=False):
        ((x, y),) = prompts.points.coords[0, 0].numpy() / on_input(foundation, [1, 1], slices.slice_shape)
        assert truth[z, round(float(y)), round(float(x))] and prompts.points.labels.item() == 1
    rows, columns = np.nonzero(truth[present[-1]])
    expected = [[columns.min(), rows.min()], [columns.max(), rows.max()]]
    expected = on_input(foundation, expected, slices.slice_shape).ravel()
    assert foundation.prompts[-1].boxes[0, 0].numpy() == pytest.approx(expected, abs=1e-3)


def test_five_clicks_go_where_the_error_is_largest(foundation, episode):
    """Each click lies on an error of the mask before it, and says which kind of error it is."""
    supports, slices, truth = episode
    method = TruthPrompted("clicks-5", TRUTH_PROMPTS["clicks-5"], foundation)
    method.fit(supports, seed=0).segment(slices, truth)
    rows = [row for row in range(len(truth)) if truth[row].any()]
    first = foundation.prompts[:5]
    assert [prompts.points.coords.shape[2] for prompts in first] == [1, 2, 3, 4, 5]
    assert first[0].masks is None and all(prompts.masks is not None for prompts in first[1:])
    scale = foundation.to_input(torch.ones(1, 2), foundation.geometry(slices.slice_shape))[0]
    with torch.inference_mode():
        features, geometry = method.encode(slices.images([rows[0]])[0])
        mask = np.zeros_like(truth[rows[0]])
        for prompts in first:
            column, row = (prompts.points.coords[0, 0, -1] / scale).round().int().tolist()
            label = prompts.points.labels[0, 0, -1].item()
            assert bool(truth[rows[0]][row, column]) == bool(label) != bool(mask[row, column])
            mask = method.mask(features, geometry, prompts)[0].numpy()


def test_everything_takes_the_mask_that_fits_best(foundation, episode, monkeypatch):
    monkeypatch.setattr("proxyprompt.evaluation.prompting.EVERYTHING_SIDE", 4)
    supports, slices, truth = episode
    method = TruthPrompted("everything", TRUTH_PROMPTS["everything"], foundation)
    masks = method.fit(supports, seed=0).segment(slices, truth)
    with torch.inference_mode():
        features, geometry = method.encode(slices.images([2])[0])
        every = method.mask(features, geometry, foundation.prompts[0]).numpy()
    assert every.shape == (16, *slices.slice_shape)
    same_place = foundation.prompts[0].points.coords[0, :, 0].numpy()
    assert same_place.min() > 0 and same_place.max() < foundation.image_size and len(np.unique(same_place[:, 0])) == 4
    assert overlap(masks[2], truth[2]).dice == max(overlap(mask, truth[2]).dice for mask in every)


def test_memory_is_the_foundation_with_the_supports_as_frames(foundation, episode):
    supports, slices, _ = episode
    method = Memory(foundation)
    fitted = method.fit(supports, seed=0)
    masks = fitted.predict(slices)
    bank = foundation.banks[-1]
    assert len(bank.frames) == 2 and all(bank.conditioning) and bank.distances == (2, 1)
    assert masks.shape == (len(slices), *slices.slice_shape)
    with torch.inference_mode():
        features, geometry = method.encode(slices.images([1])[0])
        nothing = foundation.prompts[-1]
        assert nothing.points.labels.item() == -1
        with_frames = foundation.decode(features, nothing, bank).mask_logits
        without = foundation.decode(features, nothing, MemoryBank()).mask_logits
        assert not torch.allclose(with_frames, without)
        expected = foundation.postprocess(with_frames, geometry)[0, 0] > 0
    assert np.array_equal(masks[1], expected.numpy())


def test_another_mask_is_another_memory(foundation, episode):
    supports, slices, _ = episode
    swapped = type(supports)(**{**vars(supports), "masks": [~mask for mask in supports.masks]})
    one, other = (Memory(foundation).fit(s, seed=0) for s in (supports, swapped))
    one.predict(slices)
    first = foundation.banks[-1]
    other.predict(slices)
    assert not torch.allclose(first.frames[0].maps, foundation.banks[-1].frames[0].maps)


def test_persam_clicks_where_the_target_looks_like_the_structure(foundation, tmp_path):
    collection = read_collection(write_plain_images(tmp_path / "rings"))
    episodes = EvalEpisodes(collection, EpisodeConfig())
    slices, _ = episodes.target(episodes.targets[0], "label_2")
    masks = PerSam(foundation).fit(episodes.supports("label_2", 2, 0), seed=0).predict(slices)
    assert masks.shape == (1, *slices.slice_shape)
    clicks, *refined = foundation.prompts
    assert clicks.points.labels[0, 0].tolist() == [1, 0]
    assert not torch.equal(clicks.points.coords[0, 0, 0], clicks.points.coords[0, 0, 1])
    for prompts in refined:
        assert isinstance(prompts, Prompts) and prompts.masks is not None and prompts.boxes is not None


def test_a_foundation_without_memory_is_told(foundation):
    foundation.remembers = False
    with pytest.raises(ValueError, match="keeps no memory"):
        Memory(foundation)
