"""Pretraining: what it draws, that it resumes bit for bit, that what it writes can be served."""

import json

import pytest
import torch
from safetensors import safe_open

from lib.segmenter import build_segmenter
from lib.training.pretraining import (
    PretrainConfig,
    Pretrainer,
    Stage,
    boxes_of,
    draw_clicks,
    draw_supports,
)
from lib.training.procedural import draw_groups

FOUNDATION = {"dim": 32, "mem_dim": 16, "embed_dim": 8, "stages": [1, 1, 2, 1], "global_att_blocks": [3]}
CONFIG = PretrainConfig(
    stages=(Stage(64, 4, 1, 3), Stage(128, 2, 1, 3)),
    warmup=2,
    foundation=FOUNDATION,
    generator={"grid": 4, "width": 16, "depth": 1, "heads": 4, "dense_proxy": True},
)


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


def test_the_schedule_warms_up_and_ends_low(tmp_path):
    trainer = Pretrainer(CONFIG, tmp_path)
    rates = []
    for trainer.step in range(CONFIG.steps):
        rates.append(trainer.learning_rate())
    assert rates[0] < rates[1] == CONFIG.learning_rate and rates[-1] < 0.3 * rates[1]
    assert CONFIG.stage(3).size == 64 and CONFIG.stage(4).size == 128
    with pytest.raises(ValueError, match="beyond the last of 6"):
        CONFIG.stage(6)


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

    scores = resumed.validate(size=64, groups=8)
    assert set(scores) == {"dice_1", "dice_3", "presence"}
    path = resumed.export(tmp_path / "atto-7.safetensors", scores=scores)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["config"])
    assert header["training"]["seed"] == 0 and header["step"] == 6 and header["synthetic_dice"] == scores
    served = build_segmenter(weights_dir=tmp_path)
    assert served.version == "atto-7" and served.foundation.image_size == 128 and served.dense_proxy
    trained = resumed.average.module.segmenter
    for (name, a), b in zip(
        served.generator.state_dict().items(), trained.generator.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b.half().float(), msg=lambda m, n=name: f"{n}: {m}")
    assert build_segmenter(weights_dir=tmp_path, dense_proxy=False).dense_proxy is False


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tmp_path):
    trainer = Pretrainer(CONFIG, tmp_path)
    before = trainer.model.segmenter.foundation.model.image_encoder.neck.convs[1].conv.weight
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
