"""The sample studies: the same from the same seed, read by MONAI Label's own datastore, and no task for a copyist."""

import itertools
import json
import shutil

import make_samples
import nibabel
import numpy as np
import pytest
from PIL import Image

from proxyprompt.datasets.samples import FAMILIES, truth_folder
from proxyprompt.metrics.segmentation import overlap

LABELLED = {name for family in FAMILIES for name in family.ids()[: family.labelled]}
ALL = {name for family in FAMILIES for name in family.ids()}


def contents(folder):
    files = [p for root in (folder, truth_folder(folder)) for p in root.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder.parent)): p.read_bytes() for p in files}


def read(path):
    """The array, for volumes turned to run left, posterior, superior: as a reader compares them."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    image = nibabel.load(path)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(image.affine), nibabel.orientations.axcodes2ornt("LPS")
    )
    return nibabel.orientations.apply_orientation(np.asarray(image.dataobj), turn)


def label_path(samples, name, suffix):
    labelled = samples / "labels" / "final" / (name + suffix)
    return labelled if labelled.exists() else truth_folder(samples) / (name + suffix)


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(samples, tmp_path):
    again = tmp_path / "studies"
    make_samples.main(["--out", str(again), "--seed", "0"])
    first = contents(samples)
    assert contents(again) == first
    assert sum(map(len, first.values())) < 10e6
    for family in FAMILIES:
        name, other = family.ids()[:2]
        image = family.drawn(name, 0)[0]
        assert np.array_equal(image, family.drawn(name, 0)[0])
        assert not np.array_equal(image, family.drawn(name, 1)[0])
        assert not np.array_equal(image, family.drawn(other, 0)[0])


def test_monai_labels_own_datastore_reads_it(samples, tmp_path):
    from monailabel.config import settings
    from monailabel.datastore.local import LocalDatastore

    samples = shutil.copytree(samples, tmp_path / "served")  # opening it leaves a lock and empty folders there
    index = samples / "datastore_v2.json"
    before = index.read_bytes()
    store = LocalDatastore(str(samples), extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT)
    assert set(store.list_images()) == ALL
    assert set(store.get_labeled_images()) == LABELLED
    assert set(store.get_unlabeled_images()) == ALL - LABELLED
    assert index.read_bytes() == before, "the datastore found something to correct in the index"
    for family in FAMILIES:
        for name in family.ids()[: family.labelled]:
            assert store.get_label_uri(name, "final") == str(
                (samples / "labels/final" / (name + family.suffix)).resolve()
            )
            names = {entry["name"]: entry["idx"] for entry in store.get_label_info(name, "final")["label_info"]}
            assert names == family.structures


def test_every_label_has_the_grid_of_its_image_and_both_structures_apart(samples):
    truth = json.loads((truth_folder(samples) / "truth.json").read_text())
    assert set(truth) == ALL - LABELLED
    for family in FAMILIES:
        for name in family.ids():
            image_path, path = samples / (name + family.suffix), label_path(samples, name, family.suffix)
            image, label = read(image_path), read(path)
            assert label.shape == image.shape[: label.ndim]
            assert set(np.unique(label)) == {0, *family.structures.values()}
            if path.parent == truth_folder(samples):
                assert truth[name] == {"file": path.name, "structures": family.structures}
            if family.suffix == ".nii.gz":
                assert np.array_equal(nibabel.load(path).affine, nibabel.load(image_path).affine)


def test_volumes_lie_differently_and_hold_slices_without_a_structure(samples):
    volumes = sorted(samples.glob("mr_*.nii.gz"))
    turns = {nibabel.aff2axcodes(nibabel.load(path).affine) for path in volumes}
    assert len(turns) > 2
    for path in volumes:
        spacing = sorted(nibabel.load(path).header.get_zooms())
        assert spacing[2] > 2 * spacing[1]
        label = read(label_path(samples, path.name.removesuffix(".nii.gz"), ".nii.gz"))
        for value in (1, 2):
            on_slice = (label == value).any(axis=(0, 1))
            assert 2 <= on_slice.sum() < label.shape[2]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.prefix)
def test_copying_a_mask_from_one_study_to_another_scores_low(samples, family):
    labels = [read(label_path(samples, name, family.suffix)) for name in family.ids()]
    for structure, value in family.structures.items():
        pairs = itertools.permutations(labels, 2)
        mean = np.mean([overlap(a == value, b == value).dice for a, b in pairs])
        assert mean < 0.35, f"{structure} lies in the same place too often"


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    mine = tmp_path / "studies"
    mine.mkdir()
    (mine / "patient.nii.gz").write_bytes(b"mine")
    assert make_samples.main(["--out", str(mine)]) == 2
    assert str(mine) in capsys.readouterr().err
    assert [p.name for p in mine.iterdir()] == ["patient.nii.gz"]
    assert [p.name for p in tmp_path.iterdir()] == ["studies"]
