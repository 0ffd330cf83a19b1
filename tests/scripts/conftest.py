"""The drawn samples as they are, for all tests that only read them."""

import pytest


@pytest.fixture(scope="session")
def samples(drawn_samples):
    return drawn_samples
