"""Sets as they are distributed become collections: all of them, with the right values, or not at all."""

import numpy as np
import pytest
import SimpleITK as sitk
from distributed_sets import (
    discs,
    write_fh_ps_aop,
    write_jnu_ifm,
    write_promise12,
    write_refuge,
    write_stare,
)
from PIL import Image

from proxyprompt.datasets.collections import read_collection
from proxyprompt.datasets.preparation import DISTRIBUTIONS, prepare
from proxyprompt.io.errors import StudyError

WRITERS = {
    "REFUGE2": (write_refuge, {"disc": (1, 2), "cup": (2,)}, (0, 1, 2)),
    "STARE": (write_stare, {"vessels": (1,)}, (0, 0, 1)),
    "FH-PS-AOP": (write_fh_ps_aop, {"symphysis": (1,), "head": (2,)}, (0, 2, 1)),
    "PROMISE12": (write_promise12, {"prostate": (1,)}, (0, 1, 1)),
    "JNU-IFM": (write_jnu_ifm, {"symphysis": (1,), "head": (2,)}, (0, 2, 1)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_set_becomes_a_collection(name, tmp_path):
    write, structures, values = WRITERS[name]
    seen = []
    out = prepare(name, write(tmp_path / "source"), tmp_path / "out", any_count=True, report=lambda *n: seen.append(n))
    collection = read_collection(out)
    assert dict(collection.structures) == structures
    assert seen[-1] == (len(collection.cases),) * 2 and len(seen) == len(collection.cases)
    for case in collection.cases:
        study, labels = collection.open(case)
        assert labels.shape[1:] == study.slice_shape
        assert np.array_equal(labels[len(labels) // 2], discs(values))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_refuge_parts_that_use_a_name_twice(tmp_path):
    source = write_refuge(tmp_path / "source")
    collection = read_collection(prepare("REFUGE2", source, tmp_path / "out", any_count=True))
    assert [case.id for case in collection.cases] == [
        "Train_REFUGE1-val_Images_V0001",
        "Validation_Images_V0001",
        "g0001",
        "n0001",
    ]
    own = (source / "Validation" / "Images" / "V0001.jpg").read_bytes()
    assert (tmp_path / "out" / "images" / "Validation_Images_V0001.jpg").read_bytes() == own
    (source / "Images").mkdir()
    (source / "Validation" / "Images" / "V0001.jpg").rename(source / "V0001.jpg")
    (source / "Validation" / "Disc_Cup_Masks" / "V0001.bmp").rename(source / "Images" / "V0001.bmp")
    with pytest.raises(StudyError, match="prepare the parts one by one"):
        prepare("REFUGE2", source, tmp_path / "other", any_count=True)


def test_groups_and_observers(tmp_path):
    of_fetuses = read_collection(prepare("FH-PS-AOP", write_fh_ps_aop(tmp_path / "a"), tmp_path / "b", any_count=True))
    assert {group: len(cases) for group, cases in of_fetuses.groups().items()} == {
        "block_00": 2,
        "block_01": 1,
        "block_02": 1,
    }
    assert Image.open(tmp_path / "b" / "images" / "00001.png").mode == "L"
    videos = read_collection(prepare("JNU-IFM", write_jnu_ifm(tmp_path / "c"), tmp_path / "d", any_count=True))
    assert {group: len(cases) for group, cases in videos.groups().items()} == dict.fromkeys(
        ("20190830T115510", "20190830T115511"), 3
    )
    eyes = prepare("STARE", write_stare(tmp_path / "e"), tmp_path / "f", any_count=True)
    assert len(list((eyes / "masks_vk").iterdir())) == len(list((eyes / "masks").iterdir())) == 3
    assert len(list((eyes / "images").iterdir())) == 3


def test_millimetres_are_kept(tmp_path):
    source = write_promise12(tmp_path / "source")
    out = prepare("PROMISE12", source, tmp_path / "out", any_count=True)
    one, other = (
        sitk.ReadImage(str(path))
        for path in (source / "TrainingData_Part1" / "Case01.mhd", out / "images" / "Case01.mha")
    )
    assert one.GetSpacing() == other.GetSpacing() and one.GetOrigin() == other.GetOrigin()
    assert np.array_equal(*(sitk.GetArrayFromImage(image) for image in (one, other)))
    study, _ = (collection := read_collection(out)).open(collection.cases[0])
    assert study.spacing_known and study.slice_spacing == pytest.approx(3.6)


def test_whole_sets_are_counted(tmp_path):
    with pytest.raises(StudyError, match="holds 3 labelled images of STARE; the whole set has 20"):
        prepare("STARE", write_stare(tmp_path / "some"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepare("STARE", write_stare(tmp_path / "all", count=20, observers=("ah",)), tmp_path / "out")
    assert len(read_collection(tmp_path / "out").cases) == 20


def test_an_interrupted_preparation_goes_on(tmp_path):
    source, out = write_stare(tmp_path / "source"), tmp_path / "out"

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("STARE", source, out, any_count=True, report=interrupt)
    assert not out.exists()
    (part,) = tmp_path.glob(".out.*.part")
    before = {path: path.stat().st_mtime_ns for path in part.rglob("*.png")}
    assert len(before) == 6
    prepare("STARE", source, out, any_count=True)
    assert {path: (out / path.relative_to(part)).stat().st_mtime_ns for path in before} == before
    with pytest.raises(StudyError, match="is there already"):
        prepare("STARE", source, out, any_count=True)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("STARE", lambda s: (s / "stare-images" / "im0002.ppm.gz").unlink(), "no image im0002.ppm"),
        ("STARE", lambda s: (s / "labels-ah" / "im0001.ah.ppm.gz").write_bytes(b"no"), "cannot be read"),
        (
            "REFUGE2",
            lambda s: Image.new("L", (24, 20), 7).save(next(s.rglob("g0001.bmp"))),
            "values 7; expected only 0",
        ),
        ("REFUGE2", lambda s: Image.new("L", (9, 9), 0).save(next(s.rglob("g0001.bmp"))), "has 9 x 9 x 1 pixels"),
        ("FH-PS-AOP", lambda s: next(s.rglob("label_mha")).joinpath("00001.mha").unlink(), "unpack the set again"),
        ("PROMISE12", lambda s: next(s.rglob("Case01.mhd")).unlink(), "there is no Case01.mhd"),
        ("PROMISE12", lambda s: next(s.rglob("Case01.raw")).write_bytes(b"short"), "cannot be read"),
        ("JNU-IFM", lambda s: next(s.rglob("*_1_mask.png")).unlink(), "lists 3 frames, 2 have a mask"),
        ("JNU-IFM", lambda s: next(s.rglob("image/*_1.png")).unlink(), "there is no"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path, name, spoil, message):
    source = WRITERS[name][0](tmp_path / "source")
    spoil(source)
    with pytest.raises(StudyError, match=message):
        prepare(name, source, tmp_path / "out", any_count=True)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_and_an_unknown_set(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="no labelled image of STARE in it; expected: ``im0001"):
        prepare("STARE", tmp_path / "empty", tmp_path / "out")
    with pytest.raises(StudyError, match="no such folder"):
        prepare("STARE", tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="known are REFUGE2"):
        prepare("DRIVE", tmp_path, tmp_path / "out")
