"""The journal: whole lines, whoever writes."""

import multiprocessing
import threading

from proxyprompt.session.journal import LABEL, PROPOSAL, Journal

LINES, LONG = 50, "x" * 10_000


def write_many(path, who):
    for n in range(LINES):
        Journal(path).write(PROPOSAL, image=who, n=n, long=LONG)


def test_threads_and_processes_write_whole_lines(tmp_path):
    path = tmp_path / "state" / "journal.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [threading.Thread(target=write_many, args=(path, f"thread{n}")) for n in range(4)]
    writers += [context.Process(target=write_many, args=(path, f"process{n}")) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    entries = list(Journal(path))
    assert len(entries) == len(path.read_text().splitlines()) == 6 * LINES
    for who in {entry["image"] for entry in entries}:
        assert [entry["n"] for entry in entries if entry["image"] == who] == list(range(LINES))


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(PROPOSAL, image="one")
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole[:25] + b"\n" + b'["no entry"]\n' + b'{"time": "?"}\n')
    journal.write(LABEL, image="two")
    assert [entry["image"] for entry in journal] == ["one", "two"]


def test_a_journal_that_does_not_exist_is_empty(tmp_path):
    assert list(Journal(tmp_path / "journal.jsonl")) == []


def test_a_disk_that_takes_no_more_is_no_error(tmp_path, caplog):
    (tmp_path / "state").write_text("a file where the folder should be")
    Journal(tmp_path / "state" / "journal.jsonl").write(LABEL, image="one")
    assert "one" not in caplog.text and "journal.jsonl" in caplog.text


def test_a_line_that_was_cut_off_at_the_end_does_not_take_the_next_one_with_it(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(PROPOSAL, image="one")
    journal.path.write_bytes(journal.path.read_bytes()[:-9])  # the disk was full
    journal.write(LABEL, image="two")
    journal.write(LABEL, image="three")
    assert [entry["image"] for entry in journal] == ["two", "three"]


def test_an_empty_journal_and_an_edited_one(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    assert list(journal) == []
    edited = [
        b"",
        b"null",
        b"3",
        b'{"time": 3}',
        b'{"time": "2026-01-01", "event": "label", "image": "one"}',
        b"[" * 9999,
    ]
    edited.append(b'{"time": "2026-01-01T00:00:00+00:00", "event": "label", "image": ["one"]}')
    journal.path.write_bytes(b"\n".join(edited))
    journal.write(PROPOSAL, image="two")
    assert [entry["image"] for entry in journal] == ["two"]
