"""Studies that come, go, and are on their way while the server runs; the folder is watched for real."""

import shutil
import threading
import time

import numpy as np
import pytest
from dicom_files import save_series
from PIL import Image
from watchdog.observers.polling import PollingObserver

from proxyprompt.datastores.arrivals import Arrivals
from proxyprompt.datastores.folder import StudyFolder

PATIENCE = 30  # seconds: the machine may be busy


@pytest.fixture
def store(tmp_path):
    (tmp_path / "studies").mkdir()
    store = StudyFolder(str(tmp_path / "studies"), extensions=["*.png", "*.nii.gz"], auto_reload=True)
    yield store
    store._arrivals.stop()


@pytest.fixture
def folder(store, tmp_path):
    return tmp_path / "studies"


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def plain_image(path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, format="PNG")
    return path


def test_a_file_a_series_and_a_nested_one_are_listed(store, folder):
    plain_image(folder / "one.png")
    save_series(folder / "series", np.zeros((2, 8, 8), np.int16))
    (folder / "PAT" / "STU").mkdir(parents=True)
    save_series(folder / "PAT" / "STU" / "SER", np.zeros((2, 8, 8), np.int16))
    assert wait_for(lambda: sorted(store.list_images()) == ["SER", "one", "series"])


def test_what_is_moved_in_and_out_again(store, folder, tmp_path):
    plain_image(tmp_path / "new.png").rename(folder / "new.png")
    save_series(tmp_path / "series", np.zeros((2, 8, 8), np.int16))
    (tmp_path / "series").rename(folder / "series")
    assert wait_for(lambda: sorted(store.list_images()) == ["new", "series"])
    (folder / "new.png").unlink()
    shutil.rmtree(folder / "series")
    assert wait_for(lambda: store.list_images() == [])


def test_half_a_file_is_not_listed(store, folder, tmp_path):
    content = plain_image(tmp_path / "whole.png").read_bytes()
    with open(folder / "slow.png", "wb", buffering=0) as file:
        for part in (content[:20], content[20:40]):
            file.write(part)
            time.sleep(1.5)
            store.refresh()
            assert store.list_images() == []
        assert "written" in store.left_out["slow.png"]
        file.write(content[40:])
    assert wait_for(lambda: store.list_images() == ["slow"])
    assert "slow.png" not in store.left_out


def test_half_a_series_is_not_listed(store, folder, tmp_path):
    save_series(tmp_path / "whole", np.zeros((6, 8, 8), np.int16))
    (folder / "series").mkdir()
    seen = []
    for file in sorted((tmp_path / "whole").iterdir()):
        shutil.copy(file, folder / "series")
        time.sleep(0.4)
        seen.append(len(list((folder / "series").iterdir())) if "series" in store.list_images() else 0)
    assert set(seen) <= {0, 6}
    assert wait_for(lambda: store.list_images() == ["series"])


def test_others_are_listed_while_one_is_still_being_written(store, folder):
    with open(folder / "slow.png", "wb", buffering=0) as file:
        file.write(b"\x89PNG")
        plain_image(folder / "quick.png")
        assert wait_for(lambda: store.list_images() == ["quick"])


def test_a_label_is_taken_in_when_it_is_whole(store, folder, tmp_path):
    plain_image(folder / "one.png")
    assert wait_for(lambda: store.list_images() == ["one"])
    content = plain_image(tmp_path / "label.png").read_bytes()
    with open(folder / "labels" / "final" / "one.png", "wb", buffering=0) as file:
        file.write(content[:30])
        time.sleep(1.0)
        store.refresh()
        assert store.get_labeled_images() == []
        file.write(content[30:])
    assert wait_for(lambda: store.get_labeled_images() == ["one"])


def test_where_nobody_tells_of_closing_a_file_is_whole_when_it_rests(tmp_path):
    settled = threading.Event()
    arrivals = Arrivals(tmp_path, settled.set)
    arrivals.start(PollingObserver(timeout=0.2))
    try:
        with open(tmp_path / "slow.png", "wb", buffering=0) as file:
            for _ in range(3):
                file.write(b"part")
                assert wait_for(lambda: arrivals.on_the_way("slow.png"))
        assert settled.wait(PATIENCE)
        assert wait_for(lambda: not arrivals.on_the_way("slow.png"))
    finally:
        arrivals.stop()


def test_hidden_folders_are_nobodys_news(tmp_path):
    (tmp_path / ".proxyprompt").mkdir()
    settled = threading.Event()
    arrivals = Arrivals(tmp_path, settled.set)
    arrivals.start()
    try:
        (tmp_path / ".proxyprompt" / "cache").write_bytes(b"x")
        assert not settled.wait(2)
        (tmp_path / "seen").write_bytes(b"x")
        assert settled.wait(PATIENCE)
    finally:
        arrivals.stop()
