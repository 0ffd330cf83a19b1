"""The way from supports to masks, against the same computed by hand, without cache and without batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from proxyprompt.extensions import PAPER
from proxyprompt.foundation.base import Features, Points
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import read_study
from proxyprompt.metrics.segmentation import overlap
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.masks import Masks, most_shown
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.progress import CancelledError, FollowedRequests
from proxyprompt.predictor.segmenter import build_segmenter
from proxyprompt.requests.clicks import Click, as_points
from proxyprompt.supports.corrections import with_corrections
from proxyprompt.supports.selection import Selection, SupportSlice
from proxyprompt.supports.slice_positions import SlicePresence

IDS = ("us_01", "us_02", "us_03")
NAMES = ("head", "symphysis")


@pytest.fixture(scope="session")
def segmenter(weights):
    return build_segmenter(weights_dir=weights)


@pytest.fixture(scope="session")
def selection(samples):
    images, masks, slices = [], [], []
    for name in IDS:
        study = read_study(samples / f"{name}.png")
        labels = study.read_label(samples / "labels" / "final" / f"{name}.png")[0]
        images.append(study.image(0))
        masks.append(np.stack([labels == value for value in (1, 2)]))
        slices.append(SupportSlice(name, 0, 0.5, False, study.slice_hash(0), frozenset({study.content_hash})))
    masks[2][1] = False  # declared, but not on this slice
    valid = np.array([[True, True], [True, False], [True, True]])
    return Selection(tuple(slices), NAMES, images, masks, valid)


@pytest.fixture
def cache():
    return ContentCache(None, memory_bytes=1 << 28, disk_bytes=0)


def run(segmenter, cache, study, selection, *, extensions=PAPER, **options):
    latencies = Latencies()
    pipeline = Pipeline(segmenter, cache, latencies, extensions=extensions)
    return pipeline.run(study, selection, **options), latencies.report()


def by_hand(segmenter, study, index, selection):
    foundation = segmenter.foundation
    features, contexts, masks = [], [], []
    for image, mask in zip(selection.images, selection.masks, strict=True):
        prepared, geometry = foundation.preprocess(torch.from_numpy(image)[None])
        features.append(segmenter.encode(prepared))
        masks.append(foundation.preprocess_masks(torch.from_numpy(mask)[None], geometry))
        contexts.append(segmenter.encode_pair(prepared, masks[-1])[0])
    valid = torch.from_numpy(selection.valid)
    memory = segmenter.encode_support(Features.join(features), torch.stack(contexts), valid)
    prepared, geometry = foundation.preprocess(torch.from_numpy(study.images([index])))
    decoded = segmenter.segment(segmenter.encode(prepared), memory)
    return foundation.postprocess(decoded.mask_logits, geometry)[0].numpy(), decoded.presence_logit[0].sigmoid().numpy()


@torch.inference_mode()
def test_every_slice_is_what_it_is_alone(segmenter, cache, samples, selection):
    study = read_study(samples / "mr_05.nii.gz")
    masks, _ = run(segmenter, cache, study, selection, mode="slice by slice")
    assert masks.logits.shape == (len(study), 2, *study.slice_shape)
    for index in (0, len(study) // 2, len(study) - 1):
        logits, presence = by_hand(segmenter, study, index, selection)
        np.testing.assert_allclose(masks.logits[index], logits, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(masks.presence[index], presence, atol=1e-4)


def test_from_the_cache_comes_the_same(segmenter, cache, samples, selection):
    study = read_study(samples / "us_09.png")
    first, _ = run(segmenter, cache, study, selection)
    misses = cache.stats()["misses"]
    second, latencies = run(segmenter, cache, study, selection)
    np.testing.assert_array_equal(first.logits, second.logits)
    assert cache.stats()["misses"] == misses
    assert latencies["decode"] > 0


def test_a_request_that_is_followed_counts_its_slices_and_can_be_cancelled(segmenter, cache, samples, selection):
    study, requests = read_study(samples / "mr_05.nii.gz"), FollowedRequests()
    with requests.following("mine"):
        run(segmenter, cache, study, selection, indices=[0, 1, 2], agreement=False)
        assert (requests.get("mine").done, requests.get("mine").total) == (3, 3)
        requests.get("mine").cancel()
        with pytest.raises(CancelledError):
            run(segmenter, cache, study, selection, indices=[3, 4], agreement=False)


def test_an_edited_mask_is_another_memory(segmenter, cache, samples, selection):
    study = read_study(samples / "us_09.png")
    first, _ = run(segmenter, cache, study, selection)
    edited = [mask.copy() for mask in selection.masks]
    edited[0][0] = np.roll(edited[0][0], 40, axis=1)
    second, _ = run(
        segmenter, cache, study, Selection(selection.slices, NAMES, selection.images, edited, selection.valid)
    )
    assert not np.array_equal(first.logits, second.logits)


def test_agreement_compares_those_that_hold_the_structure(segmenter, cache, samples, selection):
    study = read_study(samples / "us_09.png")
    masks, latencies = run(segmenter, cache, study, selection)
    head, symphysis = masks.agreement
    assert 0 <= head <= 1
    assert symphysis is None  # of three, one has it on its slice, one does not declare it, one is empty
    assert latencies["agreement"] > 0
    same = [0, 0]
    twice = Selection(
        tuple(selection.slices[k] for k in same),
        NAMES,
        [selection.images[k] for k in same],
        [selection.masks[k] for k in same],
        selection.valid[same],
    )
    assert run(segmenter, cache, study, twice)[0].agreement == (1.0, 1.0)


def test_absence_takes_the_mask_away_only_at_the_end():
    logits = np.ones((3, 2, 2, 2), np.float16)
    presence = np.array([[0.9, 0.1], [0.5, 0.6], [0.2, 0.2]], np.float32)
    masks = Masks(logits, presence, np.ones_like(presence), (None, None))
    assert (masks.gated(0) > 0).any(axis=(1, 2)).tolist() == [True, True, False]
    assert (masks.gated(1) > 0).any(axis=(1, 2)).tolist() == [False, True, False]
    assert most_shown(masks) == 1
    nowhere = Masks(logits, presence * 0.5, np.ones_like(presence), (None, None))
    assert most_shown(nowhere) == 0


def test_a_volume_is_drawn_on_where_the_supports_volumes_show_it(segmenter, cache, samples, selection):
    study = read_study(samples / "mr_05.nii.gz")
    shown = np.zeros((len(study), 2), bool)
    shown[2:4, 0] = shown[:, 1] = True
    placed = replace(selection, slice_presence={"mr_01": SlicePresence(shown, np.array([True, False]), study.length)})
    masks, _ = run(segmenter, cache, study, placed)
    assert masks.searched()[:, 0].nonzero()[0].tolist() == [2, 3] and masks.searched()[:, 1].all()
    assert set(masks.present()[:, 0].nonzero()[0]) <= {2, 3}
    everywhere, _ = run(segmenter, cache, study, placed, everywhere=True)
    untold, _ = run(segmenter, cache, study, selection)
    for other in (everywhere, untold):
        assert other.searched().all()
        np.testing.assert_array_equal(other.logits, masks.logits)
    alone = Pipeline(segmenter, cache, Latencies(), extensions=PAPER).alone(study, placed, list(range(len(study))))
    assert {one.structure for one in alone} == {0}
    assert all(set(one.masks.any((1, 2)).nonzero()[0]) <= {2, 3} for one in alone)
    plain_image = read_study(samples / "us_09.png")
    assert run(segmenter, cache, plain_image, placed)[0].searched().all()


def test_dice():
    one, other = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert overlap(one, other).dice == 0.5
    assert overlap(one, one).dice == 1.0
    assert overlap(~one & one, ~one & one).dice == 1.0
    assert overlap(one, ~one).dice == 0.0


def test_images_with_and_without_padding_become_one_batch():
    plain = Features(torch.zeros(1, 4, 2, 2), (torch.zeros(1, 2, 4, 4),))
    padded = Features(torch.ones(1, 4, 2, 2), (torch.ones(1, 2, 4, 4),), torch.tensor([[[False, True], [False, True]]]))
    joined = Features.join([plain, padded], torch.device("cpu"))
    assert joined.embedding.shape == (2, 4, 2, 2) and joined.high_res[0].shape == (2, 2, 4, 4)
    assert not joined.padding[0].any() and joined.padding[1].sum() == 2
    assert Features.join([plain, plain], torch.device("cpu")).padding is None


@torch.inference_mode()
def test_a_click_is_a_prompt_beside_the_supports(segmenter, cache, samples, selection):
    """The same numbers as one structure decoded by hand with its proxy and its points; another slice's is another."""
    study = read_study(samples / "mr_05.nii.gz")
    pipeline = Pipeline(segmenter, cache, Latencies(), extensions=PAPER)
    points = as_points([Click(3, 10, 20, True), Click(3, 40, 30, False)])
    logits = pipeline.click(study, selection, 3, 1, points)
    assert logits.shape == study.slice_shape
    memory = pipeline.prepare(selection)
    foundation = segmenter.foundation
    prepared, geometry = foundation.preprocess(torch.from_numpy(study.images([3])))
    scaled = Points(foundation.to_input(points.coords, geometry).expand(1, 2, 2, 2), points.labels.expand(1, 2, 2))
    decoded = segmenter.segment(segmenter.encode(prepared), memory, scaled)
    by_hand = foundation.postprocess(decoded.mask_logits, geometry)[0, 1].numpy()
    np.testing.assert_allclose(logits, by_hand, rtol=2e-3, atol=2e-3)
    without = run(segmenter, cache, study, selection, agreement=False)[0].logits[3, 1]
    assert not np.allclose(logits, without, atol=1e-2)


