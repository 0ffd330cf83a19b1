"""Pretraining: what it draws, that it resumes bit for bit, that what it writes can be served."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from lib.prompt.generator import ablation
from lib.segmenter import build_segmenter
from lib.training.losses import segmentation_loss
from lib.training.pretraining import Phase, PretrainConfig, Pretrainer, build_model, tasks
from lib.training.pretraining.prompts import (
    boxes_of,
    draw_clicks,
    draw_correction,
    draw_supports,
    jitter_boxes,
    no_clicks,
    sloppy,
)
from lib.training.procedural import draw_groups

FOUNDATION = {"dim": 32, "mem_dim": 16, "widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
CONFIG = PretrainConfig(
    phases=(Phase("foundation", 64, 2, 1, 3), Phase("proxy", 64, 2, 1, 3), Phase("proxy", 128, 2, 1, 3)),
    warmup=2,
    foundation=FOUNDATION,
    generator={"grid": 4, "width": 16, "depth": 1, "heads": 4, "dense_proxy": True, "readout": True},
)


NEVER_MOVE = {
    "mask_downsample.weight",  # SAM 2's way to a pointer from a mask that is given as the output
    "mask_downsample.bias",
    "no_mem_pos_enc",  # of its branch without memory, which is not used
    "no_obj_ptr",  # these two wait for a remembered frame in which the object is absent
    "no_obj_embed_spatial",
}


def test_supports_are_others_of_the_group_and_at_least_one():
    supports = draw_supports(50, 4, torch.Generator().manual_seed(0))
    assert not supports.diagonal(dim1=1, dim2=2).any()
    counts = supports.sum(-1)
    assert counts.min() == 1 and counts.max() == 3
    assert supports.any(1)[:, :].float().mean() > 0.8


def test_clicks_lie_where_they_say():
    masks = torch.zeros(3, 2, 32, 32)
    masks[:, 0, 5:9, 20:30] = 1
    for seed in range(5):
        coords, labels = draw_clicks(masks, torch.Generator().manual_seed(seed))
        x, y = coords[..., 0].long(), coords[..., 1].long()
        hit = masks[torch.arange(3)[:, None, None], torch.arange(2)[None, :, None], y, x]
        assert (hit == labels).all()
        assert (labels[:, 0, 0] == 1).all() and (labels[:, 1] == 0).all()


def test_boxes_are_the_brute_force_ones():
    masks = (torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.97).float()
    boxes = boxes_of(masks)
    for b in range(4):
        for n in range(3):
            rows, columns = masks[b, n].nonzero(as_tuple=True)
            expected = [0, 0, 15, 15]
            if len(rows):
                expected = [columns.min(), rows.min(), columns.max(), rows.max()]
            assert boxes[b, n].tolist() == [float(v) for v in expected]


def test_a_correction_lies_in_the_larger_error():
    masks = torch.zeros(1, 3, 32, 32)
    masks[0, :, 8:24, 8:24] = 1
    logits = torch.full((1, 3, 8, 8), -1.0)  # nothing drawn: the whole structure is missed
    logits[0, 1] = 1.0  # everything drawn: the surroundings are the larger error
    logits[0, 2, 2:6, 2:6] = 1.0  # all but right
    for seed in range(5):
        points = draw_correction(logits, masks, torch.Generator().manual_seed(seed))
        x, y = points.coords[0, :, 0].long().unbind(-1)
        assert points.labels[0, :2, 0].tolist() == [1, 0]
        assert masks[0, 0, y[0], x[0]] == 1 and masks[0, 1, y[1], x[1]] == 0
        assert masks[0, 2, y[2], x[2]] == points.labels[0, 2, 0]


def test_jittered_boxes_stay_near_and_within():
    boxes = torch.tensor([[[0.0, 0.0, 63.0, 63.0], [20.0, 20.0, 40.0, 30.0]]])
    moved = jitter_boxes(boxes, 64, torch.Generator().manual_seed(0))
    assert moved.min() >= 0 and moved.max() <= 63 and not torch.equal(moved, boxes)
    assert (moved[0, 1] - boxes[0, 1]).abs().max() < 10


def test_sloppy_masks_are_larger_or_smaller_never_empty():
    masks = torch.zeros(40, 2, 64, 64)
    masks[:, 0, 20:40, 20:40] = 1
    masks[:, 1, 30, 30] = 1
    drawn = sloppy(masks, 0.9, torch.Generator().manual_seed(0))
    areas = drawn.sum((-2, -1))
    assert (areas[:, 0] > 400).any() and (areas[:, 0] < 400).any() and (areas[:, 0] == 400).any()
    assert areas.min() >= 1
    assert torch.equal(sloppy(masks, 0.0, torch.Generator().manual_seed(0)), masks)


def test_the_schedule_warms_up_and_ends_low_in_each_stage(tmp_path):
    config = replace(
        CONFIG, phases=(Phase("foundation", 64, 8, 1), Phase("proxy", 64, 8, 1), Phase("proxy", 128, 2, 1))
    )
    trainer = Pretrainer(config, tmp_path)
    rates = []
    for trainer.step in range(config.steps):
        rates.append(trainer.learning_rate())
    assert config.span("foundation") == (0, 8) and config.span("proxy") == (8, 18)
    for first, end in ((0, 8), (8, 18)):
        assert rates[first] < rates[first + 1] == config.learning_rate and rates[end - 1] < 0.3 * rates[first + 1]
    assert config.phase(15).size == 64 and config.phase(16).size == 128
    with pytest.raises(ValueError, match="beyond the last of 18"):
        config.phase(18)
    with pytest.raises(ValueError, match="expected one of foundation, proxy"):
        Phase("third", 64, 1, 1)


def test_every_kind_of_step_says_something_of_every_image():
    segmenter = build_model(CONFIG)
    segmenter.foundation.image_size = 64
    data = draw_groups(2, 3, 64, objects=2, generator=torch.Generator().manual_seed(0))
    for name, kind in tasks.KINDS.items():
        graded = kind(tasks.begin(segmenter, data, torch.Generator().manual_seed(1), sloppy=0.5)).answers
        decoded, masks = graded[-1]
        assert decoded.mask_logits.shape == (*masks.shape[:2], 32, 32), name
        seen = sum(len(masks) for _, masks in graded)
        assert seen == {"correction": 12, "proxy_points": 12}.get(name, 6), name


@torch.no_grad()
def test_a_blunt_readout_guesses_otherwise_and_is_sharp_again():
    segmenter = build_model(CONFIG)
    segmenter.foundation.image_size = 64
    data = draw_groups(1, 3, 64, objects=1, generator=torch.Generator().manual_seed(0))
    supports = ~torch.eye(3, dtype=torch.bool)[None]

    def guesses(blunt):
        choices = torch.Generator().manual_seed(1)
        return tasks.proxy(tasks.begin(segmenter, data, choices, supports=supports, blunt=blunt)).proxy.prior

    sharp, blunt = guesses(0.0), guesses(1.0)
    assert (sharp - blunt).abs().max() > 0.1 and torch.equal(guesses(0.0), sharp)


def test_a_tracked_frame_depends_on_what_was_remembered():
    segmenter = build_model(CONFIG)
    segmenter.foundation.image_size = 64
    data = draw_groups(1, 3, 64, objects=1, generator=torch.Generator().manual_seed(0))
    clip = tasks.clip(tasks.begin(segmenter, data, torch.Generator().manual_seed(1)))
    other = replace(data, masks=data.masks.flip(-1))
    changed = tasks.clip(tasks.begin(segmenter, other, torch.Generator().manual_seed(1)))
    assert not torch.equal(clip.answers[2][0].mask_logits, changed.answers[2][0].mask_logits)
    assert no_clicks(1, 1).labels.item() == -1


def test_parameters_that_never_move_are_known():
    """Every kind of step once, twice over (the dense proxy starts at zero): what no gradient reaches."""
    segmenter = build_model(CONFIG)
    segmenter.foundation.image_size = 64
    optimiser = torch.optim.SGD(segmenter.parameters(), 1e-3)
    reached = set()
    for _ in range(2):
        for number, kind in enumerate(tasks.KINDS.values()):
            data = draw_groups(2, 3, 64, objects=2, generator=torch.Generator().manual_seed(number))
            optimiser.zero_grad()
            graded = kind(tasks.begin(segmenter, data, torch.Generator().manual_seed(number)))
            torch.stack([segmentation_loss(d, m).total for d, m in graded.answers]).mean().backward()
            optimiser.step()
            reached |= {n for n, p in segmenter.named_parameters() if p.grad is not None and p.grad.any()}
    never = {name for name, _ in segmenter.named_parameters()} - reached
    assert {name.removeprefix("foundation.model.") for name in never} <= NEVER_MOVE


def test_ablations_are_pretrained_as_the_whole_is(tmp_path):
    config = replace(CONFIG, phases=CONFIG.phases[1:2], generator={**CONFIG.generator, **ablation(["csm", "ccm"])})
    trainer = Pretrainer(config, tmp_path)
    trainer.run()
    assert trainer.step == 2
    served = build_segmenter(weights_dir=trainer.export(tmp_path / "atto-9.safetensors"))
    assert served.trained and not served.generator.config.selection and served.generator.colorization is None


def test_it_resumes_bit_for_bit_and_what_it_writes_can_be_served(tmp_path):
    straight = Pretrainer(CONFIG, tmp_path / "straight")
    for _ in range(CONFIG.steps):
        straight.train_step()
    first = Pretrainer(CONFIG, tmp_path / "broken")
    for _ in range(3):
        first.train_step()
    first.save()
    resumed = Pretrainer(CONFIG, tmp_path / "broken")
    assert resumed.resume() and resumed.step == 3
    resumed.run()
    assert resumed.step == CONFIG.steps
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)

    scores = resumed.validate(size=64, groups=2)
    kinds = {"mask", "box", "points", "correction", "clip", "proxy_points", "proxy_clip"}
    assert set(scores) == kinds | {"proxy_1", "proxy_3", "prior_3", "held_back_3", "presence"}
    path = resumed.export(tmp_path / "atto-7.safetensors", scores=scores)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["config"])
    assert header["training"]["seed"] == 0 and header["step"] == 6 and header["synthetic_dice"] == scores
    served = build_segmenter(weights_dir=tmp_path)
    assert served.version == "atto-7" and served.foundation.image_size == 128 and served.dense_proxy
    trained = resumed.average.module
    for (name, a), b in zip(
        served.generator.state_dict().items(), trained.generator.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b.half().float(), msg=lambda m, n=name: f"{n}: {m}")
    assert build_segmenter(weights_dir=tmp_path, dense_proxy=False).dense_proxy is False

    shutil.copy(resumed.foundation_file, tmp_path / "atto-7-foundation.safetensors")
    alone = build_segmenter(foundation="atto-7-foundation", weights_dir=tmp_path)
    assert alone.version == "untrained" and not alone.trained
    assert build_segmenter(weights_dir=tmp_path).version == "atto-7"


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tmp_path):
    trainer = Pretrainer(CONFIG, tmp_path)
    before = trainer.model.foundation.model.image_encoder.neck.convs[1].conv.weight
    with torch.no_grad():
        before[0, 0, 0, 0] = torch.nan
    kept = before.clone()
    with pytest.raises(FloatingPointError, match="at step 0"):
        trainer.train_step()
    torch.testing.assert_close(before, kept, equal_nan=True)


def test_larger_structures_come_first():
    def area(ease):
        groups = draw_groups(12, 2, 64, objects=1, generator=torch.Generator().manual_seed(2), ease=ease)
        return groups.masks.float().mean().item()

    assert area(2.0) > 1.2 * area(0.0)
