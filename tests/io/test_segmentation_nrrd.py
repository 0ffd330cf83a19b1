"""3D Slicer's segmentations: what the header says of names, values and layers holds."""

import nibabel as nib
import nrrd
import numpy as np
import pytest

from proxyprompt.io.label_files import names_itself
from proxyprompt.io.study import StudyError, read_study

RNG = np.random.default_rng(14)
AFFINE = np.array([[-1.2, 0, 0, 55.0], [0, -1.1, 0, 48.0], [0, 0, 4.0, -30.0], [0, 0, 0, 1]])
SHAPE = (12, 10, 6)


@pytest.fixture
def study(tmp_path):
    image = nib.Nifti1Image(RNG.integers(0, 999, SHAPE).astype(np.int16), AFFINE)
    nib.save(image, tmp_path / "image.nii.gz")
    return read_study(tmp_path / "image.nii.gz")


def save(path, layers, segments, *, at=(0, 0, 0), order=(0, 1, 2), **more):
    """layers: arrays (i, j, k). segments: (name, layer, value). at: the voxel of the image where they begin."""
    lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    origin = (lps @ [*at, 1])[:3]
    layers = [np.transpose(layer, order) for layer in layers]
    directions = [list(lps[:3, axis]) for axis in order]
    many = len(layers) > 1
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array(([[np.nan] * 3] if many else []) + directions),
        "space origin": list(origin),
        "kinds": (["list"] if many else []) + ["domain"] * 3,
        "encoding": "gzip",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        **more,
    }
    for n, (name, layer, value) in enumerate(segments):
        fields = {"ID": f"Segment_{n + 1}", "Name": name, "Layer": layer, "LabelValue": value}
        header |= {f"Segment{n}_{key}": str(given) for key, given in fields.items() if given is not None}
    nrrd.write(str(path), np.stack(layers) if many else layers[0], header)
    return path


def mask(found, name):
    return np.isin(found.values, list(found.names[name]))


def on_file(study, found, name):
    """The mask as (i, j, k) of the image's file."""
    return study.to_grid(mask(found, name)).astype(bool)


@pytest.mark.parametrize("name", ["a.seg.nrrd", "a.nrrd", "A.SEG.NRRD"])
@pytest.mark.parametrize("values", [(1, 2), (7, 3), (2, 1), (200, 1000)])
def test_names_and_values_of_one_layer(tmp_path, study, name, values):
    layer = RNG.choice([0, *values], SHAPE).astype(np.int16)
    save(tmp_path / name, [layer], [("blob", 0, values[0]), ("hole", 0, values[1])])
    found = study.read_label_map(tmp_path / name)
    assert names_itself(tmp_path / name) and set(found.names) == {"blob", "hole"} and not found.notes
    for each, value in zip(("blob", "hole"), values, strict=True):
        assert np.array_equal(on_file(study, found, each), layer == value)


def test_layers_that_overlap(tmp_path, study):
    blob, hole = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    blob[2:5, 2:5], hole[7:9, 2:5] = True, True
    layers = [blob.astype(np.uint8), hole * np.uint8(3), (blob | hole).astype(np.uint8)]
    save(tmp_path / "a.seg.nrrd", layers, [("blob", 0, 1), ("hole", 1, 3), ("both", 2, 1)])
    found = study.read_label_map(tmp_path / "a.seg.nrrd")
    assert not found.notes
    for name, wanted in (("blob", blob), ("hole", hole), ("both", blob | hole)):
        assert np.array_equal(on_file(study, found, name), wanted)


def test_two_segments_in_each_of_two_layers(tmp_path, study):
    first, second = (RNG.integers(0, 3, SHAPE).astype(np.uint8) for _ in range(2))
    second[first > 0] = 0
    segments = [("a", 0, 1), ("b", 0, 2), ("c", 1, 1), ("d", 1, 2)]
    found = study.read_label_map(save(tmp_path / "a.seg.nrrd", [first, second], segments))
    for name, layer, value in segments:
        assert np.array_equal(on_file(study, found, name), (first, second)[layer] == value)


def test_old_files_say_neither_layer_nor_value(tmp_path, study):
    layers = [np.zeros(SHAPE, np.uint8) for _ in range(2)]
    layers[0][1:3], layers[1][5:8] = 1, 1
    found = study.read_label_map(save(tmp_path / "a.seg.nrrd", layers, [("a", None, None), ("b", None, None)]))
    assert np.array_equal(on_file(study, found, "a"), layers[0] > 0)
    assert np.array_equal(on_file(study, found, "b"), layers[1] > 0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("box", [np.s_[3:9, 2:7, 1:4], np.s_[:, 4:10, :], np.s_[11:, 9:, 5:]])
def test_cropped_files_are_laid_on_the_grid(tmp_path, study, box, order, layers):
    wanted = np.zeros(SHAPE, bool)
    wanted[box] = RNG.random(wanted[box].shape) > 0.4
    at = [s.start or 0 for s in box]
    planes = [wanted[box].astype(np.uint8)] + [np.zeros(wanted[box].shape, np.uint8)] * (layers - 1)
    save(tmp_path / "a.seg.nrrd", planes, [("blob", 0, 1)], at=at, order=order)
    assert np.array_equal(on_file(study, study.read_label_map(tmp_path / "a.seg.nrrd"), "blob"), wanted)


def test_a_declared_segment_may_be_empty(tmp_path, study):
    save(tmp_path / "a.seg.nrrd", [np.ones(SHAPE, np.uint8)], [("blob", 0, 1), ("hole", 0, 2)])
    found = study.read_label_map(tmp_path / "a.seg.nrrd")
    assert mask(found, "blob").all() and set(found.names) == {"blob", "hole"} and not mask(found, "hole").any()


def test_what_does_not_fit_is_refused(tmp_path, study):
    one = np.ones(SHAPE, np.uint8)
    for at in ((0.5, 0, 0), (3, 0, 0), (0, 0, -1)):
        with pytest.raises(StudyError, match=r"does not lie on the image's voxels\. Segmentation: .*Image .*reference"):
            study.read_label(save(tmp_path / "a.seg.nrrd", [one], [("blob", 0, 1)], at=at))
    with pytest.raises(StudyError, match="segment 'blob' is in layer 4 of 1"):
        study.read_label(save(tmp_path / "a.seg.nrrd", [one], [("blob", 4, 1)]))
    fractional = {"Segmentation_MasterRepresentation": "Fractional labelmap"}
    with pytest.raises(StudyError, match="holds fractions of voxels"):
        study.read_label(save(tmp_path / "a.seg.nrrd", [one], [("blob", 0, 1)], **fractional))
    path = save(tmp_path / "a.seg.nrrd", [RNG.integers(0, 99, SHAPE)], [("blob", 0, 1)])
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(StudyError, match=r"a\.seg\.nrrd: cannot be read, it may be damaged"):
        study.read_label(path)


def test_a_nrrd_without_segments_is_an_ordinary_label(tmp_path, study):
    path = save(tmp_path / "a.nrrd", [RNG.integers(0, 3, SHAPE).astype(np.uint8)], [])
    assert not names_itself(path) and study.read_label_map(path).names is None
