"""Blocks of a kernel: each is worked on once, on as many threads as torch may use."""

import threading

import pytest
import torch

from proxyprompt.prompt_generator.ops.cpu_threads import run_blocks


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_block_once_with_the_same_arguments(threads):
    done = []
    run_blocks(lambda where, *block: where.append(block), (done,), [(b, d) for b in range(3) for d in range(5)])
    assert sorted(done) == [(b, d) for b in range(3) for d in range(5)]
    run_blocks(done.append, (), [])


def test_as_many_threads_as_torch_may_use(threads):
    def kernel(met, block):
        met.wait(10)  # breaks unless so many wait together
        used.add(threading.current_thread())

    used = set()
    run_blocks(kernel, (threading.Barrier(threads),), [(block,) for block in range(threads)])
    assert len(used) == threads


def test_an_error_reaches_who_asked(threads):
    def kernel(block):
        raise ValueError(f"block {block}")

    with pytest.raises(ValueError, match="block"):
        run_blocks(kernel, (), [(0,), (1,)])
