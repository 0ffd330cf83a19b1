"""Which slices a simulated reader paints, and what becomes of them."""

import numpy as np
import pytest
from labelled_folders import write_volumes

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.correcting import Correcting, worst
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.methods import ProxyPromptMethod
from proxyprompt.predictor.segmenter import build_segmenter


def test_the_worst_slices_apart_from_each_other():
    truth = np.zeros((16, 4, 4), bool)
    masks = truth.copy()
    for row, wrong in ((3, 9), (4, 8), (5, 7), (12, 1)):
        masks[row].flat[:wrong] = True
    assert worst(masks, truth, 1) == [3]
    assert worst(masks, truth, 3) == [3, 5, 12]


@pytest.fixture(scope="module")
def episode(tmp_path_factory, weights):
    collection = read_collection(write_volumes(tmp_path_factory.mktemp("data") / "stacks"))
    episodes = EvalEpisodes(collection, EpisodeConfig())
    structure = next(iter(collection.structures))
    slices, truth = episodes.target(episodes.targets_of(structure)[0], structure)
    ours = ProxyPromptMethod(build_segmenter(weights_dir=weights))
    return ours, episodes.supports(structure, 2, 0), slices, truth


def test_painted_slices_come_back_as_they_were_painted(episode):
    ours, supports, slices, truth = episode
    first = ours.fit(supports, seed=0).predict(slices)
    rows = worst(first, truth, 2)
    others = np.setdiff1d(np.arange(len(truth)), rows)
    replaced, corrected = (
        Correcting(ours, 2, support=support).fit(supports, seed=0).segment(slices, truth) for support in (False, True)
    )
    np.testing.assert_array_equal(replaced[rows], truth[rows])
    np.testing.assert_array_equal(corrected[rows], truth[rows])
    np.testing.assert_array_equal(replaced[others], first[others])
    painted = {slices.indices[row]: {supports.structures[0]: truth[row]} for row in rows}
    asked = ours.pipeline.run(slices.study, supports, indices=slices.indices, agreement=False, corrections=painted)
    np.testing.assert_array_equal(corrected[others], (asked.gated(0) > 0)[others])
