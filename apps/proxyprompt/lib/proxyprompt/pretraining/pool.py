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
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from proxyprompt.datasets.procedural import draw_groups
from proxyprompt.foundation.atto import AttoConfig
from proxyprompt.foundation.pretrained_trunk import MEAN, STD, PretrainedTrunk
from proxyprompt.io.files import replacing
from proxyprompt.training.precision import computes_in_bfloat16

from .augmentation import augment_group, zoom
from .config import PoolConfig, PretrainConfig
from .pseudo_structures import pseudo_structure
from .randomness import chance, uniform
from .tasks import Task, read_tasks

logger = logging.getLogger(__name__)
GOLDEN = 0.618033988749895  # multiples of it spread evenly
VIEWS = "views"
NICE = 5  # workers let the trainer go first
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

    def files(self, kind: str = "*") -> list[Path]:
        """Of all groups there are, or of one kind."""
        return sorted(self.folder.glob(f"{kind}-*.safetensors"))

    def file(self, slot: int, kind: str) -> Path:
        """Of the group in a slot, which always holds groups of the same kind."""
        return self.folder / f"{kind}-{slot:05d}.safetensors"

    def write(self, slot: int, kind: str, group: Group) -> None:
        """Put a group in the place of the one in ``slot``."""
        tensors = {f"map{i}": x.contiguous() for i, x in enumerate(group.maps)}
        tensors |= {"images": group.images.contiguous(), "masks": group.masks.to(torch.uint8).contiguous()}
        tensors["clip"] = torch.tensor(int(group.clip))
        with replacing(self.file(slot, kind)) as beside:
            save_file(tensors, beside)

    def read(self, file: Path) -> Group:
        """A group. SafetensorError or OSError when the file cannot be read."""
        tensors = load_file(file)
        maps = [tensors[f"map{i}"].contiguous(memory_format=torch.channels_last) for i in range(5)]
        return Group(tensors["images"], maps, tensors["masks"].bool(), bool(tensors["clip"]))

    def draw(self, count: int, random: torch.Generator, kind: str = "*") -> list[Group]:
        """Some groups, at random; one that cannot be read is left out for another.

        Args:
            count: at most.
            random: what is drawn with.
            kind: of the groups; any, where there is none of that kind.

        Returns:
            The groups.
        """
        files, groups = self.files(kind) or self.files(), []
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
        trunk: in the precision that is fastest here.
    """

    def __init__(self, tasks: list[Task], config: PoolConfig, size: int, trunk: PretrainedTrunk) -> None:
        self.tasks, self.config, self.size, self.trunk = tasks, config, size, trunk
        self._mean, self._std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))

    def make(self, kind: str) -> Group:
        """One group with at least one structure; kind: ``real``, ``views`` or ``drawn``."""
        while True:
            images, masks = self._draw() if kind == "drawn" else self._photograph(clip=kind == VIEWS)
            maps = self.encode(images)
            masks = self._with_pseudo(images, maps, masks)
            shown = masks.flatten(2).sum(-1) >= LEAST_PIXELS
            masks = (masks & shown[..., None, None])[:, shown.sum(0) >= 2]
            if masks.shape[1]:
                return Group(images, maps, masks[:, : self.config.structures], kind == VIEWS)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> list[Tensor]:
        """The trunk's maps of (M, 3, S, S) uint8, in bfloat16."""
        normalised = (images.float() / 255 - self._mean) / self._std
        maps = self.trunk(normalised.to(self.trunk.dtype))
        return [level.to(torch.bfloat16) for level in maps]

    def _draw(self) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        drawn = draw_groups(1, self.config.members, self.size, objects=3, generator=random, ease=0.5)
        masks = F.max_pool2d(drawn.masks[0].float(), 2) > 0
        return (drawn.images[0] * 255).round().to(torch.uint8), masks

    def _photograph(self, *, clip: bool) -> tuple[Tensor, Tensor]:
        """Images of one real task, or views of one of them, and the masks of some of its labels."""
        task = self.tasks[int(uniform(0, len(self.tasks)))]
        chosen = choose_members(task, self.config.members, one=clip)
        images, labels = task.images[chosen], task.labels[chosen]
        structures = [labels == value for value in labels.unique().tolist() if value]
        if len(structures) > 1 and chance(0.3):
            structures.append(labels > 0)
        order = torch.randperm(len(structures)).tolist()[: self.config.structures - 1]
        maps = labels.new_zeros(len(labels), 0, *labels.shape[1:])
        if order:
            maps = torch.stack([structures[i] for i in order], 1).to(torch.uint8)
        if maps.shape[1] and chance(self.config.zoom):
            images, maps = zoom(images, maps, maps[:, 0].bool())
        images, maps = augment_group(images, maps, clip=clip)
        return images, _halve(maps)

    def _with_pseudo(self, images: Tensor, maps: list[Tensor], masks: Tensor) -> Tensor:
        """The masks, and some of structures that nobody labelled."""
        more = []
        for _ in range(int(uniform(1, 4)) + (masks.shape[1] == 0)):
            made = pseudo_structure(images, maps, self.size // 2)
            if made is not None:
                more.append(made[:, None])
        return torch.cat([masks, *more], 1)


def _halve(masks: Tensor) -> Tensor:
    """(M, L, S, S) of 0 and 1, L from 0 -> (M, L, S/2, S/2) bool, half covered or more."""
    return F.avg_pool2d(masks.flatten(0, 1)[:, None].float(), 2)[:, 0].unflatten(0, masks.shape[:2]) >= 0.5


def choose_members(task: Task, count: int, *, one: bool) -> Tensor:
    """Some images of a task.

    Args:
        task: with at least one image.
        count: how many.
        one: the same image each time.

    Returns:
        (count,) indices, of as many groups as there are; images come again where there are not enough.
    """
    order = torch.randperm(len(task.images)).tolist()
    if one:
        return torch.tensor(order[:1] * count)
    first, later, seen = [], [], set()
    for index in order:
        (later if task.groups[index] in seen else first).append(index)
        seen.add(task.groups[index])
    order = first + later
    return torch.tensor((order * (count // len(order) + 1))[:count])


def fill(folder: Path, tasks: list[Path], config: PretrainConfig, seed: int, part: int, parts: int) -> None:
    """What a worker does, for ever: fill its slots, then replace them one after the other.

    Args:
        folder: of the pool.
        tasks: folders of the real tasks.
        config: of the run.
        seed: of the random numbers.
        part: number of the worker; it has every ``parts``-th slot from this one.
        parts: number of workers.
    """
    os.nice(NICE)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    pool, maker = GroupPool(folder), build_maker(tasks, config)
    slots = list(range(part, config.pool.slots, parts))
    there = {file.name for file in pool.files()}
    kinds = {slot: kind_of(slot, config.pool) for slot in slots}
    slots.sort(key=lambda slot: pool.file(slot, kinds[slot]).name in there)
    while True:
        for slot in slots:
            pool.write(slot, kinds[slot], maker.make(kinds[slot]))


def kind_of(slot: int, config: PoolConfig) -> str:
    """The kind of a slot: each has its share of any run of slots."""
    place, total = (slot * GOLDEN) % 1.0, sum(config.kinds.values())
    for kind, share in config.kinds.items():
        place -= share / total
        if place < 0:
            return kind
    return kind


def build_maker(tasks: list[Path], config: PretrainConfig) -> GroupMaker:
    """A maker of groups of these tasks.

    Args:
        tasks: their folders; what cannot be used is left out with a warning.
        config: of the run.

    Returns:
        The maker.
    """
    trunk = PretrainedTrunk(AttoConfig.from_dict(config.foundation).trunk)
    if computes_in_bfloat16("cpu"):
        trunk = trunk.to(torch.bfloat16)
    return GroupMaker(read_tasks(tasks, config.image_size), config.pool, config.image_size, trunk)


def start_workers(count: int, folder: Path, tasks: list[Path], config: PretrainConfig, seed: int) -> list[Process]:
    """Worker processes that end with this one.

    Args:
        count: how many.
        folder: of the pool.
        tasks: folders of the real tasks.
        config: of the run.
        seed: of the first worker's random numbers.

    Returns:
        The processes, started.
    """
    context = multiprocessing.get_context("spawn")
    arguments = [(folder, tasks, config, seed + part, part, count) for part in range(count)]
    workers = [context.Process(target=fill, args=own, daemon=True) for own in arguments]
    for worker in workers:
        worker.start()
    return workers


def wait_for(pool: GroupPool, count: int, workers: Sequence[Process]) -> None:
    """Until the pool holds ``count`` groups.

    Raises:
        RuntimeError: when a worker has ended.
    """
    while len(pool.files()) < count:
        if any(not worker.is_alive() for worker in workers):
            raise RuntimeError("a worker that makes groups has ended; its error stands above")
        time.sleep(1)
