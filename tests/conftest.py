"""Shared by all tests: few threads, and the app on a folder of sample studies with tiny random weights."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from pathlib import Path

import make_samples
import pytest
from app_in_process import build_app
from filelock import FileLock
from tiny_atto import write_tiny_atto

LONGEST_FIRST = ("e2e", "scripts", "training", "evaluation", "pretraining")
"""Folders of tests that start servers, processes or trainings: begun last, one worker would end long after the rest."""


def pytest_collection_modifyitems(items):
    def rank(item):
        folder = Path(item.path).parent.name
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_atto(folder)
    return folder


@pytest.fixture(scope="session")
def drawn_samples(tmp_path_factory, request):
    """Drawn once for all workers of pytest-xdist, and only read: an app writes beside what it serves."""
    base = tmp_path_factory.getbasetemp()
    run = base.parent if hasattr(request.config, "workerinput") else base
    folder = run / "samples" / "studies"
    with FileLock(run / "samples.lock"):
        if not folder.exists():
            assert make_samples.main(["--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def samples(drawn_samples, tmp_path_factory):
    """Those that the shared app serves: tests that change studies copy it."""
    folder = tmp_path_factory.mktemp("served") / "samples"
    shutil.copytree(drawn_samples.parent, folder)
    return folder / drawn_samples.name


@pytest.fixture(scope="session")
def app(samples, weights):
    return build_app(samples, weights)
