"""Corrected slices of the target join the supports, for the structures that they speak of."""

import numpy as np
import pytest

from proxyprompt.io.study import study_of
from proxyprompt.supports.corrections import with_corrections
from proxyprompt.supports.selection import Selection, SupportError


@pytest.fixture
def study():
    return study_of(np.random.default_rng(0).integers(0, 255, (5, 24, 32)).astype(np.uint8))


def mask(study, value=True):
    made = np.zeros(study.slice_shape, bool)
    made[4:9, 5:11] = value
    return made


def test_a_corrected_slice_is_a_support_of_what_it_speaks_of(study):
    selection = Selection.empty(("head", "symphysis"))
    both = {"head": mask(study), "symphysis": mask(study, False)}
    own = with_corrections(selection, study, {3: {"head": mask(study)}, 1: both})
    assert [s.index for s in own.slices] == [1, 3] and all(s.same_group for s in own.slices)
    assert own.valid.tolist() == [[True, True], [True, False]]
    assert own.held().tolist() == [[True, False], [True, False]]
    np.testing.assert_array_equal(own.images[1], study.image(3))
    np.testing.assert_array_equal(own.masks[1][0], mask(study))


def test_others_stay_first_and_structures_that_nobody_asks_for_are_left_out(study):
    one = with_corrections(Selection.empty(("head",)), study, {0: {"head": mask(study)}})
    two = with_corrections(one, study, {2: {"head": mask(study), "lens": mask(study)}, 4: {"lens": mask(study)}})
    assert [s.index for s in two.slices] == [0, 2] and two.structures == ("head",)
    assert with_corrections(one, study, {4: {"lens": mask(study)}}) is one


def test_what_does_not_fit_is_named(study):
    empty = Selection.empty(("head",))
    with pytest.raises(SupportError, match=r"slice 5 is corrected; .* has slices 0 to 4"):
        with_corrections(empty, study, {5: {"head": mask(study)}})
    with pytest.raises(SupportError, match="the corrected head on slice 2 is not as large"):
        with_corrections(empty, study, {2: {"head": mask(study)[1:]}})
