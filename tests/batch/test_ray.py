"""The queue over a real Ray cluster of this machine, with workers that die."""

import os
from pathlib import Path

import pytest
from batch_functions import Make

from proxyprompt.batch.queue import BatchError, BatchItem, run_batch
from proxyprompt.batch.ray_workers import RayWorkers
from proxyprompt.benchmark.batch import ray_cluster
from proxyprompt.io.errors import StudyError

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    pytest.importorskip("ray", reason="ray is not installed: pip install -r requirements-ray.txt")
    tests = str(Path(__file__).resolve().parents[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))
        with ray_cluster(cpus=2, log=tmp_path_factory.mktemp("ray") / "log") as found:
            yield found


def test_every_study_once_although_workers_die(address, tmp_path):
    kinds = {"refused": "refuse", "fails": "fail", "once": "die once", "always": "die", **dict.fromkeys("abcdef")}
    items = [BatchItem(name, options={"do": what, "seconds": 2}) for name, what in kinds.items()]  # all workers come in
    with RayWorkers(Make(tmp_path / "notes"), address=address, refusals=(StudyError,)) as workers:
        answers = run_batch(items, workers, attempts=2)
    status = {name: answers[name].status for name in kinds}
    wanted = {
        "refused": "refused",
        "fails": "failed",
        "once": "done",
        "always": "lost",
        **dict.fromkeys("abcdef", "done"),
    }
    assert status == wanted
    lines = (tmp_path / "notes").read_text().splitlines()
    assert all(lines.count(name) == 1 for name in "abcdef")
    assert len({answer.worker for answer in answers.values() if answer.status == "done"}) >= 2


def test_workers_that_cannot_be_prepared_say_why(address, tmp_path):
    make = Make(tmp_path / "notes", "the support is gone")
    with (
        pytest.raises(BatchError, match="the support is gone"),
        RayWorkers(make, address=address, refusals=(StudyError,)) as workers,
    ):
        run_batch([BatchItem("a")], workers)


def test_more_than_the_cluster_has(address, tmp_path):
    with pytest.raises(BatchError, match="no room"):
        RayWorkers(Make(tmp_path / "notes"), address=address, cpus=64)


def test_no_cluster(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install -r requirements-ray.txt")
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(BatchError, match="no Ray cluster answers"):
            RayWorkers(Make(tmp_path / "notes"), address=address)
