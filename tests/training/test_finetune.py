"""Fine-tuning as a whole: it learns, the gate judges it, it goes on where it stopped, nothing is lost on the way."""

import json
import multiprocessing
import os
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import FileLock
from tiny_atto import write_tiny_atto
from tiny_training import QUICK, SIDE, Bench, make_bench

from proxyprompt.io.files import TEMPORARY
from proxyprompt.predictor.segmenter import available_versions, build_segmenter
from proxyprompt.training.errors import TrainingError, TrainingStopped
from proxyprompt.training.finetune import finetune
from proxyprompt.training.groups import GroupSplit
from proxyprompt.training.run import CHECKPOINT


@pytest.fixture
def bench(tmp_path):
    return make_bench(tmp_path)


def train(bench, config=QUICK, *, run=None, **options):
    options.setdefault("segmenter", bench.segmenter())
    return finetune(bench.cases(), config, store=bench.store, run_folder=run or bench.run, **options)


def test_it_learns_is_published_and_served(bench):
    seen = []
    config = replace(QUICK, steps_per_epoch=10, max_epochs=3)
    outcome = train(bench, config, report=seen.append)
    assert outcome.decision.status == "published" and outcome.decision.gain > 0.1 and outcome.decision.groups == 3
    header = outcome.header
    assert header.parent == "atto-1" and header.structures == ("core", "ring") and len(header.training_groups) == 9
    assert not set(header.training_groups) & set(header.validation["ring"])
    assert "p0" not in json.dumps(header.to_json()) and header.config["training"]["seed"] == 0
    assert [p.step for p in seen] == list(range(1, 31)) and seen[-1].epoch == seen[-1].epochs == 3
    assert seen[0].validation is None and seen[-1].best >= np.mean(list(seen[-1].validation.values()))
    assert not (bench.run / CHECKPOINT).exists() and any(bench.run.glob("events*"))

    assert available_versions("atto", bench.folder, bench.store) == [header.name, "atto-1"]
    served = build_segmenter(weights_dir=bench.folder, adapters=bench.store, image_size=SIDE)
    shipped = build_segmenter(weights_dir=bench.folder, adapters=bench.store, adapter="atto-1", image_size=SIDE)
    assert served.version == header.name and served.weights_sha256 != shipped.weights_sha256
    assert any(not torch.equal(a, b) for a, b in zip(served.parameters(), shipped.parameters(), strict=True))

    child = train(bench, QUICK, segmenter=bench.segmenter(), run=bench.folder / "second")
    assert child.header.parent == header.name and child.parent == header.validation


def test_in_bfloat16_it_trains_as_well(bench):
    losses = []
    config = replace(QUICK, mixed_precision=True, steps_per_epoch=10)
    outcome = train(bench, config, report=lambda progress: losses.append(progress.loss))
    assert outcome.header.config["training"]["mixed_precision"] and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_resumed_is_the_same_as_uninterrupted(bench):
    straight = train(bench)
    steps = []
    with pytest.raises(TrainingStopped, match="stopped at step 4 of 6"):
        train(
            bench,
            run=bench.folder / "broken",
            segmenter=bench.segmenter("atto-1"),
            report=lambda p: steps.append(p.step),
            stop=lambda: len(steps) == 4,
        )
    assert len(bench.store.all()) == 1
    resumed = train(
        bench,
        run=bench.folder / "broken",
        segmenter=bench.segmenter("atto-1"),
        report=lambda p: steps.append(p.step),
    )
    assert steps == [1, 2, 3, 4, 5, 6]
    assert resumed.child == straight.child
    one, other = (bench.store.load(o.header.name) for o in (straight, resumed))
    assert one[0].sha256 == other[0].sha256


def test_other_options_or_labels_start_anew(bench):
    stopped = []
    with pytest.raises(TrainingStopped):
        train(bench, stop=lambda: len(stopped) == 2, report=stopped.append)
    bench.relabel("g0_0", np.ones((SIDE, SIDE)))
    seen = []
    train(bench, report=lambda p: seen.append(p.step))
    assert seen[0] == 1


