"""What trains, what stays, what a version keeps, from shipped weights and from versions of every kind."""

from dataclasses import replace

import pytest
import torch
from tiny_training import QUICK, make_bench

from proxyprompt.foundation.lora import has_lora
from proxyprompt.predictor.adapters import AdapterHeader
from proxyprompt.training.errors import TrainingError
from proxyprompt.training.finetune_config import FinetuneConfig
from proxyprompt.training.strategies import STRATEGIES, GeneratorOnly, register_strategy
from proxyprompt.training.trainable import kept_state, load_trainable, trainable_state


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"), groups=2)


def parent(kind):
    known = dict.fromkeys(AdapterHeader.__dataclass_fields__, "")
    return AdapterHeader(**{**known, "config": {"foundation": {"kind": kind}}})


def training(segmenter):
    return {name for name, p in segmenter.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("trainable", "before", "kept"),
    [
        ("all", None, "whole"),
        ("lora", None, "lora"),
        ("generator", None, "frozen"),
        ("lora", "whole", "whole"),
        ("generator", "whole", "whole"),
    ],
)
def test_what_trains_and_what_is_kept(bench, trainable, before, kept):
    segmenter = bench.segmenter()
    config = replace(QUICK, trainable=trainable)
    strategy = STRATEGIES[trainable]
    assert strategy.prepare(segmenter, config, before and parent(before)) == kept
    of_foundation = {name for name in training(segmenter) if name.startswith("foundation.")}
    assert {name for name in training(segmenter) if name.startswith("generator.")} == {
        f"generator.{name}" for name, _ in segmenter.generator.named_parameters()
    }
    assert has_lora(segmenter.foundation) == (trainable == "lora")
    if trainable == "all":
        assert len(of_foundation) == len(list(segmenter.foundation.parameters()))
    else:
        assert bool(of_foundation) == (trainable == "lora") and all("lora_" in name for name in of_foundation)
    assert strategy.encoder_is_frozen(segmenter) == (trainable == "generator")
    options, state = kept_state(segmenter, kept)
    assert options["foundation"]["kind"] == kept and options["image_size"] == segmenter.foundation.image_size
    assert any(name.startswith("foundation.") for name in state) == (kept != "frozen")
    assert not has_lora(segmenter.foundation) or kept == "lora"


def test_adapters_of_the_decoder_leave_the_features_as_they_are(bench):
    segmenter = bench.segmenter()
    config = replace(QUICK, trainable="lora", adapt_encoder=False)
    strategy = STRATEGIES["lora"]
    strategy.prepare(segmenter, config, None)
    assert strategy.encoder_is_frozen(segmenter)
    assert not any("image_encoder" in name for name in training(segmenter))


def test_merged_adapters_cannot_be_trained_on(bench):
    with pytest.raises(TrainingError, match="merge=False"):
        STRATEGIES[QUICK.trainable].prepare(bench.segmenter(), QUICK, parent("lora"))


def test_the_best_weights_come_back(bench):
    segmenter = bench.segmenter()
    STRATEGIES["lora"].prepare(segmenter, QUICK, None)
    kept = trainable_state(segmenter)
    for p in segmenter.parameters():
        p.data += 1
    load_trainable(segmenter, kept)
    assert all(torch.equal(p, kept[name]) for name, p in segmenter.named_parameters() if name in kept)


def test_one_class_is_all_that_a_strategy_needs():
    """Configuration, requests and command line offer it from then on."""
    import train

    from proxyprompt.trainers.options import train_drop_downs

    @register_strategy
    class Mine(GeneratorOnly):
        name = "mine"
        summary = "for a test"

    try:
        assert FinetuneConfig(trainable="mine").trainable == "mine"
        assert "mine" in train_drop_downs(FinetuneConfig(), structures=[], parents=[], unproven=[])["trainable"]
        assert train.parse(["--data", "x", "--trainable", "mine"]).trainable == "mine"
    finally:
        del STRATEGIES["mine"]
    with pytest.raises(ValueError, match="trainable is 'mine'; expected one of lora, generator, all"):
        FinetuneConfig(trainable="mine")
