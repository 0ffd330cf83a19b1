"""A training in several processes: they find each other, and none outlives the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from proxyprompt.trainers.processes import automatic, joins, most

TESTS = Path(__file__).resolve().parents[1]


def run(folder, happens):
    paths = [str(TESTS), str(TESTS.parent / "apps" / "proxyprompt")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "several_processes", str(folder), happens]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)


def test_they_are_one_group(tmp_path):
    done = run(tmp_path, "nothing")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "ranks [0, 1] started by the first: True"
    assert (tmp_path / "process-1.log").read_text().startswith("ranks [0, 1]")


def test_the_first_says_what_went_wrong(tmp_path):
    done = run(tmp_path, "error")
    assert done.returncode == 1
    assert "ValueError: of 0" in done.stderr and "another process" not in done.stdout


def test_none_waits_for_one_that_was_killed(tmp_path):
    done = run(tmp_path, "killed")
    assert done.returncode == 1
    assert "another process of this training ended" in done.stdout


def test_one_for_each_gpu_and_at_most_one_for_each_core(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert automatic("cuda") == most("cuda") == 4
    assert automatic("cuda:1") == most("cuda:1") == 1
    assert automatic("cpu") == 1
    assert most("cpu") == os.cpu_count()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_who_joins(monkeypatch, rank):
    monkeypatch.setenv("RANK", rank)
    assert joins() == (rank == "1")
