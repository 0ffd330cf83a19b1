"""Units made by hand, of which every figure can be worked out."""

from proxyprompt.evaluation.record import Unit
from proxyprompt.evaluation.scoring import Score


def score(dice, *, absent=0, false=0):
    return Score(dice, dice and dice / (2 - dice), None, None, int(dice is not None), int(dice == 0), absent, false)


def unit(method, seed, dice, *, collection="eyes", structure="disc", count=4, groups=None):
    cases = [f"c{n}" for n in range(len(dice))]
    scores = [d if isinstance(d, Score) else score(d) for d in dice]
    return Unit(collection, structure, method, count, seed, "x", ["s:0"], cases, groups or cases, scores, 1.0)


UNITS = [
    unit("proxyprompt", 0, [0.8, 0.6, score(None, absent=1, false=1)], groups=["p", "q", "q"]),
    unit("proxyprompt", 1, [0.6, 0.4, score(None, absent=1)], groups=["p", "q", "q"]),
    unit("copy", 0, [0.5, 0.5, score(None, absent=1)], groups=["p", "q", "q"]),
    unit("proxyprompt", 0, [0.2], collection="legs", structure="bone"),
    unit("proxyprompt", 0, [0.4], collection="legs", structure="skin"),
    unit("copy", 0, [0.3], collection="legs", structure="bone"),
    unit("proxyprompt", 0, [1.0, 1.0], count=8),
]
