"""Encoded groups on disk: workers write them, the trainer draws from them.

The trunk is frozen, and backward through its depthwise convolutions would cost most of a step; so each group of images
is varied, encoded and kept, and serves several steps with other supports, targets and structures, until a worker
replaces it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib.files import replacing
from lib.foundation.pretrained_trunk import MEAN, STD, PretrainedTrunk
from lib.training.procedural import draw_groups

from .augmentation import augment_group, zoom
from .config import PoolConfig
from .pseudo_structures import pseudo_structure
from .randomness import chance, uniform
from .tasks import Task, read_task

logger = logging.getLogger(__name__)
LEAST_PIXELS = 12  # of a mask at half the input's side; what shows less is absent


@dataclass(frozen=True)
class Group:
    """M images of one task.

    Attributes:
        images: (M, 3, S, S) uint8.
        maps: the trunk's five, (M, channels, S/stride, S/stride), bfloat16.
        masks: (M, N, S/2, S/2) bool; structures that a member does not show are empty there.
        clip: whether the members are views of one image.
    """

    images: Tensor
    maps: list[Tensor]
    masks: Tensor
    clip: bool


class GroupPool:
    """A folder of groups, a file each; files are written beside, then renamed.

    Args:
        folder: where they lie; made if it is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def files(self) -> list[Path]:
        """Of all groups there are."""
        return sorted(self.folder.glob("group-*.safetensors"))

    def write(self, slot: int, group: Group) -> None:
        """Put a group in the place of the one in ``slot``."""
        tensors = {f"map{i}": x.contiguous() for i, x in enumerate(group.maps)}
        tensors |= {"images": group.images.contiguous(), "masks": group.masks.to(torch.uint8).contiguous()}
        tensors["clip"] = torch.tensor(int(group.clip))
        with replacing(self.folder / f"group-{slot:05d}.safetensors") as beside:
            save_file(tensors, beside)

    def read(self, file: Path) -> Group:
        """A group. SafetensorError or OSError when the file cannot be read."""
        tensors = load_file(file)
        maps = [tensors[f"map{i}"].contiguous(memory_format=torch.channels_last) for i in range(5)]
        return Group(tensors["images"], maps, tensors["masks"].bool(), bool(tensors["clip"]))

    def draw(self, count: int, random: torch.Generator) -> list[Group]:
        """Some groups, at random; one that cannot be read is left out for another."""
        files, groups = self.files(), []
        for index in torch.randperm(len(files), generator=random).tolist():
            if len(groups) == count:
                break
            try:
                groups.append(self.read(files[index]))
            except (OSError, SafetensorError) as error:
                logger.warning("%s cannot be read: %s", files[index], error)
        return groups


