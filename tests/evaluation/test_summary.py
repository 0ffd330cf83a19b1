"""Figures from units made by hand."""

import csv
import io

import pytest
from measured_units import UNITS, score, unit

from proxyprompt.evaluation.summary import gains, mean_gains, means, rows, summarise
from proxyprompt.evaluation.tables import markdown, table_csv


def test_rows():
    disc, copy, *_ = rows(UNITS)
    assert (disc.collection, disc.method, disc.supports, disc.cases, disc.groups, disc.draws) == (
        "eyes",
        "proxyprompt",
        4,
        2,
        2,
        2,
    )
    assert disc.dice.mean == pytest.approx(0.6) and (disc.dice.low, disc.dice.high) == pytest.approx((0.5, 0.7))
    of_cases = [(0.8 / 1.2 + 0.6 / 1.4) / 2, (0.6 / 1.4 + 0.4 / 1.6) / 2]
    assert disc.iou == pytest.approx((sum(of_cases) / 2, of_cases[1], of_cases[0]))
    assert disc.spread == pytest.approx(0.1 * 2**0.5) and disc.lowest == pytest.approx(0.5)
    assert disc.false_slices == 0.5 and copy.false_slices == 0.0 and copy.spread is None
    assert disc.seconds == 2.0


def test_a_large_collection_does_not_outweigh_the_others():
    assert means(rows(UNITS))["proxyprompt", 4] == pytest.approx((0.6 + (0.2 + 0.4) / 2) / 2)
    assert means(rows(UNITS), "iou")["copy", 4] == pytest.approx((0.5 / 1.5 + 0.3 / 1.7) / 2)
    assert summarise(UNITS)["mean_dice"] == pytest.approx(0.45)
    assert summarise(UNITS)["means"][0]["iou"] == summarise(UNITS)["mean_iou"] < 0.45
    assert summarise(UNITS)["mean_dice_of"] == {"method": "proxyprompt", "supports": 4}
    assert summarise(UNITS[2:3])["mean_dice"] == 0.5  # without the method the first one


def test_gains_are_paired_by_case():
    found = gains(UNITS, "proxyprompt")
    assert [(g["collection"], g["structure"], g["over"], g["supports"]) for g in found] == [
        ("eyes", "disc", "copy", 4),
        ("legs", "bone", "copy", 4),
    ]
    assert found[0]["mean"] == pytest.approx(0.1) and found[0]["low"] == pytest.approx(0.0)
    assert found[1]["mean"] == pytest.approx(-0.1)


def test_gains_over_all_count_the_structures_that_both_measured():
    gain = mean_gains(rows(UNITS), "proxyprompt")["copy", 4]
    assert gain == pytest.approx((0.0, -0.1, 0.1))  # the skin was measured by one alone
    assert mean_gains(rows(UNITS[:2]), "proxyprompt") == {}


def test_a_structure_that_is_never_there_has_no_dice():
    (row,) = rows([unit("copy", 0, [score(None, absent=3, false=2)])])
    assert row.dice is None and row.lowest is None and row.false_slices == pytest.approx(2 / 3)
    assert means([row]) == {}
    assert "0.67" in markdown([row])


def test_tables():
    settings = {"proxyprompt": {"version": "atto-9", "weights": "0123456789abcdef"}, "copy": {}}
    text = markdown(rows(UNITS), methods=settings, skipped={"a": "eyes: too few", "b": "eyes: too few"})
    assert "proxyprompt: version atto-9, weights 0123456789ab." in text
    assert "| proxyprompt | 0.45 | 1.00 |" in text and "| copy | 0.40 (+0.00 [-0.10, +0.10]) | - |" in text
    assert "| eyes | disc | 2 | 0.60 [0.50, 0.70] ± 0.14 | 0.50 [0.50, 0.50] |" in text
    assert "| copy | 0.25 | - |" in text and "| eyes | disc | 2 | 0.44 [0.34, 0.55] | 0.33 [0.33, 0.33] |" in text
    assert text.count("eyes: too few") == 1
    lines = list(csv.DictReader(io.StringIO(table_csv(UNITS))))
    assert len(lines) == sum(len(u.cases) for u in UNITS)
    assert lines[0]["dice"] == "0.8" and lines[2]["dice"] == "" and lines[2]["false_slices"] == "1"
