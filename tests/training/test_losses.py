"""The training loss against its formula."""

import torch

from proxyprompt.foundation.base import Decoded
from proxyprompt.training.losses import EPSILON, segmentation_loss, soft_dice


def decoded_of(logits, presence=None):
    batch, objects = logits.shape[:2]
    presence = torch.zeros(batch, objects) if presence is None else presence
    return Decoded(logits, presence, torch.zeros(batch, objects), torch.zeros(batch, objects, 4))


def test_soft_dice_is_equation_13():
    logits, mask = torch.randn(5, 7), (torch.rand(5, 7) > 0.5).float()
    p = logits.sigmoid()
    overlap = sum(p[i, j] * mask[i, j] for i in range(5) for j in range(7))
    torch.testing.assert_close(soft_dice(logits, mask), (2 * overlap + EPSILON) / (p.sum() + mask.sum() + EPSILON))


def test_a_perfect_mask_costs_nothing_and_a_wrong_one_much():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    right, wrong = (segmentation_loss(decoded_of((2 * m - 1) * 20), mask) for m in (mask, 1 - mask))
    assert right.parts["soft_dice"] < 1e-3 and right.parts["pixel"] < 1e-3 and right.dice.item() == 1.0
    assert wrong.parts["soft_dice"] > 0.9 and wrong.dice.item() == 0.0


def test_absent_structures_teach_presence_only():
    logits, presence = torch.randn(1, 2, 8, 8, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    masks = torch.zeros(1, 2, 32, 32)
    masks[0, 0, 8:20, 8:20] = 1
    loss = segmentation_loss(decoded_of(logits, presence), masks)
    loss.total.backward()
    assert logits.grad[0, 0].abs().max() > 0 and logits.grad[0, 1].abs().max() == 0
    assert presence.grad[0, 0] < 0 < presence.grad[0, 1]
    assert loss.dice.isnan().tolist() == [[False, True]]


def test_a_batch_without_any_structure_is_finite():
    loss = segmentation_loss(decoded_of(torch.randn(2, 1, 8, 8)), torch.zeros(2, 1, 32, 32))
    assert torch.isfinite(loss.total)


def test_pairs_that_were_not_asked_for_and_padding_do_not_count():
    logits, presence = torch.randn(2, 2, 8, 8, requires_grad=True), torch.zeros(2, 2, requires_grad=True)
    masks = torch.zeros(2, 2, 32, 32)
    masks[..., 8:20, 8:20] = 1
    asked = torch.tensor([[True, False], [True, True]])
    inside = torch.ones(2, 32, 32, dtype=torch.bool)
    inside[1, 24:] = False
    loss = segmentation_loss(decoded_of(logits, presence), masks, asked=asked, inside=inside)
    loss.total.backward()
    assert logits.grad[0, 1].abs().max() == 0 == presence.grad[0, 1] and loss.dice.isnan().tolist()[0] == [False, True]
    assert logits.grad[1, :, 7].abs().max() == 0 < logits.grad[0, 0, 7].abs().max()
    changed = logits.detach().clone()
    changed[0, 1], changed[1, :, 7] = 9.0, 9.0
    again = segmentation_loss(decoded_of(changed, presence), masks, asked=asked, inside=inside)
    torch.testing.assert_close(again.total, loss.total)
    assert segmentation_loss(decoded_of(logits, presence), masks, asked=torch.zeros_like(asked)).total.item() == 0
