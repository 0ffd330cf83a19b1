"""The mask refiner of ``atto``: nothing at step 0, then boundaries where the image has them."""

import pytest
import torch
import torch.nn.functional as F

from lib.foundation.base import Points, Prompts
from lib.foundation.refiner import CLICK_RADIUS, MaskRefiner, draw_marks
from lib.foundation.sam2 import Sam2, build_atto, build_sam2_model

NARROW = {"dim": 32, "mem_dim": 16, "widths": [8, 8, 16, 16], "memory_layers": 1, "memory_feed_forward": 32}


def test_until_trained_it_only_interpolates_between_the_positions_of_the_grid():
    torch.manual_seed(0)
    refiner = MaskRefiner(masks=4, fine=4, middle=8, dim=16, width=8)
    cells = torch.randn(3, 4, 4, 4)
    blocks = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)
    fine, middle = torch.randn(3, 4, 16, 16), torch.randn(3, 8, 8, 8)
    prior, marks = torch.randn(3, 1, 32, 32), torch.zeros(3, 3, 16, 16)
    assert not refiner.dense(marks + 1).any()
    smooth = F.interpolate(cells[:, :1], (32, 32), mode="bilinear", align_corners=False)
    entered = refiner.enter_maps(fine, middle)
    drawn, evidence = refiner(blocks, entered, marks, prior)
    torch.testing.assert_close(drawn, smooth)
    assert evidence.shape == (3, 1) and not evidence.any()
    torch.nn.init.normal_(refiner.leave.weight)
    torch.nn.init.normal_(refiner.evidence.weight)
    refined, evidence = refiner(blocks, entered, marks, prior)
    assert refined.shape == smooth.shape and not torch.allclose(refined, smooth) and evidence.all()
    assert not torch.allclose(refined, refiner(blocks, entered, marks)[0])
    torch.testing.assert_close(refiner(blocks, entered, marks)[0], refiner(blocks, entered, marks, 0 * prior)[0])


def test_what_it_sees_of_the_image_beforehand_is_one_convolution_over_everything():
    torch.manual_seed(0)
    refiner = MaskRefiner(masks=4, fine=4, middle=8, dim=16, width=8)
    guesses, fine, middle = torch.randn(2, 11, 16, 16), torch.randn(2, 4, 16, 16), torch.randn(2, 8, 8, 8)
    enlarged = F.interpolate(middle, (16, 16), mode="bilinear", align_corners=False)
    whole = refiner.enter(torch.cat([guesses, fine, enlarged], 1))
    found = refiner.enter_maps(fine, middle) + refiner.enter_guesses(guesses)
    torch.testing.assert_close(found, whole)


def test_it_learns_to_move_a_coarse_mask_to_the_edges_of_the_image():
    torch.manual_seed(0)
    refiner = MaskRefiner(masks=1, fine=2, middle=2, dim=16, width=8)
    optimiser = torch.optim.Adam(refiner.parameters(), 1e-2)

    def scene(seed):
        random = torch.Generator().manual_seed(seed)
        y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        centre = 20 + 24 * torch.rand(8, 2, 1, 1, generator=random)
        disc = (((x - centre[:, :1, 0]) ** 2 + (y - centre[:, 1:, 0]) ** 2) < 144).float()[:, None]
        coarse = F.interpolate(F.avg_pool2d(disc, 8), scale_factor=4) * 8 - 4
        fine = F.pixel_unshuffle(disc, 2)[:, ::3] + 0.1 * torch.randn(8, 2, 32, 32, generator=random)
        return coarse, fine, F.avg_pool2d(fine, 2), disc

    def error(seed):
        coarse, fine, middle, disc = scene(seed)
        refined, _ = refiner(coarse, refiner.enter_maps(fine, middle), torch.zeros(8, 3, 32, 32))
        return F.binary_cross_entropy_with_logits(refined, disc)

    with torch.no_grad():
        before = error(1000).item()
    for step in range(60):
        optimiser.zero_grad()
        error(step).backward()
        optimiser.step()
    with torch.no_grad():
        assert error(1000).item() < 0.5 * before


def test_atto_has_one_official_models_have_none():
    torch.manual_seed(0)
    plain, refined = build_atto({**NARROW, "refiner": 0}, 64), build_atto(NARROW, 64)
    assert plain.refiner is None and refined.refiner is not None
    missing, unexpected = refined.load_state_dict(plain.state_dict(), strict=False)
    assert all(name.startswith("refiner.") for name in missing) and not unexpected
    point = Points(torch.tensor([[[[20.0, 20.0]]]]), torch.ones(1, 1, 1, dtype=torch.int32))
    with torch.no_grad():
        features = plain.encode(torch.rand(1, 3, 64, 64))
        prompts = Prompts(proxy=torch.randn(1, 1, 4, 32), points=point)
        drawn, smooth = plain.decode(features, prompts), refined.decode(features, prompts)
    coarse = F.interpolate(F.avg_pool2d(drawn.mask_logits[0], 4)[None], (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(smooth.mask_logits, coarse)
    torch.testing.assert_close(smooth.presence_logit, drawn.presence_logit)


@pytest.mark.parametrize("name", ["sam2.1_hiera_tiny"])
def test_official_models_stay_as_they_are(name):
    assert Sam2(name=name, model=build_sam2_model(name, 128), image_size=128).refiner is None


def test_marks_lie_where_clicks_and_boxes_do():
    coords = torch.tensor(
        [[[20.0, 40.0], [50.0, 8.0], [8.0, 16.0], [30.0, 60.0]], [[3.0, 3.0], [9.0, 9.0], [0.0, 0.0], [0.0, 0.0]]]
    )
    labels = torch.tensor([[1, 0, 2, 3], [1, 1, -1, -1]])
    marks = draw_marks(coords, labels, 64)
    assert marks.shape == (2, 3, 16, 16)
    for row in range(16):
        for column in range(16):
            x, y = 4 * column + 1.5, 4 * row + 1.5
            inside = ((x - 20) ** 2 + (y - 40) ** 2) ** 0.5 < CLICK_RADIUS
            outside = ((x - 50) ** 2 + (y - 8) ** 2) ** 0.5 < CLICK_RADIUS
            boxed = 8 <= x <= 30 and 16 <= y <= 60
            assert marks[0, :, row, column].tolist() == [inside, outside, boxed]
    assert marks[1, 0].any() and not marks[1, 1:].any()
