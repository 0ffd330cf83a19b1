"""Training of a cascade: what it learns from, what it leaves alone, what a version keeps of it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tiny_training import QUICK, SIDE, make_bench

from lib.cascade import CascadeConfig, laid
from lib.segmenter import build_segmenter
from lib.training import material, trainable
from lib.training.cascade_model import STEPS, CascadeLoss, CascadeModel, Sample, SampleSource
from lib.training.cases import read_slices
from lib.training.episodes import EpisodeSource
from lib.training.errors import TrainingError, TrainingStopped
from lib.training.finetune import finetune
from lib.training.finetune_config import CASCADE
from lib.training.trainable import make_trainable

CONFIG = replace(QUICK, trainable=CASCADE, learning_rate=None, batch=4, augment=True)


@dataclass(frozen=True)
class Narrow(CascadeConfig):
    width: int = 4


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(material, "CascadeConfig", Narrow)
    monkeypatch.setattr(trainable, "CascadeConfig", Narrow)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"), groups=6)


@pytest.fixture
def model(bench):
    segmenter = bench.segmenter()
    make_trainable(segmenter, CONFIG, None)
    return CascadeModel(segmenter)


@pytest.fixture
def episodes(bench):
    cases = bench.cases()
    slices = [s for case in cases for s in read_slices(case, cases.structures, most=4)]
    return EpisodeSource.configured(slices, cases.structures, CONFIG)


def train(bench, config=CONFIG, **options):
    options.setdefault("segmenter", bench.segmenter())
    return finetune(bench.cases(), config, store=bench.store, run_folder=bench.run, **options)


def test_a_step_is_the_same_however_often_it_is_drawn(model, episodes):
    one, other = (SampleSource(model, episodes, CONFIG) for _ in range(2))
    other.draw(0, model.segmenter.foundation)
    a, b = (source.draw(STEPS + 1, model.segmenter.foundation) for source in (one, other))
    assert a.images.shape == (4, 3, 96, 96) and a.guesses.shape == a.masks.shape == (4, 1, 96, 96)
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "guesses", "masks"))
    assert not torch.equal(a.images, one.draw(STEPS + 2, model.segmenter.foundation).images)


def test_a_slice_is_guessed_from_other_groups_each_time_from_some_more_or_less(model, episodes, monkeypatch):
    source, asked = SampleSource(model, episodes, CONFIG), []
    remember = source._remember

    def spy(slices, structures):
        asked.append({s.case.group for s in slices})
        return remember(slices, structures)

    monkeypatch.setattr(source, "_remember", spy)
    counts = set()
    for turn in range(4):
        for key, (labelled,) in episodes.by_key.items():
            asked.clear()
            source._sets.clear()
            source._guess(turn, key, labelled)
            assert len(asked) == 1 and key not in asked[0]
            counts.add(len(asked[0]))
    assert min(counts) == 2 and max(counts) >= 4


@torch.no_grad()
def test_supports_are_remembered_once_for_each_structure(model, episodes, monkeypatch):
    slices = [some[0] for some in episodes.by_key.values()][:2]
    calls, remember = [], model.segmenter.remember_without_cascade
    monkeypatch.setattr(
        model.segmenter, "remember_without_cascade", lambda *given: calls.append(given) or remember(*given)
    )
    source, served = SampleSource(model, episodes, CONFIG), []
    for structure in (0, 1, 0):
        pictures = [source._picture(s, [structure]) for s in slices]
        masks = torch.stack([p.masks for p in pictures])
        contexts = model.segmenter.encode_pair(torch.stack([p.image for p in pictures]), masks)
        served.append(model.serve(pictures, model.features(pictures), contexts, torch.ones(2, 1).bool()))
    assert len(calls) == 2
    assert torch.equal(served[0].values, served[2].values) and not torch.equal(served[0].values, served[1].values)


def test_image_guess_and_mask_are_varied_alike(model, episodes, monkeypatch):
    source = SampleSource(model, episodes, replace(CONFIG, batch=16))

    def truth(turn, key, labelled):
        side = source._size
        masks = torch.nn.functional.interpolate(labelled.masks[None].float() / 255, (side, side), mode="bilinear")[0]
        return 20 * masks - 10

    monkeypatch.setattr(source, "_guess", truth)
    sample = source.draw(3, model.segmenter.foundation)
    overlap = ((sample.guesses > 0) == (sample.masks > 0.5)).float().mean((1, 2, 3))
    assert overlap.min() > 0.98
    inside, outside = (
        torch.where(m, sample.images.mean(1, keepdim=True), torch.nan) for m in (sample.masks > 0.5, sample.masks < 0.5)
    )
    assert (inside.flatten(1).nanmean(1) > outside.flatten(1).nanmean(1)).all()  # both structures are bright


def test_of_a_fine_grid_a_step_sees_the_same_part_of_each(model, episodes, monkeypatch):
    monkeypatch.setattr(model.segmenter.cascade, "config", CascadeConfig(size=256, width=4))
    source = SampleSource(model, episodes, replace(CONFIG, batch=16))
    monkeypatch.setattr(
        source, "_guess", lambda turn, key, labelled: 20 * laid(labelled.masks[None].float() / 255, 256)[0] - 10
    )
    sample = source.draw(0, model.segmenter.foundation)
    assert sample.images.shape == (16, 3, 128, 128) and sample.guesses.shape == sample.masks.shape == (16, 1, 128, 128)
    assert ((sample.guesses > 0) == (sample.masks > 0.5)).float().mean((1, 2, 3)).min() > 0.98
    assert sample.masks.flatten(1).mean(1).std() > 0.02, "not the same part for all"


def test_it_learns_to_draw_what_the_guess_only_points_at(model):
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    criterion = CascadeLoss(model.segmenter.cascade, pixel_weight=1.0)
    optimiser = torch.optim.AdamW(criterion.parameters(), 5e-3)
    middles = torch.randint(30, 66, (60, 4, 2))
    losses, dice = [], []
    for step in middles:
        away = [((x - m[0]).square() + (y - m[1]).square()).sqrt() for m in step]
        masks = torch.stack([d < 20 for d in away])[:, None].float()
        guesses = 20 * torch.stack([d < 8 for d in away])[:, None].float() - 10
        found = criterion(Sample(masks + 0.1 * torch.randn(4, 3, 96, 96), guesses, masks))
        optimiser.zero_grad()
        found.total.backward()
        optimiser.step()
        losses.append(found.total.item())
        dice.append(found.dice.mean().item())
    assert dice[0] < 0.5 and np.mean(dice[-5:]) > 0.9 and np.mean(losses[-5:]) < losses[0] / 3


def test_where_there_is_nothing_to_draw_drawing_costs_and_counts_as_no_dice(model):
    empty = torch.zeros(1, 1, 96, 96)
    found = CascadeLoss(model.segmenter.cascade, pixel_weight=1.0)(Sample(torch.randn(1, 3, 96, 96), empty + 5, empty))
    assert found.dice.isnan().all() and found.total > 1 and found.total.requires_grad


def test_it_alone_trains_and_the_version_is_served_with_it(bench):
    before = {name: p.clone() for name, p in bench.segmenter().named_parameters()}
    outcome = train(bench, replace(CONFIG, max_epochs=3))
    header = outcome.header
    assert header.config["foundation"]["kind"] == "frozen" and header.config["cascade"] == {
        "size": 96,
        "width": 4,
        "share": 5 / 9,  # of six groups one is held out
    }
    served = build_segmenter(weights_dir=bench.folder, adapters=bench.store, adapter=header.name, image_size=SIDE)
    assert served.cascade.trained and not any(p.requires_grad for p in served.parameters())
    for name, parameter in served.named_parameters():
        assert name.startswith("cascade.") or torch.equal(parameter, before[name])
    assert served.weights_sha256 != bench.segmenter("atto-1").weights_sha256
    assert served.tuned is False, "the decoder is as it was"

    child = bench.segmenter(header.name)
    first = {name: p.clone() for name, p in child.cascade.named_parameters()}
    again = train(bench, segmenter=child)
    assert again.header.parent == header.name and again.parent == outcome.child
    assert any(not torch.equal(p, first[name]) for name, p in child.cascade.named_parameters()), "goes on from there"
    other = bench.segmenter(header.name)
    kept = train(bench, QUICK, segmenter=other).header
    assert kept.config["foundation"]["kind"] == "whole" and kept.config["cascade"] == header.config["cascade"]
    assert all(torch.equal(p, first[name]) for name, p in other.cascade.named_parameters()), "stays on top"


def test_the_parent_is_scored_as_it_is_served(tmp_path):
    bench = make_bench(tmp_path, groups=12)
    one = {"max_epochs": 1, "steps_per_epoch": 1, "validation_supports": 2}
    plain = train(bench, replace(QUICK, **one))
    cascaded = train(bench, replace(CONFIG, **one), segmenter=bench.segmenter("atto-1"))
    assert plain.parent == cascaded.parent and len(plain.parent["core"]) == 3


def test_resumed_is_the_same_as_uninterrupted(bench):
    straight = train(bench, segmenter=bench.segmenter("atto-1"))
    steps = []
    with pytest.raises(TrainingStopped, match="stopped at step 4 of 6"):
        train(
            bench,
            segmenter=bench.segmenter("atto-1"),
            report=lambda p: steps.append(p.step),
            stop=lambda: len(steps) == 4,
        )
    resumed = train(bench, segmenter=bench.segmenter("atto-1"), report=lambda p: steps.append(p.step))
    assert steps == [1, 2, 3, 4, 5, 6] and resumed.child == straight.child
    one, other = (bench.store.load(o.header.name)[0].sha256 for o in (straight, resumed))
    assert one == other


def test_without_a_fine_readout_there_is_nothing_to_draw_again(tmp_path):
    bench = make_bench(tmp_path, groups=3, readout=False)
    with pytest.raises(TrainingError, match="choose another value of trainable: all, lora, generator"):
        train(bench)
