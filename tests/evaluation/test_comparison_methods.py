"""Comparison models beside the other methods: other targets than trained them, the truth for those it prompts."""

import numpy as np
import pytest
from tiny_training import QUICK, make_bench

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.catalogue import MethodOptions, build_methods
from proxyprompt.evaluation.comparison_models import (
    BOX,
    COMPARISON_MODELS,
    SAMED,
    ComparisonEpisodeModel,
    build_comparison_model,
)
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.record import Record
from proxyprompt.evaluation.run import EvalConfig, LeakError, evaluate
from proxyprompt.foundation import build_foundation
from proxyprompt.training.cases import Cases
from proxyprompt.training.finetune import finetune


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"), groups=10)


@pytest.fixture(scope="module")
def rings(bench):
    return read_collection(bench.data, structures="ring=1+2,core=2,edge=1")


@pytest.fixture(scope="module")
def versions(bench, rings):
    """Of two comparison models, trained on the support pool's ring and core."""
    pool = [case for group in EvalEpisodes(rings, EpisodeConfig(0.5)).pool for case in group]
    found = {}
    cases = Cases.from_collection(
        read_collection(bench.data, structures="ring=1+2,core=2"), only={case.id for case in pool}
    )
    for name in (SAMED, BOX):
        foundation = build_foundation("atto", weights_dir=bench.folder)
        config = QUICK.with_options(trainable=COMPARISON_MODELS[name], max_epochs=1, steps_per_epoch=2)
        comparison_model = build_comparison_model(name, cases.structures, foundation)
        run = {"store": bench.store, "run_folder": bench.folder / name, "model": ComparisonEpisodeModel}
        found[name] = finetune(cases, config, segmenter=comparison_model, **run).path
    return found


def methods(bench, versions, *names):
    return build_methods(MethodOptions(names, weights=bench.folder, comparison_models=tuple(versions.values())))


def test_they_are_scored_beside_the_others(bench, rings, versions, tmp_path):
    measured = evaluate(
        EvalConfig((rings,), EpisodeConfig(0.5), (1, 2), 1),
        methods(bench, versions, "copy"),
        Record(tmp_path / "r.json"),
    )
    assert {unit.method for unit in measured.units} == {"copy", SAMED, BOX}
    assert {unit.structure for unit in measured.units if unit.method == "copy"} == {"ring", "core", "edge"}
    assert {unit.structure for unit in measured.units if unit.method == SAMED} == {"ring", "core"}
    assert any("trained on core, ring, not on 'edge'" in reason for reason in measured.skipped.values())
    assert len({tuple(unit.cases) for unit in measured.units}) == 1
    dice = {
        key: [s.dice for u in measured.units if u.method == SAMED and u.supports == key for s in u.scores]
        for key in (1, 2)
    }
    assert dice[1] == dice[2]  # supports mean nothing to them


def test_a_peer_is_refused_on_what_trained_it(bench, rings, versions):
    with pytest.raises(LeakError, match="samed-like was trained on group"):
        evaluate(EvalConfig((rings,), EpisodeConfig(0.2, 3), (1,), 1), methods(bench, versions), Record(None))
    unseen = EvalConfig((rings,), EpisodeConfig(0.2, 3), (1,), 1, unseen=True)
    seen = methods(bench, versions)[0].has_seen
    units = evaluate(unseen, methods(bench, versions), Record(None)).units
    assert units and not any(seen("data", group) for unit in units for group in unit.groups)


def test_only_who_is_told_sees_the_truth(bench, rings, versions):
    episodes = EvalEpisodes(rings, EpisodeConfig(0.5))
    supports = episodes.supports("ring", 1, 0)
    slices, truth = episodes.target(episodes.targets[0], "ring")
    samed, box = (method.fit(supports, seed=0) for method in methods(bench, versions))
    assert not samed.sees_truth and box.sees_truth
    nothing = np.zeros_like(truth)
    assert not box.segment(slices, nothing).any()
    moved = np.roll(truth, 9, axis=2)
    assert not np.array_equal(box.segment(slices, truth), box.segment(slices, moved))
    assert np.array_equal(samed.segment(slices, truth), samed.segment(slices, nothing))


def test_features_of_fine_tuned_encoders_are_kept_apart(bench, rings, versions):
    """One cache for all: a comparison model's adapted encoder must not answer for the foundation's own."""
    alone = evaluate(
        EvalConfig((rings,), EpisodeConfig(0.5, limit_targets=2), (1,), 1), methods(bench, {}, "nearest"), Record(None)
    ).units
    beside = evaluate(
        EvalConfig((rings,), EpisodeConfig(0.5, limit_targets=2), (1,), 1),
        methods(bench, versions, "proxyprompt", "nearest")[::-1],
        Record(None),
    ).units
    assert [u.scores for u in alone] == [u.scores for u in beside if u.method == "nearest"]
