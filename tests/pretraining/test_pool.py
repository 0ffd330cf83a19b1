"""Groups: what is in them, that they survive on disk."""

import pytest
import torch

from proxyprompt.pretraining.augmentation import augment_group, zoom
from proxyprompt.pretraining.pool import LEAST_PIXELS, GroupPool, build_maker, choose_members, kind_of
from proxyprompt.pretraining.pseudo_structures import LEAST, MOST, pseudo_structure
from proxyprompt.pretraining.tasks import read_task

SIZE = 64


@pytest.mark.parametrize("kind", ["real", "views", "drawn"])
def test_every_kind_of_group_shows_each_structure_twice(tasks, config, kind):
    torch.manual_seed(1)
    group = build_maker(sorted(tasks.iterdir()), config).make(kind)
    assert group.images.shape == (5, 3, SIZE, SIZE) and group.images.dtype == torch.uint8
    assert [tuple(x.shape[1:]) for x in group.maps] == [
        (16, 32, 32),
        (24, 16, 16),
        (40, 8, 8),
        (112, 4, 4),
        (320, 2, 2),
    ]
    areas = group.masks.flatten(2).sum(-1)
    assert ((areas >= LEAST_PIXELS).sum(0) >= 2).all() and 1 <= group.masks.shape[1] <= 3
    assert group.clip == (kind == "views")


def test_a_group_is_read_as_it_was_written_and_a_broken_file_is_left_out(pool, tmp_path, caplog):
    copy = GroupPool(tmp_path)
    group = pool.read(pool.files()[0])
    copy.write(0, "real", group)
    (tmp_path / "real-00001.safetensors").write_bytes(b"half a file")
    again = copy.draw(2, torch.Generator().manual_seed(0))
    assert len(again) == 1 and "cannot be read" in caplog.text
    assert torch.equal(again[0].images, group.images) and torch.equal(again[0].masks, group.masks)
    assert all(torch.equal(a, b) for a, b in zip(again[0].maps, group.maps, strict=True))
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []


def test_members_come_from_as_many_patients_as_there_are(tasks):
    task = read_task(tasks / "a", 32)
    for seed in range(10):
        torch.manual_seed(seed)
        three = choose_members(task, 3, one=False).tolist()
        assert {task.groups[i] for i in three} == {"p0", "p1", "p2"}
        assert len(set(choose_members(task, 4, one=True).tolist())) == 1
        assert set(choose_members(task, 9, one=False).tolist()) == set(range(6))


def test_labels_move_with_their_images():
    """A bright square and its label: where the label goes, the image stays bright."""
    images = torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)
    labels = torch.zeros(4, 1, SIZE, SIZE, dtype=torch.uint8)
    images[..., 20:44, 20:44], labels[..., 20:44, 20:44] = 200, 1
    for seed in range(6):
        torch.manual_seed(seed)
        zoomed, cut = zoom(images, labels, labels[:, 0].bool())
        assert cut.float().mean() > labels.float().mean()
        for a, b in ((images, labels), (zoomed, cut)):
            moved, marks = augment_group(a, b)
            inside, outside = marks[:, 0] == 1, marks[:, 0] == 0
            gray = moved.float().mean(1)
            if outside.any():
                assert (gray[inside].mean() - gray[outside].mean()).abs() > 40, seed


def test_made_structures_look_alike_in_all_members(tasks, config):
    torch.manual_seed(3)
    maker = build_maker(sorted(tasks.iterdir()), config)
    made = []
    for _ in range(12):
        group = maker.make("real")
        masks = pseudo_structure(group.images, group.maps, SIZE // 2)
        if masks is not None:
            shares = masks.float().mean((-2, -1))
            assert ((shares == 0) | ((shares > LEAST) & (shares < MOST))).all() and (shares > 0).sum() >= 2
            made.append(masks)
    assert len(made) >= 3


def test_kinds_have_their_shares_of_the_slots(config):
    kinds = [kind_of(slot, config.pool) for slot in range(100)]
    for kind, share in config.pool.kinds.items():
        assert abs(kinds.count(kind) - 100 * share) <= 2


def test_a_kind_can_be_asked_for(pool):
    random = torch.Generator().manual_seed(0)
    assert [group.clip for group in pool.draw(3, random, "views")] == [True]
    assert len(pool.draw(9, random, "none of these")) == 4
