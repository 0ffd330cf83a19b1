"""The baselines against loops, with a foundation whose features are the colours themselves."""

import pytest
import torch
from torch.nn import functional as F

from proxyprompt.evaluation.baselines import copy_support_mask, nearest_feature, prototype
from proxyprompt.foundation.base import Features, Foundation, Geometry

SIDE, STRIDE = 64, 16


class Colours(Foundation):
    """Embeds the mean colour of each 16 x 16 patch; images go top left into the square, the rest is black padding."""

    name, image_size, dim, stride = "colours", SIDE, 3, STRIDE

    def preprocess(self, images):
        height, width = images.shape[-2:]
        scale = SIDE / max(height, width)
        scaled = (round(height * scale), round(width * scale))
        laid = F.interpolate(images, size=scaled, mode="nearest-exact")
        return F.pad(laid, (0, SIDE - scaled[1], 0, SIDE - scaled[0])), Geometry((height, width), scaled, SIDE)

    def preprocess_masks(self, masks, geometry):
        return self.preprocess(masks)[0]

    def postprocess(self, mask_logits, geometry):
        whole = F.interpolate(mask_logits, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        cut = whole[..., : geometry.scaled[0], : geometry.scaled[1]]
        return F.interpolate(cut, size=geometry.original, mode="bilinear", align_corners=False)

    def padding(self, geometry, batch, device="cpu"):
        image = torch.zeros(SIDE, SIDE)
        image[: geometry.scaled[0], : geometry.scaled[1]] = 1
        return (F.avg_pool2d(image[None], STRIDE) == 0).expand(batch, -1, -1)

    def encode(self, images):
        return Features(F.avg_pool2d(images, STRIDE))


def patches(colours):
    """An image (3, 64, 64) of 4 x 4 patches from a (3, 4, 4) grid of colours."""
    return colours.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)


def test_copy_is_the_resized_mask_for_one_support():
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[0, 1:3, 2:5] = True
    got = copy_support_mask([mask], (8, 12))
    assert got.dtype == torch.bool and torch.equal(got, mask.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_copy_takes_the_majority_of_those_that_declare_the_object():
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(2, 5, 5, generator=generator) > 0.5 for _ in range(4)]
    valid = torch.tensor([[1, 1], [1, 0], [1, 0], [0, 0]]).bool()
    got = copy_support_mask(masks, (5, 5), valid=valid)
    for n in range(2):
        declaring = [m[n] for m, v in zip(masks, valid, strict=True) if v[n]]
        for row in range(5):
            for column in range(5):
                votes = sum(bool(m[row, column]) for m in declaring)
                assert bool(got[n, row, column]) == (votes > len(declaring) / 2)


def test_copy_of_an_undeclared_object_is_empty():
    got = copy_support_mask([torch.ones(2, 4, 4)], (4, 4), valid=torch.tensor([[True, False]]))
    assert got[0].all() and not got[1].any()


