"""Methods by name, and versions that were fine-tuned: never scored where they learnt."""

import pytest
import torch
from labelled_folders import write_plain_images
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.catalogue import METHODS, MethodOptions, build_methods
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.evaluation.record import Record
from proxyprompt.evaluation.run import EvalConfig, LeakError, evaluate
from proxyprompt.foundation import weights_identity
from proxyprompt.predictor.adapters import AdapterHeader, AdapterStore
from proxyprompt.predictor.segmenter import build_segmenter
from proxyprompt.training.groups import GroupSplit
from proxyprompt.training.trainable import kept_state


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_atto(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    return read_collection(write_plain_images(tmp_path_factory.mktemp("data") / "rings"))


@pytest.fixture
def version(tmp_path, weights, rings):
    """A stored version whose generator differs, trained on one of the groups that would be targets."""
    name, sha256 = weights_identity("atto", weights)
    split = GroupSplit(tmp_path)
    trained_on = EvalEpisodes(rings, EpisodeConfig()).targets[0].group
    split.held_out([case.group for case in rings.cases], hold_out=False)
    segmenter = build_segmenter(weights_dir=weights)
    torch.nn.init.normal_(segmenter.generator.bridge.block2.conv2.weight)
    options, state = kept_state(segmenter, "frozen")
    header = AdapterHeader(
        name="adapter-1",
        foundation=name,
        foundation_sha256=sha256,
        parent=name,
        config=options,
        structures=("label_1",),
        training_groups=(split.hash_of(trained_on),),
        validation={},
        status="published",
        reason="",
        created="2026-01-01T00:00:00Z",
        app_version="0",
    )
    return AdapterStore(tmp_path, foundation=name, foundation_sha256=sha256).save(header, state), trained_on


def test_every_name_builds_a_method_in_order(weights):
    options = MethodOptions(METHODS, weights=weights, mask_quality=(0.5,), inverted=True)
    names = [method.name for method in build_methods(options)]
    assert names == ["proxyprompt", "proxyprompt, masks at Dice 0.5", "proxyprompt, masks inverted", *METHODS[1:]]


def test_another_foundation_is_told_in_the_names(weights, tmp_path):
    other = write_tiny_atto(tmp_path, number=7, seed=3)
    options = MethodOptions(("proxyprompt", "copy", "nearest", "box"), weights=weights, other=other)
    built = {method.name: method.settings for method in build_methods(options)}
    assert list(built) == ["proxyprompt", "copy", "nearest:atto-7", "box:atto-7"]
    assert built["proxyprompt"]["foundation"] == "atto-1" and built["box:atto-7"]["foundation"] == "atto-7"


def test_an_unknown_name_is_told(weights):
    with pytest.raises(ValueError, match=r"unknown method unet; valid: proxyprompt, .*copy"):
        build_methods(MethodOptions(("unet",), weights=weights))


def test_a_version_is_never_scored_on_what_trained_it(weights, version, rings):
    path, trained_on = version
    (plain,) = build_methods(MethodOptions(("proxyprompt",), weights=weights))
    (tuned,) = build_methods(MethodOptions(("proxyprompt",), weights=weights, adapter=path))
    assert tuned.settings["version"] == "adapter-1" and tuned.identity != plain.identity
    assert tuned.has_seen("rings", trained_on) and not plain.has_seen("rings", trained_on)
    plan = EvalConfig((rings,), EpisodeConfig(), (1,), 1)
    with pytest.raises(LeakError, match=f"proxyprompt was trained on group '{trained_on}'"):
        evaluate(plan, [tuned], Record(None))
    unseen = EvalConfig((rings,), EpisodeConfig(), (1,), 1, unseen=True)
    units = evaluate(unseen, [tuned], Record(None)).units
    assert units and all(trained_on not in unit.groups and len(unit.cases) == 3 for unit in units)
    assert all(trained_on in unit.groups for unit in evaluate(unseen, [plain], Record(None)).units)


def test_without_the_groups_beside_it_a_version_is_refused(weights, version):
    path, _ = version
    (path.parent / "groups.json").unlink()
    with pytest.raises(ValueError, match=r"groups\.json is missing: without it nobody can tell"):
        build_methods(MethodOptions(("proxyprompt",), weights=weights, adapter=path))
