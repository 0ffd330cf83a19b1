"""The contact sheet of procedural tasks."""

import sys

import numpy as np
import sheet
from PIL import Image


def test_outline_marks_the_inner_border_only():
    image, masks = np.zeros((7, 7, 3), np.uint8), np.zeros((1, 7, 7), bool)
    masks[0, 2:5, 2:5] = True
    drawn = sheet.outline(image, masks).any(-1)
    assert drawn.sum() == 8 and not drawn[3, 3] and not image.any()


def test_writes_a_row_for_each_group_and_two_tiles_for_each_member(tmp_path, monkeypatch):
    out = tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["sheet", "--out", str(out), "--size", "48", "--groups", "2", "--members", "3"])
    sheet.main()
    assert Image.open(out).size == (2 * 3 * 48, 2 * 48)
