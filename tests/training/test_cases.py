"""Labelled studies as cases: from a folder and from a datastore, the same; which slices of them train."""

import shutil

import numpy as np
import pytest
import torch
from labelled_folders import write_plain_images, write_volumes
from monailabel.datastore.local import LocalDatastore
from PIL import Image

from proxyprompt.datasets.collections import read_collection
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.errors import StudyError
from proxyprompt.io.labels import StructureRegistry
from proxyprompt.supports.library import Catalogue
from proxyprompt.training.cases import Cases, read_slices

STRUCTURES = {"ring": (1, 2), "core": (2,)}


def cases_of(folder):
    return Cases.from_collection(read_collection(folder, structures=STRUCTURES))


def test_folder_and_datastore_give_the_same_slices(tmp_path):
    folder = write_plain_images(tmp_path / "folder", groups=3)
    studies = tmp_path / "studies"
    shutil.copytree(folder / "images", studies)
    shutil.copytree(folder / "masks", studies / "labels" / "final")
    catalogue = Catalogue(
        LocalDatastore(str(studies), extensions=("*.png",)),
        StructureRegistry(tmp_path / "structures.json"),
        cache=ContentCache(None, memory_bytes=1 << 20, disk_bytes=0),
        conf_labels="ring=1+2,core=2",
    )
    served = Cases.from_catalogue(catalogue, without={"g1_0"})
    assert [case.id for case in served] == ["g0_0", "g2_0"]
    folder = cases_of(folder)
    assert [case.group for case in folder] == ["p0", "p1", "p2"]
    for one in served:
        other = next(case for case in folder if case.id == one.id)
        (a,), (b,) = (read_slices(case, STRUCTURES, most=4) for case in (one, other))
        assert torch.equal(a.image, b.image) and torch.equal(a.masks, b.masks)


def test_content_tells_when_a_label_changed(tmp_path):
    folder = write_plain_images(tmp_path / "a", groups=2)
    before = cases_of(folder).content
    assert cases_of(folder).content == before
    Image.fromarray(np.ones((48, 56), np.uint8)).save(folder / "masks" / "g1_0.png")
    assert cases_of(folder).content != before


def test_slices_are_spread_and_some_show_nothing(tmp_path):
    case = next(iter(Cases.from_collection(read_collection(write_volumes(tmp_path / "a", count=1, slices=22)))))
    slices = read_slices(case, ["ring"], most=5)
    assert len(slices) == 5 and [bool(s.shown[0]) for s in slices].count(False) == 1
    assert [s.index for s in slices if s.shown[0]][::3] == [1, 20]
    assert len(read_slices(case, ["ring"], most=100)) == 22


def test_masks_images_and_what_is_declared(tmp_path):
    folder = write_plain_images(tmp_path / "a", groups=2)
    case = next(iter(cases_of(folder)))
    (plain,) = read_slices(case, ["core", "liver", "ring"], most=1)
    labels = np.asarray(Image.open(folder / "masks" / "g0_0.png"))
    assert plain.declared.tolist() == plain.shown.tolist() == [True, False, True]
    assert plain.image.shape == (3, 48, 56) and plain.image.dtype == torch.float16
    assert np.array_equal(plain.masks[2].numpy() == 255, labels > 0) and not plain.masks[1].any()
    (small,) = read_slices(case, ["ring"], most=1, size=24)
    assert small.image.shape[-2:] == (24, 28) and 0 < (small.masks > 127).sum() < (labels > 0).sum() / 3
    assert (small.image[0].float().mean() - plain.image[0].float().mean()).abs() < 0.01


def test_a_label_of_another_size_is_refused(tmp_path):
    folder = write_plain_images(tmp_path / "a", groups=2)
    Image.fromarray(np.ones((32, 64), np.uint8)).save(folder / "masks" / "g1_0.png")
    with pytest.raises(StudyError, match=r"g1_0\.png"):
        read_slices(list(cases_of(folder))[1], STRUCTURES, most=1)
