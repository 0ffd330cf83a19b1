"""Which labelled slices to take as support: pure arithmetic on descriptors, no files.

``T`` target slices, ``n`` candidate slices, ``d`` numbers in a descriptor.

A volume gets one support set, not one per slice: the support features and their aggregation are computed once per set.
Its target slices do not count alike. A structure is absent from most of them, and the slices on which it may be are
those that resemble a slice where it was labelled, so each target slice is weighted by its best similarity to any
candidate, sharpened by a softmax. A single image is the case T = 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Item = TypeVar("_Item")
Vectors = NDArray[np.floating[Any]]

TEMPERATURE = 0.1
"""Of the softmax over target slices, in units of cosine similarity."""

MARGIN = 0.05
"""Another study is preferred to a second slice of the same one only if its best score is within this of the best."""

_CENTRE_PRIOR = 8
"""Number of zero descriptors mixed into the mean that is taken off: a mean over few studies says little."""


def evenly(items: Sequence[_Item], at_most: int) -> list[_Item]:
    """Some of the items, evenly spread, both ends included where there is room.

    Args:
        items: in order.
        at_most: how many, at least 1.

    Returns:
        All of them where there are no more.
    """
    items = list(items)
    if len(items) <= at_most:
        return items
    if at_most == 1:
        return [items[len(items) // 2]]
    return [items[i] for i in np.linspace(0, len(items) - 1, at_most).round().astype(int)]


def similarities(target: Vectors, candidates: Vectors, studies: Sequence[str]) -> NDArray[np.float64]:
    """Cosine similarity of descriptors, centred.

    What all images share says nothing, so the mean of the library is taken off first: the mean over studies (all count
    alike, however many slices they have, the target too), shrunk towards zero while the studies are few.

    Args:
        target: (T, d).
        candidates: (n, d).
        studies: of each candidate.

    Returns:
        (T, n), from -1 to 1.
    """
    target, candidates = np.asarray(target, np.float64), np.asarray(candidates, np.float64)
    owners = np.asarray(studies)
    means = [candidates[owners == s].mean(0) for s in dict.fromkeys(studies)] + [target.mean(0)]
    centre = np.sum(means, axis=0) / (len(means) + _CENTRE_PRIOR)
    return _unit(target - centre) @ _unit(candidates - centre).T


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def relevance(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much each slice of the target counts: a softmax of its best similarity.

    Args:
        similarity: (T, n).

    Returns:
        (T,), summing to 1.
    """
    peak = similarity.max(axis=1) / TEMPERATURE
    weight = np.exp(peak - peak.max())
    return weight / weight.sum()


def scores(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well each candidate suits the whole target: its similarity, averaged by relevance.

    Args:
        similarity: (T, n).

    Returns:
        (n,).
    """
    return relevance(similarity) @ similarity


def pick(
    similarity: NDArray[np.float64],
    studies: Sequence[str],
    count: int,
    *,
    chosen: Sequence[int] = (),
    margin: float = MARGIN,
) -> list[int]:
    """Choose among candidates for one structure.

    Studies take turns: no study gives a second slice while another one, whose best score is within ``margin`` of the
    best of all, has given none, and so on for the third; studies further off than that come last. A study's first slice
    is its best; a further one is that which adds most to what the target slices find in the set (their best similarity
    to it, averaged by relevance), not the neighbour of the first.

    Args:
        similarity: (T, n).
        studies: n owners.
        count: how many.
        chosen: those that are chosen already.
        margin: in units of cosine similarity.

    Returns:
        Indices of ``count`` candidates (fewer if there are not so many), those already chosen first.
    """
    weight, score = relevance(similarity), scores(similarity)
    picked = list(chosen)
    given = Counter(studies[i] for i in picked)
    cover = similarity[:, picked].max(axis=1) if picked else np.full(len(similarity), -1.0)
    peak = {s: max(score[i] for i in range(len(studies)) if studies[i] == s) for s in set(studies)}
    rest = [i for i in range(len(studies)) if i not in set(picked)]
    while rest and len(picked) < count:
        near = [i for i in rest if peak[studies[i]] >= score.max() - margin] or rest
        turn = min(given[studies[i]] for i in near)
        pool = [i for i in near if given[studies[i]] == turn]
        gain = {i: float(weight @ np.maximum(cover, similarity[:, i])) if turn else 0.0 for i in pool}
        best = max(pool, key=lambda i: (round(gain[i], 9), score[i], -i))
        picked.append(best)
        rest.remove(best)
        given[studies[best]] += 1
        cover = np.maximum(cover, similarity[:, best])
    return picked