class GroupMaker:
    """Makes groups, at random from torch's global generator.

    Args:
        tasks: real ones.
        config: of the pool.
        size: S.
        trunk: in bfloat16.
    """

    def __init__(self, tasks: list[Task], config: PoolConfig, size: int, trunk: PretrainedTrunk) -> None:
        self.tasks, self.config, self.size, self.trunk = tasks, config, size, trunk
        self._mean, self._std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))

    def make(self) -> Group:
        """One group with at least one structure."""
        while True:
            kinds = list(self.config.kinds)
            kind = kinds[int(torch.multinomial(torch.tensor([self.config.kinds[k] for k in kinds]), 1))]
            images, masks = self._draw() if kind == "drawn" else self._photograph(clip=kind == "views")
            maps = self.encode(images)
            masks = self._with_pseudo(images, maps, masks)
            shown = masks.flatten(2).sum(-1) >= LEAST_PIXELS
            masks = (masks & shown[..., None, None])[:, shown.sum(0) >= 2]
            if masks.shape[1]:
                return Group(images, maps, masks[:, : self.config.structures], kind == "views")

    @torch.inference_mode()
    def encode(self, images: Tensor) -> list[Tensor]:
        """The trunk's maps of (M, 3, S, S) uint8."""
        return self.trunk(((images.float() / 255 - self._mean) / self._std).to(torch.bfloat16))

    def _draw(self) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        drawn = draw_groups(1, self.config.members, self.size, objects=3, generator=random, ease=0.5)
        masks = F.max_pool2d(drawn.masks[0].float(), 2) > 0
        return (drawn.images[0] * 255).round().to(torch.uint8), masks

    def _photograph(self, *, clip: bool) -> tuple[Tensor, Tensor]:
        """Images of one real task, or views of one of them, and the masks of some of its labels."""
        task = self.tasks[int(uniform(0, len(self.tasks)))]
        chosen = _choose(task, self.config.members, one=clip)
        images, labels = task.images[chosen], task.labels[chosen]
        structures = [labels == value for value in labels.unique().tolist() if value]
        if len(structures) > 1 and chance(0.3):
            structures.append(labels > 0)
        order = torch.randperm(len(structures)).tolist()[: self.config.structures - 1]
        maps = torch.stack([structures[i] for i in order], 1) if order else labels.new_zeros(len(labels), 0, *labels.shape[1:])
        maps = maps.to(torch.uint8)
        if maps.shape[1] and chance(self.config.zoom):
            images, maps = zoom(images, maps, maps[:, 0].bool())
        images, maps = augment_group(images, maps, clip=clip)
        return images, F.avg_pool2d(maps.float(), 2) >= 0.5

    def _with_pseudo(self, images: Tensor, maps: list[Tensor], masks: Tensor) -> Tensor:
        """The masks, and some of structures that nobody labelled."""
        more = []
        for _ in range(int(uniform(1, 4)) + (masks.shape[1] == 0)):
            made = pseudo_structure(images, maps, self.size // 2)
            if made is not None:
                more.append(made[:, None])
        return torch.cat([masks, *more], 1)


def _choose(task: Task, count: int, *, one: bool) -> Tensor:
    """Indices of ``count`` images: of as many groups as there are, or of one image."""
    order = torch.randperm(len(task.images)).tolist()
    if one:
        return torch.tensor(order[:1] * count)
    first, later, seen = [], [], set()
    for index in order:
        (later if task.groups[index] in seen else first).append(index)
        seen.add(task.groups[index])
    order = first + later
    return torch.tensor((order * (count // len(order) + 1))[:count])


def fill(folder: Path, tasks: list[Path], config: PoolConfig, size: int, trunk: str, seed: int, part: int, parts: int):
    """What a worker does: fill every ``parts``-th slot from ``part``, then replace them one after the other, for ever."""
    os.nice(10)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    pool = GroupPool(folder)
    read = [task for task in (read_task(path, size) for path in tasks) if task is not None]
    maker = GroupMaker(read, config, size, PretrainedTrunk(trunk).to(torch.bfloat16))
    slots = list(range(part, config.slots, parts))
    there = {file.name for file in pool.files()}
    slots.sort(key=lambda slot: f"group-{slot:05d}.safetensors" in there)
    while True:
        for slot in slots:
            pool.write(slot, maker.make())


def start_workers(
    count: int, folder: Path, tasks: list[Path], config: PoolConfig, size: int, trunk: str, seed: int
) -> list[multiprocessing.Process]:
    """Worker processes that end with this one."""
    context = multiprocessing.get_context("spawn")
    arguments = [(folder, tasks, config, size, trunk, seed + 7919 * part, part, count) for part in range(count)]
    workers = [context.Process(target=fill, args=own, daemon=True) for own in arguments]
    for worker in workers:
        worker.start()
    return workers


def wait_for(pool: GroupPool, count: int, workers: list[multiprocessing.Process]) -> None:
    """Until the pool holds ``count`` groups. RuntimeError when a worker has ended."""
    while len(pool.files()) < count:
        if any(not worker.is_alive() for worker in workers):
            raise RuntimeError("a worker that makes groups has ended; its error stands above")
        time.sleep(1)
