"""Slices of the target itself that a person painted or corrected: supports for all its other slices.

No other study looks as much like the target. SAM 2 hands such slices on as conditioning frames of its memory; here they
go the way of all supports, through the Proxy Prompt Generator, so that every foundation can use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from proxyprompt.io.study import Study

from .selection import Selection, SupportError, SupportSlice

Corrections = Mapping[int, Mapping[str, NDArray[np.bool_]]]
"""Index of a slice -> name of a structure -> its whole mask (h, w) there; an empty mask says that it is not there."""


def with_corrections(selection: Selection, study: Study, corrections: Corrections) -> Selection:
    """The supports, and beside them the corrected slices of the target.

    Args:
        selection: the supports; may be empty.
        study: the target.
        corrections: of its slices. Structures that the selection does not ask for are left out.

    Returns:
        A selection of the same structures with one support more for each corrected slice.

    Raises:
        SupportError: for a slice that the study does not have, or a mask of another size.
    """
    names = selection.structures
    own = {index: masks for index, masks in sorted(corrections.items()) if set(masks) & set(names)}
    if not own:
        return selection
    for index, masks in own.items():
        if not 0 <= index < len(study):
            raise SupportError(f"slice {index} is corrected; {study.path} has slices 0 to {len(study) - 1}")
        if wrong := sorted(name for name, mask in masks.items() if mask.shape != study.slice_shape):
            raise SupportError(f"the corrected {wrong[0]} on slice {index} is not as large as it, {study.slice_shape}")
    tags, nothing = frozenset({study.content_hash}), np.zeros(study.slice_shape, bool)
    return replace(
        selection,
        slices=(*selection.slices, *(SupportSlice("", i, 1.0, True, study.slice_hash(i), tags) for i in own)),
        images=[*selection.images, *(study.image(i) for i in own)],
        masks=[*selection.masks, *(np.stack([m.get(name, nothing) for name in names]) for m in own.values())],
        valid=np.concatenate([selection.valid, [[name in masks for name in names] for masks in own.values()]]),
    )
