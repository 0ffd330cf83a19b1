"""Tasks that training never sees, each as one group to measure on."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from .config import PretrainConfig
from .pool import Group, GroupMaker, GroupPool, choose_members
from .tasks import Task, read_tasks


def held_back_groups(folder: Path, tasks: list[Path], config: PretrainConfig, maker: GroupMaker) -> dict[str, Group]:
    """One group of each task, as it is: its images without variation, and its most frequent label.

    Args:
        folder: where the groups are kept once they are made.
        tasks: folders of the tasks.
        config: of the run.
        maker: encodes.

    Returns:
        Name of the task -> its group.
    """
    pool = GroupPool(folder / f"{config.image_size}")
    if len(pool.files()) < len(tasks):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            for slot, task in enumerate(read_tasks(tasks, config.image_size)):
                pool.write(slot, "real", _as_it_is(task, config, maker))
    return {path.name: pool.read(file) for path, file in zip(tasks, pool.files(), strict=False)}


def _as_it_is(task: Task, config: PretrainConfig, maker: GroupMaker) -> Group:
    chosen = choose_members(task, config.pool.members, one=False)
    images, labels = task.images[chosen], task.labels[chosen]
    value = max(task.values, key=lambda v: int((labels == v).flatten(1).any(1).sum()))
    masks = F.avg_pool2d((labels == value).float()[:, None], 2) >= 0.5
    return Group(images, maker.encode(images), masks, False)
