"""Supports from a real local datastore: which are offered, which are chosen, what is refused, what is purged."""

import csv
import json
import os
import threading

import nibabel as nib
import numpy as np
import pytest
import torch
from monailabel.datastore.local import LocalDatastore
from PIL import Image

import proxyprompt.supports.library as library_module
from proxyprompt.foundation.atto import build_atto
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.labels import StructureRegistry
from proxyprompt.io.study import read_study
from proxyprompt.supports.candidates import choose_slices
from proxyprompt.supports.descriptors import DescriptorIndex, describe
from proxyprompt.supports.fit import calibrated
from proxyprompt.supports.support import Candidates, SupportError, SupportLibrary

EXTENSIONS = ("*.png", "*.nii.gz")
BLOB, BAR = 1, 2


@pytest.fixture(scope="module")
def atto():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_atto({"dim": 32, "blocks": 1, "memory_layers": 1, "feed_forward": 32}, image_size=64)


class Bench:
    """A studies folder, and the library over it as a fresh process would open it."""

    def __init__(self, root, atto):
        self.root, self.atto, self.studies = root, atto, root / "studies"
        self.index = None
        (self.studies / "labels" / "final").mkdir(parents=True)

    def open(self, **options):
        self.cache = ContentCache(self.root / "cache", memory_bytes=1 << 24, disk_bytes=1 << 24)
        self.atto.weights_sha256 = "f00d"
        self.close()
        self.index = DescriptorIndex(self.atto, self.cache)
        self.datastore = LocalDatastore(str(self.studies), extensions=EXTENSIONS)
        registry = StructureRegistry(self.root / "structures.json")
        self.library = SupportLibrary(self.datastore, registry, descriptors=self.index, cache=self.cache, **options)
        return self.library

    def close(self):
        if self.index is not None:
            self.index.stop()

    def names(self, **names):
        (self.studies / "dataset.json").write_text(json.dumps({"labels": names}))

    def image(self, name, seed, *, colour=True, label=None, size=(40, 48)):
        """A 2-D image. label: dict value -> whether it is painted."""
        rng = np.random.default_rng(seed)
        shape = (*size, 3) if colour else size
        smooth = np.kron(rng.random((4, 4, *shape[2:])), np.ones((size[0] // 4, size[1] // 4, *[1] * len(shape[2:]))))
        pixels = (200 * smooth + 40 * rng.random(shape)).astype(np.uint8)
        Image.fromarray(pixels).save(self.studies / f"{name}.png")
        if label is not None:
            self.label(name, *label, size=size, seed=seed)

    def label(self, name, *values, size=(40, 48), seed=0):
        pixels = np.zeros(size, np.uint8)
        for value in values:
            pixels[4 * value : 4 * value + 8, 5 : 25 + seed % 7] = value
        Image.fromarray(pixels).save(self.studies / "labels" / "final" / f"{name}.png")

    def volume(self, name, seed, *, painted=None, affine=None, shape=(24, 28, 10)):
        """A 3-D volume, cut axially. painted: dict slice -> values."""
        rng = np.random.default_rng(seed)
        affine = np.diag([-1.0, -1.0, 3.0, 1.0]) if affine is None else affine
        z = np.linspace(0, 1, shape[2])
        voxels = (500 * rng.random(shape) * (0.2 + z) + 1000 * z).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, affine), self.studies / f"{name}.nii.gz")
        if painted is not None:
            labels = np.zeros(shape, np.uint8)
            for i, values in painted.items():
                for value in values:
                    labels[5 * value : 5 * value + 4, 5:15, i] = value
            nib.save(nib.Nifti1Image(labels, affine), self.studies / "labels" / "final" / f"{name}.nii.gz")


@pytest.fixture
def bench(tmp_path, atto):
    made = Bench(tmp_path, atto)
    yield made
    made.close()
    atto.weights_sha256 = ""


@pytest.fixture
def plain_images(bench):
    """Eight labelled images, one not: the target."""
    bench.names(blob=BLOB, bar=BAR)
    for i in range(8):
        bench.image(f"p{i}", i, label=(BLOB, BAR) if i % 2 else (BLOB,))
    bench.image("target", 100)
    return bench


def used(selection):
    return [(s.study_id, s.index) for s in selection.slices]


def ids(selection):
    return [s.study_id for s in selection.slices]


# the library


def test_lists_labelled_studies_and_their_structures(plain_images):
    library = plain_images.open()
    assert sorted(library.ids()) == [f"p{i}" for i in range(8)]
    assert library.structures() == ["blob", "bar"]
    study = library.studies()["p0"]
    assert study.structures == {"blob": {1}, "bar": {2}}  # declared by dataset.json, though not painted
    assert study.present() == ["blob"]
    assert (study.modality, study.plane, len(study)) == ("RGB", "image", 1)


def test_a_label_without_names_is_offered_by_its_values(bench):
    bench.image("a", 0, label=(BLOB, 7 and BAR))
    assert bench.open().structures() == ["label_1", "label_2"]


def test_unchanged_files_are_not_read_again(plain_images, monkeypatch):
    reads = []
    real = library_module.read_study
    monkeypatch.setattr(library_module, "read_study", lambda *a, **k: reads.append(a) or real(*a, **k))
    library = plain_images.open()
    library.ids()
    assert len(reads) == 8
    library.ids()
    library.structures()
    assert len(reads) == 8
    assert plain_images.open().structures() == ["blob", "bar"]  # another process, the same cache folder
    assert len(reads) == 8
    plain_images.label("p3", BAR, seed=3)
    plain_images.library.ids()
    assert len(reads) == 9


def test_a_new_label_is_a_support_at_once(plain_images):
    library = plain_images.open()
    assert "target" not in library.ids()
    path = plain_images.root / "drawn.png"
    Image.fromarray(np.full((40, 48), 5, np.uint8)).save(path)
    plain_images.datastore.save_label("target", str(path), "final", {"label_info": [{"name": "lens", "idx": 5}]})
    assert "target" in library.ids()
    assert library.structures() == ["blob", "bar", "lens"]
    plain_images.datastore.remove_label("target", "final")
    plain_images.datastore.refresh()
    assert "target" not in library.ids()
    assert library.structures() == ["blob", "bar"]


# choosing


def test_auto_is_the_brute_force_ranking(plain_images):
    library = plain_images.open()
    chosen = library.choose(library.open("target"), "target", ["bar"], count=3)

    have = [f"p{i}" for i in range(8) if i % 2]
    rows = describe(plain_images.atto, np.concatenate([library.open(n).images([0]) for n in have])).double().numpy()
    query = describe(plain_images.atto, library.open("target").images([0])).double().numpy()
    alike = [calibrated(cosine) for cosine in rows @ query[0]]
    centre = (rows.sum(0) + query[0]) / (len(have) + 1 + 8)
    rows, query = rows - centre, query[0] - centre
    cosine = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    order = np.argsort(-cosine)[:3]

    assert used(chosen) == [(have[i], 0) for i in order]
    assert np.allclose([s.similarity for s in chosen.slices], [alike[i] for i in order], atol=1e-4)
    for k, i in enumerate(order):
        assert np.array_equal(chosen.images[k], library.open(have[i]).image(0))
        truth = np.asarray(Image.open(plain_images.studies / "labels" / "final" / f"{have[i]}.png")) == BAR
        assert np.array_equal(chosen.masks[k], truth[None])
        assert chosen.slices[k].image_key == library.open(have[i]).slice_hash(0)
    assert chosen.structures == ("bar",)
    assert chosen.valid.tolist() == [[True]] * 3


def test_the_most_similar_comes_first(bench):
    """A target that is a support with a little noise finds that support."""
    for i in range(6):
        bench.image(f"p{i}", i, label=(BLOB,))
    pixels = np.asarray(Image.open(bench.studies / "p4.png")).astype(int)
    noisy = np.clip(pixels + np.random.default_rng(0).integers(-6, 7, pixels.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(bench.studies / "target.png")
    library = bench.open()
    chosen = library.choose(library.open("target"), "target", ["label_1"], count=2)
    assert ids(chosen)[0] == "p4"
    assert chosen.slices[0].similarity > 0.9


def test_the_target_and_its_copy_never_serve(plain_images):
    for copy in ("copy.png", "labels/final/copy.png", "labels/final/target.png"):
        source = "target.png" if "/" not in copy else "labels/final/p1.png"
        (plain_images.studies / copy).write_bytes((plain_images.studies / source).read_bytes())
    library = plain_images.open()
    target = library.open("target")
    assert {"target", "copy"} <= set(library.ids())
    assert not {"target", "copy"} & set(ids(library.choose(target, "target", ["blob"], count=20)))
    for name in ("target", "copy"):
        with pytest.raises(SupportError, match=f"{name}.*the target itself"):
            library.choose(target, "target", ["blob"], support=name)


def test_structures_labelled_together_share_one_set_and_valid_says_who_declares_what(bench):
    for i in range(3):
        bench.image(f"both{i}", i, label=(BLOB, BAR))
    bench.image("target", 50)
    library = bench.open()
    chosen = library.choose(library.open("target"), "target", ["label_1", "label_2"], count=3)
    assert len(chosen) == 3
    assert chosen.valid.all()

    bench.image("only1", 7, label=(BLOB,))
    library = bench.open()
    chosen = library.choose(library.open("target"), "target", ["label_1", "label_2"], support=["only1", "both1"])
    assert sorted(ids(chosen)) == ["both1", "only1"]
    row = chosen.valid[ids(chosen).index("only1")]
    assert row.tolist() == [True, False]
    assert not chosen.masks[ids(chosen).index("only1")][1].any()


def test_declared_but_not_painted_is_a_valid_empty_mask(plain_images):
    library = plain_images.open()
    chosen = library.choose(library.open("target"), "target", ["blob", "bar"], support=["p0", "p1"])
    k = ids(chosen).index("p0")
    assert chosen.valid[k].tolist() == [True, True]
    assert chosen.masks[k][0].any()
    assert not chosen.masks[k][1].any()


def test_a_structure_of_several_values_is_their_union(bench):
    bench.image("a", 0, label=(BLOB, BAR))
    bench.image("target", 1)
    library = bench.open(conf_labels="rim=1,cup=2,disc=rim+cup")
    assert library.structures() == ["rim", "cup", "disc"]
    chosen = library.choose(library.open("target"), "target", ["disc", "cup"])
    label = np.asarray(Image.open(bench.studies / "labels" / "final" / "a.png"))
    assert np.array_equal(chosen.masks[0], np.stack([label > 0, label == BAR]))


def test_one_labelled_volume_gives_several_slices_that_hold_the_structure(bench):
    bench.volume("v", 0, painted=dict.fromkeys(range(3, 8), (BLOB,)))
    bench.volume("target", 1)
    library = bench.open()
    chosen = library.choose(library.open("target"), "target", ["label_1"], support="v", count=3)
    assert set(ids(chosen)) == {"v"}
    assert len({s.index for s in chosen.slices}) == 3
    assert all(3 <= s.index < 8 for s in chosen.slices)
    assert all(m.any() for m in chosen.masks)
    everything = library.choose(library.open("target"), "target", ["label_1"], support="v", count=40)
    assert sorted(s.index for s in everything.slices) == [3, 4, 5, 6, 7]


def test_a_labelled_volume_tells_where_along_it_its_structures_lie(bench):
    bench.volume("v", 0, painted={**dict.fromkeys(range(3, 8), (BLOB,)), 9: (BAR,)})
    bench.volume("target", 1)
    library = bench.open()
    chosen = library.choose(library.open("target"), "target", ["label_1", "label_2"], support="v", count=1)
    slice_presence = chosen.slice_presence["v"]
    assert [shown.nonzero()[0].tolist() for shown in slice_presence.shown.T] == [[3, 4, 5, 6, 7], [9]]
    assert slice_presence.declared.all() and slice_presence.length == pytest.approx(9 * 3.0)


def test_distinct_volumes_before_a_second_slice_of_one(bench):
    for n in range(3):
        bench.volume(f"v{n}", n, painted=dict.fromkeys(range(2, 9), (BLOB,)))
    bench.volume("target", 9)
    library = bench.open()
    chosen = library.choose(library.open("target"), "target", ["label_1"], count=3)
    assert sorted(ids(chosen)) == ["v0", "v1", "v2"]
    four = library.choose(library.open("target"), "target", ["label_1"], count=6)
    assert sorted(ids(four)) == ["v0", "v0", "v1", "v1", "v2", "v2"]


def test_slivers_serve_only_if_there_is_nothing_else(bench):
    bench.volume("v", 0, painted={5: (BLOB,)})
    path = bench.studies / "labels" / "final" / "v.nii.gz"
    image = nib.load(path)
    labels = np.asarray(image.dataobj).copy()
    labels[3, 3, 2] = BLOB  # one voxel
    labels[3, 3, 7] = BAR
    nib.save(nib.Nifti1Image(labels, image.affine), path)
    bench.volume("target", 1)
    library = bench.open()
    assert used(library.choose(library.open("target"), "target", ["label_1"], count=4)) == [("v", 5)]
    assert used(library.choose(library.open("target"), "target", ["label_2"], count=4)) == [("v", 7)]


def test_auto_keeps_to_the_plane(bench):
    bench.volume("axial", 0, painted={5: (BLOB,)})
    turned = np.array([[0, 0, 3.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    bench.volume("sagittal", 1, painted={5: (BLOB,)}, affine=turned)
    bench.volume("target", 2)
    library = bench.open()
    assert library.studies()["sagittal"].plane == "sagittal"
    target = library.open("target")
    assert set(ids(library.choose(target, "target", ["label_1"]))) == {"axial"}
    assert set(ids(library.choose(target, "target", ["label_1"], support="sagittal"))) == {"sagittal"}
    (bench.studies / "labels" / "final" / "axial.nii.gz").unlink()
    bench.datastore.refresh()
    with pytest.raises(SupportError, match="the target is axial, the labelled studies are sagittal"):
        library.choose(target, "target", ["label_1"])


def test_without_structures_those_of_the_similar_studies(bench):
    """Colour and gray in one folder: a gray target is not asked for what only colour images hold."""
    for i in range(3):
        bench.image(f"colour{i}", i, label=(BLOB,))
        bench.image(f"gray{i}", i + 10, colour=False, label=(BAR,))
    bench.image("target", 20, colour=False)
    library = bench.open()
    target = library.open("target")
    chosen = library.choose(target, "target")
    assert chosen.structures == ("label_2",)
    assert all(i.startswith("gray") for i in ids(chosen))
    assert library.choose(target, "target", support=["colour0", "gray0"]).structures == ("label_1", "label_2")


def test_the_same_patient_is_flagged(plain_images):
    with open(plain_images.studies / "groups.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("case", "group"), ("target", "A"), ("p1", "A"), ("p3", "B")])
    library = plain_images.open()
    chosen = library.choose(library.open("target"), "target", ["bar"], count=4)
    flags = {s.study_id: s.same_group for s in chosen.slices}
    assert flags == {"p1": True, "p3": False, "p5": False, "p7": False}
    report = json.loads(json.dumps(chosen.report()))
    assert {u["id"]: u["same_group"] for u in report["supports"]} == flags
    assert set(report["supports"][0]) == {"id", "slice", "similarity", "same_group", "structures"}


def test_a_named_support_that_does_not_fit_serves_and_is_said(plain_images):
    plain_images.image("gray", 50, colour=False, label=(BLOB,))
    library = plain_images.open()
    target = library.open("target")
    chosen = library.choose(target, "target", support="gray")
    assert ids(chosen) == ["gray"] and not chosen.fits
    assert "another modality" in chosen.unlike["blob"]
    assert chosen.report()["not_drawn"] == {}
    fitting = library.choose(target, "target", ["blob"], support="p1")
    assert fitting.fits and not fitting.unlike


def test_a_file_outside_the_datastore_may_be_the_target(plain_images):
    outside = plain_images.root / "outside.png"
    (plain_images.studies / "target.png").rename(outside)
    library = plain_images.open()
    assert len(library.choose(read_study(outside), "", ["bar"], count=2)) == 2


def test_an_unlabelled_slice_size_is_kept(bench):
    bench.image("wide", 0, label=(BLOB,), size=(40, 80))
    bench.image("tall", 1)
    bench.label("tall", BLOB)
    bench.image("target", 2, size=(60, 48))
    library = bench.open()
    chosen = library.choose(library.open("target"), "target", ["label_1"])
    assert {i.shape for i in chosen.images} == {(3, 40, 80), (3, 40, 48)}
    assert [m.shape[1:] for m in chosen.masks] == [i.shape[1:] for i in chosen.images]


def test_before_the_index_is_ready_a_request_describes_only_so_much(bench, monkeypatch):
    monkeypatch.setattr("proxyprompt.supports.support.FOREGROUND_SLICES", 4)
    for n in range(6):
        bench.volume(f"v{n}", n, painted=dict.fromkeys(range(2, 9), (BLOB,)))
    bench.volume("w", 7, painted={4: (BAR,)})  # the only one with this structure
    bench.volume("target", 9)
    library = bench.open()
    target = library.open("target")
    seen = []
    encode = type(bench.atto).encode
    monkeypatch.setattr(type(bench.atto), "encode", lambda self, x: seen.append(len(x)) or encode(self, x))
    monkeypatch.setattr(library, "index_in_background", lambda: None)
    first = library.choose(target, "target", ["label_1", "label_2"], count=2)
    assert sum(seen) <= 10 + 4 + 2  # the target's slices, the budget, and one for each structure at most
    assert first.indexing > 0
    assert "w" in ids(first)
    seen.clear()
    library.choose(target, "target", ["label_1", "label_2"], count=2)  # enough are known by now
    assert not seen
    monkeypatch.undo()
    library.index_in_background()
    assert bench.index.wait(60)
    later = library.choose(target, "target", ["label_1", "label_2"], count=2)
    assert later.indexing == 0
    assert later.report()["still_indexing"] == 0


def test_many_structures_do_not_multiply_the_set():
    rng = np.random.default_rng(0)
    n, names = 60, [f"s{i}" for i in range(6)]

    class Owner:
        accepted_unchanged = False

        def __init__(self, id):
            self.id = id

    slices = [(Owner(str(i)), 0) for i in range(n)]
    holds = {name: np.arange(n) % 6 == i for i, name in enumerate(names)}  # no slice serves two
    similarity = rng.uniform(0.5, 0.6, (1, n))
    candidates = Candidates(slices, similarity, similarity, np.zeros((n, 1)), holds)
    chosen = choose_slices(candidates, names, 4)
    assert len(chosen) <= 2 * 4
    assert all(holds[name][chosen].any() for name in names)
    assert len(choose_slices(candidates, names[:1], 4)) == 4
    assert len(choose_slices(candidates, names[:2], 4)) == 8
    assert len(choose_slices(candidates, names, 1)) == 6  # every structure gets one all the same
    assert candidates.scores[chosen].tolist() == sorted(candidates.scores[chosen], reverse=True)


# refusals


def refused(library, match, *args, **kwargs):
    with pytest.raises(SupportError, match=match):
        library.choose(library.open("target"), "target", *args, **kwargs)


def test_no_labelled_study_at_all(bench):
    bench.image("target", 0)
    refused(bench.open(), "no labelled study.*label and submit")
    bench.label("target", BLOB)
    refused(bench.open(), "other than the target itself")


def test_named_supports_that_cannot_be(plain_images):
    plain_images.image("bare", 60)
    plain_images.image("blank", 61, label=())
    library = plain_images.open()
    refused(library, "'nobody' does not exist; labelled studies: .*p0", ["blob"], support="nobody")
    refused(library, "'bare' has no final label", ["blob"], support="bare")
    refused(library, "'blank' is empty", ["blob"], support="blank")
    refused(library, "'p0' has an empty mask of bar; it has: blob", ["bar"], support="p0")
    refused(library, "'p0' has an empty mask of bar", ["bar"], support=["p1", "p0"])
    refused(library, "no support named", ["bar"], support=[])
    refused(library, "1 or more, got 0", ["bar"], count=0)
    refused(library, "no structure asked for", [])


def test_structures_that_nobody_has(bench):
    bench.names(blob=BLOB, bar=BAR)
    bench.image("a", 0, label=(BLOB,))
    bench.image("target", 1)
    library = bench.open()
    refused(library, "unknown structure 'liver'; on offer: blob, bar", ["liver"])
    refused(library, "has 'bar' labelled; on offer: blob", ["bar"])
    refused(library, "'a' has an empty mask of bar", ["bar"], support="a")


def test_a_label_on_another_grid_is_skipped_or_named(plain_images, caplog):
    plain_images.label("p1", BLOB, BAR, size=(30, 30))
    (plain_images.studies / "labels" / "final" / "p3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    library = plain_images.open()
    chosen = library.choose(library.open("target"), "target", ["bar"], count=8)
    assert sorted(ids(chosen)) == ["p5", "p7"]
    assert set(chosen.report()["skipped"]) == {"p1", "p3"}
    assert "30 x 30" in chosen.skipped["p1"]
    assert "40" in chosen.skipped["p1"]
    assert "p1 cannot be used" in caplog.text
    refused(library, "'p1' cannot be used: .*30 x 30", ["bar"], support="p1")
    refused(library, "'p3' cannot be used", ["bar"], support="p3")
    assert "p1" not in library.ids()
    plain_images.label("p1", BLOB, BAR)
    assert "p1" in library.ids()  # repaired


# purging


def test_an_overwritten_label_purges_what_came_from_it(plain_images):
    library = plain_images.open()
    target = library.open("target")
    before = library.choose(target, "target", ["bar"], support="p1")
    old = before.slices[0]
    kept = library.choose(target, "target", ["bar"], support="p3").slices[0]
    for name, tags in (("aaaa" * 4, old.tags), ("bbbb" * 4, kept.tags)):
        plain_images.cache.put(name, {"value": torch.ones(3)}, tags=tags)  # as the segmenter's features are

    plain_images.label("p1", BAR, seed=5)
    after = library.choose(target, "target", ["bar"], support="p1")
    assert not np.array_equal(after.masks[0], before.masks[0])
    assert plain_images.cache.get("aaaa" * 4) is None
    assert plain_images.cache.get("bbbb" * 4) is not None
    (label_hash,) = old.tags - after.slices[0].tags
    assert not any(label_hash in entry.tags for entry in plain_images.cache._memory.values())
    assert not any(label_hash.encode() in f.read_bytes() for f in (plain_images.root / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("what", ["label", "image"])
def test_a_removed_study_is_purged(plain_images, what):
    library = plain_images.open()
    chosen = library.choose(library.open("target"), "target", ["bar"], support="p1")
    plain_images.cache.put("aaaa" * 4, {"value": torch.ones(3)}, tags=chosen.tags)
    if what == "label":
        plain_images.datastore.remove_label("p1", "final")
    else:
        os.unlink(plain_images.studies / "p1.png")
    plain_images.datastore.refresh()
    assert "p1" not in library.ids()
    assert plain_images.cache.get("aaaa" * 4) is None
    assert ids(library.choose(library.open("target"), "target", ["bar"], count=9)).count("p1") == 0


def test_an_exchanged_image_is_seen(plain_images):
    library = plain_images.open()
    before = library.choose(library.open("target"), "target", ["bar"], support="p1")
    plain_images.image("p1", 77)
    after = library.choose(library.open("target"), "target", ["bar"], support="p1")
    assert not np.array_equal(before.images[0], after.images[0])
    assert before.slices[0].image_key != after.slices[0].image_key
    assert np.array_equal(before.masks[0], after.masks[0])


def test_a_label_that_two_studies_share_stays_for_the_other(bench):
    for name in "ab":
        bench.image(name, ord(name))
        bench.label(name, BLOB)
    bench.image("target", 3)
    library = bench.open()
    chosen = library.choose(library.open("target"), "target", ["label_1"], support="a")
    other = library.choose(library.open("target"), "target", ["label_1"], support="b")
    bench.cache.put("aaaa" * 4, {"value": torch.ones(3)}, tags=chosen.slices[0].tags)
    bench.cache.put("bbbb" * 4, {"value": torch.ones(3)}, tags=other.slices[0].tags)
    bench.datastore.remove_label("a", "final")
    bench.datastore.refresh()
    library.refresh()
    assert bench.cache.get("aaaa" * 4) is None
    assert bench.cache.get("bbbb" * 4) is not None


# many at once


def test_concurrent_requests_while_a_label_changes(plain_images):
    library = plain_images.open()
    target = library.open("target")
    problems, answers = [], []

    def ask(structure):
        try:
            for _ in range(6):
                answers.append(library.choose(target, "target", [structure], count=3))
        except Exception as error:
            problems.append(error)

    def paint():
        for i in range(6):
            plain_images.label("p0", BLOB, seed=i)
            library.ids()

    threads = [threading.Thread(target=ask, args=(s,)) for s in ("blob", "bar", "blob")] + [
        threading.Thread(target=paint)
    ]
    [t.start() for t in threads]
    [t.join() for t in threads]
    unexpected = [p for p in problems if not isinstance(p, SupportError)]
    assert unexpected == []
    assert len(answers) >= 12
    assert all(m.any() for a in answers for m in a.masks)


def test_a_warm_request_reads_no_file(plain_images, monkeypatch):
    library = plain_images.open()
    target = library.open("target")
    first = library.choose(target, "target", ["blob", "bar"], count=3)
    monkeypatch.setattr(library_module, "read_study", lambda *a, **k: pytest.fail("read a study"))
    again = library.choose(target, "target", ["blob", "bar"], count=3)
    assert used(again) == used(first)
    fresh = plain_images.open()  # another process
    assert used(fresh.choose(target, "target", ["blob", "bar"], count=3)) == used(first)
