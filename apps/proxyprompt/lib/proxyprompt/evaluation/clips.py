"""Clips whose frames are an image each: the frames of one group are one case."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxyprompt.datasets.collections import Collection, CollectionCase
from proxyprompt.io.errors import StudyError
from proxyprompt.io.study import Study, read_clip, read_study


@dataclass(frozen=True)
class ClipCollection(Collection):
    """A collection of clips.

    frames: id of a clip -> its frames, in their order.
    """

    frames: dict[str, tuple[CollectionCase, ...]] | None = None

    def open(self, case: CollectionCase) -> tuple[Study, NDArray[np.uint8]]:
        frames = (self.frames or {})[case.id]
        study = read_clip([frame.image_path for frame in frames], intensity=self.intensity)
        labels = [read_study(f.image_path, intensity=self.intensity).read_label(f.label_path) for f in frames]
        return study, np.concatenate(labels)


def as_clips(collection: Collection) -> ClipCollection:
    """The frames of each group, ordered by their ids, as one clip.

    StudyError where the groups say nothing: every image is a group of its own.
    """
    groups = collection.groups()
    if len(groups) == len(collection.cases):
        raise StudyError(
            f"{collection.folder}: no group has a second image, so there is no clip; say in groups.csv whose "
            "frames are whose"
        )
    frames = {group: tuple(sorted(cases, key=lambda case: case.id)) for group, cases in groups.items()}
    cases = tuple(replace(of_clip[0], id=group, label_path=Path(group)) for group, of_clip in frames.items())
    return ClipCollection(
        collection.name, collection.folder, cases, collection.structures, collection.intensity, frames
    )
