"""Tasks and groups so small that a step takes a fraction of a second."""

import pytest
import torch
from tiny_tasks import write_task

from proxyprompt.pretraining.config import PoolConfig, PretrainConfig
from proxyprompt.pretraining.pool import GroupPool, build_maker

SIZE = 64


@pytest.fixture(scope="session")
def config() -> PretrainConfig:
    return PretrainConfig(
        image_size=SIZE,
        shapes=((1, 3, 1), (2, 3, 2)),
        steps=8,
        warmup=2,
        held_back=2,
        pool=PoolConfig(members=5, structures=3, slots=4),
        foundation={"dim": 32, "blocks": 1, "memory_layers": 1, "feed_forward": 32},
        generator={"grid": 4, "width": 16, "depth": 1, "d_state": 4, "heads": 4, "halvings": 2, "norm_first": True},
    )


@pytest.fixture(scope="session")
def tasks(tmp_path_factory):
    """A folder of three tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    for seed, name in enumerate(("a", "b", "c")):
        write_task(folder / name, seed=seed)
    return folder


@pytest.fixture(scope="session")
def pool(tmp_path_factory, tasks, config):
    """Four groups of each kind there is."""
    pool = GroupPool(tmp_path_factory.mktemp("pool"))
    torch.manual_seed(0)
    maker = build_maker(sorted(tasks.iterdir()), config)
    for slot, kind in enumerate(("real", "views", "drawn", "real")):
        pool.write(slot, kind, maker.make(kind))
    return pool
