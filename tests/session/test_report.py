"""The session report from a journal written by hand."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image

from proxyprompt.session.plot import draw
from proxyprompt.session.report import IDLE_MINUTES, session_rows, write_csv

START = datetime(2026, 1, 1, 9, tzinfo=UTC)


def proposal(study, minute, clicks=0, supports=("a", "b"), structures=("head",)):
    return {
        "time": (START + timedelta(minutes=minute)).isoformat(),
        "event": "proposal",
        "image": study,
        "structures": dict.fromkeys(structures, 1),
        "supports": list(supports),
        "adapter": "atto-1",
        "clicks": {"head": clicks} if clicks else {},
    }


def label(study, minute, sha256="s", **found):
    found = found or {"slices": 10, "unchanged": 8, "voxels": 500, "changed": 40}
    return {
        "time": (START + timedelta(minutes=minute)).isoformat(),
        "event": "label",
        "image": study,
        "sha256": sha256,
        "proposed": True,
        "structures": {"head": found},
    }


def test_one_study_from_proposal_to_label():
    (row,) = session_rows([proposal("one", 0), proposal("one", 1, clicks=2), label("one", 3)])
    assert (row.study, row.structure, row.requests, row.clicks, row.study_minutes) == ("one", "head", 2, 2, 3.0)
    assert (row.slices, row.slices_unchanged, row.voxels, row.voxels_changed) == (10, 8, 500, 40)
    assert (row.supports, row.adapter) == ("a;b", "atto-1")
    assert row.labelled.startswith("2026-01-01T09:03")


def test_clicks_that_were_taken_back_were_made():
    events = [proposal("one", n, clicks=c) for n, c in enumerate([1, 2, 1, 2, 3])]
    assert session_rows(events)[0].clicks == 4


def test_a_long_pause_is_no_work():
    (row,) = session_rows([proposal("one", 0), label("one", 600)])
    assert row.study_minutes == IDLE_MINUTES


def test_a_label_stored_twice_is_one_label():
    (row,) = session_rows([proposal("one", 0), label("one", 2), label("one", 4)])
    assert row.study_minutes == 2 and row.labelled.startswith("2026-01-01T09:02")


def test_the_newest_label_counts_with_all_the_work_before_it():
    second = {"slices": 10, "unchanged": 10, "voxels": 490, "changed": 0}
    events = [proposal("one", 0), label("one", 2), proposal("one", 3), label("one", 4, sha256="t", **second)]
    (row,) = session_rows(events)
    assert (row.requests, row.voxels, row.voxels_changed, row.study_minutes) == (2, 490, 0, 4.0)


def test_what_came_after_the_label_is_not_its_work():
    (row,) = session_rows([proposal("one", 0), label("one", 2), proposal("one", 3, supports=("c",))])
    assert (row.requests, row.supports) == (1, "a;b")


def test_studies_in_the_order_of_their_labels_and_the_unlabelled_last():
    events = [proposal("late", 0), proposal("never", 1), label("early", 2), label("late", 3)]
    rows = session_rows(events)
    assert [row.study for row in rows] == ["early", "late", "never"]
    assert (rows[2].voxels, rows[2].labelled) == (None, "")
    assert (rows[0].requests, rows[0].supports) == (0, "")


def test_structures_have_rows_of_their_own():
    events = [proposal("one", 0, structures=("head", "symphysis")), proposal("one", 1), label("one", 2)]
    assert [(row.structure, row.requests, row.voxels) for row in session_rows(events)] == [
        ("head", 2, 500),
        ("symphysis", 1, None),
    ]


def test_the_table_has_a_line_a_row_and_empty_cells_where_nothing_is_known():
    table = list(csv.DictReader(io.StringIO(write_csv(session_rows([proposal("one", 0), label("two", 1)])))))
    assert [line["study"] for line in table] == ["two", "one"]
    assert table[1]["voxels"] == "" and table[0]["voxels_changed"] == "40"
    assert len(write_csv([]).splitlines()) == 1


@pytest.mark.parametrize("studies", [0, 1, 40])
def test_the_plot_is_an_image(tmp_path, studies):
    events = [e for n in range(studies) for e in (proposal(f"s{n:02d}", 5 * n), label(f"s{n:02d}", 5 * n + 1))]
    draw(session_rows(events), str(tmp_path / "report.png"))
    assert Image.open(tmp_path / "report.png").size[0] > 500


@pytest.mark.parametrize(
    "edited",
    [
        {"structures": None},
        {"structures": ["disc"]},
        {"structures": {"disc": 3}},
        {"structures": {}, "sha256": 3},
        {"structures": {}, "clicks": []},
        {"structures": {}, "supports": "one"},
    ],
)
def test_an_entry_that_was_edited_costs_only_itself(edited):
    good = [proposal("one", 0), label("one", 2)]
    assert session_rows([*good, {**label("one", 3), **edited}]) == session_rows(good)
