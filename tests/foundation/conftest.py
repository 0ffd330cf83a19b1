"""The tiny SAM as fixtures."""

import pytest
from segment_anything.modeling import Sam
from tiny_sam import build_tiny_sam


@pytest.fixture(scope="session")
def tiny_sam() -> Sam:
    """Shared: do not change it. For adapters take ``build_tiny_sam`` through the ``fresh_sam`` fixture."""
    return build_tiny_sam()


@pytest.fixture
def fresh_sam() -> Sam:
    return build_tiny_sam()
