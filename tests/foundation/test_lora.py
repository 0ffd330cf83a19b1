"""Adapters: nothing changes at first, only they are saved, and merged equals unmerged."""

import copy
import re

import pytest
import torch
from torch import nn

from proxyprompt.foundation.atto import Atto, build_atto
from proxyprompt.foundation.base import Features, Prompts
from proxyprompt.foundation.lora import add_lora, has_lora, load_lora, lora_state_dict, merge_lora
from proxyprompt.foundation.sam import MedSam, Sam
from proxyprompt.foundation.sam2 import Sam2, build_sam2_model

DIM, GRID = 32, 64


@pytest.fixture(scope="module")
def features():
    return Features(torch.randn(1, DIM, GRID, GRID, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def prompts():
    return Prompts(proxy=torch.randn(1, 2, 4, DIM, generator=torch.Generator().manual_seed(2)))


@pytest.fixture
def foundation(fresh_sam):
    return Sam(name="tiny", model=fresh_sam)


def shake(foundation, seed=0):
    """Give every adapter and head some random weight, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in foundation.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def run(foundation, features, prompts):
    """Masks by the adapted decoder, and what the adapted encoder makes of a small window of the image."""
    block = foundation.model.image_encoder.blocks[0]
    tokens = torch.linspace(-1, 1, 14 * 14 * 16).view(1, 14, 14, 16)
    decoded = foundation.decode(features, prompts)
    return decoded.mask_logits, decoded.presence_logit, block(tokens)


def test_identity_at_step_zero(foundation, features, prompts):
    before = run(foundation, features, prompts)
    add_lora(foundation, rank=4)
    for mine, theirs in zip(run(foundation, features, prompts), before, strict=True):
        assert torch.equal(mine, theirs)


def test_adapts_attention_of_encoder_and_decoder_only(foundation):
    plain = [name for name, module in foundation.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    add_lora(foundation)
    adapted = {name.split(".lora_A")[0] for name in lora_state_dict(foundation) if ".lora_A" in name}
    encoder = {name for name in plain if re.search(r"image_encoder.*\.attn\.", name)}
    decoder = {name for name in plain if re.search(r"mask_decoder\.transformer.*_proj$", name)}
    assert len(encoder) == 4 and len(decoder) == 7 * 4
    assert adapted == encoder | decoder


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        ("model.image_encoder.blocks.3.attn.qkv", True),
        ("model.image_encoder.trunk.blocks.3.attn.proj", True),
        ("model.sam_mask_decoder.transformer.layers.0.self_attn.q_proj", True),
        ("model.mask_decoder.transformer.final_attn_token_to_image.out_proj", True),
        ("model.image_encoder.patch_embed.proj", False),
        ("model.image_encoder.trunk.patch_embed.proj", False),
        ("model.image_encoder.trunk.blocks.3.proj", False),
        ("model.memory_attention.layers.0.self_attn.q_proj", False),
        ("model.memory_attention.layers.0.cross_attn_image.k_proj", False),
        ("model.obj_ptr_proj", False),
        ("model.obj_ptr_tpos_proj", False),
    ],
)
def test_target_pattern(name, hit):
    patterns = {Sam.lora_encoder, Sam2.lora_encoder, Atto.lora_encoder, Sam.lora_decoder}
    assert any(re.fullmatch(pattern, name) for pattern in patterns) is hit


def test_gradients_reach_all_adapters_and_nothing_else(foundation, prompts):
    add_lora(foundation)
    image, _ = foundation.preprocess(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    frozen = {name: value.clone() for name, value in foundation.named_parameters() if not value.requires_grad}
    trainable = [value for value in foundation.parameters() if value.requires_grad]
    optimiser = torch.optim.SGD(trainable, lr=0.01)
    for _ in range(2):  # the first factor's gradient passes through the second, which is zero at step 0
        optimiser.zero_grad()
        decoded = foundation.decode(foundation.encode(image), prompts)
        (decoded.mask_logits.square().mean() + decoded.presence_logit.square().mean()).backward()
        optimiser.step()
    for name, parameter in foundation.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.any(), name
        else:
            assert parameter.grad is None and torch.equal(parameter, frozen[name]), name


def test_state_holds_adapters_and_head_only_and_travels(foundation, features, prompts, tiny_sam):
    add_lora(foundation, rank=3)
    shake(foundation)
    state = lora_state_dict(foundation)
    assert all(".lora_A." in name or ".lora_B." in name or name.startswith("presence_head.") for name in state)
    assert {name for name in state if "presence" in name} == {
        f"presence_head.{part}" for part in ("hidden.weight", "hidden.bias", "out.weight", "out.bias")
    }
    trainable = sum(value.numel() for value in foundation.parameters() if value.requires_grad)
    assert sum(value.numel() for value in state.values()) == trainable
    expected = [value.detach() for value in run(foundation, features, prompts)]

    other = MedSam(name="other", model=copy.deepcopy(tiny_sam))
    add_lora(other, rank=3)
    load_lora(other, state)
    for mine, theirs in zip(run(other, features, prompts), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_merged_equals_unmerged(foundation, features, prompts):
    keys = list(foundation.state_dict())
    add_lora(foundation, rank=4, alpha=8)
    before = [value.detach() for value in run(foundation, features, prompts)]
    shake(foundation)
    unmerged = [value.detach() for value in run(foundation, features, prompts)]
    assert all((mine - theirs).abs().max() > 1e-3 for mine, theirs in zip(unmerged, before, strict=True))
    merge_lora(foundation)
    assert not has_lora(foundation) and list(foundation.state_dict()) == keys
    assert not any(parameter.requires_grad for parameter in foundation.parameters())
    for mine, theirs in zip(run(foundation, features, prompts), unmerged, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    add_lora(foundation)  # a merged foundation can be adapted again


def test_scale_is_alpha_over_rank(fresh_sam, features, prompts):
    foundation = add_lora(Sam(name="tiny", model=fresh_sam), rank=4, alpha=2)
    layer = foundation.model.image_encoder.blocks[0].attn.proj
    assert layer.scaling["default"] == 0.5


def test_adapters_stay_in_eval(foundation):
    add_lora(foundation)
    foundation.train()
    assert not any(module.training for module in foundation.modules())


def test_wrong_use_is_refused(foundation, fresh_sam):
    with pytest.raises(ValueError, match="call add_lora"):
        lora_state_dict(foundation)
    with pytest.raises(ValueError, match="call add_lora"):
        load_lora(foundation, {})
    with pytest.raises(ValueError, match="rank of the adapters is 0"):
        add_lora(foundation, rank=0)
    add_lora(foundation, rank=4)
    with pytest.raises(ValueError, match="adapters already"):
        add_lora(foundation)
    state = lora_state_dict(foundation)
    first = next(iter(state))
    with pytest.raises(ValueError, match=rf"1 missing \(first: {re.escape(first)}\)"):
        load_lora(foundation, {key: value for key, value in state.items() if key != first})
    with pytest.raises(ValueError, match=r"1 unexpected \(first: extra\)"):
        load_lora(foundation, state | {"extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"of another shape.*another rank"):
        load_lora(foundation, state | {first: torch.zeros(2, 2)})


def narrow_atto():
    return build_atto({"dim": 32, "blocks": 1, "memory_layers": 1, "feed_forward": 32}, image_size=128)


def official_tiny():
    return Sam2(name="sam2.1_hiera_tiny", model=build_sam2_model(image_size=128), image_size=128)


@pytest.fixture
def sam2():
    torch.manual_seed(0)
    return narrow_atto().eval()


@torch.no_grad()
def run_sam2(foundation):
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    proxy = torch.randn(1, 2, 4, foundation.dim, generator=torch.Generator().manual_seed(1))
    encoded = foundation.encode(images)
    decoded = foundation.decode(encoded, Prompts(proxy=proxy))
    return encoded.embedding, decoded.mask_logits, decoded.presence_logit


@pytest.mark.parametrize(
    ("build", "encoder", "layers"),
    [
        (narrow_atto, r"neck\.body.*\.conv[12]$", 2 * 3),
        (official_tiny, r"trunk\.blocks\.\d+\.attn\.(qkv|proj)$", 2 * 12),
    ],
)
def test_sam2_takes_adapters_from_identity_to_merged(build, encoder, layers):
    torch.manual_seed(0)
    foundation = build().eval()
    keys = list(foundation.state_dict())
    before = run_sam2(foundation)
    add_lora(foundation, rank=4)
    for mine, theirs in zip(run_sam2(foundation), before, strict=True):
        assert torch.equal(mine, theirs)
    state = lora_state_dict(foundation)
    parents = {name.split(".lora_")[0] for name in state}
    assert all(re.search(rf"{encoder}|sam_mask_decoder\.transformer", name) for name in parents)
    assert len([name for name in parents if "image_encoder" in name]) == layers
    shake(foundation)
    unmerged = run_sam2(foundation)
    travelled = lora_state_dict(foundation)
    merge_lora(foundation)
    assert list(foundation.state_dict()) == keys
    for mine, theirs, start in zip(run_sam2(foundation), unmerged, before, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
        assert (theirs - start).abs().max() > 1e-3
    assert travelled.keys() == state.keys()


def test_only_adapters_of_sam2_train(sam2):
    add_lora(sam2)
    assert all(("lora_" in name) == parameter.requires_grad for name, parameter in sam2.named_parameters())
    with pytest.raises(ValueError, match=r"does not fit atto"):
        load_lora(sam2, {"model.mask_decoder.transformer.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(4, 32)})
