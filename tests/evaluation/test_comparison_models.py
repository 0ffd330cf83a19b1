"""Comparison models train by the same engine, come back as they were saved, and look at what they say they look at."""

from dataclasses import replace

import pytest
import torch
from tiny_atto import write_tiny_atto
from tiny_training import QUICK, SIDE, make_bench

from proxyprompt.evaluation.comparison_models import (
    AUTOSAM,
    BOX,
    COMPARISON_MODELS,
    POINT,
    SAMED,
    ComparisonConfig,
    ComparisonEpisodeModel,
    build_comparison_model,
    load_comparison_model,
)
from proxyprompt.foundation import build_foundation
from proxyprompt.predictor.adapters import AdapterError
from proxyprompt.predictor.segmenter import available_versions, build_segmenter
from proxyprompt.training.cases import read_slices
from proxyprompt.training.episodes import EpisodeSource
from proxyprompt.training.errors import TrainingStopped
from proxyprompt.training.finetune import finetune

SHORT = replace(QUICK, steps_per_epoch=2, max_epochs=1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"))


def untrained(bench, comparison_model):
    return build_comparison_model(
        comparison_model, bench.cases().structures, build_foundation("atto", weights_dir=bench.folder, image_size=SIDE)
    )


def episodes(bench, comparison_model, step=0, objects=2):
    slices = [s for case in bench.cases() for s in read_slices(case, bench.cases().structures, most=4)]
    source = EpisodeSource(slices, bench.cases().structures, members=3, objects=objects, augmented=False)
    return source.draw(step, comparison_model.foundation)


def train(bench, comparison_model, run, **options):
    config = replace(SHORT, trainable=COMPARISON_MODELS[comparison_model])
    options.setdefault("segmenter", untrained(bench, comparison_model))
    return finetune(bench.cases(), config, store=bench.store, run_folder=run, model=ComparisonEpisodeModel, **options)


@pytest.mark.parametrize("name", COMPARISON_MODELS)
def test_a_peer_trains_and_comes_back(bench, tmp_path, name):
    comparison_model = untrained(bench, name)
    outcome = train(bench, name, tmp_path, segmenter=comparison_model)
    options = outcome.header.config["generator"]
    assert options["comparison_model"] == name and tuple(options["structures"]) == ("core", "ring")
    assert outcome.header.config["foundation"]["kind"] == ("frozen" if name == AUTOSAM else "lora")
    assert set(outcome.child) == {"core", "ring"} and outcome.decision.groups == 3
    loaded, header = load_comparison_model(outcome.header.name, bench.store, weights_dir=bench.folder)
    assert (
        header.name == outcome.header.name and loaded.trained and not any(p.requires_grad for p in loaded.parameters())
    )
    drawn = episodes(bench, comparison_model)
    with torch.inference_mode():
        one, other = (ComparisonEpisodeModel(model)(drawn).mask_logits for model in (comparison_model, loaded))
    assert torch.allclose(one, other, atol=1e-4)
    with pytest.raises(ValueError, match=f"is a {name} comparison model, which takes no supports"):
        build_segmenter(weights_dir=bench.folder, adapters=bench.store, adapter=header.name)


def test_resumed_is_the_same_as_uninterrupted(bench, tmp_path):
    straight = train(bench, POINT, tmp_path / "straight")
    steps = []
    with pytest.raises(TrainingStopped):
        train(bench, POINT, tmp_path / "broken", report=lambda p: steps.append(p.step), stop=lambda: len(steps) == 1)
    resumed = train(bench, POINT, tmp_path / "broken", report=lambda p: steps.append(p.step))
    assert steps == [1, 2] and resumed.child == straight.child
    one, other = (bench.store.load(o.header.name)[0].sha256 for o in (straight, resumed))
    assert one == other


def test_untrained_ones_are_the_foundation_without_a_prompt(bench):
    answers = []
    for name in (SAMED, AUTOSAM):
        comparison_model = untrained(bench, name)
        answers.append(ComparisonEpisodeModel(comparison_model)(episodes(bench, comparison_model)).mask_logits)
        assert answers[-1][:, :1].equal(answers[-1][:, -1:])  # nothing tells the structures apart yet
    assert torch.allclose(*answers, atol=1e-5)


@pytest.mark.parametrize("name", COMPARISON_MODELS)
def test_what_prompts_a_peer(bench, name):
    """The name for all that learn it, the image for one of them, the truth for the others."""
    comparison_model = untrained(bench, name)
    for parameter in comparison_model.generator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    drawn = episodes(bench, comparison_model)
    sample, structures = drawn.samples[0], drawn.structures

    def prompt(sample, structures):
        with torch.inference_mode():
            made = comparison_model.generator([sample], structures, comparison_model.foundation.grid)
        return torch.cat(
            [
                part.flatten().float()
                for part in (made.dense, made.boxes, made.points and made.points[0])
                if part is not None
            ]
        )

    before = prompt(sample, structures)
    moved = replace(sample, masks=sample.masks.roll((32, 32), (-2, -1)))
    assert torch.equal(prompt(moved, structures), before) == (name in (SAMED, AUTOSAM))
    darker = replace(sample, image=sample.image * 0.5)
    assert torch.equal(prompt(darker, structures), before) == (name != AUTOSAM)
    assert torch.equal(prompt(sample, [1 - n for n in structures]), before) == (name in (BOX, POINT))
    assert torch.equal(prompt(sample, structures), before)


def test_a_point_lies_inside_and_a_box_around(bench):
    comparison_model = untrained(bench, POINT)
    drawn = episodes(bench, comparison_model)
    points = comparison_model.generator(drawn.samples, drawn.structures, 0).points
    boxes = untrained(bench, BOX).generator(drawn.samples, drawn.structures, 0).boxes
    for sample, clicks, around in zip(drawn.samples, points.coords, boxes, strict=True):
        for mask, ((x, y),), (x0, y0, x1, y1) in zip(sample.masks > 0.5, clicks.long(), around.long(), strict=True):
            assert mask[y, x]
            assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()
    assert points.labels.eq(1).all()


def test_what_is_no_peer(bench, tmp_path):
    with pytest.raises(ValueError, match=r"unknown comparison model 'unet'; expected one of samed-like"):
        ComparisonConfig("unet", ("a",), 8, 8)
    ours = finetune(
        bench.cases(),
        SHORT,
        segmenter=bench.segmenter("atto-1"),
        store=bench.store,
        run_folder=tmp_path,
    )
    with pytest.raises(AdapterError, match="is a version of the proxy prompt"):
        load_comparison_model(ours.header.name, bench.store, weights_dir=bench.folder)
    assert available_versions("atto", bench.folder, bench.store)[-1] == "atto-1"


def test_on_other_weights(bench, tmp_path):
    write_tiny_atto(tmp_path, seed=4)
    kinds = {untrained(bench, SAMED).weights_sha256, untrained(bench, AUTOSAM).weights_sha256}
    other = build_foundation("atto", weights_dir=tmp_path, image_size=SIDE)
    assert len(kinds | {build_comparison_model(SAMED, ["core", "ring"], other).weights_sha256}) == 3
