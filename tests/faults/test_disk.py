"""A disk that is full, and one that cannot be written to: what was there stays, and with room all works again."""

import pytest
from breaking import filled, remount, small_disk
from squares import write_squares
from things import THINGS, opened

from proxyprompt.io.errors import StudyError, WeightsError
from proxyprompt.io.files import check_writable
from proxyprompt.session.journal import Journal

pytestmark = pytest.mark.faults
QUIET = ("journal", "cache")  # what is not needed: the log says it, the work goes on


def _refusal(thing, made):
    try:
        thing.act(made)
    except (OSError, StudyError, WeightsError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", THINGS)
def test_a_full_disk_loses_nothing_and_is_said(tmp_path, name, caplog):
    with small_disk(tmp_path / "disk") as disk:
        thing = THINGS[name](disk)
        refused = 0
        for pages in (0, 1, 2, 3):
            made = thing.prepare()
            with filled(disk, free_pages=pages):
                reason = _refusal(thing, made)
            refused += reason is not None
            assert reason is None or "No space left" in reason, reason
            if thing.check():
                break
        assert refused or (name in QUIET and "No space left" in caplog.text)
        if not thing.check():
            thing.act(thing.prepare())
        assert thing.check()


def test_studies_that_cannot_be_written_to_are_still_read(tmp_path, caplog):
    with small_disk(tmp_path / "disk") as disk:
        write_squares(disk / "studies", count=3, labelled=2)
        opened(disk / "studies")
        remount(disk, "ro")
        store = opened(disk / "studies")
        assert sorted(store.list_images()) == ["s0", "s1", "s2"] and sorted(store.get_labeled_images()) == ["s0", "s1"]
        with pytest.raises(OSError, match="Read-only"):
            store.save_label("s2", store.get_label_uri("s0", "final"), "final", {})
        with pytest.raises(StudyError, match="cannot be written to"):
            check_writable(disk / "studies" / ".proxyprompt")
        Journal(disk / "studies" / ".proxyprompt" / "journal.jsonl").write("label", image="s2")
        assert "could not be noted" in caplog.text
        remount(disk, "rw")
        store.save_label("s2", store.get_label_uri("s0", "final"), "final", {})
        assert len(store.get_labeled_images()) == 3
