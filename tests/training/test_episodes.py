"""What is drawn: supports of other groups that show what is asked for, the same for the same step, errors that help."""

import numpy as np
import pytest
import torch

from proxyprompt.foundation.atto import build_atto
from proxyprompt.io.cache import content_key
from proxyprompt.training.cases import Case, LabelledSlice
from proxyprompt.training.episodes import EpisodeSource
from proxyprompt.training.errors import TrainingError

SIDE = 64


@pytest.fixture(scope="module")
def foundation():
    return build_atto({"dim": 32, "blocks": 1, "memory_layers": 1, "feed_forward": 32}, image_size=SIDE)


def slice_of(group, *painted, study=None, index=0, declared=(True, True)):
    """A slice with disc (0) and square (1) where ``painted`` names them; its brightness tells which it is."""
    study = study or group
    case = Case(study, group, {}, content_key(study), lambda: None)
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    for n in painted:
        masks[n, 10 + 20 * n : 30 + 20 * n, 10:30] = 255
    shown = torch.tensor([n in painted for n in range(2)])
    image = torch.full((3, SIDE, SIDE), 0.3).half() + masks.amax(0).half() / 500
    return LabelledSlice(case, index, image, masks, torch.tensor(declared), shown)


def source(slices, **options):
    return EpisodeSource(slices, ["disc", "square"], **options)


def groups_of(source, slices, episodes):
    """The groups of the samples, by their content."""
    known = {s.case.content: s.case.group for s in slices}
    return [known[p.key[0]] for p in episodes.samples]


def test_supports_are_of_other_groups_and_one_of_them_shows_what_is_asked_for(foundation):
    slices = [
        slice_of(g, *p, study=f"{g}{i}")
        for i, (g, p) in enumerate(zip("aabbc", [(0, 1), (0,), (1,), (0, 1), (0,)], strict=True))
    ]
    drawn = source(slices, members=5, supports=3, objects=2, augmented=False)
    kinds = set()
    for step in range(40):
        e = drawn.draw(step, foundation)
        groups = groups_of(drawn, slices, e)
        held = torch.stack([p.masks.flatten(1).amax(1) > 0.5 for p in e.samples])
        for target, chosen in enumerate(e.supports):
            supports = chosen.nonzero().flatten().tolist()
            assert 1 <= len(supports) <= 3 and groups[target] not in {groups[s] for s in supports}
            assert torch.equal(e.asked[target], held[supports].any(0))
        assert e.asked[0, 0] and held[:2, 0].all(), "the first two show the first structure"
        kinds.add((e.asked.shape[1], bool((~held & e.asked).any()), int(e.supports.sum(1).max())))
    assert (
        {k[0] for k in kinds} == {1, 2} and {k[1] for k in kinds} == {True, False} and {k[2] for k in kinds} == {2, 3}
    )


def test_a_structure_that_a_study_does_not_declare_is_not_asked_of_it(foundation):
    slices = [slice_of("a", 0), slice_of("b", 0), slice_of("c", 1), slice_of("d", 1, declared=(False, True))]
    drawn = source(slices, members=4, objects=2, augmented=False)
    unasked = 0
    for step in range(20):
        e = drawn.draw(step, foundation)
        for target, group in enumerate(groups_of(drawn, slices, e)):
            if group == "d":
                declared = e.declared[target]
                assert not (e.asked[target] & ~declared).any()
                unasked += int((~declared).sum())
    assert unasked


def test_the_step_decides_so_that_an_interrupted_training_draws_the_same(foundation):
    slices = [slice_of(g, 0, 1) for g in "abcdef"]
    one, other = source(slices, seed=3), source(slices, seed=3)
    for step in (7, 2):
        a, b = one.draw(step, foundation), other.draw(step, foundation)
        assert torch.equal(a.supports, b.supports)
        for p, q in zip(a.samples, b.samples, strict=True):
            assert p.key == q.key and torch.equal(p.image, q.image) and torch.equal(p.masks, q.masks)
    keys = {tuple(p.key for p in one.draw(step, foundation, rank=rank).samples) for step in (0, 1) for rank in (0, 1)}
    assert len(keys) == 4


def test_views_repeat_so_that_what_is_frozen_is_computed_once(foundation):
    drawn = source([slice_of(g, 0) for g in "abc"], members=3, objects=1, views=2)
    seen = {}
    for step in range(20):
        for p in drawn.draw(step, foundation).samples:
            assert torch.equal(seen.setdefault(p.key, p.image), p.image)
    assert len(seen) == 6


def test_all_others_support_when_there_is_no_limit(foundation):
    e = source([slice_of(g, 0) for g in "abcd"], members=4, supports=None, augmented=False).draw(0, foundation)
    assert torch.equal(e.supports, ~torch.eye(4, dtype=torch.bool))


def test_one_study_supports_itself_in_another_variation_and_says_so(foundation):
    drawn = source([slice_of("a", 0)], members=3, augmented=False)
    assert "only one labelled study to train on (a)" in drawn.warnings[0]
    e = drawn.draw(0, foundation)
    assert e.asked[:, 0].any() and not torch.equal(e.samples[0].image, e.samples[1].image)


def test_studies_of_one_group_support_each_other(foundation):
    slices = [slice_of("a", 0, study=f"s{n}") for n in range(3)]
    drawn = source(slices, members=3, augmented=False)
    e = drawn.draw(0, foundation)
    assert len({p.key[0] for p in e.samples}) == 3 and not drawn.warnings


def test_what_cannot_be_trained_is_said():
    with pytest.raises(TrainingError, match="no labelled study"):
        source([])
    with pytest.raises(TrainingError, match="all masks of the 2 labelled studies to train on are empty"):
        source([slice_of("a"), slice_of("b")])
    with pytest.raises(TrainingError, match="none of disc, square is labelled in two of the 2 patients or cases"):
        source([slice_of("a", 0), slice_of("b", 1)])
    drawn = source([slice_of("a", 0, 1), slice_of("b", 0)])
    assert drawn.structures == [0] and "'square' is labelled in one of the patients or cases only" in drawn.warnings[0]


def test_padding_is_known(foundation):
    from tiny_sam import build_tiny_sam

    from proxyprompt.foundation.sam import Sam
    from proxyprompt.training.episodes import prepare

    sam = Sam(name="tiny", model=build_tiny_sam())
    sample = prepare(torch.rand(3, 40, 80), torch.ones(1, 40, 80), sam, key=("a", 0, 0))
    assert sample.image.shape == (3, 1024, 1024) and sample.padding.shape == (64, 64)
    assert sample.inside[:512].all() and not sample.inside[512:].any()
    assert np.isclose(sample.masks.mean(), 0.5)
    assert prepare(torch.rand(3, 40, 80), torch.ones(1, 40, 80), foundation, key=("a", 0, 0)).padding is None
