"""A queue of studies over threads and over real processes, some of which are killed."""

import threading

import pytest
from batch_functions import Doing, Make

from proxyprompt.batch.queue import BatchError, BatchItem, run_batch
from proxyprompt.batch.workers import ProcessWorkers, ThreadWorkers
from proxyprompt.io.errors import StudyError

KINDS = {"a": None, "b": "refuse", "c": "fail", "d": None, "e": None}
ITEMS = [BatchItem(name, options={"do": what}) for name, what in KINDS.items()]
REFUSALS = (StudyError,)


def processes(make, count):
    return ProcessWorkers(make, count, refusals=REFUSALS)


def threads(make, count):
    return ThreadWorkers(make(), count, refusals=REFUSALS)


@pytest.mark.parametrize("kind", [threads, processes])
@pytest.mark.parametrize("count", [1, 3])
def test_one_bad_study_never_stops_the_rest(tmp_path, kind, count):
    noted = []
    with kind(Make(tmp_path / "notes"), count) as workers:
        answers = run_batch(ITEMS, workers, attempts=2, note=noted.append)
    assert {name: answers[name].status for name in KINDS} == dict(
        zip(KINDS, ["done", "refused", "failed", "done", "done"], strict=True)
    )
    assert answers["a"].value == "a!" and "cut short" in answers["b"].message
    assert "ZeroDivisionError" in answers["c"].message and answers["c"].attempts == 2
    assert sorted(answer.item.id for answer in noted) == sorted(KINDS)  # each once
    lines = (tmp_path / "notes").read_text().splitlines()
    assert {name: lines.count(name) for name in KINDS} == {"a": 1, "b": 1, "c": 2, "d": 1, "e": 1}
    assert lines.count("prepared") == (count if kind is processes else 1)  # once in each worker


def test_a_worker_that_dies_costs_one_try(tmp_path):
    items = [BatchItem("once", options={"do": "die once"}), BatchItem("always", options={"do": "die"}), *ITEMS]
    with processes(Make(tmp_path / "notes"), 2) as workers:
        answers = run_batch(items, workers, attempts=3)
    assert answers["once"].status == "done" and answers["once"].attempts == 2
    assert answers["always"].status == "lost" and answers["always"].attempts == 3
    assert "-9" in answers["always"].message
    assert answers["e"].status == "done"


def test_what_waits_is_not_taken_before_somebody_is_idle(tmp_path):
    taken, most = [], []
    hold = threading.Event()

    def items():
        for number in range(50):
            taken.append(number)
            yield BatchItem(str(number))

    def work(item):
        hold.wait(0.02)
        most.append(len(taken) - len(most))
        return item.id

    with ThreadWorkers(work, 2) as workers:
        assert len(run_batch(items(), workers)) == 50
    assert max(most) <= 4  # the two at work, what has just ended, and the one that comes next


def test_nobody_can_work(tmp_path):
    with (
        pytest.raises(BatchError, match="the support is gone"),
        processes(Make(tmp_path / "notes", "the support is gone"), 1) as workers,
    ):
        run_batch(ITEMS, workers)
    with (
        pytest.raises(BatchError, match=r"3 workers.*-9"),
        processes(Make(tmp_path / "notes", "die"), 1) as workers,
    ):
        run_batch(ITEMS, workers)


def test_the_function_of_the_tests_counts(tmp_path):
    """The tests above rest on its notes."""
    doing = Doing(str(tmp_path / "notes"))
    doing(BatchItem("x"))
    assert (tmp_path / "notes").read_text() == "prepared\nx\n"
