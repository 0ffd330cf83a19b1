"""What neighbours say of a slice, against the same by hand; in bounded memory, in any orientation, until cancelled."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from proxyprompt.extensions import PAPER
from proxyprompt.foundation.base import MemoryBank, Points, Prompts
from proxyprompt.foundation.sam2 import Sam2, build_sam2_model
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import read_study, study_of
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.progress import CancelledError, FollowedRequests
from proxyprompt.predictor.propagation import CONDITIONING, RECENT, Propagation, surest, with_neighbours
from proxyprompt.predictor.segmenter import build_segmenter
from proxyprompt.supports.selection import Selection, SupportSlice

NAMES = ("organ", "nodule")


@pytest.fixture(scope="module")
def segmenter(weights):
    return build_segmenter(weights_dir=weights, image_size=128)


@pytest.fixture(scope="module")
def selection(samples):
    study = read_study(samples / "mr_01.nii.gz")
    labels = study.read_label(samples / "labels" / "final" / "mr_01.nii.gz")
    middle = len(study) // 2
    chosen = SupportSlice("mr_01", middle, 0.5, False, study.slice_hash(middle), frozenset({study.content_hash}))
    mask = np.stack([labels[middle] == value for value in (1, 2)])
    return Selection((chosen,), NAMES, [study.image(middle)], [mask], np.ones((1, 2), bool))


def volume(count, *, size=40, seed=0):
    """Noise with a ball in it, (count, size, size)."""
    rng, (z, y, x) = np.random.default_rng(seed), np.mgrid[:count, :size, :size]
    ball = (z - count / 2) ** 2 * 4 + (y - 18) ** 2 + (x - 22) ** 2 < 144
    return (rng.normal(100, 5, ball.shape) + 80 * ball).astype(np.float32)


def run(segmenter, selection, study, mode, *, cache=None, **options):
    cache = ContentCache(None, memory_bytes=1 << 28, disk_bytes=0) if cache is None else cache
    pipeline = Pipeline(segmenter, cache, Latencies(), extensions=PAPER)
    return pipeline.run(study, selection, mode=mode, agreement=False, **options)


def test_neighbours_count_by_how_near_they_are():
    values = torch.tensor([[0.0], [0.0], [9.0], [0.0], [0.0], [0.0], [9.0]])
    assert with_neighbours(values).flatten().tolist() == [0.0, 1.5, 6.0, 1.5, 0.0, 1.5, 7.5]
    assert with_neighbours(values[2:3]).tolist() == [[9.0]]


def test_the_surest_slice_has_sharp_masks_and_shows_the_structure():
    sharp, soft = torch.full((1, 4, 4), -9.0), torch.full((1, 4, 4), -0.2)
    sharp[:, 1:3, 1:3], soft[:, 1:3, 1:3] = 9.0, 0.2
    logits = torch.stack([soft, sharp, sharp])
    assert surest(logits, torch.tensor([[0.9], [0.9], [0.1]])) == 1
    assert surest(logits, torch.tensor([[0.9], [0.1], [0.9]])) == 2


@torch.inference_mode()
def test_propagation_by_hand(segmenter, selection):
    """Two slices: the surer one goes into the memory, from which the other is decoded, without a prompt."""
    study, foundation = study_of(volume(2)), segmenter.foundation
    alone = run(segmenter, selection, study, "slice by slice")
    pipeline = Pipeline(
        segmenter, ContentCache(None, memory_bytes=1 << 28, disk_bytes=0), Latencies(), extensions=PAPER
    )
    encoding, features = pipeline.prepare(selection), [pipeline.encoding.target(study, [z]) for z in range(2)]
    each = [segmenter.segment(one, encoding) for one in features]
    logits = torch.cat([one.mask_logits for one in each]).half()
    presence = torch.cat([one.presence_logit for one in each]).sigmoid()
    first = surest(logits, presence)
    other = 1 - first
    decoded = foundation.decode(features[first], Prompts(masks=logits[first : first + 1].float()))
    there = presence[first : first + 1].clamp(1e-4, 1 - 1e-4).logit()
    kept = foundation.remember_frame(
        features[first], logits[first : first + 1].float(), replace(decoded, presence_logit=there)
    )
    nothing = Prompts(points=Points(torch.zeros(1, 2, 1, 2), torch.full((1, 2, 1), -1, dtype=torch.int32)))
    tracked = foundation.decode(features[other], nothing, MemoryBank((kept,), (1,), (True,)))
    expected = with_neighbours(
        torch.stack([logits[first].float(), (2 * logits[other].float() + tracked.mask_logits[0]) / 3])
    )[1]
    large = foundation.postprocess(expected[None], foundation.geometry(study.slice_shape))[0].numpy()
    masks = run(segmenter, selection, study, "propagate")
    np.testing.assert_allclose(masks.logits[other], large, rtol=5e-3, atol=5e-3)
    said = with_neighbours(
        torch.stack([presence[first], (2 * presence[other] + tracked.presence_logit[0].sigmoid()) / 3])
    )[1]
    np.testing.assert_allclose(masks.presence[other], said.numpy(), atol=1e-3)
    assert not np.array_equal(masks.logits[other], alone.logits[other])


def test_a_mode_for_each_kind_of_study(segmenter, selection):
    """Auto is what won; an image has no neighbours, and some slices of a volume are as they are by themselves."""
    study = study_of(volume(3))
    by_mode = {mode: run(segmenter, selection, study, mode).logits for mode in ("slice by slice", "neighbours")}
    propagated, auto = (run(segmenter, selection, study, mode).logits for mode in ("propagate", "auto"))
    np.testing.assert_array_equal(auto, propagated)
    alone, near = by_mode["slice by slice"].astype(np.float32), by_mode["neighbours"]
    np.testing.assert_allclose(near[1], (alone[0] + 4 * alone[1] + alone[2]) / 6, rtol=0.02, atol=0.02)
    assert not np.array_equal(propagated, near)
    study.kind = "cine"
    np.testing.assert_array_equal(run(segmenter, selection, study, "auto").logits, near)
    some = run(segmenter, selection, study, "propagate", indices=[2, 0]).logits
    np.testing.assert_allclose(some, alone[[2, 0]], rtol=2e-3, atol=2e-3)
    one = study_of(volume(3)[1])
    np.testing.assert_array_equal(
        run(segmenter, selection, one, "propagate").logits, run(segmenter, selection, one, "slice by slice").logits
    )
    with pytest.raises(ValueError, match="mode is 'backwards'; expected one of auto, slice by slice"):
        run(segmenter, selection, study, "backwards")


def test_a_foundation_without_a_memory_averages_neighbours(segmenter, selection, monkeypatch):
    study = study_of(volume(3))
    near = run(segmenter, selection, study, "neighbours").logits
    monkeypatch.setattr(segmenter.foundation, "remembers", False, raising=False)
    np.testing.assert_array_equal(run(segmenter, selection, study, "propagate").logits, near)


def test_what_is_remembered_is_bounded(segmenter, monkeypatch):
    """Forty slices, six of them corrected: the memory never holds more than its places, the nearest ones first."""
    foundation, seen = segmenter.foundation, []
    decode = foundation.decode

    def watched(features, prompts, memory=None):
        seen.append(memory)
        return decode(features, prompts, memory)

    monkeypatch.setattr(foundation, "decode", watched)
    with torch.inference_mode():
        image, _ = foundation.preprocess(torch.rand(1, 3, 32, 32))
        features = foundation.encode(image)
        logits, done = torch.randn(40, 1, 64, 64), []
        propagation = Propagation(foundation, lambda z: features, logits, torch.full((40, 1), 0.9), Latencies())
        propagation.run([0, 2, 4, 6, 8, 39], done.append)
    banks = [bank for bank in seen if bank is not None]
    assert len(banks) == 34 and done == [*range(6, 40), 40]
    assert max(len(bank.frames) for bank in banks) == CONDITIONING + RECENT
    assert all(sum(bank.conditioning) == CONDITIONING for bank in banks)
    assert all(1 <= distance <= RECENT for bank in banks for distance in bank.distances)


def test_corrected_slices_begin_and_stay(segmenter, selection):
    study, painted = study_of(volume(6)), np.zeros((40, 40), bool)
    painted[10:20, 5:15] = True
    corrections = {4: {"organ": painted}}
    before = run(segmenter, selection, study, "propagate")
    after = run(segmenter, selection, study, "propagate", corrections=corrections)
    assert np.array_equal(after.logits[4, 0] > 0, painted) and after.present()[4, 0]
    for z in (0, 3, 5):
        assert not np.array_equal(after.logits[z], before.logits[z])
    undone = run(segmenter, selection, study, "propagate", corrections={})
    np.testing.assert_array_equal(undone.logits, before.logits)
    by_support = run(segmenter, selection, study, "slice by slice", corrections=corrections)
    assert not np.array_equal(after.logits[3], by_support.logits[3])  # through the memory, too


def test_a_cancelled_propagation_loses_nothing(segmenter, selection):
    """It ends between two slices; asked again, what was encoded and decoded is there."""
    study, requests = study_of(volume(6)), FollowedRequests()
    cache = ContentCache(None, memory_bytes=1 << 28, disk_bytes=0)
    expected = run(segmenter, selection, study, "propagate").logits
    encode, encoded = segmenter.encode, []

    def counted(images):
        encoded.append(len(images))
        return encode(images)

    segmenter.encode = counted
    try:
        with requests.following("mine"):
            progress = requests.get("mine")
            advance, steps = progress.advance, []

            def until_nine(done, total):
                steps.append((done, total))
                if done == 9:
                    progress.cancel()
                advance(done, total)

            progress.advance = until_nine
            with pytest.raises(CancelledError, match="after 9 of 12 slices"):
                run(segmenter, selection, study, "propagate", cache=cache)
        assert all(total == 12 for _, total in steps) and [done for done, _ in steps] == sorted(d for d, _ in steps)
        encoded.clear()
        again = run(segmenter, selection, study, "propagate", cache=cache).logits
    finally:
        del segmenter.encode
    assert not encoded
    np.testing.assert_array_equal(again, expected)


def rotated(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("order", "flips", "turn"),
    [((0, 1, 2), (), 0), ((2, 1, 0), (), 0), ((0, 1, 2), (0, 2), 0), ((0, 1, 2), (1,), 20), ((1, 0, 2), (0,), -15)],
    ids=["as it is", "sagittal", "flipped", "oblique", "coronal, flipped and oblique"],
)
def test_any_orientation_comes_back_on_its_own_grid(segmenter, selection, order, flips, turn):
    """The same anatomy stored in another order: the same mask, voxel by voxel, on that order's grid."""
    plain = volume(5, size=24)

    def stored(array):
        """The array's axes (z, y, x), reordered and flipped, with the axes that tell so."""
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.0, 3.0))
        image.SetOrigin((5.0, -7.0, 11.0))
        image.SetDirection(rotated(turn).ravel())
        image = sitk.PermuteAxes(image, order)
        return sitk.Flip(image, [axis in flips for axis in range(3)], False)

    reference = sitk.GetImageFromArray(plain)
    reference.SetSpacing((1.0, 1.0, 3.0))
    reference.SetOrigin((5.0, -7.0, 11.0))
    expected = run(segmenter, selection, study_of(reference), "propagate")
    image = stored(plain)
    study = study_of(image)
    found = run(segmenter, selection, study, "propagate")
    own = study.to_grid(found.logits[:, 0] > 0)
    assert own.shape == tuple(reversed(image.GetSize()))
    there = sitk.GetArrayFromImage(stored(study_of(reference).to_grid(expected.logits[:, 0] > 0)))
    assert own.any() and not own.all()
    np.testing.assert_array_equal(own, there)


