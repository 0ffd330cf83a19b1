"""The generator as a whole: any number of targets, supports and objects, and the symmetries it must have."""

import pytest
import torch

from proxyprompt.prompt_generator.context_encoders import CONTEXTS
from proxyprompt.prompt_generator.generator import WITHOUT, GeneratorConfig, ProxyPromptGenerator, ablation


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return ProxyPromptGenerator(GeneratorConfig(dim=32, grid=4, width=16, depth=2, heads=4)).eval()


def draw(pairs, objects, targets, size=64, seed=1):
    g = torch.Generator().manual_seed(seed)
    grid = size // 16
    images, features = torch.randn(pairs, 3, size, size, generator=g), torch.randn(pairs, 32, grid, grid, generator=g)
    masks = (torch.rand(pairs, objects, size, size, generator=g) > 0.7).float()
    return images, masks, features, torch.randn(targets, 32, grid, grid, generator=g)


def prompt(generator, images, masks, features, target, valid=None, padding=None):
    contexts = generator.encode_pair(images, masks)
    valid = torch.ones(masks.shape[:2], dtype=torch.bool) if valid is None else valid
    memory = generator.encode_support(features[None], contexts[None], valid[None], padding=padding)
    return generator(target, memory)


@pytest.mark.parametrize(
    ("pairs", "objects", "targets", "size"), [(1, 1, 1, 64), (3, 2, 2, 64), (2, 4, 1, 128), (5, 1, 3, 128)]
)
def test_any_number_of_supports_objects_targets_and_pixels(generator, pairs, objects, targets, size):
    found = prompt(generator, *draw(pairs, objects, targets, size))
    grid = size // 16
    assert found.tokens.shape == (targets, objects, grid * grid // 16, 32)
    assert found.tokens.isfinite().all()


def test_the_order_of_supports_does_not_matter(generator):
    images, masks, features, target = draw(3, 2, 2)
    order = torch.tensor([2, 0, 1])
    a = prompt(generator, images, masks, features, target)
    b = prompt(generator, images[order], masks[order], features[order], target)
    torch.testing.assert_close(a.tokens, b.tokens, rtol=1e-4, atol=1e-5)


def test_objects_follow_their_masks(generator):
    images, masks, features, target = draw(2, 3, 1)
    order = torch.tensor([2, 0, 1])
    a = prompt(generator, images, masks, features, target)
    b = prompt(generator, images, masks[:, order], features, target)
    torch.testing.assert_close(a.tokens[:, order], b.tokens, rtol=1e-4, atol=1e-5)


def test_targets_do_not_disturb_each_other(generator):
    images, masks, features, target = draw(2, 2, 3)
    together = prompt(generator, images, masks, features, target)
    alone = prompt(generator, images, masks, features, target[1:2])
    torch.testing.assert_close(together.tokens[1:2], alone.tokens, rtol=1e-4, atol=1e-5)


def test_a_support_that_declares_no_object_is_as_if_it_were_not_there(generator):
    images, masks, features, target = draw(3, 2, 1)
    valid = torch.tensor([[True, True], [True, True], [False, False]])
    a = prompt(generator, images, masks, features, target, valid)
    b = prompt(generator, images[:2], masks[:2], features[:2], target)
    torch.testing.assert_close(a.tokens, b.tokens, rtol=1e-4, atol=1e-5)


def test_padded_positions_have_no_say(generator):
    images, masks, features, target = draw(2, 1, 1)
    padding = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    padding[..., 3] = True
    contexts = generator.encode_pair(images, masks)[None]
    valid = torch.ones(1, 2, 1, dtype=torch.bool)
    memory = generator.encode_support(features[None], contexts, valid, padding=padding)
    assert not memory.valid.unflatten(2, (2, 4, 4))[..., 3].any()
    memory.values.unflatten(2, (2, 4, 4))[..., 3, :] = 1e6
    assert generator(target, memory).tokens.abs().max() < 1e4


def test_an_object_without_any_support_is_refused(generator):
    images, masks, features, target = draw(2, 2, 1)
    with pytest.raises(ValueError, match=r"no support declares \(set, object\) \[\[0, 1\]\]"):
        prompt(generator, images, masks, features, target, torch.tensor([[True, False], [True, False]]))


def test_a_target_of_another_foundation_is_refused(generator):
    images, masks, features, _ = draw(1, 1, 1)
    with pytest.raises(ValueError, match="16 channels, the generator was built for 32"):
        prompt(generator, images, masks, features, torch.randn(1, 16, 4, 4))


TINY = {"dim": 32, "grid": 4, "width": 16, "depth": 1, "heads": 4}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("without", [(), ("ccm",)])
def test_ablations_give_prompts_of_the_same_shape_and_learn(context, without):
    torch.manual_seed(0)
    options = ablation(without, context)
    variant = ProxyPromptGenerator(GeneratorConfig(**TINY, **options)).eval()
    found = prompt(variant, *draw(2, 2, 3))
    assert found.tokens.shape == (3, 2, 1, 32)
    found.tokens.square().mean().backward()
    missing = [name for name, p in variant.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize("context", [*CONTEXTS, "csm off"])
def test_every_variant_looks_at_the_mask(context):
    torch.manual_seed(0)
    options = ablation(["csm"]) if context == "csm off" else ablation((), context)
    variant = ProxyPromptGenerator(GeneratorConfig(**TINY, **options)).eval()
    images, masks, features, target = draw(2, 1, 1)
    with torch.inference_mode():
        one, other = (prompt(variant, images, m, features, target).tokens for m in (masks, 1 - masks))
    assert (one - other).abs().max() > 1e-4


def test_without_selection_every_position_gets_the_same():
    torch.manual_seed(0)
    variant = ProxyPromptGenerator(GeneratorConfig(**TINY, **ablation(["csm", "ccm"]))).eval()
    found = prompt(variant, *draw(3, 2, 2))
    assert torch.allclose(found.context, found.context[..., :1, :1].expand_as(found.context))
    assert torch.allclose(found.context[0], found.context[1])  # and every target, since nothing looks at it
    images, masks, features, target = draw(3, 2, 1)
    valid = torch.tensor([[True, True], [True, False], [False, True]])
    memory = variant.encode_support(features[None], variant.encode_pair(images, masks)[None], valid[None])
    mean = memory.values[0, 0, :32].mean(0)  # 16 positions of each of the first two supports
    assert torch.allclose(variant(target, memory).context[0, 0, :, 0, 0], mean, atol=1e-5)


def test_what_can_be_left_out_is_told():
    assert ablation(["csm", "ccm"]) == {"context": "none", "selection": False, "colorization": False}
    assert ablation((), "vit", full_size=True) == {"context": "vit", "width": 768, "depth": 12}
    with pytest.raises(ValueError, match="unknown part vim; expected some of csm, ccm"):
        ablation(["vim"])
    with pytest.raises(ValueError, match="part of the csm"):
        ablation(["csm"], "vit")
    with pytest.raises(ValueError, match="unknown context encoder 'mamba'; expected one of vim, vit"):
        ProxyPromptGenerator(GeneratorConfig(**TINY, context="mamba"))
    assert set(WITHOUT) == {"csm", "ccm"}


def test_at_the_papers_size_the_encoders_have_the_papers_parameters():
    """Table 5: 7.9 (with the unused head), 89.0 and 8.5 million."""
    for context, millions in (("vim", 7.75), ("vit", 89.0), ("resnet50", 8.5)):
        with torch.device("meta"):
            encoder = ProxyPromptGenerator(GeneratorConfig(**ablation((), context, full_size=True))).vision_mamba
        assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.5)
