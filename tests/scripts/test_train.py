"""scripts/train.py: a version and a verdict from a folder, shots from evaluate.py's pool, errors in a sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import train
from labelled_folders import write_volumes
from PIL import Image
from tiny_training import SIDE, make_bench

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
from proxyprompt.foundation import weights_identity
from proxyprompt.predictor.adapters import AdapterStore
from proxyprompt.predictor.segmenter import build_segmenter

QUICK = ["--epochs", "1", "--steps", "2", "--members", "3", "--no-augmentation", "--image-size", str(SIDE)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"), groups=12)


def arguments(bench, out, *more):
    given = ["--data", bench.data, "--structures", "ring=1+2,core=2", "--weights", bench.folder, "--out", out]
    return [*map(str, given), *QUICK, *more]


def test_it_writes_a_version_and_says_what_the_gate_says(bench, tmp_path, capsys):
    code = train.main(arguments(bench, tmp_path / "out"))
    out = capsys.readouterr().out
    assert "ring" in out and "on 3 held-out groups" in out
    assert ("\npublished: mean Dice" in out, "\nrefused: " in out) == ((True, False) if code == 0 else (False, True))
    (version,) = (tmp_path / "out").glob("*.safetensors")
    assert str(version) in out
    assert train.main(arguments(bench, tmp_path / "out", "--start-from", "no-such")) == 2
    there = f"{version.stem}, atto-1" if code == 0 else "atto-1"
    assert f"there are: {there}\n" in capsys.readouterr().err


def test_shots_come_from_the_support_pool_of_the_evaluation(bench, tmp_path):
    options = train.parse(arguments(bench, tmp_path, "--shots", "4", "--supports-share", "0.5", "--split-seed", "3"))
    drawn = {case.id for case in train.read_cases(options)}
    collection = read_collection(bench.data, structures="ring=1+2,core=2")
    episodes = EvalEpisodes(collection, EpisodeConfig(0.5, 3))
    assert len(drawn) == 4 and drawn <= {case.id for group in episodes.pool for case in group}
    assert not drawn & {case.id for case in episodes.targets}
    measured = EvalEpisodes(collection, EpisodeConfig(0.5, 3, shots=4))  # evaluate.py --shots 4
    assert {case.id for group in measured.pool for case in group} == drawn
    assert measured.targets == episodes.targets
    assert train.main(arguments(bench, tmp_path, "--shots", "7", "--supports-share", "0.5")) == 2


def test_several_folders_are_one_training(bench, tmp_path):
    stacks = write_volumes(tmp_path / "stacks")
    given = arguments(bench, tmp_path, "--data", str(stacks), "--shots", "2")
    given[given.index("ring=1+2,core=2")] = "data:disc=1+2"
    cases = train.read_cases(train.parse(given))
    assert len(cases) == 4 and cases.structures == ["core", "disc", "ring"]
    declared = {tuple(sorted(case.structures)) for case in cases}
    assert declared == {("disc",), ("core", "ring")}


def test_groups_from_another_file(bench, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("case,group\n" + "".join(f"g{n}_0,{'first' if n < 6 else 'second'}\n" for n in range(12)))
    options = train.parse(arguments(bench, tmp_path, "--groups-from", str(table)))
    assert {case.group for case in train.read_cases(options)} == {"first", "second"}


def test_the_papers_setting_and_options_on_top_of_it(bench, tmp_path):
    paper = train.config_of(train.parse(arguments(bench, tmp_path, "--paper")), cases=16)
    assert (paper.optimiser, paper.learning_rate, paper.weight_decay, paper.supports) == ("sgd", 0.01, 0.0005, None)
    assert paper.trainable == "lora" and paper.members == 3 and paper.pixel_weight == 0
    plain = train.config_of(train.parse(["--data", "x", "--foundation", "sam_vit_b", "--minutes", "5"]), cases=16)
    assert plain.optimiser == "sgd" and plain.max_minutes == 5 and plain.augment


@pytest.mark.parametrize("problem", ["no folder", "empty masks", "no weights"])
def test_what_cannot_be_trained_is_said_in_a_sentence(bench, tmp_path, capsys, problem):
    given = arguments(bench, tmp_path / "out")
    if problem == "no folder":
        given[1] = str(tmp_path / "nowhere")
        said = "no such folder"
    elif problem == "no weights":
        given += ["--foundation", "sam_vit_b"]
        said = "scripts/fetch_weights.py sam_vit_b"
    else:
        for name in ("images", "masks"):
            (tmp_path / name).mkdir()
            for n in range(2):
                Image.new("L", (SIDE, SIDE), 40 * n if name == "images" else 0).save(tmp_path / name / f"{n}.png")
                Image.effect_noise((SIDE, SIDE), 60).save(tmp_path / "images" / f"{n}.png")
        given[1] = str(tmp_path)
        said = "all masks of the 2 labelled studies to train on are empty"
    assert train.main(given) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_two_processes_train_one_model(bench, tmp_path):
    script = Path(train.__file__).resolve()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*launch, *arguments(bench, tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=500,
    )
    (verdict,) = re.findall("^(published|refused): ", done.stdout, re.MULTILINE)
    assert verdict == ("published" if done.returncode == 0 else "refused"), done.stderr
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 1


def test_a_peer_starts_anew_and_has_a_folder_of_its_own(bench, tmp_path, capsys):
    given = arguments(bench, tmp_path / "out", "--comparison-model", "samed-like")
    assert train.main(given) in (0, 1)
    (version,) = (tmp_path / "out").glob("*.safetensors")
    assert str(version) in capsys.readouterr().out
    assert train.config_of(train.parse(given), cases=9).trainable == "lora"
    assert train.config_of(train.parse([*given, "--trainable", "generator"]), cases=9).trainable == "generator"
    assert (
        train.config_of(train.parse([*given, "--comparison-model", "autosam-like", "--paper"]), cases=9).trainable
        == "generator"
    )


def test_an_ablation_starts_untrained_and_comes_back_as_it_was_trained(bench, tmp_path):
    given = arguments(bench, tmp_path / "out", "--without", "ccm", "--context-encoder", "vit")
    assert train.main(given) in (0, 1)
    (version,) = (tmp_path / "out").glob("*.safetensors")
    name, sha256 = weights_identity("atto", bench.folder)
    store = AdapterStore(tmp_path / "out", foundation=name, foundation_sha256=sha256)
    generator = store.header(version.stem).config["generator"]
    assert (generator["context"], generator["colorization"]) == ("vit", False)
    served = build_segmenter(weights_dir=bench.folder, adapters=store, adapter=version.stem)
    assert served.generator.colorization is None and served.trained
    whole = build_segmenter(weights_dir=bench.folder, generator={})
    assert not whole.trained and whole.weights_sha256 != build_segmenter(weights_dir=bench.folder).weights_sha256
    with pytest.raises(ValueError, match="has its own generator"):
        build_segmenter(weights_dir=bench.folder, adapters=store, adapter=version.stem, generator={})
    assert train.main(arguments(bench, tmp_path / "out", "--without", "csm", "--context-encoder", "vit")) == 2
