"""scripts/segment.py from end to end, with real processes and a tiny model."""

import json
import shutil

import numpy as np
import pytest
import segment
from labelled_folders import write_plain_images
from PIL import Image
from tiny_atto import write_tiny_atto

NAMES = ["--names", "ring", "core"]


@pytest.fixture
def studies(tmp_path):
    write_plain_images(tmp_path / "drawn", groups=5)
    shutil.copytree(tmp_path / "drawn" / "images", tmp_path / "studies")
    (tmp_path / "studies" / "labels" / "final").mkdir(parents=True)
    shutil.copy(tmp_path / "drawn/masks/g0_0.png", tmp_path / "studies/labels/final")
    whole = (tmp_path / "studies/g3_0.png").read_bytes()
    (tmp_path / "studies/g3_0.png").write_bytes(whole[:200])
    return tmp_path / "studies", whole


def test_the_rest_is_done_and_the_same_command_goes_on(studies, tmp_path, capsys):
    folder, whole = studies
    write_tiny_atto(tmp_path)
    out = tmp_path / "out"
    command = ["--studies", str(folder), "--support", "g0_0", *NAMES, "--out", str(out)]
    command += ["--weights-dir", str(tmp_path), "--device", "cpu"]
    assert segment.main(command) == 1
    assert sorted(path.name for path in out.glob("*.png")) == ["g1_0.png", "g2_0.png", "g4_0.png"]
    assert "cut short" in json.loads((out / "failed.json").read_text())["g3_0"]
    result = np.asarray(Image.open(out / "g1_0.png"))
    assert result.shape == (48, 56) and set(np.unique(result)) <= {0, 1, 2}
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    said = capsys.readouterr().out
    assert "g3_0: not done" in said and "3 of 4 studies, 1 failed" in said

    (folder / "g3_0.png").write_bytes(whole)
    assert segment.main(command) == 0
    assert (out / "g3_0.png").exists() and not (out / "failed.json").exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "4 studies, 3 of them done before" in capsys.readouterr().out
    assert segment.main(command) == 0  # nothing to do, and no worker is started

    assert segment.main([*command, "--paper"]) == 2
    assert "other options (paper differ)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("support", "words"),
    [
        (["g1_0"], "has no label"),
        (["nobody"], "does not exist"),
        (["a.png", "b.png"], "no such file"),
        (["a", "b", "c"], "expected IMAGE and MASK"),
    ],
)
def test_supports_that_are_not_there(studies, tmp_path, capsys, support, words):
    command = ["--studies", str(studies[0]), "--support", *support, *NAMES, "--out", str(tmp_path / "out")]
    assert segment.main(command) == 2
    assert words in capsys.readouterr().err


def test_no_studies(tmp_path, capsys):
    command = ["--support", "a", *NAMES, "--out", str(tmp_path / "out"), "--studies"]
    assert segment.main([*command, str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert segment.main([*command, str(tmp_path / "empty")]) == 2
    assert "no study was found" in capsys.readouterr().err
