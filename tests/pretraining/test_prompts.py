"""What prompts are drawn from masks."""

import torch

from proxyprompt.pretraining.prompts import boxes_of, draw_clicks, draw_correction, jitter_boxes, sloppy


def test_clicks_lie_where_they_say():
    masks = torch.zeros(3, 2, 32, 32)
    masks[:, 0, 5:9, 20:30] = 1
    for seed in range(5):
        coords, labels = draw_clicks(masks, torch.Generator().manual_seed(seed))
        x, y = coords[..., 0].long(), coords[..., 1].long()
        hit = masks[torch.arange(3)[:, None, None], torch.arange(2)[None, :, None], y, x]
        assert (hit == labels).all()
        assert (labels[:, 0, 0] == 1).all() and (labels[:, 1] == 0).all()


def test_boxes_are_the_brute_force_ones():
    masks = (torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.97).float()
    boxes = boxes_of(masks)
    for b in range(4):
        for n in range(3):
            rows, columns = masks[b, n].nonzero(as_tuple=True)
            expected = [0, 0, 15, 15]
            if len(rows):
                expected = [columns.min(), rows.min(), columns.max(), rows.max()]
            assert boxes[b, n].tolist() == [float(v) for v in expected]


def test_a_correction_lies_in_the_larger_error():
    masks = torch.zeros(1, 3, 32, 32)
    masks[0, :, 8:24, 8:24] = 1
    logits = torch.full((1, 3, 8, 8), -1.0)  # nothing drawn: the whole structure is missed
    logits[0, 1] = 1.0  # everything drawn: the surroundings are the larger error
    logits[0, 2, 2:6, 2:6] = 1.0  # all but right
    for seed in range(5):
        points = draw_correction(logits, masks, torch.Generator().manual_seed(seed))
        x, y = points.coords[0, :, 0].long().unbind(-1)
        assert points.labels[0, :2, 0].tolist() == [1, 0]
        assert masks[0, 0, y[0], x[0]] == 1 and masks[0, 1, y[1], x[1]] == 0
        assert masks[0, 2, y[2], x[2]] == points.labels[0, 2, 0]


def test_jittered_boxes_stay_near_and_within():
    boxes = torch.tensor([[[0.0, 0.0, 63.0, 63.0], [20.0, 20.0, 40.0, 30.0]]])
    moved = jitter_boxes(boxes, 64, torch.Generator().manual_seed(0))
    assert moved.min() >= 0 and moved.max() <= 63 and not torch.equal(moved, boxes)
    assert (moved[0, 1] - boxes[0, 1]).abs().max() < 10


def test_sloppy_masks_are_larger_or_smaller_never_empty():
    masks = torch.zeros(40, 2, 64, 64)
    masks[:, 0, 20:40, 20:40] = 1
    masks[:, 1, 30, 30] = 1
    drawn = sloppy(masks, 0.9, torch.Generator().manual_seed(0))
    areas = drawn.sum((-2, -1))
    assert (areas[:, 0] > 400).any() and (areas[:, 0] < 400).any() and (areas[:, 0] == 400).any()
    assert areas.min() >= 1
    assert torch.equal(sloppy(masks, 0.0, torch.Generator().manual_seed(0)), masks)
