"""Supports and targets: apart by group, repeatable, nested over K."""

import numpy as np
import pytest
from labelled_folders import write_plain_images, write_volumes

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes, interleave
from proxyprompt.io.errors import StudyError


@pytest.fixture(scope="module")
def plain_images(tmp_path_factory):
    return read_collection(write_plain_images(tmp_path_factory.mktemp("a") / "rings", groups=6, each=3))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return read_collection(write_volumes(tmp_path_factory.mktemp("b") / "stacks", count=5))


def group_of(collection, selection):
    groups = {case.id: case.group for case in collection.cases}
    return [groups[chosen.study_id] for chosen in selection.slices]


def test_supports_and_targets_share_no_group(plain_images):
    for split_seed in range(5):
        episodes = EvalEpisodes(plain_images, EpisodeConfig(split_seed=split_seed))
        targets = {case.group for case in episodes.targets_of("label_1")}
        drawn = {g for seed in range(4) for g in group_of(plain_images, episodes.supports("label_1", 6, seed))}
        assert targets and drawn and not targets & drawn
        assert len(targets | drawn) == 6


def test_draws_repeat_differ_by_seed_and_grow(plain_images):
    one, other = (EvalEpisodes(plain_images, EpisodeConfig()) for _ in range(2))
    names = [[s.study_id for s in one.supports("label_1", 6, seed).slices] for seed in range(3)]
    assert names == [[s.study_id for s in other.supports("label_1", 6, seed).slices] for seed in range(3)]
    assert len({tuple(n) for n in names}) > 1
    assert [s.study_id for s in one.supports("label_1", 2, 0).slices] == names[0][:2]
    assert all(len(set(n)) == 6 for n in names)


def test_groups_come_in_turn(plain_images):
    episodes = EvalEpisodes(plain_images, EpisodeConfig(supports_share=0.5))
    groups = group_of(plain_images, episodes.supports("label_1", 6, 0))
    assert len(set(groups[:3])) == 3 and sorted(groups[:3]) == sorted(groups[3:])


def test_targets_are_limited_over_groups_and_do_not_depend_on_seeds(plain_images):
    every = EvalEpisodes(plain_images, EpisodeConfig()).targets
    some = EvalEpisodes(plain_images, EpisodeConfig(limit_targets=4)).targets
    assert len(every) == 12 and len(some) == 4 and set(some) <= set(every)
    assert len({case.group for case in some}) == 4
    assert [case.id for case in some] == sorted(case.id for case in some)


def test_supports_hold_the_structure_on_their_slice(volumes):
    episodes = EvalEpisodes(volumes, EpisodeConfig())
    selection = episodes.supports("ring", 8, 0)
    assert [mask.shape for mask in selection.masks] == [(1, 44, 40)] * 8 or all(m.ndim == 3 for m in selection.masks)
    assert all(mask.any() for mask in selection.masks) and selection.valid.all()
    assert all(chosen.index not in (0, 5) for chosen in selection.slices)
    assert len({(s.study_id, s.index) for s in selection.slices}) == 8
    assert len({s.study_id for s in selection.slices[:2]}) == 2
    for chosen, image, mask in zip(selection.slices, selection.images, selection.masks, strict=True):
        case = next(c for c in volumes.cases if c.id == chosen.study_id)
        study, labels = volumes.open(case)
        assert np.array_equal(image, study.image(chosen.index)) and chosen.image_key == study.slice_hash(chosen.index)
        assert np.array_equal(mask[0], labels[chosen.index] > 0)


def test_a_slice_with_a_sliver_supports_nothing(tmp_path):
    folder = write_volumes(tmp_path / "x", count=2)
    import nibabel as nib

    for path in (folder / "labelsTr").iterdir():
        image = nib.load(path)
        labels = np.asarray(image.dataobj).copy()
        labels[3, 3, 0] = 1
        nib.save(nib.Nifti1Image(labels, image.affine), path)
    episodes = EvalEpisodes(read_collection(folder), EpisodeConfig())
    indices = {s.index for seed in range(20) for s in episodes.supports("ring", 4, seed).slices}
    assert indices == {1, 2, 3, 4}


def test_target_slices_are_spread_evenly_with_their_truth(volumes):
    case = EvalEpisodes(volumes, EpisodeConfig()).targets[0]
    study, labels = volumes.open(case)
    slices, truth = EvalEpisodes(volumes, EpisodeConfig(target_slices=3)).target(case, "core")
    assert slices.indices == [0, 2, 5] and np.array_equal(truth, labels[[0, 2, 5]] == 2)
    assert np.array_equal(slices.images([1]), study.images([2])) and slices.slice_hash(2) == study.slice_hash(5)
    assert len(EvalEpisodes(volumes, EpisodeConfig(target_slices=99)).target(case, "core")[0]) == 6


def test_what_cannot_be_drawn_is_told(plain_images, tmp_path):
    episodes = EvalEpisodes(plain_images, EpisodeConfig())
    with pytest.raises(StudyError, match=r"rings: the support pool shows 'label_2' on 6 slices, 7 are asked for"):
        episodes.supports("label_2", 7, 0)
    with pytest.raises(StudyError, match="one group"):
        EvalEpisodes(read_collection(write_plain_images(tmp_path / "one", groups=1, each=3)), EpisodeConfig())
    for wrong in ({"supports_share": 1.0}, {"limit_targets": 0}, {"target_slices": 0}):
        with pytest.raises(ValueError, match="expected"):
            EpisodeConfig(**wrong)


def test_interleave():
    assert interleave([[1, 2, 3], [], [4], [5, 6]]) == [1, 4, 5, 2, 6, 3]
