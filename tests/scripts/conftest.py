"""One folder of drawn samples for all tests that only read it."""

import make_samples
import pytest


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "studies"
    assert make_samples.main(["--out", str(folder)]) == 0
    return folder
