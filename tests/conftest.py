"""Shared by all tests: few threads, and the app on a folder of sample studies with tiny random weights."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from app_in_process import build_app
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.samples import make_samples


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_atto(folder)
    return folder


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """Shared: tests that change studies copy it."""
    folder = tmp_path_factory.mktemp("samples") / "studies"
    make_samples(folder)
    return folder


@pytest.fixture(scope="session")
def app(samples, weights):
    return build_app(samples, weights)