def test_wrong_labels_are_refused_and_the_reason_says_by_how_much(bench):
    good = train(bench, replace(QUICK, steps_per_epoch=10, max_epochs=3))
    held = set(good.header.validation["ring"])
    split = GroupSplit(bench.store.folder)
    for case in bench.cases():
        if split.hash_of(case.group) not in held:
            wrong = np.zeros((SIDE, SIDE))
            wrong[:10], wrong[:4] = 1, 2  # always the upper edge, whatever the image shows
            bench.relabel(case.id, wrong)
    bad = train(bench, replace(QUICK, steps_per_epoch=10, max_epochs=1))
    assert bad.decision.status == "refused" and bad.decision.gain < -0.02
    assert f"{bad.decision.gain:+.3f} on 3 held-out groups" in bad.header.reason
    assert available_versions("atto", bench.folder, bench.store)[0] == good.header.name
    assert [h.status for h in bench.store.all()].count("refused") == 1


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights(bench):
    segmenter = bench.segmenter()
    parameter = next(segmenter.generator.colorization.parameters())

    def spoil(progress):
        if progress.step == 4:
            parameter.data.fill_(torch.nan)

    outcome = train(bench, replace(QUICK, max_epochs=4), segmenter=segmenter, report=spoil)
    assert outcome.ended == "nan"
    assert all(torch.isfinite(value).all() for value in bench.store.load(outcome.header.name)[1].values())

    segmenter = bench.segmenter("atto-1")
    next(segmenter.generator.parameters()).data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="not finite at step 0, before the first epoch was whole"):
        train(bench, segmenter=segmenter, run=bench.folder / "other")
    assert len(bench.store.all()) == 1


def test_it_ends_when_nothing_gets_better_or_the_time_is_over(bench):
    hopeless = replace(QUICK, learning_rate=0.0, patience=2, max_epochs=9, steps_per_epoch=1)
    outcome = train(bench, hopeless)
    assert outcome.ended == "patience" and outcome.decision.gain == 0.0
    outcome = train(bench, replace(QUICK, max_minutes=1e-9), run=bench.folder / "short")
    assert outcome.ended == "minutes"


def test_few_groups_make_an_unproven_version_with_a_warning(tmp_path):
    bench = make_bench(tmp_path, groups=2)
    outcome = train(bench)
    assert outcome.header.status == "unproven" and outcome.child == {} and bench.store.versions() == []
    assert "none could be held out" in outcome.warnings[0]
    bench.store.publish(outcome.header.name)
    assert bench.segmenter().version == outcome.header.name


@pytest.mark.parametrize("trainable", ["lora", "generator"])
def test_adapters_are_trained_on_from_version_to_version(bench, trainable):
    first = train(bench, replace(QUICK, trainable="lora", rank=2, views=2))
    assert first.header.config["foundation"] == {"kind": "lora", "rank": 2, "alpha": 2, "encoder": True}
    second = train(
        bench,
        replace(QUICK, trainable=trainable, rank=8, adapt_encoder=False),
        segmenter=bench.segmenter(first.header.name),
        run=bench.folder / "second",
    )
    assert second.header.config["foundation"]["rank"] == 2
    assert second.parent == first.child
    merged = build_segmenter(weights_dir=bench.folder, adapters=bench.store, adapter=first.header.name, image_size=SIDE)
    with pytest.raises(TrainingError, match="merge=False"):
        train(bench, segmenter=merged, run=bench.folder / "third")


def test_two_trainings_at_once_are_refused(bench):
    bench.store.folder.mkdir()
    with FileLock(bench.store.folder / "training.lock"), pytest.raises(TrainingError, match="another training"):
        train(bench)
    train(bench)


def test_a_store_of_other_weights_is_refused(bench, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_tiny_atto(other, seed=1)
    with pytest.raises(TrainingError, match="does not have the weights"):
        train(bench, segmenter=build_segmenter(weights_dir=other, image_size=SIDE))


def _train_with_little_disk(folder):
    """In a process of its own: the limit would hit the test's own files too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    bench = Bench(folder)
    try:
        train(bench)
    except Exception as error:
        os._exit(0 if "could not be written" in str(error) else 1)
    os._exit(2)


def test_a_full_disk_loses_nothing_that_was_there(bench):
    good = train(bench)
    bench.relabel("g0_0", np.ones((SIDE, SIDE)))
    process = multiprocessing.get_context("fork").Process(target=_train_with_little_disk, args=(bench.folder,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert [h.name for h in bench.store.all()] == [good.header.name]
    assert not [*bench.folder.rglob("*.part"), *bench.folder.rglob(f"*{TEMPORARY}")]
