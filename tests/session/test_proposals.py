"""What a label changed of the proposal, whatever the two number the structures."""

from pathlib import Path

import numpy as np
import pytest

from proxyprompt.session.proposals import Proposal, Proposals
from proxyprompt.supports.library import LabelledStudy

NAMES = {"head": 2, "symphysis": 1}
MADE_BY = {"supports": ["a"], "adapter": "atto-1", "weights_sha256": "f" * 64}


@pytest.fixture
def labels():
    made = np.zeros((2, 8, 8), np.uint8)
    made[:, 1:4, 1:4] = 1
    made[0, 5:7, 2:7] = 2
    return made


def study(structures, content="c" * 64):
    here = Path("a.png")
    return LabelledStudy(
        "a", here, here, structures, None, "US", "image", (), np.zeros((2, 0)), content, "l" * 64, "i" * 64
    )


def keep(folder, labels):
    proposals = Proposals(folder)
    proposals.keep("a", Proposal(labels, NAMES, MADE_BY, "c" * 64))
    return proposals


def test_a_label_accepted_as_it_is_under_other_numbers(tmp_path, labels):
    renumbered = np.choose(labels, [0, 7, 3]).astype(np.uint8)
    structures = {"head": frozenset({3}), "symphysis": frozenset({7})}
    note = keep(tmp_path, labels).note(study(structures), renumbered)
    assert note == {"changed_voxels": 0, "accepted_unchanged": True, **MADE_BY, "label_sha256": "l" * 64}


def test_every_changed_voxel_counts_once(tmp_path, labels):
    edited = labels.copy()
    edited[0, 0, :3] = 2  # painted
    edited[1, 1, 1] = 0  # wiped
    edited[1, 2, 2] = 2  # renamed: left one structure and entered another
    structures = {"head": frozenset({2}), "symphysis": frozenset({1})}
    note = keep(tmp_path, labels).note(study(structures), edited)
    assert note["changed_voxels"] == 5
    assert note["accepted_unchanged"] is False


def test_a_structure_that_was_not_proposed_is_a_change(tmp_path, labels):
    edited = labels.copy()
    edited[0, 0, :4] = 9
    structures = {"head": frozenset({2}), "symphysis": frozenset({1}), "calliper": frozenset({9})}
    assert keep(tmp_path, labels).note(study(structures), edited)["changed_voxels"] == 4


def test_a_label_without_names_is_compared_by_its_numbers(tmp_path, labels):
    structures = {"label_1": frozenset({1}), "label_2": frozenset({2})}
    assert keep(tmp_path, labels).note(study(structures), labels)["accepted_unchanged"] is True
    assert keep(tmp_path, labels).note(study(structures), labels.max() - labels)["accepted_unchanged"] is False


def test_nothing_is_said_where_nothing_was_proposed_for_these_pixels(tmp_path, labels):
    structures = {"head": frozenset({2})}
    assert Proposals(tmp_path / "none").note(study(structures), labels) is None
    proposals = keep(tmp_path, labels)
    assert proposals.note(study(structures, content="d" * 64), labels) is None
    assert proposals.note(study(structures), labels[:1]) is None


def test_the_last_proposal_counts_and_outlives_the_process(tmp_path, labels):
    keep(tmp_path, labels * 0)
    keep(tmp_path, labels)
    found = Proposals(tmp_path).last("a")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.names == NAMES and found.made_by == MADE_BY
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_no_proposal(tmp_path, labels):
    proposals = keep(tmp_path, labels)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert proposals.last("a") is None
    assert not path.exists()


def test_a_full_disk_does_not_fail_the_request(tmp_path, labels):
    (tmp_path / "file").write_bytes(b"")
    proposals = keep(tmp_path / "file", labels)
    assert proposals.last("a") is None
