"""Draws the outlines of a label over its image, for people to look at: an image, or some slices of a volume.

    python scripts/overlay.py study.nii.gz result.nii.gz --out overlay.png --name 1=organ --name 2=nodule

Without --name the names come from MONAI Label's index, when the label lies in a folder that it manages.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from proxyprompt.evaluation.drawing import COLOURS, outline, show
from proxyprompt.io.errors import StudyError
from proxyprompt.io.files import replacing
from proxyprompt.io.label_files import suffix_of
from proxyprompt.io.study import Study, read_study


def names_beside(label: Path) -> dict[int, str]:
    """Value -> name from the index of the MONAI Label folder that ``label`` lies in; empty when there is none."""
    index = label.resolve().parents[2] / "datastore_v2.json" if len(label.resolve().parents) > 2 else label
    if not index.is_file() or index == label:
        return {}
    study_id = label.name.removesuffix(suffix_of(label))
    entry = json.loads(index.read_text(encoding="utf-8"))["objects"].get(study_id, {})
    info = entry.get("labels", {}).get(label.parent.name, {}).get("info", {})
    return {named["idx"]: named["name"] for named in info.get("label_info", [])}


def slices_to_show(labels: np.ndarray, count: int) -> list[int]:
    """Up to ``count`` slices of (Z, h, w) labels, spread evenly over those that hold one; over all when none does."""
    filled = np.flatnonzero(labels.any(axis=(1, 2)))
    filled = filled if filled.size else np.arange(len(labels))
    steps = np.linspace(0, filled.size - 1, min(count, filled.size)).round().astype(int)
    return [int(index) for index in filled[np.unique(steps)]]


def draw(study: Study, labels: np.ndarray, names: dict[int, str], *, count: int, plain: bool) -> Figure:
    """One column a slice, the outlines on top; with ``plain`` the image alone in a row below."""
    shown = slices_to_show(labels, count)
    values = [int(value) for value in np.unique(labels) if value]
    spacing = study.pixel_spacing
    ratio = spacing[0] / spacing[1] * study.slice_shape[0] / study.slice_shape[1]
    side, rows = (6 if len(shown) == 1 else 3.2), 1 + plain
    size = (side * len(shown), side * ratio * rows + 0.5)
    figure, axes = plt.subplots(rows, len(shown), figsize=size, squeeze=False, layout="constrained")
    for column, index in enumerate(shown):
        for row in range(rows):
            show(axes[row, column], study.image(index), aspect=spacing[0] / spacing[1])
        for position, value in enumerate(values):
            outline(axes[0, column], labels[index] == value, COLOURS[position % len(COLOURS)])
        if len(study) > 1:
            axes[0, column].set_title(f"slice {index} of {len(study)}", fontsize=8)
    entries = [
        Line2D([], [], color=COLOURS[position % len(COLOURS)], label=names.get(value, f"label_{value}"))
        for position, value in enumerate(values)
    ]
    if entries:
        figure.legend(handles=entries, loc="outside lower center", ncols=6, facecolor="#444444", labelcolor="white")
    return figure


def _named(text: str) -> tuple[int, str]:
    value, _, name = text.partition("=")
    if not value.isdigit() or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not VALUE=NAME, such as 1=organ")
    return int(value), name


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 2 when image and label cannot be read together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("label", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="PNG")
    parser.add_argument("--name", type=_named, action="append", metavar="VALUE=NAME", help="any number of times")
    parser.add_argument("--slices", type=int, default=6, help="how many slices of a volume (default 6)")
    parser.add_argument("--plain", action="store_true", help="show the image without outlines too")
    options = parser.parse_args(arguments)
    try:
        study = read_study(options.image)
        labels = study.read_label(options.label)
        names = dict(options.name or []) or names_beside(options.label)
    except StudyError as error:
        print(f"overlay: {error}", file=sys.stderr)
        return 2
    figure = draw(study, labels, names, count=max(1, options.slices), plain=options.plain)
    with replacing(options.out) as beside:
        figure.savefig(beside, dpi=110, format="png")
    plt.close(figure)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
