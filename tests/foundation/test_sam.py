"""SAM and MedSAM behind the interface, against the package's own predictor on the same random weights."""

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from proxyprompt.foundation.base import Features, FrameMemory, MemoryBank, Points, Prompts
from proxyprompt.foundation.sam import MedSam, Sam, build_sam_model

DIM, GRID, SIZE = 32, 64, 1024


@pytest.fixture(scope="module")
def foundation(tiny_sam):
    return Sam(name="tiny", model=tiny_sam)


@pytest.fixture(scope="module")
def photo():
    """(h, w, 3) uint8, wider than high, smooth enough that resizing filters agree."""
    rows, columns = np.mgrid[0:300, 0:400]
    waves = [np.sin(rows / 17 + shift) * np.cos(columns / (23 + 5 * shift)) for shift in range(3)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


@pytest.fixture(scope="module")
def predictor(tiny_sam, photo):
    made = SamPredictor(tiny_sam)
    made.set_image(photo)
    return made


@pytest.fixture(scope="module")
def encoded(foundation, predictor, photo):
    """The predictor's own network input, encoded by us: resizing is compared by itself."""
    resized = torch.from_numpy(predictor.transform.apply_image(photo)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return foundation.encode(foundation.model.preprocess(resized))


def rgb(photo):
    return torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255


def noise(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_preprocess_is_the_predictors_up_to_its_rounding(foundation, predictor, photo):
    images, geometry = foundation.preprocess(rgb(photo))
    resized = torch.from_numpy(predictor.transform.apply_image(photo)).permute(2, 0, 1)[None]
    expected = foundation.model.preprocess(resized)
    assert images.shape == (1, 3, SIZE, SIZE)
    assert geometry == ((300, 400), (768, 1024), SIZE)
    assert (images - expected).abs().max() * 57 < 2  # gray levels of 255
    assert not images[..., 768:, :].any()


def test_encode_equals_predictor(encoded, predictor):
    torch.testing.assert_close(encoded.embedding, predictor.features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("coords", "labels", "box"),
    [
        ([[120, 80]], [1], None),
        ([[120, 80], [300, 200], [10, 290]], [1, 0, 1], None),
        (None, None, [40, 60, 310, 250]),
        ([[120, 80], [30, 30]], [1, 0], [40, 60, 310, 250]),
    ],
    ids=["point", "points", "box", "points and box"],
)
def test_masks_equal_predictor(foundation, encoded, predictor, coords, labels, box):
    arrays = [None if x is None else np.array(x, dtype=np.float32) for x in (coords, box)]
    masks, iou, low = predictor.predict(
        point_coords=arrays[0],
        point_labels=None if labels is None else np.array(labels),
        box=arrays[1],
        multimask_output=False,
        return_logits=True,
    )
    scale = SIZE / 400
    points = None if coords is None else Points(torch.tensor([[coords]]) * scale, torch.tensor([[labels]]))
    boxes = None if box is None else torch.tensor([[box]]) * scale
    with torch.no_grad():
        decoded = foundation.decode(encoded, Prompts(points=points, boxes=boxes))
    torch.testing.assert_close(decoded.mask_logits[0], torch.from_numpy(low), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(decoded.iou[0], torch.from_numpy(iou), atol=1e-4, rtol=1e-4)
    _, geometry = foundation.preprocess(torch.zeros(1, 3, 300, 400))
    full = foundation.postprocess(decoded.mask_logits, geometry)
    torch.testing.assert_close(full[0], torch.from_numpy(masks), atol=1e-4, rtol=1e-4)


def test_mask_prompt_equals_predictor(foundation, encoded, predictor):
    prior = noise(1, 256, 256, seed=3, scale=4.0)
    _, _, low = predictor.predict(
        point_coords=np.array([[120.0, 80.0]]),
        point_labels=np.array([1]),
        mask_input=prior.numpy(),
        multimask_output=False,
    )
    points = Points(torch.tensor([[[[120.0, 80.0]]]]) * SIZE / 400, torch.tensor([[[1]]]))
    with torch.no_grad():
        decoded = foundation.decode(encoded, Prompts(points=points, masks=prior[None]))
    torch.testing.assert_close(decoded.mask_logits[0], torch.from_numpy(low), atol=1e-4, rtol=1e-4)


def everything(images, objects, tokens=5):
    """Prompts of every kind for B images and N objects."""
    return Prompts(
        proxy=noise(images, objects, tokens, DIM, seed=1),
        dense=noise(images, objects, DIM, GRID, GRID, seed=2),
        points=Points(
            noise(images, objects, 2, 2, seed=3).abs() * 300, torch.tensor([1, 0]).expand(images, objects, 2)
        ),
        boxes=noise(images, objects, 4, seed=4).abs() * 300,
        masks=noise(images, objects, 256, 256, seed=5),
    )


def pick(prompts, image, obj):
    cut = (slice(image, image + 1), slice(obj, obj + 1))
    return Prompts(
        proxy=prompts.proxy[cut],
        dense=prompts.dense[cut],
        points=Points(prompts.points.coords[cut], prompts.points.labels[cut]),
        boxes=prompts.boxes[cut],
        masks=prompts.masks[cut],
    )


def test_many_images_and_objects_equal_one_by_one(foundation):
    features = Features(noise(2, DIM, GRID, GRID, seed=9))
    prompts = everything(2, 3)
    with torch.no_grad():
        together = foundation.decode(features, prompts)
        assert together.mask_logits.shape == (2, 3, 256, 256)
        assert together.presence_logit.shape == together.iou.shape == (2, 3)
        assert together.object_pointer.shape == (2, 3, DIM)
        for image in range(2):
            for obj in range(3):
                alone = foundation.decode(features[image : image + 1], pick(prompts, image, obj))
                for name in ("mask_logits", "presence_logit", "iou", "object_pointer"):
                    mine = getattr(together, name)[image, obj]
                    torch.testing.assert_close(mine, getattr(alone, name)[0, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["proxy", "dense", "boxes", "masks"])
def test_every_prompt_works_alone_and_changes_the_mask(foundation, name):
    features = Features(noise(1, DIM, GRID, GRID, seed=9))
    one, other = everything(1, 1), everything(1, 2)
    with torch.no_grad():
        first = foundation.decode(features, Prompts(**{name: getattr(one, name)})).mask_logits
        second = foundation.decode(features, Prompts(**{name: getattr(other, name)[:, 1:] * 2})).mask_logits
    assert torch.isfinite(first).all()
    assert (first - second).abs().max() > 1e-4


def test_clicks_stand_beside_the_proxy(foundation):
    features = Features(noise(1, DIM, GRID, GRID, seed=9))
    both = everything(1, 1)
    with torch.no_grad():
        proxy = foundation.decode(features, Prompts(proxy=both.proxy)).mask_logits
        clicks = foundation.decode(features, Prompts(points=both.points)).mask_logits
        together = foundation.decode(features, Prompts(proxy=both.proxy, points=both.points)).mask_logits
    assert (together - proxy).abs().max() > 1e-4
    assert (together - clicks).abs().max() > 1e-4


def test_presence_starts_at_present_and_learns(fresh_sam):
    foundation = Sam(name="tiny", model=fresh_sam)
    features = Features(noise(1, DIM, GRID, GRID, seed=9))
    prompts = Prompts(proxy=noise(1, 2, 4, DIM, seed=1))
    before = foundation.decode(features, prompts).presence_logit
    assert torch.equal(before, torch.full((1, 2), 4.0))
    optimiser = torch.optim.SGD(foundation.presence_head.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        foundation.decode(features, prompts).presence_logit[0, 0].backward()
        optimiser.step()
    assert all(parameter.grad.any() for parameter in foundation.presence_head.parameters())
    after = foundation.decode(features, prompts).presence_logit
    assert after[0, 0] < before[0, 0]


def test_padding_marks_whole_positions_only(foundation):
    _, geometry = foundation.preprocess(torch.zeros(1, 3, 300, 400))
    mask = foundation.padding(geometry, 2)
    assert mask.shape == (2, GRID, GRID)
    assert not mask[:, :48].any() and mask[:, 48:].all()
    for shape in ((1024, 1000), (1000, 1024)):  # of the last two lines of positions one is half image, one all padding
        _, part = foundation.preprocess(torch.zeros(1, 3, *shape))
        assert foundation.padding(part, 1)[0].sum() == GRID
    _, almost = foundation.preprocess(torch.zeros(1, 3, 1024, 1015))
    assert foundation.padding(almost, 1) is None
    _, square = foundation.preprocess(torch.zeros(1, 3, 64, 64))
    assert foundation.padding(square, 1) is None


@pytest.mark.parametrize("family", [Sam, MedSam])
@pytest.mark.parametrize("shape", [(200, 120), (77, 301)])
def test_masks_go_there_and_back(tiny_sam, family, shape):
    foundation = family(name="tiny", model=tiny_sam)
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[..., shape[0] // 4 : shape[0] // 2, shape[1] // 3 : -shape[1] // 5] = True
    _, geometry = foundation.preprocess(torch.zeros(1, 3, *shape))
    laid = foundation.preprocess_masks(mask, geometry)
    assert laid.shape == (1, 1, SIZE, SIZE) and laid.min() >= 0 and laid.max() <= 1
    low = torch.nn.functional.interpolate(laid, scale_factor=0.25, mode="area") * 2 - 1
    back = foundation.postprocess(low, geometry) > 0
    assert back.shape == mask.shape
    intersection, union = (back & mask).sum(), (back | mask).sum()
    assert intersection / union > 0.95


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("family", [Sam, MedSam])
def test_the_thinnest_images_survive(tiny_sam, family, shape):
    foundation = family(name="tiny", model=tiny_sam)
    images, geometry = foundation.preprocess(torch.full((1, 3, *shape), 0.5))
    assert images.shape == (1, 3, SIZE, SIZE) and torch.isfinite(images).all()
    assert foundation.postprocess(torch.zeros(1, 1, 256, 256), geometry).shape == (1, 1, *shape)


def test_medsam_stretches_and_scales_each_image(tiny_sam):
    foundation = MedSam(name="tiny", model=tiny_sam)
    images = torch.rand(2, 3, 40, 90, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.1]).view(
        2, 1, 1, 1
    )
    laid, geometry = foundation.preprocess(images)
    assert geometry.scaled == (SIZE, SIZE)
    assert torch.equal(laid.amin((1, 2, 3)), torch.zeros(2))
    torch.testing.assert_close(laid.amax((1, 2, 3)), torch.ones(2))
    assert foundation.padding(geometry, 2) is None


def test_foundation_is_frozen_and_stays_in_eval(foundation):
    foundation.train()
    assert not any(module.training for module in foundation.modules())
    assert not any(parameter.requires_grad for parameter in foundation.model.parameters())
    assert (foundation.dim, foundation.grid, foundation.stride, foundation.image_size) == (DIM, GRID, 16, SIZE)


def test_wrong_input_is_refused_with_both_sizes(foundation, encoded):
    with pytest.raises(ValueError, match=r"3, 1024, 1024.*512"):
        foundation.encode(torch.zeros(1, 3, 512, 512))
    with pytest.raises(ValueError, match="expected \\(B, 3, h, w\\)"):
        foundation.preprocess(torch.zeros(1, 3, 4, 5, 6))
    with pytest.raises(ValueError, match="float in"):
        foundation.preprocess(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no prompt given"):
        foundation.decode(encoded, Prompts())
    with pytest.raises(ValueError, match="2 images, features for 1"):
        foundation.decode(encoded, Prompts(boxes=torch.zeros(2, 1, 4)))
    with pytest.raises(ValueError, match=r"proxy is \(1, 1, 4, 7\); expected \(1, 1, T, 32\)"):
        foundation.decode(encoded, Prompts(proxy=torch.zeros(1, 1, 4, 7)))
    with pytest.raises(ValueError, match=r"masks is \(1, 1, 64, 64\)"):
        foundation.decode(encoded, Prompts(masks=torch.zeros(1, 1, 64, 64)))
    with pytest.raises(ValueError, match=r"points.labels is \(1, 1, 2\); expected \(1, 1, 3\)"):
        foundation.decode(encoded, Prompts(points=Points(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 2))))
    frame = FrameMemory(torch.zeros(1, 1, 4, 2, 2), torch.zeros(1, 1, 4, 2, 2), torch.zeros(1, 1, DIM))
    with pytest.raises(ValueError, match="no memory"):
        foundation.decode(encoded, Prompts(boxes=torch.zeros(1, 1, 4)), MemoryBank((frame,), (0,)))
    with pytest.raises(ValueError, match="masks are"):
        foundation.preprocess_masks(torch.zeros(1, 1, 5, 5), foundation.preprocess(torch.zeros(1, 3, 8, 8))[1])
    with pytest.raises(ValueError, match="sam_vit_b, sam_vit_l"):
        build_sam_model("sam_vit_x")
