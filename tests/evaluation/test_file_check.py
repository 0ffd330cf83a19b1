"""What a check of files notes; the check itself runs against a real server in tests/e2e."""

import json

import pytest

from proxyprompt.evaluation.file_check import Checked, Complaint, _spread


@pytest.mark.parametrize(
    ("count", "most", "chosen"),
    [(5, None, {0, 1, 2, 3, 4}), (3, 9, {0, 1, 2}), (9, 3, {0, 4, 8}), (5, 1, {0}), (5, 0, set()), (0, 2, set())],
)
def test_inferences_are_spread_evenly(count, most, chosen):
    assert _spread(count, most) == chosen


@pytest.mark.parametrize(("status", "failed"), [(400, False), (409, False), (500, True), (503, True), (None, True)])
def test_a_refusal_is_no_failure(status, failed):
    complaint = Complaint("images/a.png", "upload", status, "the reason")
    assert complaint.is_failure == failed
    assert "images/a.png" in str(complaint) and "the reason" in str(complaint)
    assert str(complaint).startswith("FAILED" if failed else "refused")


def test_what_was_checked_can_be_written_down():
    checked = Checked(3, images=2, labels=2, inferences=1, seconds=1.5)
    checked.complaints.append(Complaint("images/a.png", "infer", 400, "constant"))
    again = Checked.from_json(json.loads(json.dumps(checked.to_json())))
    assert again == checked and "2 of 3 images" in str(again) and "1 refused, 0 failed" in str(again)
