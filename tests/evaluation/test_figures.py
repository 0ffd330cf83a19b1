"""Figures are drawn from what was measured, whatever was measured."""

import pytest
from matplotlib import pyplot as plt
from measured_units import UNITS, score, unit
from PIL import Image

from proxyprompt.evaluation.figures import plot
from proxyprompt.evaluation.summary import rows


def test_a_panel_for_each_structure_and_one_for_the_curves(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    curve = unit("dynunet", 0, [0.4, 0.5])
    curve.notes.update(curve=[1.0, 0.6, 0.5], window=25)
    units = [*UNITS, curve]
    path = plot(units, rows(units), tmp_path / "new" / "plot.png")
    assert Image.open(path).width > 800 and [p.name for p in path.parent.iterdir()] == ["plot.png"]
    *panels, losses = drawn[0].axes
    assert [axis.get_title() for axis in panels] == ["eyes, disc", "legs, bone", "legs, skin"]
    first = panels[0].get_lines()[0]
    assert list(first.get_xdata()) == [4, 8] and list(first.get_ydata()) == pytest.approx([0.6, 1.0])
    assert list(losses.get_lines()[0].get_xdata()) == [25, 50, 75]


def test_nothing_but_absences(tmp_path):
    units = [unit("copy", 0, [score(None, absent=1)]), unit("copy", 0, [0.5], collection="legs")]
    assert plot(units, rows(units), tmp_path / "plot.svg").read_text().lstrip().startswith("<?xml")
