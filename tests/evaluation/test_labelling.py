"""Simulated readers: what they label, how they are compared, and the script that goes on after an interruption."""

import json

import pytest
import simulate_active_learning
from labelled_folders import SONOGRAM_NAMES, write_sonograms
from PIL import Image
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.labelling import LabellingConfig, LabellingRun, Simulation, compare
from proxyprompt.foundation import build_foundation
from proxyprompt.io.cache import ContentCache
from proxyprompt.predictor.segmenter import build_segmenter

CASES = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn sonograms; each two of them are one patient."""
    folder = write_sonograms(tmp_path_factory.mktemp("sonograms"), count=CASES)
    rows = "".join(f"{n:02d},patient{n // 2}\n" for n in range(CASES))
    (folder / "groups.csv").write_text("case,group\n" + rows)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_atto(tmp_path_factory.mktemp("weights")).parent


@pytest.fixture(scope="module")
def simulation(folder, weights):
    plan = LabellingConfig(first=2, last=4, supports=2, targets=2, pool=6)
    cache = ContentCache(None, memory_bytes=1 << 28, disk_bytes=0)
    describer = build_foundation("atto", image_size=128, weights_dir=weights)
    return Simulation(
        read_collection(folder, structures=SONOGRAM_NAMES), build_segmenter(weights_dir=weights), describer, plan, cache
    )


def test_readers_begin_alike_and_label_what_is_not_held_out(simulation):
    shown = []
    ours = simulation.run("disagreement", 0, progress=lambda *said: shown.append(said))
    theirs = simulation.run("random", 0)
    assert ours.order[:2] == theirs.order[:2] and len(set(ours.order)) == 4
    assert int(ours.order[0]) // 2 != int(ours.order[1]) // 2  # of two patients
    held_out = {case.group for _, case, _ in simulation._targets}
    assert not held_out & {f"patient{int(name) // 2}" for name in (*ours.order, *theirs.order)}
    assert ours.dice[0] == theirs.dice[0] and all(0 <= value <= 1 for value in ours.dice)
    assert [count for count, _ in shown] == [2, 3, 4]
    assert simulation.run("disagreement", 0) == ours


def test_too_few_cases_are_refused(folder, weights):
    collection = read_collection(folder, structures=SONOGRAM_NAMES)
    cache = ContentCache(None, memory_bytes=0, disk_bytes=0)
    with pytest.raises(ValueError, match="6 cases to label"):
        Simulation(collection, None, None, LabellingConfig(last=16), cache)


def test_readers_are_compared_seed_by_seed():
    plan = LabellingConfig(first=2, last=3)
    runs = [
        LabellingRun("disagreement", 0, (), (0.5, 0.7)),
        LabellingRun("random", 0, (), (0.5, 0.6)),
        LabellingRun("random", 1, (), (0.3, 0.2)),  # without its like: not in the gain
    ]
    found = compare(runs, plan)
    assert found["labels"] == [2, 3]
    assert found["random"]["mean"] == [0.4, 0.4]
    assert found["gain"] == {"mean": [0.0, 0.1], "seeds": [0], "never_below": True}
    assert "gain" not in compare(runs[:1], plan)


def test_the_script_goes_on_where_it_stopped(folder, weights, tmp_path, capsys):
    out, plot = tmp_path / "out" / "curve.json", tmp_path / "curve.png"
    command = ["--data", str(folder), "--structures", SONOGRAM_NAMES, "--weights", str(weights), "--json", str(out)]
    command += ["--last", "3", "--targets", "2", "--supports", "2", "--image-size", "128"]
    assert simulate_active_learning.main([*command, "--seeds", "1"]) == 0
    first = json.loads(out.read_text())
    capsys.readouterr()
    assert simulate_active_learning.main([*command, "--seeds", "2", "--plot", str(plot)]) == 0
    assert "seed 0" not in capsys.readouterr().out
    second = json.loads(out.read_text())
    assert second["runs"][:2] == first["runs"] and len(second["runs"]) == 4
    assert second["gain"]["seeds"] == [0, 1] and Image.open(plot).size[0] > 300
    with pytest.raises(SystemExit, match="another simulation"):
        simulate_active_learning.main([*command[:-1], "192", "--seeds", "1", "--supports", "1"])
