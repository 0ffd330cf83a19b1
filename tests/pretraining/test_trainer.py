"""A run: schedule, checkpoints, what it writes."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from proxyprompt.foundation.checkpoints import CheckpointError
from proxyprompt.predictor.segmenter import build_segmenter
from proxyprompt.pretraining.held_back import held_back_groups
from proxyprompt.pretraining.pool import build_maker
from proxyprompt.pretraining.running import RunningMeans
from proxyprompt.pretraining.trainer import Pretrainer


def quiet(step, figures):
    assert all(isinstance(value, float) for value in figures.values())


def test_the_rate_warms_up_stays_and_falls(tmp_path, config, pool):
    trainer = Pretrainer(replace(config, steps=100, warmup=10), tmp_path, pool)
    rates = []
    for trainer.step in range(100):
        rates.append(trainer.learning_rate())
    assert rates[0] < rates[5] < rates[9] == rates[70] == config.learning_rate
    assert rates[76] > rates[90] > rates[99] > 0


def test_it_resumes_bit_for_bit_and_what_it_writes_can_be_served(tmp_path, config, pool, tasks):
    straight = Pretrainer(config, tmp_path / "straight", pool)
    for _ in range(5):
        straight.train_step()
    first = Pretrainer(config, tmp_path / "broken", pool)
    for _ in range(3):
        first.train_step()
    first.save()
    resumed = Pretrainer(config, tmp_path / "broken", pool)
    assert resumed.resume() and resumed.step == 3
    for _ in range(2):
        resumed.train_step()
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    resumed.run(minutes=5, report=quiet)
    assert resumed.step == config.steps and (tmp_path / "broken" / "before_decay.pt").is_file()

    groups = held_back_groups(tmp_path / "held", [tasks / "b"], config, build_maker([tasks / "b"], config))
    scores = resumed.validate(list(groups.values()))
    assert {"p1", "p4", "map4", "tokens4", "box", "clip"} <= set(scores)
    path = resumed.export(tmp_path / "atto-7.safetensors", tasks=["a", "c"], scores=scores)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["config"])
        assert not any("trunk" in name for name in file.keys())  # noqa: SIM118 - it is no mapping
    assert header["tasks"] == ["a", "c"] and header["step"] == config.steps and header["held_back_dice"] == scores
    served = build_segmenter(weights_dir=path)
    assert served.trained and served.foundation.image_size == 64 and served.foundation.remembers
    trained = resumed.average.module.generator.state_dict()
    for name, value in served.generator.state_dict().items():
        torch.testing.assert_close(value, trained[name].half().float(), msg=lambda m, n=name: f"{n}: {m}")

    again = Pretrainer(config, tmp_path / "again", pool)
    again.start_from(path)
    assert torch.equal(again.model.generator.bridge.block1.conv1.weight, served.generator.bridge.block1.conv1.weight)
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        again.start_from(tmp_path / "other.safetensors")


def test_all_parameters_move(tmp_path, config, pool):
    """Every kind of step, twice over: what no gradient reaches is known."""
    trainer = Pretrainer(config, tmp_path, pool)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    for kind in list(config.prompts) * 2:
        trainer.config = replace(config, prompts={kind: 1.0})
        trainer.train_step()
    still = {
        name.removeprefix("foundation.model.")
        for name, value in trainer.model.named_parameters()
        if torch.equal(value, before[name])
    }
    unused = {
        "mask_downsample.weight",  # SAM 2's way to a pointer from a mask that is given as the output
        "mask_downsample.bias",
        "no_mem_pos_enc",  # of its branch without memory
        "no_obj_ptr",  # these two wait for a remembered frame without the object
        "no_obj_embed_spatial",
    }
    assert still <= unused


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tmp_path, config, pool):
    trainer = Pretrainer(config, tmp_path, pool)
    weight = trainer.model.foundation.model.image_encoder.neck.lateral16.weight
    with torch.no_grad():
        weight[0, 0] = torch.nan
    kept = weight.clone()
    with pytest.raises(FloatingPointError, match="at step 0"):
        trainer.train_step()
    torch.testing.assert_close(weight, kept, equal_nan=True)


def test_running_means_leave_out_what_is_no_number():
    means = RunningMeans()
    means.add({"a": 1.0, "b": math.nan})
    means.add({"a": 3.0})
    assert means.take()[1] == "a 2.000"
    assert means.take()[1] == ""
