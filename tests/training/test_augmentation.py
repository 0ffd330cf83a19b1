"""Variations: the same deformation for image and mask, gray stays gray, the seed decides."""

import torch

from proxyprompt.training.augmentation import augment


def test_image_and_mask_move_together():
    mask = torch.zeros(1, 64, 64)
    mask[:, 20:44, 16:40] = 1
    image = (0.2 + 0.7 * mask).expand(3, -1, -1)
    moved = 0
    for seed in range(12):
        changed, warped = augment(image, mask, seed=seed)
        inside, outside = changed[0][warped[0] > 0.95], changed[0][warped[0] < 0.05]
        assert inside.mean() > outside.mean() + 0.2
        overlap = ((warped > 0.5) & (mask > 0.5)).sum() / ((warped > 0.5) | (mask > 0.5)).sum()
        assert overlap > 0.3
        moved += bool(overlap < 0.95)
        assert torch.equal(changed[0], changed[1]) and torch.equal(changed[0], changed[2])
        assert changed.min() >= 0 and changed.max() <= 1 and warped.min() >= 0 and warped.max() <= 1
    assert moved >= 9


def test_the_seed_decides():
    image, mask = torch.rand(3, 32, 48), (torch.rand(2, 32, 48) > 0.5).float()
    one, same, other = (augment(image, mask, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])
    assert one[0].shape == image.shape and one[1].shape == mask.shape
