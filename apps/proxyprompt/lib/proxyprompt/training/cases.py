"""Labelled studies to train on, from a server's datastore or from a folder, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from proxyprompt.io.cache import content_key
from proxyprompt.supports.ranking import evenly

if TYPE_CHECKING:  # MONAI Label comes with the library, and takes seconds
    from proxyprompt.datasets.collections import Case as FolderCase
    from proxyprompt.datasets.collections import Collection as Folder
    from proxyprompt.io.study import Study
    from proxyprompt.supports.library import Catalogue, LabelledStudy


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled study. structures: declared, name -> label values. open: the study and its labels (Z, h, w) uint8.

    group: patient or case; the study itself where nothing is known. content: tells that image and label are the same.
    """

    id: str
    group: str
    structures: Mapping[str, Collection[int]]
    content: str
    open: Callable[[], tuple[Study, np.ndarray]]


class Cases:
    """The labelled studies of a training, in a fixed order."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._cases = tuple(sorted(cases, key=lambda case: case.id))

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases)

    @property
    def structures(self) -> list[str]:
        """Names of all that any case declares, sorted: the order of the masks and indices of a training."""
        return sorted({name for case in self for name in case.structures})

    @property
    def content(self) -> str:
        """Tells that all images, labels and groups are the same."""
        return content_key([[case.id, case.group, case.content] for case in self])

    @classmethod
    def from_catalogue(cls, catalogue: Catalogue, *, without: Collection[str] = ()) -> Cases:
        """The usable labelled studies of a datastore, except those whose ids are in ``without``."""

        def read(study: LabelledStudy) -> tuple[Study, np.ndarray]:
            opened = catalogue.open(study.id)
            return opened, opened.read_label(study.label_path)

        found = (study for study in catalogue.studies().values() if study.id not in without)
        return cls(
            Case(s.id, s.group or s.id, s.structures, content_key(sorted(s.tags)), partial(read, s)) for s in found
        )

    @classmethod
    def joined(cls, parts: Iterable[Cases]) -> Cases:
        """The cases of several folders.

        Groups of the same name count as one, wherever they are; structures too, so that cases of different folders
        support each other where these call a structure the same.
        """
        return cls(case for part in parts for case in part)

    @classmethod
    def from_collection(cls, folder: Folder, *, only: Collection[str] | None = None) -> Cases:
        """The cases of a folder, as :func:`proxyprompt.datasets.collections.read_collection` found them.

        only: ids, None for all of them.
        """

        def content(case: FolderCase) -> str:
            stamps = [(path.stat().st_mtime_ns, path.stat().st_size) for path in (case.image_path, case.label_path)]
            return content_key(str(case.image_path), stamps, {n: list(v) for n, v in case.structures.items()})

        found = (case for case in folder.cases if only is None or case.id in only)
        return cls(Case(c.id, c.group, c.structures, content(c), partial(folder.open, c)) for c in found)


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """One slice of a case, and its masks of all N structures of the training.

    image: (3, h, w) float16 in [0, 1]. masks: (N, h, w) uint8, 255 inside. declared, shown: (N,) bool, whether the
    study declares the structure, and whether any of it is on the slice.
    """

    case: Case
    index: int
    image: Tensor
    masks: Tensor
    declared: Tensor
    shown: Tensor


def read_slices(case: Case, structures: Iterable[str], *, most: int, size: int | None = None) -> list[LabelledSlice]:
    """At most ``most`` slices of a case, evenly spread: four in five show a structure, if there are such.

    size: the shorter side of larger slices is brought down to it; None leaves them as they are. Raises StudyError when
    image and label do not go together.
    """
    structures = list(structures)
    study, labels = case.open()
    inside = np.stack([np.isin(labels, list(case.structures.get(name, ()))) for name in structures])
    shown = inside.any(axis=(2, 3))  # (N, Z)
    full, empty = np.flatnonzero(shown.any(axis=0)), np.flatnonzero(~shown.any(axis=0))
    blank = min(len(empty), most // 5)
    chosen = sorted([*evenly(full, most - blank), *evenly(empty, blank)])
    declared = torch.tensor([name in case.structures for name in structures])
    slices = []
    for index in chosen:
        image = torch.from_numpy(study.image(index))
        masks = torch.from_numpy(inside[:, index]).float()
        height, width = image.shape[-2:]
        if size is not None and min(height, width) > size:
            shape = tuple(round(side * size / min(height, width)) for side in (height, width))
            image, masks = (
                F.interpolate(x[None], shape, mode="bilinear", antialias=True)[0].clamp(0, 1) for x in (image, masks)
            )
        slices.append(
            LabelledSlice(
                case=case,
                index=index,
                image=_compact(image),
                masks=(255 * masks).round().byte(),
                declared=declared,
                shown=torch.from_numpy(shown[:, index].copy()),
            )
        )
    return slices


def _compact(image: Tensor) -> Tensor:
    """float16; gray takes the memory of one channel."""
    gray = bool((image == image[:1]).all())
    return image[:1].half().expand(3, -1, -1) if gray else image.half()
