"""Whether a new version may serve: it must not be worse than the one it came from, nor the same.

Both are scored on the same held-out groups, which trained neither; the differences are paired, group by group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from proxyprompt.predictor.adapters import PUBLISHED, REFUSED, UNPROVEN

LEAST_GAIN = -0.005
"""Mean difference of Dice below which a version is refused."""
MOST_LOST = 0.02
"""Of its mean Dice that any single structure may lose."""
LEAST_GROUPS = 3
"""Held-out groups below which a difference proves nothing."""

Scores = Mapping[str, Mapping[str, float]]
"""structure -> group -> Dice."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a version.

    Attributes:
        status: "published", "refused" or "unproven".
        reason: a sentence with the figures.
        gain: mean over the groups of child minus parent; None without held-out groups.
        gains: the same for each structure; empty without held-out groups.
        groups: how many there were.
    """

    status: str
    reason: str
    gain: float | None
    gains: Mapping[str, float]
    groups: int


def judge(parent: Scores, child: Scores) -> Decision:
    """parent, child: scores on the same structures and groups. ValueError when they differ in those."""
    if {s: set(g) for s, g in parent.items()} != {s: set(g) for s, g in child.items()}:
        raise ValueError("parent and child were not scored on the same structures and groups; score them alike")
    differences = {s: {g: child[s][g] - parent[s][g] for g in child[s]} for s in child if child[s]}
    groups = {g for by_group in differences.values() for g in by_group}
    if not groups:
        return Decision(UNPROVEN, "no held-out group could be scored, so nothing is known about it", None, {}, 0)
    gains = {s: float(np.mean(list(by_group.values()))) for s, by_group in differences.items()}
    gain = float(np.mean([np.mean([d[g] for d in differences.values() if g in d]) for g in groups]))
    lost = {s: -g for s, g in gains.items() if not -g <= MOST_LOST}
    said = f"mean Dice {gain:+.3f} on {len(groups)} held-out group{'s' * (len(groups) > 1)} ("
    said += ", ".join(f"{s} {g:+.3f}" for s, g in gains.items()) + ")"
    if len(groups) < LEAST_GROUPS:
        reason = f"{said}; at least {LEAST_GROUPS} held-out groups are needed to prove anything: label more studies"
        return Decision(UNPROVEN, reason, gain, gains, len(groups))
    if not any(d for by_group in differences.values() for d in by_group.values()):
        reason = f"it draws what the version it came from draws: {said}; train longer, or look at the labels"
        return Decision(REFUSED, reason, gain, gains, len(groups))
    if not gain >= LEAST_GAIN:
        reason = f"worse than the version it came from: {said}; at most {-LEAST_GAIN} may be lost"
        return Decision(REFUSED, reason, gain, gains, len(groups))
    if lost:
        reason = f"{', '.join(lost)} lost more than {MOST_LOST}: {said}"
        return Decision(REFUSED, reason, gain, gains, len(groups))
    return Decision(PUBLISHED, said, gain, gains, len(groups))
