"""What a user adds to the proxy prompt: it comes from the truth, and goes the way of a request."""

import numpy as np
import pytest
from labelled_folders import write_plain_images
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.proxy_prompting import PROMPTED, ProxyPrompted
from proxyprompt.predictor.segmenter import build_segmenter


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return build_segmenter(weights_dir=write_tiny_atto(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    episodes = EvalEpisodes(
        read_collection(write_plain_images(tmp_path_factory.mktemp("a") / "rings")), EpisodeConfig()
    )
    return episodes.supports("label_2", 2, 0), *episodes.target(episodes.targets[0], "label_2")


def prompted(name, segmenter, episode):
    """(mask, points and boxes that were asked for)."""
    supports, slices, truth = episode
    method, asked = ProxyPrompted(name, segmenter), []
    click = method._pipeline.click

    def recorded(study, selection, index, structure, points, box=None):
        asked.append((points, box))
        return click(study, selection, index, structure, points, box)

    method._pipeline.click = recorded
    return method.fit(supports, seed=0).segment(slices, truth), asked


def test_a_box_lies_around_the_structure(segmenter, episode):
    mask, asked = prompted("proxyprompt:box", segmenter, episode)
    rows, columns = np.nonzero(episode[2][0])
    ((points, box),) = asked
    assert points is None and mask.shape == episode[2].shape
    assert box[0, 0].tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]


def test_clicks_go_where_the_mask_is_wrong(segmenter, episode):
    mask, asked = prompted("proxyprompt:clicks-5", segmenter, episode)
    assert [points.labels.shape[2] for points, _ in asked] == [1, 2, 3, 4, 5]
    last = asked[-1][0]
    for (x, y), label in zip(last.coords[0, 0].int().tolist(), last.labels[0, 0].tolist(), strict=True):
        assert episode[2][0, y, x] == bool(label)
    once, _ = prompted("proxyprompt:click-1", segmenter, episode)
    assert (mask != once).any()


def test_each_method_is_another_one(segmenter, episode):
    methods = [ProxyPrompted(name, segmenter) for name in PROMPTED]
    assert len({method.identity for method in methods}) == len(PROMPTED)
    refined, plain = (prompted(f"proxyprompt:box{way}", segmenter, episode)[0] for way in ("", "-unrefined"))
    assert (refined != plain).any()
