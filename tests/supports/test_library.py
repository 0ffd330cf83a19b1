"""The labelled studies as the catalogue follows them."""

import shutil
import threading

import nrrd
import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore
from squares import write_squares

from proxyprompt.io.cache import ContentCache
from proxyprompt.io.labels import StructureRegistry
from proxyprompt.supports.library import Catalogue


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


def test_segments_are_joined_by_name_and_what_there_is_to_say_is_kept(catalogue):
    path = f"{catalogue.datastore._datastore_path}/labels/final/s0"
    (rows, columns) = catalogue.open("s0").slice_shape
    layers = np.zeros((2, columns, rows), np.uint8)
    layers[0, :4], layers[1, 3:9] = 1, 1
    header = {"Segment0_Name": "hole", "Segment0_Layer": "0", "Segment0_LabelValue": "1"}
    header |= {"Segment1_Name": "blob", "Segment1_Layer": "1", "Segment1_LabelValue": "1"}
    header |= {"kinds": ["list", "domain", "domain"], "space dimension": 2, "space origin": [0, 0]}
    header["space directions"] = np.array([[np.nan, np.nan], [1, 0], [0, 1]])
    nrrd.write(f"{path}.nrrd", layers, header)
    image = catalogue.datastore._datastore.objects["s0"]
    image.labels["final"].ext = ".nrrd"
    study = catalogue.studies()["s0"]
    assert set(study.structures) == {"hole", "blob"} and study.area("hole").sum() == 4 * rows
    assert study.area("blob").sum() == 5 * rows
    assert study.notes == (
        f"segments 'blob' and 'hole' overlap in {rows} voxels; they count for 'hole', the smaller one",
    )
