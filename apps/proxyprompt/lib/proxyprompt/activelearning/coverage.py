"""Which unlabelled study to label next: pure arithmetic on descriptors and on how unsure each study is.

``n`` studies wait, ``m`` are covered (labelled, or proposed already), ``d`` numbers describe each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def similarity(rows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Cosine similarity of all rows (n, d) with each other, (n, n); what they all share is taken off first."""
    centred = np.asarray(rows, np.float64) - np.mean(rows, axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def gains(
    unsure: NDArray[np.floating[Any]], waiting: NDArray[np.floating[Any]], covered: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """(n,) what labelling each waiting study would do for all of them. unsure: (n,), 0 or more.

    A label helps a study by as much as it brings the nearest label closer to it (facility location), and helps most
    where the supports of today disagree. A near-duplicate of a covered study therefore gains nothing, and neither does
    an outlier that is like no other, unless it is very unsure itself.
    """
    alike = similarity(np.concatenate([waiting, covered]))
    n = len(waiting)
    nearest = alike[:n, n:].max(axis=1, initial=-1.0)
    closer = np.clip(alike[:n, :n] - nearest[:, None], 0, None)  # (helped, labelled)
    return np.asarray(unsure, np.float64) @ closer
