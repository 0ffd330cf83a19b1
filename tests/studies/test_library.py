"""The labelled studies as the catalogue follows them."""

import shutil
import threading

import pytest
from monailabel.datastore.local import LocalDatastore
from squares import write_squares

from lib.studies.cache import ContentCache
from lib.studies.labels import StructureRegistry
from lib.studies.library import Catalogue


@pytest.fixture
def catalogue(tmp_path):
    store = LocalDatastore(str(write_squares(tmp_path / "studies")), extensions=["*.png"])
    registry = StructureRegistry(tmp_path / "structures.json")
    return Catalogue(store, registry, cache=ContentCache(None, memory_bytes=1 << 20, disk_bytes=0))


def add_label(catalogue):
    final = f"{catalogue.datastore._datastore_path}/labels/final"
    shutil.copy(f"{final}/s0.png", f"{final}/s3.png")
    catalogue.datastore.refresh()


def seen_by_another_thread(catalogue):
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(catalogue.studies()))
    thread.start()
    thread.join()
    return seen


def test_a_new_label_is_seen_at_once(catalogue):
    assert list(catalogue.studies()) == ["s0", "s1"]
    add_label(catalogue)
    assert list(catalogue.studies()) == ["s0", "s1", "s3"]


def test_one_look_lasts_for_its_thread_and_no_longer(catalogue):
    with catalogue.one_look():
        add_label(catalogue)
        assert list(catalogue.studies()) == ["s0", "s1"]
        assert seen_by_another_thread(catalogue) == ["s0", "s1", "s3"]
    assert list(catalogue.studies()) == ["s0", "s1", "s3"]
