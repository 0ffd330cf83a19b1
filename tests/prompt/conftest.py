"""Compiled code multiplies float32 numbers, or pairs of bfloat16 numbers where the processor can."""

import pytest

from lib.prompt.cpu_sums import HALVES


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def halves(request, monkeypatch):
    """Whether compiled code multiplies bfloat16 numbers in this test."""
    if request.param and not HALVES:
        pytest.skip("this processor has no AVX512_BF16")
    monkeypatch.setattr("lib.prompt.cpu_sums.HALVES", request.param)
    return request.param
