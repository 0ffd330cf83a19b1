"""Real tasks to pretrain on: folders of images and masks, each with the groups that must not be told apart."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from proxyprompt.datasets.collections import read_collection
from proxyprompt.io.errors import StudyError

logger = logging.getLogger(__name__)
LEAST_CASES = 4


class PretrainingDataError(ValueError):
    """There is nothing to train on; the message says what was expected where."""


@dataclass(frozen=True)
class Task:
    """The labelled images of one task, as the network sees them.

    Attributes:
        name: of its folder.
        images: (P, 3, S, S) uint8.
        labels: (P, S, S) uint8, 0 is background.
        groups: of each image, such as its patient.
    """

    name: str
    images: Tensor
    labels: Tensor
    groups: tuple[str, ...]

    @property
    def values(self) -> list[int]:
        """Label values that occur."""
        return [int(value) for value in self.labels.unique() if value]


def task_folders(folder: str | Path) -> list[Path]:
    """The tasks of a folder, sorted by name.

    Raises:
        PretrainingDataError: when there is no such folder or no task in it.
    """
    folder = Path(folder)
    found = sorted(path for path in folder.glob("*") if (path / "images").is_dir() and (path / "masks").is_dir())
    if not found:
        raise PretrainingDataError(
            f"{folder}: no tasks to pretrain on; expected a folder of folders, each with images/ and masks/ of the "
            "same names (and groups.csv)"
        )
    return found


def split_tasks(folders: list[Path], held_back: int) -> tuple[list[Path], list[Path]]:
    """Which tasks train and which are only measured on.

    Args:
        folders: of all tasks.
        held_back: every ``held_back``-th one is held back; none for 0.

    Returns:
        (to train on, held back).
    """
    back = folders[held_back - 1 :: held_back] if held_back else []
    return [path for path in folders if path not in back], back


def read_task(folder: Path, size: int) -> Task | None:
    """One task, stretched to ``size`` pixels on each side.

    Args:
        folder: with images/ and masks/.
        size: S.

    Returns:
        The task; None, with a warning that says why, when it cannot be used.
    """
    images, labels, groups = [], [], []
    try:
        collection = read_collection(folder)
        for case in collection.cases:
            study, label = collection.open(case)
            if len(study) != 1:
                raise StudyError(f"{case.image_path} has {len(study)} slices; expected a 2-D image")
            image = torch.from_numpy(study.image(0))[None]
            image = F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
            images.append((image[0] * 255).round().clamp(0, 255).to(torch.uint8))
            label = torch.from_numpy(label[0].astype(np.uint8))[None, None]
            labels.append(F.interpolate(label, (size, size), mode="nearest-exact")[0, 0])
            groups.append(case.group)
    except StudyError as error:
        logger.warning("task %s is left out: %s", folder.name, error)
        return None
    if len(images) < LEAST_CASES:
        logger.warning("task %s is left out: %d images, at least %d are needed", folder.name, len(images), LEAST_CASES)
        return None
    return Task(folder.name, torch.stack(images), torch.stack(labels), tuple(groups))


def read_tasks(folders: list[Path], size: int) -> list[Task]:
    """All tasks that can be used; why others cannot is logged.

    Args:
        folders: of the tasks.
        size: S.

    Returns:
        At least one task.

    Raises:
        PretrainingDataError: when none can be used.
    """
    tasks = [task for task in (read_task(folder, size) for folder in folders) if task is not None]
    if not tasks:
        raise PretrainingDataError(f"none of {len(folders)} tasks can be used; the warnings above say why")
    return tasks