@pytest.mark.slow
@torch.inference_mode()
def test_sam2_propagates_as_well(selection):
    """The official architecture, with random weights: the same way through its own memory."""
    foundation = Sam2(name="sam2", model=build_sam2_model(image_size=128), image_size=128)
    assert foundation.remembers
    image, _ = foundation.preprocess(torch.rand(1, 3, 32, 32))
    features = foundation.encode(image)
    logits = torch.randn(9, 2, 32, 32)
    propagation = Propagation(foundation, lambda z: features, logits, torch.full((9, 2), 0.9), Latencies())
    found, presence = propagation.run([], lambda done: None)
    assert found.shape == logits.shape and torch.isfinite(found).all() and presence.shape == (9, 2)
    assert (found != logits).flatten(1).any(1).sum() == 8


@pytest.mark.slow
def test_three_thousand_frames(segmenter, selection):
    """In one request, and with a cache that holds but a part of them."""
    study, requests = study_of(volume(3000, size=16)), FollowedRequests()
    cache = ContentCache(None, memory_bytes=1 << 27, disk_bytes=0)
    with requests.following("mine"):
        masks = run(segmenter, selection, study, "propagate", cache=cache)
        assert (requests.get("mine").done, requests.get("mine").total) == (6000, 6000)
    assert masks.logits.shape == (3000, 2, 16, 16) and np.isfinite(masks.logits).all()
    assert cache.stats()["memory_bytes"] <= 1 << 27
