"""Labelled studies to train on, from a server's datastore or from a folder, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from lib.studies.library import Catalogue
from lib.studies.study import Study


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled study. structures: declared, name -> label values. open: the study and its labels (Z, h, w) uint8.

    group: patient or case, the id where nothing is known. content: hash of image and label.
    """

    id: str
    group: str
    structures: Mapping[str, frozenset[int]]
    content: str
    open: Callable[[], tuple[Study, np.ndarray]]


class Cases:
    """The labelled studies of a training."""

    def __init__(self, cases: Iterable[Case]) -> None: ...

    @classmethod
    def from_catalogue(cls, catalogue: Catalogue, *, without: Collection[str] = ()) -> Cases:
        """The usable labelled studies of a datastore, except those whose ids are in ``without``."""
        raise NotImplementedError

    @classmethod
    def from_collection(cls, collection) -> Cases:
        """From :func:`lib.studies.collections.read_collection`."""
        raise NotImplementedError
