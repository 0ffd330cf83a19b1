"""Without a proxy, SAM 2 behind the interface gives the masks of the package's own image predictor."""

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from tiny_sam2 import build_tiny_sam2

from proxyprompt.foundation.base import MemoryBank, Points, Prompts
from proxyprompt.foundation.sam2 import Sam2, build_sam2_model

PROMPTS = {
    "point": ([[120, 80]], [1], None),
    "points": ([[120, 80], [300, 200], [10, 290]], [1, 0, 1], None),
    "box": (None, None, [40, 60, 310, 250]),
    "points and box": ([[120, 80], [30, 30]], [1, 0], [40, 60, 310, 250]),
}


@pytest.fixture(scope="module")
def photo():
    """(h, w, 3) uint8."""
    rows, columns = np.mgrid[0:300, 0:400]
    waves = [np.sin(rows / 17 + shift) * np.cos(columns / (23 + 5 * shift)) for shift in range(3)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


def predictor_for(foundation, photo):
    """The package's predictor on the same modules; it holds the feature sizes of 1024 pixels unless told otherwise."""
    made = SAM2ImagePredictor(foundation.model)
    made._bb_feat_sizes = [(foundation.grid * scale, foundation.grid * scale) for scale in (4, 2, 1)]
    made.set_image(photo)
    return made


def prompts_for(foundation, coords, labels, box, shape=(300, 400)):
    height, width = shape
    scale = torch.tensor([foundation.image_size / width, foundation.image_size / height])
    points = None if coords is None else Points(torch.tensor([[coords]]) * scale, torch.tensor([[labels]]))
    boxes = None if box is None else torch.tensor([[box]]) * scale.repeat(2)
    return Prompts(points=points, boxes=boxes)


@torch.no_grad()
def compare(foundation, predictor, photo, coords, labels, box):
    """Both ways from the image to the masks; returns our logits."""
    arrays = [None if x is None else np.array(x, dtype=np.float32) for x in (coords, box)]
    masks, iou, low = predictor.predict(
        point_coords=arrays[0],
        point_labels=None if labels is None else np.array(labels),
        box=arrays[1],
        multimask_output=False,
        return_logits=True,
    )
    images, geometry = foundation.preprocess(torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255)
    decoded = foundation.decode(foundation.encode(images), prompts_for(foundation, coords, labels, box))
    torch.testing.assert_close(decoded.mask_logits[0].clamp(-32, 32), torch.from_numpy(low), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(decoded.iou[0], torch.from_numpy(iou), atol=1e-4, rtol=1e-4)
    full = foundation.postprocess(decoded.mask_logits, geometry)[0]
    torch.testing.assert_close(full, torch.from_numpy(masks), atol=1e-4, rtol=1e-4)
    return decoded.mask_logits


def small(image_size, *, stability):
    """A narrow SAM 2 of the package's classes, its decoder set up as the package's builder does or left plain."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        foundation = build_tiny_sam2(image_size)
    decoder = foundation.model.sam_mask_decoder
    decoder.dynamic_multimask_via_stability = stability
    decoder.dynamic_multimask_stability_delta, decoder.dynamic_multimask_stability_thresh = 0.05, 0.98
    return foundation


@pytest.mark.parametrize("stability", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_masks_equal_predictor(photo, prompt, stability):
    foundation = small(256, stability=stability)
    compare(foundation, predictor_for(foundation, photo), photo, *PROMPTS[prompt])


def test_the_stability_fallback_is_what_is_compared(photo):
    """On these weights some single mask is unstable, so the comparison above tells the two set-ups apart."""
    chosen = [
        compare(foundation, predictor_for(foundation, photo), photo, *PROMPTS["point"])
        for foundation in (small(256, stability=False), small(256, stability=True))
    ]
    assert (chosen[0] - chosen[1]).abs().max() > 1e-3


def test_with_a_proxy_the_single_mask_is_kept(photo):
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    proxy = torch.randn(1, 1, 8, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain, stable = (
            made.decode(made.encode(images), Prompts(proxy=proxy)).mask_logits
            for made in (small(256, stability=False), small(256, stability=True))
        )
    assert torch.equal(plain, stable)


@pytest.mark.parametrize("image_size", [512, pytest.param(1024, marks=pytest.mark.slow)])
def test_hiera_tiny_equals_predictor(photo, image_size):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_sam2_model(image_size=image_size)
    foundation = Sam2(name="sam2.1_hiera_tiny", model=model, image_size=image_size).eval()
    predictor = predictor_for(foundation, photo)
    if image_size == 1024:
        assert predictor._bb_feat_sizes == SAM2ImagePredictor(model)._bb_feat_sizes
    compare(foundation, predictor, photo, *PROMPTS["points and box"])


@torch.no_grad()
@pytest.mark.parametrize("frames", [0, 2])
def test_memory_attention_of_several_objects_is_the_packages_own(frames):
    torch.manual_seed(0)
    foundation = build_tiny_sam2(64, memory_layers=2)
    features, proxy = foundation.encode(torch.rand(2, 3, 64, 64)), torch.randn(2, 3, 5, 32)
    decoded = foundation.decode(features, Prompts(proxy=proxy))
    remembered = foundation.remember_frame(features, decoded.mask_logits, decoded)
    bank = MemoryBank((remembered,) * frames, tuple(range(1, frames + 1)), (True, False)[:frames])
    attention, asked = foundation.model.memory_attention, []
    layer = attention.layers[0]
    hook = layer.cross_attn_image.register_forward_hook(
        lambda module, _, given, made: asked.append(given), with_kwargs=True
    )
    found = foundation._attend(features, 3, proxy, bank)
    hook.remove()
    position = foundation.model.image_encoder.neck.position_encoding(features.embedding)
    expected = attention(
        curr=features.embedding.repeat_interleave(3, 0).flatten(2).permute(2, 0, 1),
        curr_pos=position.repeat_interleave(3, 0).flatten(2).permute(2, 0, 1),
        memory=asked[0]["v"].transpose(0, 1),
        memory_pos=(asked[0]["k"] - asked[0]["v"]).transpose(0, 1),
        num_obj_ptr_tokens=asked[0]["num_k_exclude_rope"],
    )
    assert asked[0]["num_k_exclude_rope"] == (5 + frames) * 2
    torch.testing.assert_close(found.flatten(2).permute(2, 0, 1), expected, rtol=1e-4, atol=1e-5)
