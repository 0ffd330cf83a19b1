"""Several processes that train one model, started by ``torchrun`` or by a server; alone, all of this does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

_PATIENCE = timedelta(hours=4)  # the others wait while the first one validates
_T = TypeVar("_T")


@contextmanager
def process_group(device: str = "cpu") -> Iterator[str]:
    """Joins the processes that were started together. Yields the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process; the first one, 0, writes, scores and reports."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def shared(value: _T) -> _T:
    """What the first process says, for all of them."""
    if not distributed.is_initialized():
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def everywhere(flag: bool) -> bool:
    """Whether the flag is set in any of the processes."""
    if not distributed.is_initialized():
        return flag
    flags = [None] * distributed.get_world_size()
    distributed.all_gather_object(flags, flag)
    return any(flags)


def wrapped(model: nn.Module) -> nn.Module:
    """The model whose gradients are averaged over the processes."""
    if not distributed.is_initialized():
        return model
    return DistributedDataParallel(model, find_unused_parameters=True)
