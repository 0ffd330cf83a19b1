"""Overlays: outlines lie around the label, slices are chosen where there is something, names come from the index."""

import numpy as np
import overlay
import pytest
from PIL import Image


@pytest.mark.parametrize("name", ["rgb_01.png", "us_01.png", "mr_02.nii.gz"])
def test_every_kind_of_sample_is_drawn_with_its_names(samples, tmp_path, name):
    label, out = samples / "labels" / "final" / name, tmp_path / "overlay.png"
    assert overlay.main([str(samples / name), str(label), "--out", str(out), "--plain"]) == 0
    plain_image = np.asarray(Image.open(out).convert("RGB")).astype(int)
    for colour in overlay.COLOURS[:2]:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(plain_image - wanted).max(-1) < 12).sum() > 20, f"nothing is drawn in {colour}"
    assert set(overlay.names_beside(label)) == {1, 2}
    assert list(tmp_path.iterdir()) == [out]


def test_the_outline_encloses_the_label(samples):
    study = overlay.read_study(samples / "rgb_01.png")
    labels = np.zeros((1, *study.slice_shape), np.uint8)
    labels[0, 100:140, 200:280] = 1
    figure = overlay.draw(study, labels, {1: "box"}, count=1, plain=False)
    (outline,) = figure.axes[0].collections
    corners = np.concatenate([path.vertices for path in outline.get_paths()])
    assert corners.min(0) == pytest.approx([199.5, 99.5]) and corners.max(0) == pytest.approx([279.5, 139.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["box"]


def test_slices_with_a_label_come_first():
    labels = np.zeros((20, 4, 4), np.uint8)
    assert overlay.slices_to_show(labels, 3) == [0, 10, 19]
    labels[5:10, 1, 1] = 2
    assert overlay.slices_to_show(labels, 3) == [5, 7, 9]
    assert overlay.slices_to_show(labels, 50) == [5, 6, 7, 8, 9]


def test_a_label_without_an_index_keeps_its_numbers(tmp_path):
    assert overlay.names_beside(tmp_path / "result.nii.gz") == {}


def test_grids_that_differ_are_refused(samples, tmp_path, capsys):
    out = tmp_path / "overlay.png"
    assert overlay.main([str(samples / "rgb_01.png"), str(samples / "us_01.png"), "--out", str(out)]) == 2
    assert "us_01" in capsys.readouterr().err and not out.exists()
