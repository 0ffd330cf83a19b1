"""What a request says with points, in each viewer's words, and where the points lie."""

import nibabel
import numpy as np
import pytest
from monailabel.interfaces.exception import MONAILabelException
from PIL import Image

from proxyprompt.io.errors import StudyError
from proxyprompt.io.labels import StructureRegistry
from proxyprompt.io.study import read_study
from proxyprompt.requests.clicks import Box, Click, as_box, as_points, parse_clicks, split_points


@pytest.fixture
def registry(tmp_path):
    registry = StructureRegistry(tmp_path / "structures.json")
    registry.ensure("head", aliases=["skull"])
    registry.ensure("symphysis")
    return registry


@pytest.fixture
def plain_image(tmp_path):
    """12 columns, 8 rows."""
    path = tmp_path / "image.png"
    Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12)).save(path)
    return read_study(path)


def parse(study, registry, label=None, **said):
    return parse_clicks(split_points(said)[0], study, label=label, registry=registry)


def test_slicer_speaks_of_one_structure(plain_image, registry):
    clicks = parse(plain_image, registry, "head", foreground=[[3, 2, 0]], background=[[5, 6, 0]])
    assert clicks.of == {"head": (Click(0, 2, 3, True), Click(0, 6, 5, False))}
    assert clicks.nothing == ()


def test_ohif_speaks_of_several_and_of_none(plain_image, registry):
    clicks = parse(plain_image, registry, head=[[3, 2, 0]], symphysis=[], background=[[5, 6, 0]])
    assert clicks.of == {"head": (Click(0, 2, 3, True),)}
    assert clicks.nothing == (Click(0, 6, 5, False),)


def test_scripts_say_both_for_each(plain_image, registry):
    clicks = parse(plain_image, registry, skull={"foreground": [[3, 2]]}, symphysis={"background": [[5, 6]]})
    assert clicks.of == {"head": (Click(0, 2, 3, True),), "symphysis": (Click(0, 6, 5, False),)}


def test_options_are_not_points():
    said, rest = split_points({"support": ["auto", "a"], "label": "head", "head": [[1, 2, 0]], "image": "x", "b": 3})
    assert said == {"head": [[1, 2, 0]]}
    assert rest == {"support": ["auto", "a"], "label": "head", "image": "x", "b": 3}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"heart": [[1, 1, 0]]}, ["heart", "head, symphysis", "support"]),
        ({"head": [[12, 1, 0]]}, ["[12, 1, 0]", "outside", "(12, 8, 1)"]),
        ({"head": [[1, -1, 0]]}, ["outside"]),
        ({"head": [[1, 1, 1]]}, ["outside"]),
        ({"head": [[1]]}, ["[1]", "[x, y, z]"]),
        ({"head": [["a", 1, 0]]}, ["[x, y, z]"]),
        ({"head": [1, 2, 0]}, ["[x, y, z]"]),
        ({"head": [[float("nan"), 1, 0]]}, ["(x, y, z)"]),
        ({"head": {"inside": [[1, 1, 0]]}}, ["inside", "foreground"]),
        ({"foreground": [[1, 1, 0]]}, ["which structure", "head, symphysis"]),
        ({"head": {"foreground": [[1, 1, 0]], "background": [[1.2, 0.9, 0]]}}, ["same pixel", "head"]),
        ({"head": [[1, 1, 0]], "background": [[1, 1, 0]]}, ["same pixel"]),
        ({"head": [[n % 12, n % 8, 0] for n in range(1001)] * 2}, []),
    ],
)
def test_points_that_cannot_be_used(plain_image, registry, said, words):
    if not words:  # the same point many times is one point
        assert len(parse(plain_image, registry, **said)) == 24
        return
    with pytest.raises((MONAILabelException, StudyError)) as caught:
        parse(plain_image, registry, **said)
    message = getattr(caught.value, "msg", None) or str(caught.value)
    assert all(word in message for word in words), message


def test_the_only_structure_need_not_be_named(plain_image, tmp_path):
    registry = StructureRegistry(tmp_path / "one.json")
    registry.ensure("head")
    assert set(parse(plain_image, registry, foreground=[[1, 1]]).of) == {"head"}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SLA", "PIR", "ARS"])
def test_a_point_lies_where_the_label_does(tmp_path, axcodes, suffix):
    """A click on voxel (x, y, z) falls on the pixel whose label is written to voxel (x, y, z), for any orientation."""
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.integers(0, 99, (9, 7, 5)).astype(np.int16), np.diag([1.0, 1.1, 3.0, 1.0]))
    codes = nibabel.orientations.axcodes2ornt(axcodes)
    path = tmp_path / "volume.nii.gz"
    nibabel.save(image.as_reoriented(codes), path)
    if suffix == ".nrrd":
        sitk.WriteImage(sitk.ReadImage(str(path)), str(tmp_path / "volume.nrrd"))
        path = tmp_path / "volume.nrrd"
    study = read_study(path)
    size = sitk.ReadImage(str(path)).GetSize()
    for voxel in [(0, 0, 0), tuple(n - 1 for n in size), (3, 2, 1), (1, 4, 2)]:
        labels = np.zeros((len(study), *study.slice_shape), np.uint8)
        labels[study.locate(voxel)] = 7
        written = sitk.ReadImage(str(study.write_label(labels, tmp_path / "label.nrrd")))
        assert written[voxel] == 7


def test_points_are_columns_and_rows():
    points = as_points([Click(4, 2, 3, True), Click(4, 6, 5, False)])
    assert points.coords.tolist() == [[[[3, 2], [5, 6]]]]
    assert points.labels.tolist() == [[[1, 0]]]


def test_a_box_has_two_corners_on_one_slice(plain_image, registry):
    found = parse(plain_image, registry, head={"boxes": [[[9, 3, 0], [2, 7, 0]]]})
    assert found.boxes == {"head": (Box(0, 3, 2, 7, 9),)} and found.structures() == ["head"] and len(found) == 1
    assert found.box("head", 0) and found.box("head", 1) is None
    assert as_box(found.box("head", 0)).tolist() == [[[2, 3, 9, 7]]]
    for wrong in ([[[2, 3, 0]]], [[[2, 3, 0], [999, 7, 0]]], [[[2, 3, 0], [9, 7, 0]], [[1, 1, 0], [2, 2, 0]]]):
        with pytest.raises((MONAILabelException, StudyError)):
            parse(plain_image, registry, head={"boxes": wrong})
