"""The U-Net from scratch: tiny, for some seconds; it must learn the supports and say how it went."""

import numpy as np
import pytest
from labelled_folders import write_plain_images

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.unet import DynUNetFromScratch, UNetConfig, augmentation
from proxyprompt.metrics.segmentation import overlap

TINY = UNetConfig(size=32, filters=(8, 16, 16), learning_rate=1e-2, window=10, minutes=1.0, most_steps=60)


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    collection = read_collection(write_plain_images(tmp_path_factory.mktemp("a") / "rings", size=(48, 40)))
    episodes = EvalEpisodes(collection, EpisodeConfig())
    slices, truth = episodes.target(episodes.targets[0], "label_2")
    return episodes.supports("label_2", 2, 0), slices, truth


def test_it_learns_from_the_supports_alone(episode):
    supports, slices, truth = episode
    fitted = DynUNetFromScratch(TINY).fit(supports, seed=0)
    assert fitted.notes["steps"] == 60 and fitted.notes["stopped"] == "steps" and len(fitted.notes["curve"]) == 6
    assert fitted.notes["curve"][-1] < 0.7 * fitted.notes["curve"][0]
    masks = fitted.predict(slices)
    assert masks.shape == truth.shape and masks.dtype == bool and overlap(masks, truth).dice > 0.5


def test_a_seed_repeats_it(episode):
    supports, _, _ = episode
    short = UNetConfig(**{**vars(TINY), "most_steps": 20})
    one, same, other = (DynUNetFromScratch(short).fit(supports, seed=s).notes["curve"] for s in (1, 1, 2))
    assert one == same != other


def test_it_stops_when_the_loss_no_longer_falls(episode):
    supports, _, _ = episode
    config = UNetConfig(**{**vars(TINY), "learning_rate": 0.0, "window": 5, "patience": 2})
    notes = DynUNetFromScratch(config).fit(supports, seed=0).notes
    assert notes["stopped"] == "plateau" and notes["steps"] < 60


def test_the_second_goes_on_where_the_first_stopped(episode):
    supports, slices, _ = episode
    short, long = (UNetConfig(**{**vars(TINY), "most_steps": steps}) for steps in (12, 24))
    first = DynUNetFromScratch(short)
    second = DynUNetFromScratch(long, name="dynunet_plateau", after=first)
    early = first.fit(supports, seed=0)
    drawn = early.predict(slices)
    late, straight = second.fit(supports, seed=0), DynUNetFromScratch(long).fit(supports, seed=0)
    assert late.notes["steps"] == 24 and late.notes["curve"] == straight.notes["curve"]
    np.testing.assert_array_equal(late.predict(slices), straight.predict(slices))
    np.testing.assert_array_equal(early.predict(slices), drawn)  # not touched by what came after
    assert second.fit(supports, seed=1).notes["curve"] != late.notes["curve"]  # the first did not train on this


def test_in_bfloat16_it_learns_as_well(episode):
    supports, _, _ = episode
    config = UNetConfig(**{**vars(TINY), "mixed_precision": True})
    curve = DynUNetFromScratch(config).fit(supports, seed=0).notes["curve"]
    assert curve[-1] < 0.7 * curve[0]


def test_augmentation_moves_image_and_mask_together():
    augment = augmentation(64).set_random_state(0)
    rows, columns = np.ogrid[:64, :64]
    mask = (np.hypot(rows - 32, columns - 28) < 14)[None].astype(np.float32)
    moved = 0
    for _ in range(20):
        drawn = augment({"image": np.repeat(mask, 3, axis=0), "mask": mask})
        image, moved_mask = (np.asarray(drawn[name]) for name in ("image", "mask"))
        assert set(np.unique(moved_mask)) <= {0.0, 1.0}
        assert overlap(image[0] > 0.5, moved_mask[0]).dice > 0.9
        moved += overlap(moved_mask, mask).dice < 0.98
    assert moved > 10


def test_on_a_pretrained_trunk_only_the_decoder_trains(episode):
    supports, slices, truth = episode
    config = UNetConfig(
        size=64, pretrained=True, filters=(32, 16, 16, 8, 8), learning_rate=5e-3, window=10, most_steps=60
    )
    method = DynUNetFromScratch(config, name="unet_pretrained")
    fitted = method.fit(supports, seed=0)
    assert fitted.notes["curve"][-1] < 0.8 * fitted.notes["curve"][0]
    masks = fitted.predict(slices)
    assert masks.shape == truth.shape and overlap(masks, truth).dice > 0.4
    network = method._last[1].network
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in network.parameters()) < 500_000
