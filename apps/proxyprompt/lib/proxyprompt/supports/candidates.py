"""The labelled slices that may become support, and the choice among them for several structures at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxyprompt.io.study import Study

from .fit import calibrated, contradiction, cosines, least_likeness, likeness
from .library import LabelledStudy
from .ranking import Vectors, evenly, pick, relevance, scores, similarities

STUDY_SLICES = 24
"""Slices per labelled study and structure that may become support."""
SLIVER = 0.05
"""Of a structure's largest area in its study: slices with less of it serve only if there is nothing else."""
_LAST = 2.0  # the width of the range of a cosine


@dataclass(frozen=True)
class Candidates:
    """n slices of labelled studies, for a target of T slices.

    Attributes:
        slices: study and index of each.
        similarity: (T, n), to the target, centred.
        looks: (T, n), to the target, cosines as they are.
        rows: (n, d), their descriptors.
        holds: structure -> (n,) whether it lies there.
    """

    slices: list[tuple[LabelledStudy, int]]
    similarity: NDArray[np.float64]
    looks: NDArray[np.float64]
    rows: Vectors
    holds: dict[str, NDArray[np.bool_]]

    @property
    def owners(self) -> list[str]:
        """The id of each slice's study."""
        return [study.id for study, _ in self.slices]

    @classmethod
    def of(cls, slices: list[tuple[LabelledStudy, int]], target: Vectors, rows: Vectors) -> Candidates:
        """Look up where each structure lies: on more than a sliver, if there is such a slice.

        Args:
            slices: study and index of each.
            target: (T, d), descriptors of the target.
            rows: (n, d), descriptors of the slices.

        Returns:
            The candidates.
        """
        studies = {study.id: study for study, _ in slices}
        holds = {}
        for name in dict.fromkeys(n for s in studies.values() for n in s.present()):
            areas = {i: s.area(name) for i, s in studies.items()}
            size = np.array([areas[s.id][i] for s, i in slices])
            largest = np.array([areas[s.id].max() for s, _ in slices])
            solid = (size > 0) & (size >= SLIVER * largest)
            holds[name] = solid if solid.any() else size > 0
        centred = similarities(target, rows, [study.id for study, _ in slices])
        return cls(slices, centred, cosines(target, rows), rows, holds)

    def probability(self) -> NDArray[np.float64]:
        """(n,) how probably each slice is of the target's kind."""
        return np.array([calibrated(cosine) for cosine in relevance(self.looks) @ self.looks])

    def unlike(self, name: str, target: Study) -> str:
        """Why no study that shows a structure fits the target; "" where one does.

        Args:
            name: of the structure, which some candidate holds.
            target: what is to be segmented.

        Returns:
            Words for people.
        """
        mine = np.flatnonzero(self.holds[name])
        studies = {self.slices[i][0].id: self.slices[i][0] for i in mine}
        against = {i: misfit(target, study) for i, study in studies.items()}
        fitting = [int(i) for i in mine if not against[self.slices[i][0].id]]
        if not fitting:
            study, why = next(iter(against.items()))
            return f"the labelled study {study} {why}"
        least = least_likeness(self.rows[fitting], [_owner(self.slices[i][0]) for i in fitting])
        found = likeness(self.looks[:, fitting])
        if found >= least:
            return ""
        return (
            "no labelled study with it that may serve looks like this image: the most similar one to "
            f"{calibrated(found):.0%}, where {calibrated(least):.0%} is asked for"
        )

    @property
    def scores(self) -> NDArray[np.float64]:
        """(n,) similarity to the target as a whole."""
        return scores(self.similarity)

    @property
    def rank(self) -> NDArray[np.float64]:
        """(T, n) what to choose by: the similarity, but labels that were accepted unchanged come after all others."""
        last = np.array([study.accepted_unchanged for study, _ in self.slices])
        return self.similarity - _LAST * last


def choose_slices(candidates: Candidates, names: Sequence[str], count: int) -> list[int]:
    """Choose among candidates for several structures at once.

    Every structure gets one, then a fair share of ``2 * count``, then up to ``count`` while there is room. The rarest
    structure chooses first, since its slices often serve the others too.

    Args:
        candidates: to choose from.
        names: of the structures, each of which some candidate holds.
        count: slices for each structure.

    Returns:
        Indices of the chosen candidates, the most similar first.
    """
    owners, limit = candidates.owners, 2 * count
    chosen: list[int] = []
    fair = min(count, max(1, math.ceil(limit / len(names))))
    for quota in dict.fromkeys((1, fair, count)):
        for name in sorted(names, key=lambda n: int(candidates.holds[n].sum())):
            mine = np.flatnonzero(candidates.holds[name])
            place = {int(i): p for p, i in enumerate(mine)}
            have = [place[i] for i in chosen if i in place]
            want = min(quota, len(have) + max(limit - len(chosen), 0 if have else 1))
            picked = pick(candidates.rank[:, mine], [owners[i] for i in mine], want, chosen=have)
            chosen += [int(mine[p]) for p in picked[len(have) :]]
    score = scores(candidates.rank)
    return sorted(chosen, key=lambda i: -score[i])


def usable_slices(study: LabelledStudy, names: Sequence[str] | None = None) -> list[int]:
    """Slices that may become support.

    Args:
        study: whose slices.
        names: of the structures; None for all that it shows.

    Returns:
        Indices in order: for each structure at most STUDY_SLICES of those on which it is, evenly spread.
    """
    found: set[int] = set()
    for name in study.present():
        if names is None or name in names:
            found.update(evenly(np.flatnonzero(study.area(name)).tolist(), STUDY_SLICES))
    return sorted(found)


def best_slices(study: LabelledStudy, names: Sequence[str] | None = None) -> list[int]:
    """For each structure the slice with most of it.

    Args:
        study: whose slices.
        names: of the structures; None for all that it shows.

    Returns:
        Indices, each once, in the order of the structures.
    """
    present = [n for n in study.present() if names is None or n in names]
    return list(dict.fromkeys(int(study.area(n).argmax()) for n in present))


def _owner(study: LabelledStudy) -> str:
    return study.id if study.group is None else f"group {study.group}"


def same_modality(one: str, other: str) -> bool:
    """Whether two modalities may be the same: OT is gray of which nothing is known, any modality but colour.

    Args:
        one: see :class:`proxyprompt.io.study.Study`.
        other: likewise.

    Returns:
        Whether nothing speaks against it.
    """
    return one == other or ("OT" in (one, other) and "RGB" not in (one, other))


def misfit(target: Study, study: LabelledStudy) -> str:
    """What is known of a labelled study that speaks against it as a support.

    Args:
        target: what is to be segmented.
        study: the labelled one.

    Returns:
        The end of a sentence that begins with the study's name; "" where nothing does.
    """
    if not same_modality(study.modality, target.modality):
        return f"is of another modality ({study.modality}, this image {target.modality})"
    return contradiction(target.tags, study.about)
