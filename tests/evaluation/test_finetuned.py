"""Fine-tuned on the supports themselves: it learns them, and leaves the weights that it started from alone."""

import numpy as np
import pytest
from labelled_folders import write_plain_images
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.catalogue import MethodOptions, build_methods
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.finetuned import FineTuned
from proxyprompt.evaluation.methods import ProxyPromptMethod
from proxyprompt.predictor.segmenter import build_segmenter
from proxyprompt.training.finetune_config import FinetuneConfig

SHORT = FinetuneConfig(
    trainable="all", learning_rate=1e-3, warmup=2, members=3, steps_per_epoch=40, max_epochs=1, augment=False
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_atto(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    collection = read_collection(write_plain_images(tmp_path_factory.mktemp("a") / "rings", size=(64, 64), groups=12))
    episodes = EvalEpisodes(collection, EpisodeConfig())
    slices, truth = episodes.target(episodes.targets[0], "label_2")
    return episodes.supports("label_2", 4, 0), slices, truth


def test_it_learns_the_supports_and_leaves_the_start_as_it_was(weights, episode):
    supports, slices, truth = episode
    before = (
        ProxyPromptMethod(build_segmenter(weights_dir=weights, image_size=64)).fit(supports, seed=0).predict(slices)
    )
    method = FineTuned("finetuned", lambda: build_segmenter(weights_dir=weights, image_size=64, merge=False), SHORT)
    fitted = method.fit(supports, seed=0)
    assert fitted.notes["steps"] == 40 and fitted.notes["stopped"] == "epochs"
    assert fitted.notes["training_dice"][-1] > fitted.notes["training_dice"][0]
    after = fitted.predict(slices)
    assert after.shape == truth.shape and not np.array_equal(after, before)
    again = ProxyPromptMethod(build_segmenter(weights_dir=weights, image_size=64)).fit(supports, seed=0).predict(slices)
    assert np.array_equal(again, before)


def test_a_seed_repeats_it(weights, episode):
    supports, _, _ = episode
    quick = SHORT.with_options(steps_per_epoch=4)
    method = FineTuned("finetuned", lambda: build_segmenter(weights_dir=weights, image_size=64, merge=False), quick)
    one, same, other = (method.fit(supports, seed=seed).notes["training_dice"] for seed in (1, 1, 2))
    assert one == same != other


def test_both_settings_by_name(weights):
    whole, paper = build_methods(MethodOptions(("finetuned", "finetuned_paper"), weights=weights, train_minutes=0.5))
    assert (whole.name, paper.name) == ("finetuned", "finetuned_paper")
    training = [method.settings["training"] for method in (whole, paper)]
    assert [(t["trainable"], t["max_minutes"]) for t in training] == [("lora", 0.5), ("lora", 0.5)]
    assert training[1]["optimiser"] == "sgd" and whole.identity != paper.identity
    assert [method._start().trained for method in (whole, paper)] == [True, False]  # from scratch, as the paper's
