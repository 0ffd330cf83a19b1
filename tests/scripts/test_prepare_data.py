"""The command line: a folder that evaluate.py takes, and errors in a sentence."""

import prepare_data
import pytest
from distributed_sets import write_stare

from proxyprompt.datasets.collections import read_collection


def test_a_set_is_prepared(tmp_path, capsys):
    source = write_stare(tmp_path / "source")
    command = ["STARE", "--source", str(source), "--out", str(tmp_path / "out")]
    assert prepare_data.main(command) == 2
    assert "the whole set has 20: unpack the rest, or allow any number (--any-count)" in capsys.readouterr().err
    assert prepare_data.main([*command, "--any-count"]) == 0
    assert "STARE: 3 labelled images" in capsys.readouterr().out
    assert len(read_collection(tmp_path / "out").cases) == 3


def test_unknown_sets_are_told_the_known_ones(capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare_data.main(["DRIVE", "--source", "x", "--out", "y"])
    assert "'REFUGE2', 'STARE'" in capsys.readouterr().err
