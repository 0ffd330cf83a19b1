"""A process that may take so much memory and no more."""

import os
import resource
import traceback
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from proxyprompt.batch.queue import BatchItem, attempt
from proxyprompt.io.errors import StudyError
from proxyprompt.io.study import read_study

pytestmark = pytest.mark.faults

MORE = 150 << 20


def capped(function) -> int:
    """Runs a function in a process of its own that gets little more memory than it has; 0 when it came through."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + MORE, held + MORE))
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_study_that_does_not_fit_is_refused_and_the_next_one_is_read(tmp_path):
    large, small = tmp_path / "large.nii", tmp_path / "small.nii"
    header = nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4)).header
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32), np.eye(4)), small)
    header.set_data_shape((512, 512, 400))
    with large.open("wb") as file:
        file.write(header.binaryblock + b"\0" * 4)
        file.truncate(352 + 512 * 512 * 400 * 4)

    def read() -> None:
        with pytest.raises(StudyError, match="does not fit into the memory"):
            read_study(large)
        assert len(read_study(small)) == 8

    assert capped(read) == 0


def test_a_batch_goes_on_after_a_study_that_does_not_fit():
    def run() -> None:
        answer = attempt(lambda item: np.ones(MORE, np.float64), BatchItem("large"))
        assert answer.status == "failed" and "out of memory" in answer.message
        assert attempt(lambda item: item.id, BatchItem("small")).status == "done"

    assert capped(run) == 0
