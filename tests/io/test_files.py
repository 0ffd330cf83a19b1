"""Files appear whole or not at all, whoever else writes them."""

import hashlib
import json
import stat
import threading

import pytest

from proxyprompt.io.errors import StudyError
from proxyprompt.io.files import TEMPORARY, file_hash, replacing, write_json, write_text


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
        assert beside.parent == tmp_path and beside.name.startswith(".") and beside.name.endswith(TEMPORARY)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as beside:
        beside.write_text("ha")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError, match="scores"), replacing(path):
        pass  # nothing was written
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_take_its_name_is_removed(tmp_path):
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="taken"):
        write_text(path, "text")
    assert list(tmp_path.iterdir()) == [path]


def test_several_may_write_one_file(tmp_path):
    path, both_write = tmp_path / "index.json", threading.Barrier(2)

    def write(text):
        with replacing(path) as beside:
            beside.write_text(text)
            both_write.wait(timeout=10)

    threads = [threading.Thread(target=write, args=(letter * 100,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 100, "b" * 100) and list(tmp_path.iterdir()) == [path]


def test_json_is_readable_by_others(tmp_path):
    path = tmp_path / "names.json"
    write_json(path, {"Größe": [1, 2]}, indent=1, ensure_ascii=False)
    assert json.loads(path.read_bytes()) == {"Größe": [1, 2]} and "Größe" in path.read_text(encoding="utf-8")
    fresh = tmp_path / "fresh"
    fresh.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(fresh.stat().st_mode)


def test_what_is_no_json_changes_nothing(tmp_path):
    path = tmp_path / "names.json"
    write_json(path, [1])
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, [float("nan")], allow_nan=False)
    assert path.read_text() == "[1]\n"


def test_the_hash_is_of_the_content(tmp_path):
    for name, text in (("a", "12"), ("b", "12"), ("c", "2")):
        (tmp_path / name).write_text(text)
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") == hashlib.sha256(b"12").hexdigest()
    assert file_hash(tmp_path / "c") != file_hash(tmp_path / "a")
    with pytest.raises(StudyError, match="cannot read nowhere"):
        file_hash(tmp_path / "nowhere")


def test_a_folder_s_hash_tells_where_each_file_ends(tmp_path):
    for name, parts in (("a", ("1", "23")), ("b", ("1", "23")), ("c", ("12", "3"))):
        (tmp_path / name / "below").mkdir(parents=True)
        for n, part in enumerate(parts):
            (tmp_path / name / str(n)).write_text(part)
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") != file_hash(tmp_path / "c")