def test_without_support_a_click_is_all_there_is(segmenter, cache, samples, selection):
    study = read_study(samples / "us_09.png")
    nothing = Selection.empty(NAMES)
    masks, _ = run(segmenter, cache, study, nothing)
    assert not masks.present().any() and masks.agreement == (None, None)
    pipeline = Pipeline(segmenter, cache, Latencies())
    points = as_points([Click(0, 50, 60, True)])
    alone = pipeline.click(study, nothing, 0, 0, points)
    assert not np.allclose(alone, pipeline.click(study, selection, 0, 0, points), atol=1e-2)


def test_some_slices_are_as_they_are_among_all(segmenter, cache, samples, selection):
    study = read_study(samples / "mr_05.nii.gz")
    every, _ = run(segmenter, cache, study, selection, agreement=False, mode="slice by slice")
    some, _ = run(segmenter, cache, study, selection, indices=[5, 2], agreement=False)
    np.testing.assert_allclose(some.logits, every.logits[[5, 2]], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(some.presence, every.presence[[5, 2]], atol=1e-4)


@torch.inference_mode()
def test_corrected_slices_stay_and_change_the_others(segmenter, cache, samples, selection):
    """As supports: the same as a selection that holds them from the start; without a support they are enough."""
    study = read_study(samples / "mr_02.nii.gz")
    middle = len(study) // 2
    painted = np.zeros((2, *study.slice_shape), bool)
    painted[0, 10:40, 12:50] = True
    corrections = {middle: dict(zip(selection.structures, painted, strict=True))}
    options = {"everywhere": True, "agreement": False, "mode": "slice by slice"}
    before, _ = run(segmenter, cache, study, selection, **options)
    masks, _ = run(segmenter, cache, study, selection, corrections=corrections, **options)
    assert np.array_equal(masks.logits[middle] > 0, painted)
    assert masks.present()[middle].tolist() == [True, False]
    others = [z for z in range(len(study)) if z != middle]
    expected, _ = run(segmenter, cache, study, with_corrections(selection, study, corrections), **options)
    np.testing.assert_array_equal(masks.logits[others], expected.logits[others])
    assert not np.array_equal(masks.logits[others], before.logits[others])
    alone, _ = run(segmenter, cache, study, Selection.empty(selection.structures), corrections=corrections)
    assert np.array_equal(alone.logits[middle] > 0, painted) and alone.agreement == (None, None)


def test_a_click_knows_what_was_corrected_on_other_slices(segmenter, cache, samples, selection):
    study = read_study(samples / "mr_02.nii.gz")
    painted = np.zeros(study.slice_shape, bool)
    painted[10:40, 12:50] = True
    pipeline, points = Pipeline(segmenter, cache, Latencies()), as_points([Click(3, 20, 20, True)])
    before = pipeline.click(study, selection, 3, 0, points)
    after = pipeline.click(study, selection, 3, 0, points, corrections={5: {"head": painted}})
    own = with_corrections(selection, study, {5: {"head": painted}})
    np.testing.assert_array_equal(after, pipeline.click(study, own, 3, 0, points))
    assert not np.array_equal(before, after)
