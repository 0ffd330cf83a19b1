"""The session report as an image: does labelling get cheaper from study to study?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

from matplotlib.figure import Figure

from .report import SessionRow

PANELS: tuple[tuple[str, Callable[[SessionRow], float | None]], ...] = (
    ("slices accepted unchanged, %", lambda row: _percent(row.slices_unchanged, row.slices)),
    ("voxels changed, % of the structure", lambda row: _percent(row.voxels_changed, row.voxels)),
    ("clicks", lambda row: float(row.clicks)),
    ("minutes a study", lambda row: row.study_minutes),
)
_MOST_NAMES = 30


def draw(rows: Sequence[SessionRow], to: str | BinaryIO, *, format: str | None = None) -> None:
    """Draw the labelled studies, in the order in which they were labelled, a line for each structure.

    to: a file's name, or a stream, for which ``format`` says what to write (png, svg, pdf). ValueError when it is one
    that cannot be written.
    """
    done = [row for row in rows if row.labelled]
    studies = list(dict.fromkeys(row.study for row in done))
    place = {study: n for n, study in enumerate(studies, start=1)}
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (title, value) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for name in dict.fromkeys(row.structure for row in done):
            points = [(place[r.study], value(r)) for r in done if r.structure == name and value(r) is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        if len(studies) <= _MOST_NAMES:
            axes.set_xticks(range(1, len(studies) + 1), studies, rotation=60, fontsize=7, ha="right")
        else:
            axes.set_xlabel("studies in the order in which they were labelled")
    if done:
        figure.axes[0].legend(fontsize=8)
    else:
        figure.suptitle("no study has been labelled yet")
    figure.savefig(to, format=format, dpi=110)


def _percent(part: int | None, whole: int | None) -> float | None:
    return 100.0 * part / whole if part is not None and whole else None
