"""The folder of a batch's results: each once, whole, and only of one plan."""

import json
import os
import signal

import pytest

from proxyprompt.batch.folder import BatchFolder
from proxyprompt.batch.progress import BatchProgress
from proxyprompt.batch.queue import BatchAnswer, BatchError, BatchItem


def write(text):
    return lambda path: path.write_text(text)


def test_a_result_appears_once_and_whole(tmp_path):
    folder = BatchFolder(tmp_path)
    assert folder.put("a.b", ".nii.gz", write("first")).name == "a.b.nii.gz"
    inode = (tmp_path / "a.b.nii.gz").stat().st_ino
    folder.put("a.b", ".nii.gz", write("second"))
    assert (tmp_path / "a.b.nii.gz").read_text() == "first" and (tmp_path / "a.b.nii.gz").stat().st_ino == inode
    with pytest.raises(ZeroDivisionError):
        folder.put("c", ".png", lambda path: path.write_text("half") and 1 / 0)
    assert [item.id for item in folder.missing([BatchItem("a.b"), BatchItem("a"), BatchItem("c")])] == ["a", "c"]


def test_what_a_killed_worker_left_is_no_result_and_goes(tmp_path):
    folder = BatchFolder(tmp_path)

    def killed(path):
        path.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        folder.put("a", ".nrrd", killed)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert folder.result("a") is None and any((tmp_path / ".work").iterdir())
    with folder.exclusive():
        assert not (tmp_path / ".work").exists()


def test_two_programs_on_one_folder(tmp_path):
    with (
        BatchFolder(tmp_path).exclusive(),
        pytest.raises(BatchError, match="another batch"),
        BatchFolder(tmp_path).exclusive(),
    ):
        pass


def test_results_of_another_plan_are_not_mixed_in(tmp_path):
    folder = BatchFolder(tmp_path)
    folder.claim({"names": ("a", "b"), "paper": False})
    folder.claim({"names": ["a", "b"], "paper": False})
    with pytest.raises(BatchError, match=r"other options \(names"):
        folder.claim({"names": ["a"], "paper": False})
    (tmp_path / "batch.json").write_text("{")
    with pytest.raises(BatchError, match="cannot be understood"):
        folder.claim({})


def test_what_failed_is_listed_until_it_is_done(tmp_path):
    folder = BatchFolder(tmp_path)
    folder.note(BatchAnswer(BatchItem("x"), "refused", "cut short", 1.0, "host:1"))
    (line,) = folder.journal
    assert (line["event"], line["image"], line["message"]) == ("refused", "x", "cut short")
    assert json.loads(folder.list_failed({"x": "cut short"}).read_text()) == {"x": "cut short"}
    assert folder.list_failed({}) is None and not (tmp_path / "failed.json").exists()


def test_progress_tells_how_far_it_is_and_what_failed():
    said = []
    progress = BatchProgress(5, 2, said.append, every=0)
    progress.note(BatchAnswer(BatchItem("x"), "done"))
    progress.note(BatchAnswer(BatchItem("y"), "refused", "cut short"))
    progress.note(BatchAnswer(BatchItem("z"), "done"))
    assert said[0] == "3 of 5 studies, 0 failed" and said[1] == "y: not done: cut short"
    assert said[-1].startswith("4 of 5 studies, 1 failed, ") and said[-1].endswith(" a minute")
