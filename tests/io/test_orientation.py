"""The same anatomy gives the same slices, however a file holds it; labels go back to where they came from."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyprompt.io.grid import Alignment, Grid
from proxyprompt.io.orientation import cut, slice_axis
from proxyprompt.io.study import read_study

ALL_48 = [(axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)]
TURN = np.array([[0.981, -0.174, 0.087], [0.186, 0.972, -0.146], [-0.059, 0.159, 0.985]])


def rotation(matrix):
    """The nearest rotation."""
    u, _, v = np.linalg.svd(matrix)
    return u @ v


def ras_volume(spacing, *, oblique=False):
    """A volume of random values in RAS order, 7 x 6 x 5, with a world that is not centred."""
    voxels = np.random.default_rng(0).integers(0, 1000, (7, 6, 5)).astype(np.int16)
    affine = np.eye(4)
    affine[:3, :3] = (rotation(TURN) if oblique else np.eye(3)) * np.asarray(spacing)
    affine[:3, 3] = (11, -23, 5)
    return nib.Nifti1Image(voxels, affine)


def reoriented(image, axes, signs):
    return image.as_reoriented(np.stack([axes, signs], axis=1))


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 4), (1, 4, 1), (4, 1, 1)])
def test_all_orders_of_the_same_volume_give_the_same_slices(tmp_path, spacing, oblique):
    original = ras_volume(spacing, oblique=oblique)
    nib.save(original, tmp_path / "ras.nii.gz")
    reference = read_study(tmp_path / "ras.nii.gz")
    slices = reference.images(range(len(reference)))
    for number, (axes, signs) in enumerate(ALL_48):
        path = tmp_path / f"{number}.nii.gz"
        nib.save(reoriented(original, axes, signs), path)
        study = read_study(path)
        assert study.plane == reference.plane
        assert np.array_equal(study.images(range(len(study))), slices), (axes, signs)
        assert study.content_hash == reference.content_hash


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize(("axes", "signs"), ALL_48)
def test_labels_return_to_every_order(tmp_path, axes, signs, oblique):
    image = reoriented(ras_volume((1, 2, 3), oblique=oblique), axes, signs)
    nib.save(image, tmp_path / "image.nii.gz")
    study = read_study(tmp_path / "image.nii.gz")
    # a label that is a function of the image: to_grid must bring each value back to its voxel
    wanted = (np.asarray(image.dataobj) % 256).astype(np.uint8)
    nib.save(nib.Nifti1Image(wanted, image.affine), tmp_path / "label.nii.gz")
    labels = study.read_label(tmp_path / "label.nii.gz")
    assert labels.shape == (len(study), *study.slice_shape)
    assert np.array_equal(study.to_grid(labels), wanted)
    # and a label stored in another order of the same voxels is the same label
    other = reoriented(nib.Nifti1Image(wanted, image.affine), (2, 0, 1), (-1, 1, -1))
    nib.save(other, tmp_path / "other.nii.gz")
    assert np.array_equal(study.read_label(tmp_path / "other.nii.gz"), labels)


# a dot at each end of the patient: what a radiologist expects where, as (slice, row, column) with -1 for the far end
@pytest.mark.parametrize(
    ("thick", "plane", "places"),
    [
        (2, "axial", {"R": (2, 2, 0), "L": (2, 2, -1), "A": (2, 0, 3), "P": (2, -1, 3), "S": (-1, 2, 3)}),
        (1, "coronal", {"R": (2, 2, 0), "L": (2, 2, -1), "S": (2, 0, 3), "I": (2, -1, 3), "P": (-1, 2, 3)}),
        (0, "sagittal", {"A": (3, 2, 0), "P": (3, 2, -1), "S": (3, 0, 2), "I": (3, -1, 2), "L": (-1, 2, 2)}),
    ],
)
def test_slices_stand_as_radiologists_view_them(tmp_path, thick, plane, places):
    ends = {"R": (0, +1), "L": (0, -1), "A": (1, +1), "P": (1, -1), "S": (2, +1), "I": (2, -1)}
    for end, at in places.items():
        voxels = np.zeros((7, 5, 5), np.uint8)  # RAS: the index grows to the right, the front, the head
        axis, sense = ends[end]
        index = [3, 2, 2]
        index[axis] = -1 if sense > 0 else 0
        voxels[tuple(index)] = 255
        spacing = np.ones(3)
        spacing[thick] = 5
        nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1])), tmp_path / "dot.nii.gz")
        study = read_study(tmp_path / "dot.nii.gz")
        assert study.plane == plane
        shown = study.images(range(len(study)))[:, 0]
        assert shown.sum() == 1 and shown[at] == 1, end


@pytest.mark.parametrize(
    ("size", "spacing", "axis"),
    [
        ((9, 9, 9), (1, 1, 1), 2),
        ((9, 9, 9), (1, 1.2, 1), 2),  # not thick enough
        ((9, 9, 9), (1, 1.3, 1), 1),
        ((9, 9, 9), (3, 1, 1), 0),
        ((9, 9, 9), (0.5, 3, 3), 2),  # two thick axes: axial
        ((9, 1, 9), (1, 1, 5), 1),  # one slice only
    ],
)
def test_thick_axis(size, spacing, axis):
    assert slice_axis(Grid.from_ras(size, np.diag([*spacing, 1]))) == axis


def test_frames_keep_their_order():
    backwards = Grid.from_ras((4, 4, 9), np.diag([1, 1, -1, 1]))
    assert cut(backwards).alignment.flips[0]
    assert not cut(backwards, frames=True).alignment.flips[0]


@st.composite
def grids(draw):
    """Any size up to 6, any spacing, any rotation."""
    size = draw(st.tuples(*[st.integers(2, 6)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.2, 9)] * 3))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = rotation(rng.normal(size=(3, 3))) * np.asarray(spacing)
    affine[:3, 3] = rng.normal(size=3) * 100
    return Grid(size, affine)


@settings(max_examples=60, deadline=None)
@given(grid=grids(), frames=st.booleans())
def test_cutting_can_be_undone(grid, frames):
    alignment = cut(grid, frames=frames).alignment
    voxels = np.arange(np.prod(grid.size)).reshape(grid.size)
    assert sorted(alignment.axes) == [0, 1, 2]
    assert np.array_equal(alignment.undo(alignment.apply(voxels)), voxels)


@settings(max_examples=60, deadline=None)
@given(grid=grids(), order=st.sampled_from(ALL_48))
def test_another_order_of_the_same_voxels_is_recognised(grid, order):
    axes, signs = order
    voxels = np.arange(np.prod(grid.size)).reshape(grid.size)
    stored = Alignment(axes, tuple(s < 0 for s in signs)).apply(voxels)
    affine = grid.affine.copy()
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[:3, new] = sign * grid.affine[:3, old]
        if sign < 0:
            affine[:3, 3] += (grid.size[old] - 1) * grid.affine[:3, old]
    found = grid.alignment(Grid(stored.shape, affine))
    assert found is not None
    assert np.array_equal(found.apply(stored), voxels)


@settings(max_examples=60, deadline=None)
@given(grid=grids(), axis=st.integers(0, 2), what=st.sampled_from(["shift", "spacing", "turn", "size"]))
def test_another_grid_is_not_recognised(grid, axis, what):
    affine, size = grid.affine.copy(), list(grid.size)
    if what == "shift":
        affine[axis, 3] += 0.5 * grid.spacing.min()
    elif what == "spacing":
        affine[:3, axis] *= 1.0 + 0.5 / (grid.size[axis] - 1)
        if grid.spacing[axis] * 0.5 <= 0.1 * grid.spacing.min():
            return
    elif what == "turn":
        affine[:3, :3] = rotation(np.array([[1, -0.5, 0], [0.5, 1, 0], [0, 0, 1.0]])) @ affine[:3, :3]
    else:
        size[axis] += 1
    assert grid.alignment(Grid(tuple(size), affine)) is None
