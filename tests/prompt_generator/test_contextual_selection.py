"""Bridge unit and selective map: the attention form is the explicit form, undeclared pairs take no part."""

from dataclasses import replace

import pytest
import torch

from proxyprompt.prompt_generator.contextual_selection import (
    BridgeUnit,
    ObjectCBAM,
    SupportEncoding,
    select_context,
    selective_map,
)


def memory_of(sets=1, objects=2, dim=16, positions=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    return SupportEncoding(
        keys=torch.randn(sets, positions, dim, generator=g),
        values=torch.randn(sets, objects, positions, dim, generator=g),
        valid=torch.ones(sets, objects, positions, dtype=torch.bool),
    )


def explicit(target, memory):
    """Equations 6 and 7 in float64, position by position."""
    target, keys, values = target.double().flatten(2), memory.keys.double(), memory.values.double()
    result = torch.zeros(len(target), values.shape[1], *target.shape[1:], dtype=torch.float64)
    for b in range(len(target)):
        e = b if len(keys) > 1 else 0
        for n in range(values.shape[1]):
            allowed = memory.valid[e, n].nonzero()[:, 0]
            for q in range(target.shape[2]):
                f = keys[e][allowed]
                score = (2 * (f * target[b, :, q]).sum(1) - (f * f).sum(1)) / target.shape[1] ** 0.5
                result[b, n, :, q] = score.softmax(0) @ values[e, n][allowed]
    return result


@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("partly", [False, True])
def test_attention_form_is_the_explicit_form(sets, partly):
    memory, target = memory_of(sets), torch.randn(3, 16, 4, 4)
    if partly:
        memory.valid[:, 1, :15] = False
    found = select_context(target, memory)
    assert found.shape == (3, 2, 16, 4, 4)
    torch.testing.assert_close(found.flatten(3), explicit(target, memory).float(), rtol=1e-4, atol=1e-5)
    for n in range(2):
        map_ = selective_map(target.flatten(2), memory.keys, memory.valid[:, n])
        torch.testing.assert_close(map_.sum(1), torch.ones(3, 16))
        torch.testing.assert_close(memory.values[:, n].mT @ map_, found[:, n].flatten(2), rtol=1e-4, atol=1e-5)


def test_undeclared_positions_have_no_say():
    memory, target = memory_of(), torch.randn(2, 16, 4, 4)
    memory.valid[:, 0, 20:] = False
    before = select_context(target, memory)[:, 0]
    memory.values[:, 0, 20:] = 1e6
    torch.testing.assert_close(select_context(target, memory)[:, 0], before)


def test_logits_of_features_far_from_zero_are_no_noise():
    """They are small differences of large squares."""
    memory, target = memory_of(objects=1), 100 + torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    memory = replace(memory, keys=memory.keys + 100)
    with torch.inference_mode():
        found = select_context(target, memory)
    torch.testing.assert_close(found.flatten(3), explicit(target, memory).float(), rtol=0.05, atol=0.05)


def test_large_features_keep_float32_under_autocast():
    memory, target = memory_of(), 30 * torch.randn(1, 16, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = select_context(target, memory)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.flatten(3), explicit(target, memory).float(), rtol=1e-3, atol=1e-4)


def test_sets_must_fit_the_targets():
    with pytest.raises(ValueError, match="3 targets and 2 support sets"):
        select_context(torch.randn(3, 16, 4, 4), memory_of(2))


def test_cbam_of_one_object_is_plain_cbam():
    torch.manual_seed(0)
    module, x = ObjectCBAM(32), torch.randn(2, 1, 32, 6, 6)
    gate = torch.sigmoid(module.channel(x[:, 0].mean((2, 3))) + module.channel(x[:, 0].amax((2, 3))))
    y = x[:, 0] * gate[..., None, None]
    y = y * torch.sigmoid(module.spatial(torch.stack([y.mean(1), y.amax(1)], 1)))
    counts = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    torch.testing.assert_close(module(x, counts)[:, 0], y)


def test_declared_objects_exchange_information_and_undeclared_ones_do_not():
    torch.manual_seed(0)
    bridge = BridgeUnit(dim=16, context_dim=8)
    features, contexts = torch.randn(1, 16, 4, 4), torch.randn(1, 3, 8, 4, 4)
    changed = contexts.clone()
    changed[:, 2] += 3
    counts = torch.ones(1, 3, 4, 4, dtype=torch.bool)
    difference = (bridge(features, contexts, counts) - bridge(features, changed, counts)).abs()
    assert difference[:, 0].max() > 1e-4
    counts[:, 2] = False
    difference = (bridge(features, contexts, counts) - bridge(features, changed, counts)).abs()
    assert difference[:, :2].max() == 0


@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize("left_out", ["padding", "undeclared"])
def test_without_gradients_too_what_is_not_valid_has_no_say(sets, objects, left_out):
    memory, target = memory_of(sets, objects), torch.randn(3, 16, 4, 4)
    if left_out == "padding":
        memory.valid[:, :, 7:12] = False
    else:
        memory.valid[:, -1, :15] = False
    with torch.inference_mode():
        found = select_context(target, memory)
    torch.testing.assert_close(found.flatten(3), explicit(target, memory).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("sets", "batch"), [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("left_out", [0, 701])
def test_a_large_map_in_parts_gives_what_the_whole_map_gives(sets, batch, left_out):
    """Without gradients the map is never whole in memory; here it has many parts, and the last is not full."""
    memory = memory_of(sets=sets, objects=3, positions=1300)
    memory.valid[..., 100 : 100 + left_out] = False
    memory.keys[:, -100:] *= 0.1  # far ahead of those before: the running maximum has to change
    target = torch.randn(batch, 16, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = select_context(target, memory)
    keys, valid = (x.expand(batch, *x.shape[1:]) for x in (memory.keys, memory.valid[:, 0]))
    whole = selective_map(target.flatten(2).double(), keys.double(), valid)
    expected = (memory.values.expand(batch, -1, -1, -1).mT.double() @ whole[:, None]).unflatten(3, (24, 24))
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
