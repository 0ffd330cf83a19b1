"""The command line, on tiny folders with a tiny model."""

import csv
import json

import evaluate
import pytest
from labelled_folders import write_plain_images, write_volumes
from PIL import Image
from tiny_atto import write_tiny_atto

from proxyprompt.evaluation.catalogue import METHODS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return write_plain_images(root / "rings"), write_volumes(root / "stacks")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_atto(tmp_path_factory.mktemp("weights"))


def test_everything_at_once(folders, weights, tmp_path, capsys):
    rings, stacks = map(str, folders)
    files = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "csv")}
    command = ["--data", rings, "--data", stacks, "--weights", str(weights), "--shots", "0"]
    command += ["--structures", "rings:whole=1+2,core=2", "--supports", "1", "2", "--seeds", "2", "--threads", "1"]
    command += [part for name, path in files.items() for part in (f"--{name}", str(path))]
    command += ["--plot", str(tmp_path / "curve.png"), "--overlays", str(tmp_path / "looks")]
    assert evaluate.main(command) == 0
    content = json.loads(files["json"].read_text())
    assert 0 <= content["mean_dice"] <= 1 and content["complete"] and content["skipped"] == {}
    assert content["plan"]["collections"] == ["rings", "stacks"] and content["plan"]["counts"] == [1, 2]
    assert str(folders[0].parent) not in files["json"].read_text()  # no path of this machine
    assert content["methods"]["proxyprompt"]["version"] == "atto-1"
    assert {(u["collection"], u["structure"]) for u in content["units"]} == {
        ("rings", "whole"),
        ("rings", "core"),
        ("stacks", "ring"),
        ("stacks", "core"),
    }
    assert len(content["units"]) == 4 * 4 * 2 * 2  # structures, methods, K, seeds
    text = files["markdown"].read_text()
    assert text in capsys.readouterr().out and "| rings | whole | 4 |" in text and "HD95" in text
    assert len(list(csv.reader(files["csv"].open()))) == 1 + sum(len(u["cases"]) for u in content["units"])
    assert Image.open(tmp_path / "curve.png").width > 800
    looks = sorted(path.name for path in (tmp_path / "looks").iterdir())
    assert looks == ["rings-core.png", "rings-whole.png", "stacks-core.png", "stacks-ring.png"]
    assert Image.open(tmp_path / "looks" / "stacks-core.png").width > 800

    before = {tuple(u[k] for k in ("structure", "method", "supports", "seed")): u["seconds"] for u in content["units"]}
    assert evaluate.main(command[:-2]) == 0  # measures nothing again: the very same seconds
    again = json.loads(files["json"].read_text())["units"]
    assert {tuple(u[k] for k in ("structure", "method", "supports", "seed")): u["seconds"] for u in again} == before


def test_other_weights_measure_only_what_uses_them(folders, weights, tmp_path):
    record = tmp_path / "r.json"
    command = ["--data", str(folders[0]), "--seeds", "1", "--supports", "2", "--json", str(record), "--methods"]
    assert evaluate.main([*command, "proxyprompt", "copy", "--weights", str(weights)]) == 0
    first = {u["method"]: u["decides"] for u in json.loads(record.read_text())["units"]}
    folder = tmp_path / "other"
    folder.mkdir()
    write_tiny_atto(folder, number=3, seed=5)
    assert evaluate.main([*command, "proxyprompt", "copy", "--weights", str(folder)]) == 0
    second = {u["method"]: u["decides"] for u in json.loads(record.read_text())["units"]}
    assert first["copy"] == second["copy"] and first["proxyprompt"] != second["proxyprompt"]
    assert evaluate.main([*command, "nearest", "point", "--other-foundation", str(folder / "atto-3.safetensors")]) == 0
    content = json.loads(record.read_text())
    assert content["methods"]["nearest:atto-3"]["foundation"] == "atto-3" and "point:atto-3" in content["methods"]
    assert content["mean_dice_of"]["method"] == "nearest:atto-3"


def test_worse_supports_beside_the_true_ones(folders, weights, tmp_path):
    record = tmp_path / "r.json"
    command = ["--data", str(folders[0]), "--seeds", "1", "--supports", "1", "--json", str(record)]
    command += ["--weights", str(weights), "--methods", "proxyprompt", "--mask-quality", "0.6", "0", "--inverted"]
    command += ["--unrelated", str(folders[1])]
    assert evaluate.main(command) == 0
    content = json.loads(record.read_text())
    changes = ("masks at Dice 0.6", "masks at Dice 0", "masks inverted", "supports of stacks")
    names = ["proxyprompt", *(f"proxyprompt, {change}" for change in changes)]
    assert [row["method"] for row in content["means"]] == names
    assert content["mean_dice_of"]["method"] == "proxyprompt"
    notes = {unit["method"]: unit["notes"] for unit in content["units"]}
    assert notes[names[-1]]["drawn_instead"][0].startswith("v")
    assert all(0 < mse < 255**2 for note in notes.values() for mse in note["support_mse"])


def test_structures_from_a_file(folders, tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"rings": {"disc": [1, 2]}, "elsewhere": {"x": [1]}}))
    record = tmp_path / "r.json"
    command = ["--data", str(folders[0]), "--structures", str(names), "--methods", "copy", "--json", str(record)]
    assert evaluate.main([*command, "--supports", "1", "--seeds", "1"]) == 0
    assert {u["structure"] for u in json.loads(record.read_text())["units"]} == {"disc"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", "{rings}", "--structures", "eyes:disc=1"], "no folder is called 'eyes'"),
        (["--data", "{rings}", "--structures", "disc"], "expected name=value"),
        (["--data", "{rings}", "--structures", "missing.json"], "missing.json"),
        (["--data", "{rings}", "--weights", "{rings}"], "no atto-N.safetensors"),
        (["--data", "{rings}", "--methods", "unet"], "unknown method unet; valid: proxyprompt, "),
        (["--data", "{rings}", "--foundation", "sam_vit_x"], "unknown"),
        (["--data", "{rings}", "--data", "{rings}"], "same name"),
        (["--data", "{rings}", "--methods", "copy", "--supports", "50"], "nothing could be measured"),
        (["--data", "{rings}", "--methods", "copy", "--device", "cuda:7"], "CUDA"),
        (["--data", "{rings}", "--methods", "copy", "--json", "{rings}/groups.csv"], "name another file"),
    ],
)
def test_errors_are_one_sentence(folders, capsys, arguments, message):
    assert evaluate.main([part.format(rings=folders[0]) for part in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        evaluate.main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("masks/", "groups", "mean_dice", "dynunet", "--supports 1 2 4 8"))


def test_the_papers_protocol_and_options_on_top_of_it():
    paper = evaluate.parse(["--data", "x", "--paper", "--seeds", "5"])
    assert (paper.shots, paper.supports, paper.seeds) == (16, [1, 2, 4, 8], 5)
    assert paper.methods == ["proxyprompt"]
    assert evaluate.parse(["--data", "x", "--paper", "--methods", "box"]).methods == ["box"]
    trained = evaluate.parse(["--data", "x", "--compare", "--supports", "10"])
    assert trained.supports == [10] and set(evaluate.COMPARE["methods"]) == set(trained.methods) <= set(METHODS)
    plain = evaluate.parse(["--data", "x"])
    assert (plain.shots, plain.supports, plain.seeds) == (0, [4], 3)
