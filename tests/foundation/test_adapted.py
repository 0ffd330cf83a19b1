"""What fine-tuning changed is kept and put back: the same masks, adapters merged or not, heads too."""

import copy

import pytest
import torch

from proxyprompt.foundation.adapted import adapt, adapted_state
from proxyprompt.foundation.atto import build_atto
from proxyprompt.foundation.base import Prompts
from proxyprompt.foundation.checkpoints import CheckpointError
from proxyprompt.foundation.lora import add_lora, has_lora
from proxyprompt.foundation.sam import Sam


@pytest.fixture
def atto():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_atto({"dim": 32, "blocks": 1, "memory_layers": 1, "feed_forward": 32}, image_size=64)


def shake(foundation):
    """As training would change what trains."""
    with torch.no_grad():
        for parameter in foundation.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return foundation


@torch.no_grad()
def masks(foundation):
    g = torch.Generator().manual_seed(1)
    features = foundation.encode(torch.randn(1, 3, 64, 64, generator=g))
    return foundation.decode(features, Prompts(proxy=torch.randn(1, 1, 4, 32, generator=g))).mask_logits


@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("merge", [True, False])
def test_low_rank_adapters_come_back(atto, merge, encoder):
    trained = shake(add_lora(copy.deepcopy(atto), rank=2, alpha=4, encoder=encoder))
    config, state = adapted_state(trained, "lora")
    assert config == {"kind": "lora", "rank": 2, "alpha": 4, "encoder": encoder}
    assert any("image_encoder" in name for name in state) == encoder and all("lora" in name for name in state)
    again = adapt(copy.deepcopy(atto), config, state, source="a", merge=merge)
    assert has_lora(again) is not merge
    torch.testing.assert_close(masks(again), masks(trained), rtol=1e-4, atol=1e-4)
    assert (masks(again) - masks(atto)).abs().max() > 1e-3


def test_a_whole_foundation_comes_back(atto):
    trained = shake(copy.deepcopy(atto).requires_grad_(True))
    config, state = adapted_state(trained, "whole")
    assert torch.equal(masks(adapt(copy.deepcopy(atto), config, state, source="a")), masks(trained))
    with pytest.raises(ValueError, match="merge_lora"):
        adapted_state(add_lora(copy.deepcopy(atto)), "whole")


def test_a_frozen_foundation_keeps_its_trainable_heads_only(fresh_sam, atto):
    sam = Sam(name="tiny", model=fresh_sam)
    with torch.no_grad():
        sam.presence_head.out.bias.fill_(-1.5)
    config, state = adapted_state(sam, "frozen")
    assert set(state) == {f"presence_head.{name}" for name in sam.presence_head.state_dict()}
    other = adapt(Sam(name="tiny", model=fresh_sam), config, state, source="a")
    assert other.presence_head.out.bias.item() == -1.5
    assert adapted_state(atto, "frozen")[1] == {}


def test_what_does_not_fit_is_refused(atto):
    config, state = adapted_state(atto, "whole")
    state.popitem()
    with pytest.raises(CheckpointError, match="adapter-1 does not fit Atto: 1 missing"):
        adapt(atto, config, state, source="adapter-1")
    with pytest.raises(ValueError, match="unknown kind of adapter 'some'"):
        adapt(atto, {"kind": "some"}, {}, source="adapter-1")