def test_nearest_feature_follows_the_look_not_the_place():
    red, green, blue = torch.eye(3)[:, :, None]
    support, target = green.repeat(1, 16).reshape(3, 4, 4), green.repeat(1, 16).reshape(3, 4, 4)
    support[:, 0, 0:2], support[:, 3, 3:] = red, blue
    target[:, 2:4, 1:3], target[:, 0, 3:] = red[..., None], 0.5 * blue
    masks = torch.zeros(2, SIDE, SIDE)
    masks[0, :16, :32], masks[1, 48:, 48:] = 1, 1
    got = nearest_feature(Colours(), patches(target)[None], [patches(support)], [masks])
    assert got.shape == (1, 2, SIDE, SIDE) and got.dtype == torch.bool
    middles = got[..., 8::16, 8::16]
    assert torch.equal(middles[0, 0], target[0] > 0)
    assert torch.equal(middles[0, 1], target[2] > 0)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_nearest_feature_equals_a_loop_over_positions(neighbours):
    generator = torch.Generator().manual_seed(1)
    grids = [torch.rand(3, 4, 4, generator=generator) for _ in range(2)]
    targets = torch.stack([torch.rand(3, 4, 4, generator=generator) for _ in range(2)])
    shares = [(torch.rand(2, 4, 4, generator=generator) > 0.5).float() for _ in range(2)]
    valid = torch.tensor([[True, False], [True, True]])
    got = nearest_feature(
        Colours(),
        torch.stack([patches(t) for t in targets]),
        [patches(g) for g in grids],
        [patches(s) for s in shares],
        valid=valid,
        neighbours=neighbours,
    )
    for b in range(2):
        for n in range(2):
            label = torch.zeros(4, 4)
            for row in range(4):
                for column in range(4):
                    query = targets[b, :, row, column]
                    known = [
                        (float(torch.cosine_similarity(query, grid[:, r, c], dim=0)), float(share[n, r, c]))
                        for grid, share, declared in zip(grids, shares, valid, strict=True)
                        for r in range(4)
                        for c in range(4)
                        if declared[n]
                    ]
                    best = sorted(known, reverse=True)[:neighbours]
                    label[row, column] = sum(share for _, share in best) / neighbours
            fine = F.interpolate(label[None, None], size=(16, 16), mode="bilinear", align_corners=False)
            whole = F.interpolate(fine - 0.5, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
            assert torch.equal(got[b, n], whole[0, 0] > 0)


def test_nearest_feature_takes_supports_of_other_sizes_and_never_padding():
    bright = torch.full((3, 64, 64), 0.8)
    low = torch.full((3, 16, 64), 0.8)
    got = nearest_feature(
        Colours(), bright[None], [low, low[:, :, :32]], [torch.ones(1, 16, 64), torch.ones(1, 16, 32)]
    )
    assert got.all()
    black = torch.zeros(1, 3, 32, 64)
    assert nearest_feature(Colours(), black, [low], [torch.ones(1, 16, 64)]).shape == (1, 1, 32, 64)
    assert nearest_feature(Colours(), black, [low], [torch.ones(1, 16, 64)]).all()


def test_nearest_feature_of_an_undeclared_object_is_empty():
    image = torch.rand(3, 64, 64)
    valid = torch.tensor([[False]])
    assert not nearest_feature(Colours(), image[None], [image], [torch.ones(1, 64, 64)], valid=valid).any()


def test_prototype_equals_a_loop_over_positions():
    generator = torch.Generator().manual_seed(2)
    grids = [torch.rand(3, 4, 4, generator=generator) for _ in range(3)]
    target = torch.rand(3, 4, 4, generator=generator)
    shares = [(torch.rand(2, 4, 4, generator=generator) > 0.5).float() for _ in range(3)]
    valid = torch.tensor([[True, False], [True, True], [True, True]])
    got = prototype(
        Colours(), patches(target)[None], [patches(g) for g in grids], [patches(s) for s in shares], valid=valid
    )
    for n in range(2):
        looks = {True: torch.zeros(3), False: torch.zeros(3)}
        for grid, share, declared in zip(grids, shares, valid[:, n], strict=True):
            for row in range(4):
                for column in range(4):
                    if declared:
                        looks[bool(share[n, row, column])] += F.normalize(grid[:, row, column], dim=0)
        nearer = torch.cosine_similarity(target, looks[True][:, None, None], dim=0)
        nearer = nearer - torch.cosine_similarity(target, looks[False][:, None, None], dim=0)
        fine = F.interpolate(nearer[None, None], size=(16, 16), mode="bilinear", align_corners=False)
        whole = F.interpolate(fine, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0] > 0
        assert (got[0, n] == whole).float().mean() > 0.999 and whole.any() and not whole.all()


def test_prototype_of_an_undeclared_object_is_empty_and_padding_has_no_look():
    red, green = torch.eye(3)[0][:, None, None], torch.eye(3)[1][:, None, None]
    image = torch.cat([red.expand(3, 16, 64), green.expand(3, 16, 64)], dim=1)
    masks = torch.zeros(2, 32, 64)
    masks[:, :16] = 1
    valid = torch.tensor([[True, False]])
    (got,) = prototype(Colours(), image[None], [image], [masks], valid=valid)
    assert torch.equal(got[0], masks[0].bool()) and not got[1].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: copy_support_mask([], (4, 4)), "no support"),
        (lambda: copy_support_mask([torch.ones(1, 4, 4), torch.ones(2, 4, 4)], (4, 4)), "one N for all"),
        (lambda: copy_support_mask([torch.ones(1, 4, 4)], (4, 4), valid=torch.ones(2, 1)), r"\(2, 1\).*\(1, 1\)"),
        (lambda: nearest_feature(Colours(), torch.ones(1, 3, 64, 64), [], [torch.ones(1, 4, 4)]), "0 support images"),
        (
            lambda: nearest_feature(
                Colours(), torch.ones(1, 3, 64, 64), [torch.ones(3, 4, 4)], [torch.ones(1, 4, 4)], neighbours=0
            ),
            "at least 1",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
