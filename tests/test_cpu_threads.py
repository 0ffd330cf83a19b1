"""Threads of small operations: who runs what, and that it changes nothing."""

import threading
from contextlib import nullcontext

import pytest
import torch

from lib.cpu_threads import all_threads_again, beside, in_shares, one_thread_each, run_blocks


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def told():
    return threading.current_thread(), torch.get_num_threads(), torch.is_inference_mode_enabled()


def elsewhere(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_the_limit_is_the_calling_threads_own():
    with one_thread_each():
        assert torch.get_num_threads() == 1
        assert elsewhere(torch.get_num_threads) == 2
        with one_thread_each(), all_threads_again():
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    with all_threads_again():
        assert torch.get_num_threads() == 2


@torch.inference_mode()
def test_what_runs_beside_has_one_thread_and_the_callers_modes():
    here = threading.current_thread()
    assert beside(told)() == (here, 2, True)  # nothing was given up for it
    with one_thread_each():
        started = threading.Event()
        wait = beside(lambda: (started.set(), told())[1])
        assert started.wait(10)
        thread, threads, inference = wait()
    assert thread is not here and (threads, inference) == (1, True)
    assert torch.get_num_threads() == 2


def test_an_error_beside_is_raised_where_it_is_waited_for():
    def fail():
        raise ValueError("beside")

    with one_thread_each():
        wait = beside(fail)
        with pytest.raises(ValueError, match="beside"):
            wait()


def test_what_runs_beside_is_done_once_whoever_asks():
    done = []
    with one_thread_each():
        for wait in (beside(lambda: done.append(1)), beside(lambda: done.append(2))):
            asking = [threading.Thread(target=wait) for _ in range(4)]
            for thread in asking:
                thread.start()
            wait()
            for thread in asking:
                thread.join()
    assert sorted(done) == [1, 2]


def test_kernels_run_on_the_threads_that_were_left_without_work():
    def kernel(threads, met, b, d):
        threads.add(threading.current_thread())
        met.wait(10)

    for left in (one_thread_each, nullcontext):
        threads = set()
        with left():
            run_blocks(kernel, (threads, threading.Barrier(2)), 2, 1, 1)
        assert len(threads) == 2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_are_whole_in_order_and_not_divided_again(count):
    def work(share):
        return [range(count)[share], len(in_shares(lambda inner: inner, 4))]

    assert in_shares(work, count) == [[range(count), 1]]
    with one_thread_each():
        parts = in_shares(work, count)
        assert [n for share, _ in parts for n in share] == list(range(count))
        assert [len(share) for share, _ in parts] == {1: [1], 2: [1, 1], 5: [3, 2]}[count]  # who asks begins first
        assert all(inner == (2 if count == 1 else 1) for _, inner in parts)
        assert len(in_shares(lambda share: share, 4)) == 2  # the thread is free again
