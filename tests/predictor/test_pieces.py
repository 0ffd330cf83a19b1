"""Fine structures through the pipeline, against the same tiles decoded by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from proxyprompt.extensions import PAPER
from proxyprompt.extensions.pieces import MOST, Tiles
from proxyprompt.foundation.base import Points
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import study_of
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.pieces import StudyInPieces, supports_in_pieces
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.segmenter import build_segmenter
from proxyprompt.supports.selection import Selection, SupportSlice

PIECES = PAPER._replace(pieces=True)


def threads(seed, size=160):
    """An image with thin bright bars all over it, and the bars."""
    random = np.random.default_rng(seed)
    bars = np.broadcast_to(((np.arange(size) + seed) % 20 < 2)[:, None], (size, size)).copy()
    image = np.clip(0.3 + 0.4 * bars + 0.05 * random.normal(size=bars.shape), 0, 1)
    return study_of((255 * image).astype(np.uint8)), bars


@pytest.fixture(scope="module")
def segmenter(weights):
    return build_segmenter(weights_dir=weights)


@pytest.fixture(scope="module")
def selection():
    """Bars, and half of the image: a fine and a compact structure."""
    slices, images, masks = [], [], []
    for seed in (1, 2):
        study, bars = threads(seed)
        half = np.zeros_like(bars)
        half[:80] = True
        slices.append(SupportSlice(f"s{seed}", 0, 0.5, False, study.slice_hash(0), frozenset({study.content_hash})))
        images.append(study.image(0))
        masks.append(np.stack([bars, half]))
    return Selection(tuple(slices), ("bars", "half"), images, masks, np.ones((2, 2), bool))


def pipeline(segmenter, extensions=PIECES):
    return Pipeline(
        segmenter, ContentCache(None, memory_bytes=1 << 28, disk_bytes=0), Latencies(), extensions=extensions
    )


def whole(segmenter, study, selection):
    return pipeline(segmenter, PAPER).run(study, selection, agreement=False)


def test_a_fine_structure_is_drawn_tile_by_tile_and_a_compact_one_in_the_whole_view(segmenter, selection):
    study, _ = threads(3)
    found = pipeline(segmenter).run(study, selection, agreement=False)
    plain = whole(segmenter, study, selection)
    np.testing.assert_array_equal(found.logits[:, 1], whole(segmenter, study, selection.of([1])).logits[:, 0])
    assert not np.array_equal(found.logits[:, 0], plain.logits[:, 0])
    tiles, bars = Tiles.of(study.slice_shape, MOST), supports_in_pieces(selection.of([0]), MOST)
    assert len(bars) == 16 and bars.images[0].shape[1:] == tiles.size
    drawn, presence, encoding = [], [], pipeline(segmenter).prepare(bars)
    for image in tiles.cut(study.image(0)):  # each as if it were an image of its own
        prepared, geometry = segmenter.foundation.preprocess(torch.from_numpy(image.copy())[None])
        with torch.inference_mode():
            decoded = segmenter.segment(segmenter.encode(prepared), encoding)
        drawn.append(segmenter.foundation.postprocess(decoded.mask_logits, geometry)[0].half().numpy())
        presence.append(float(decoded.presence_logit.sigmoid()))
    np.testing.assert_allclose(found.logits[0, :1], tiles.join(np.stack(drawn)), rtol=2e-2, atol=2e-2)
    assert found.presence[0, 0] == pytest.approx(max(presence), abs=1e-4)


def test_without_the_extension_everything_is_looked_at_in_the_whole_view(segmenter, selection):
    study, _ = threads(3)
    found = pipeline(segmenter, PAPER).run(study, selection, agreement=False)
    np.testing.assert_array_equal(found.logits, whole(segmenter, study, selection).logits)


def test_a_click_changes_the_tiles_that_it_lies_on_and_no_other(segmenter, selection):
    study, _ = threads(3)
    one = pipeline(segmenter)
    before = one.run(study, selection, agreement=False).logits[0, 0]
    click = Points(torch.tensor([[[[5.0, 7.0]]]]), torch.ones(1, 1, 1, dtype=torch.int32))
    after = one.click(study, selection, 0, 0, click)
    rows, columns = Tiles.of(study.slice_shape, MOST).boxes()[0]
    changed = np.argwhere(before != after)
    assert len(changed) and changed[:, 0].max() < rows.stop and changed[:, 1].max() < columns.stop


def test_clicks_are_handed_to_a_tile_in_its_own_pixels():
    study, _ = threads(3)
    pieces = StudyInPieces(study, 2)
    points = Points(torch.tensor([[[[10.0, 20.0], [150.0, 150.0]]]]), torch.tensor([[[1, 0]]], dtype=torch.int32))
    first, last = pieces.points(points, 0), pieces.points(points, 3)
    rows, columns = pieces.tiles.boxes()[3]
    assert first.coords.tolist() == [[[[10.0, 20.0]]]] and first.labels.tolist() == [[[1]]]
    assert last.coords.tolist() == [[[[150.0 - columns.start, 150.0 - rows.start]]]] and last.labels.tolist() == [[[0]]]
    assert pieces.points(points, 1) is None


def test_a_box_is_handed_to_the_tiles_that_it_touches():
    pieces = StudyInPieces(threads(3)[0], 2)
    start = pieces.tiles.columns[1]
    assert pieces.box(torch.tensor([[[10.0, 20.0, 150.0, 30.0]]]), 0).tolist() == [[[10, 20, 95, 30]]]
    assert pieces.box(torch.tensor([[[10.0, 20.0, 150.0, 30.0]]]), 1).tolist() == [[[0, 20, 150 - start, 30]]]
    assert pieces.box(torch.tensor([[[10.0, 20.0, 150.0, 30.0]]]), 2) is None


def test_the_same_tile_is_the_same_to_the_cache_as_target_and_as_support(selection):
    study, _ = threads(1)
    pieces = StudyInPieces(study, MOST)
    supports = supports_in_pieces(selection.of([0]), MOST)
    known = {pieces.slice_hash(tile) for tile in pieces.of_slices([0])}
    assert len(known) == 16 and sum(s.image_key in known for s in supports.slices) > 0
    for chosen, image in zip(supports.slices, supports.images, strict=True):
        if chosen.image_key in known:
            at = [pieces.slice_hash(tile) for tile in pieces.of_slices([0])].index(chosen.image_key)
            np.testing.assert_array_equal(image, pieces.images([at])[0])


def test_a_structure_that_one_support_declares_only_is_kept(segmenter, selection):
    valid = selection.valid.copy()
    valid[1, 0] = False
    found = supports_in_pieces(replace(selection, valid=valid).of([0]), 2)
    assert {s.study_id for s in found.slices} == {"s1"}
