"""One folder of studies in many hands."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException
from PIL import Image

from proxyprompt.datastores.shared import SharedDatastore

NAMES = [f"s{n:02d}" for n in range(8)]


@pytest.fixture
def folder(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in NAMES:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(studies / f"{name}.png")
    return studies


def opened(folder, kind=SharedDatastore, **options):
    return kind(str(folder), extensions=["*.png"], **options)


def label_file(folder, value, size=8):
    path = folder / f"label{value}.png"
    Image.fromarray(np.full((size, size), value, np.uint8)).save(path)
    return str(path)


def in_threads(*functions):
    """Runs them at once; raises what one of them raised."""
    failed = []

    def run(function):
        try:
            function()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def looking_while_changing(store, label):
    """How often a reader did not see a study that was there all the time."""
    missed, done = [], threading.Event()

    def look():
        while not done.is_set():
            missed.extend(n for n in NAMES if not store.get_image_uri(n))
            missed.extend(set(NAMES) - set(store.list_images()))

    def change():
        try:
            for n in range(40):
                store.save_label(NAMES[n % 8], label, f"tag{n}", {})
                store.refresh()
        finally:
            done.set()

    in_threads(look, look, change)
    return len(missed)


def test_nobody_sees_an_empty_list(folder, tmp_path):
    assert looking_while_changing(opened(folder), label_file(tmp_path, 1)) == 0


def test_what_one_process_noted_is_not_lost_to_another(folder):
    """Two objects on one folder stand for two processes: neither knows what the other holds in memory."""
    one, other = opened(folder), opened(folder)

    def noting(store, who):
        for name in NAMES:
            store.update_image_info(name, {who: True})

    in_threads(lambda: noting(one, "one"), lambda: noting(other, "other"))
    fresh = opened(folder)
    assert all({"one", "other"} <= set(fresh.get_image_info(name)) for name in NAMES)


def test_labels_saved_at_once_are_all_there(folder, tmp_path):
    store, label = opened(folder), label_file(tmp_path, 1)
    in_threads(*(lambda n=n: store.save_label(n, label, "final", {"by": n}) for n in NAMES))
    assert sorted(opened(folder).get_labeled_images()) == NAMES
    assert store.get_label_info("s03", "final")["by"] == "s03"
    assert store.status()["label_tags"] == {"final": 8}


def test_a_label_is_there_whole_or_not_at_all(folder, tmp_path):
    store = opened(folder)
    labels = [label_file(tmp_path, value, size=1500) for value in (1, 2)]
    whole = {Path(path).read_bytes() for path in labels}
    store.save_label("s00", labels[0], "final", {})
    uri, done, broken = store.get_label_uri("s00", "final"), threading.Event(), []

    def read():
        while not done.is_set():
            with open(uri, "rb") as file:
                broken.extend([1] if file.read() not in whole else [])

    def write():
        for n in range(60):
            store.save_label("s00", labels[n % 2], "final", {})
        done.set()

    in_threads(read, read, write)
    assert not broken
    assert {p.name for p in (folder / "labels" / "final").iterdir()} == {"s00.png"}


def test_a_label_that_cannot_be_copied_leaves_all_as_it_was(folder, tmp_path):
    store = opened(folder)
    store.save_label("s00", label_file(tmp_path, 1), "final", {"by": "me"})
    with pytest.raises(FileNotFoundError):
        store.save_label("s00", str(tmp_path / "gone.png"), "final", {"by": "you"})
    with pytest.raises(ImageNotFoundException):
        store.save_label("nobody", label_file(tmp_path, 1), "final", {})
    assert store.get_label_info("s00", "final")["by"] == "me"
    assert [p.name for p in (folder / "labels" / "final").iterdir()] == ["s00.png"]


def test_what_is_removed_is_gone_at_once(folder, tmp_path):
    store = opened(folder, auto_reload=True)
    store.save_label("s00", label_file(tmp_path, 1), "final", {})
    store.remove_label("s00", "final")
    assert store.get_labeled_images() == [] and store.get_label_uri("s00", "final") == ""
    store.remove_image("s01")
    assert "s01" not in store.list_images()


def test_the_changes_of_another_process_show_by_themselves(folder, tmp_path):
    watching, other = opened(folder, auto_reload=True), opened(folder)
    other.update_image_info("s00", {"score": 0.5})
    new = tmp_path / "new.png"
    Image.fromarray(np.ones((8, 8), np.uint8)).save(new)
    other.add_image("new", str(new), {})
    end = time.monotonic() + 10
    while time.monotonic() < end and "new" not in watching.list_images():
        time.sleep(0.05)
    assert "new" in watching.list_images()
    assert watching.get_image_info("s00")["score"] == 0.5


def test_the_list_survives_as_the_base_class_reads_it(folder, tmp_path):
    store = opened(folder)
    store.save_label("s02", label_file(tmp_path, 3), "final", {"label_info": [{"name": "disc"}]})
    plain = opened(folder, LocalDatastore)
    assert plain.get_labeled_images() == ["s02"]
    assert plain.get_label_info("s02", "final")["label_info"] == [{"name": "disc"}]
