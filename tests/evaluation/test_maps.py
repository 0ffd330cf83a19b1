"""Heat maps: of the support, where the target's structure looks; the result is what the segmenter gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from labelled_folders import write_plain_images
from PIL import Image
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.report.maps import Shown, draw_maps, look
from proxyprompt.predictor.segmenter import build_segmenter


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return build_segmenter(weights_dir=write_tiny_atto(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    collection = read_collection(write_plain_images(tmp_path_factory.mktemp("data") / "rings"))
    opened = [(case.id, *collection.open(case)) for case in collection.cases]
    return [Shown(name, study.image(0), labels[0] == 2) for name, study, labels in opened]


def test_a_target_looks_at_itself(segmenter, shown):
    found = look(segmenter, shown[0], shown[0])
    assert found.mse == 0 and found.heat.shape == shown[0].mask.shape == found.drawn.shape
    assert found.heat.max() == pytest.approx(1) and found.heat.min() >= 0


def test_the_heat_is_where_the_support_has_what_the_target_asks_for(segmenter, shown, monkeypatch):
    """With features that are the brightness, a bright structure is looked for in the support's bright places."""
    foundation = segmenter.foundation
    encode = type(foundation).encode

    def by_brightness(images):
        features = encode(foundation, images)
        share = torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), features.embedding.shape[-2:])
        return replace(features, embedding=(30 * share).expand(-1, foundation.dim, -1, -1).contiguous())

    monkeypatch.setattr(foundation, "encode", by_brightness)
    for support in shown[1:3]:
        heat = look(segmenter, shown[0], support).heat
        assert heat[support.mask].mean() > 3 * heat[~support.mask].mean()


def test_a_column_for_each_support(segmenter, shown, tmp_path):
    looked = draw_maps(segmenter, shown[0], shown[:4], tmp_path / "new" / "maps.png")
    assert [found.support.name for found in looked] == [s.name for s in shown[:4]]
    assert all(0 <= found.dice <= 1 for found in looked)
    assert np.asarray(Image.open(tmp_path / "new" / "maps.png")).std() > 0
