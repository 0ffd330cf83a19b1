"""The command line: from a folder to a document and to heat maps, and errors in a sentence."""

import evaluate
import figures
import pytest
from labelled_folders import write_plain_images, write_volumes
from tiny_atto import write_tiny_atto


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return write_plain_images(root / "smdg_disc_cup"), write_volumes(root / "promise12")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_atto(tmp_path_factory.mktemp("weights"))


def test_from_an_evaluation_to_the_document(folders, weights, tmp_path, capsys):
    record, out = tmp_path / "small.json", tmp_path / "results.md"
    command = ["--data", str(folders[0]), "--structures", "disc=1+2,cup=2", "--weights", str(weights)]
    command += ["--supports", "1", "2", "--seeds", "2", "--limit-targets", "2", "--mask-quality", "0"]
    assert evaluate.main([*command, "--unrelated", str(folders[1]), "--json", str(record)]) == 0
    assert figures.main(["results", f"zero-shot={record}", "--out", str(out)]) == 0
    text = out.read_text()
    assert "REFUGE2 disc" in text and "| zero-shot | copy |" in text and "an unrelated support hurts" in text
    assert str(out) in capsys.readouterr().out and (tmp_path / "results" / "similarity-zero-shot.png").is_file()
    assert figures.main(["results", str(record), str(record), "--out", str(out)]) == 2
    assert "two records called small measured" in capsys.readouterr().err


def test_maps(folders, weights, tmp_path, capsys):
    out = tmp_path / "maps.png"
    command = [
        "maps",
        "--data",
        str(folders[0]),
        "--structures",
        "smdg_disc_cup:disc=1+2,cup=2",
        "--weights",
        str(weights),
    ]
    command += ["--unrelated", str(folders[1]), "--out", str(out), "--structure"]
    assert figures.main([*command, "disc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert out.is_file() and "MSE       0" in lines[0] and lines[-2].startswith("v0")
    assert figures.main([*command, "vessel"]) == 2
    assert "there are disc, cup" in capsys.readouterr().err
    assert figures.main([*command, "disc", "--case", "nobody"]) == 2
    assert "no target of evaluate.py" in capsys.readouterr().err
