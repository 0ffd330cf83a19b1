"""Foundation and generator together, for both families: what trains, what stays, what changes the result."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from tiny_atto import write_tiny_atto
from tiny_sam import build_tiny_sam
from tiny_training import QUICK, make_bench

from proxyprompt.foundation.atto import build_atto
from proxyprompt.foundation.base import Points
from proxyprompt.foundation.lora import add_lora
from proxyprompt.foundation.sam import Sam
from proxyprompt.predictor.adapters import AdapterError, AdapterHeader
from proxyprompt.predictor.segmenter import Segmenter, available_versions, build_segmenter
from proxyprompt.prompt_generator.generator import GeneratorConfig, ProxyPromptGenerator
from proxyprompt.training.losses import segmentation_loss
from proxyprompt.training.strategies import STRATEGIES
from proxyprompt.training.trainable import kept_state

SMALL = {"dim": 32, "blocks": 1, "memory_layers": 1, "feed_forward": 32}


def small_segmenter(family: str) -> Segmenter:
    torch.manual_seed(0)
    if family == "sam2":
        foundation = build_atto(SMALL, image_size=64)
    else:
        foundation = Sam(name="tiny", model=build_tiny_sam())
    size = {"dim": foundation.dim, "grid": foundation.grid, "width": 16, "depth": 1, "heads": 4}
    config = GeneratorConfig(**size)
    return Segmenter(foundation=foundation, generator=ProxyPromptGenerator(config)).eval()


def draw(segmenter, *, pairs=2, objects=2, targets=1):
    g = torch.Generator().manual_seed(3)
    size = segmenter.foundation.image_size
    images = torch.randn(pairs + targets, 3, size, size, generator=g)
    coarse = torch.rand(pairs + targets, objects, 4, 4, generator=g)
    masks = (torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") > 0.5).float()
    return images, masks


def run(segmenter, images, masks, *, pairs=2, points=None, valid=None):
    features = segmenter.encode(images)
    contexts = segmenter.encode_pair(images[:pairs], masks[:pairs])
    valid = torch.ones(masks[:pairs].shape[:2], dtype=torch.bool) if valid is None else valid
    memory = segmenter.encode_support(features[:pairs], contexts, valid)
    return segmenter.segment(features[pairs:], memory, points)


def test_masks_for_several_targets_and_objects():
    segmenter = small_segmenter("sam2")
    images, masks = draw(segmenter, pairs=3, objects=2, targets=2)
    decoded = run(segmenter, images, masks, pairs=3)
    assert decoded.mask_logits.shape == (2, 2, 32, 32)
    assert decoded.presence_logit.shape == decoded.iou.shape == (2, 2)
    assert decoded.mask_logits.isfinite().all()


@torch.inference_mode()
@pytest.mark.parametrize(("targets", "objects"), [(1, 3), (3, 1), (3, 2)])
def test_each_image_and_object_of_a_batch_is_segmented_by_itself(targets, objects):
    segmenter = small_segmenter("sam2")
    images, masks = draw(segmenter, pairs=3, objects=objects, targets=targets)
    features, valid = segmenter.encode(images), torch.ones(3, objects, dtype=torch.bool)
    memory = segmenter.encode_support(features[:3], segmenter.encode_pair(images[:3], masks[:3]), valid)
    together = segmenter.segment(features[3:], memory)
    for b, n in product(range(targets), range(objects)):
        alone = segmenter.segment(features[3 + b : 4 + b], memory.only(n))
        for name, value in vars(together).items():
            torch.testing.assert_close(getattr(alone, name)[0, 0], value[b, n], rtol=1e-4, atol=1e-4)


def test_the_supports_mask_decides_what_is_segmented():
    segmenter = small_segmenter("sam2")
    images, masks = draw(segmenter)
    a, b = run(segmenter, images, masks), run(segmenter, images, 1 - masks)
    assert (a.mask_logits - b.mask_logits).abs().max() > 1e-5


def test_clicks_stand_beside_the_proxy():
    segmenter = small_segmenter("sam2")
    images, masks = draw(segmenter)
    inside = Points(torch.full((1, 2, 1, 2), 20.0), torch.ones(1, 2, 1, dtype=torch.int32))
    outside = Points(inside.coords, torch.zeros_like(inside.labels))
    none = Points(inside.coords, torch.full_like(inside.labels, -1))
    results = [run(segmenter, images, masks, points=p).mask_logits for p in (inside, outside, none)]
    assert (results[0] - results[1]).abs().max() > 1e-4
    alone = run(segmenter, images, masks).mask_logits
    assert (results[0] - alone).abs().max() > 1e-4


@pytest.mark.parametrize("family", ["sam2", "sam"])
def test_every_trainable_parameter_learns_and_no_frozen_one_moves(family):
    segmenter = small_segmenter(family)
    add_lora(segmenter.foundation, rank=2)
    trainable = {n: p for n, p in segmenter.named_parameters() if p.requires_grad}
    frozen = {n: p.detach().clone() for n, p in segmenter.named_parameters() if not p.requires_grad}
    assert any("lora_A" in n for n in trainable) and any(n.startswith("generator.") for n in trainable)
    images, masks = draw(segmenter, pairs=1)
    masks[1, 1] = 0  # an absent object: presence must learn from it
    optimiser = torch.optim.SGD(trainable.values(), lr=0.01, momentum=0.9)
    for step in range(2):  # LoRA's first factor gets its first gradient once the second has moved
        optimiser.zero_grad()
        segmentation_loss(run(segmenter, images, masks, pairs=1), masks[1:]).total.backward()
        if step == 0:
            optimiser.step()
    silent = [n for n, p in trainable.items() if p.grad is None or p.grad.abs().max() == 0]
    assert not silent
    optimiser.step()
    moved = [n for n, p in segmenter.named_parameters() if n in frozen and not torch.equal(p, frozen[n])]
    assert not moved
    assert all(p.grad is None for n, p in segmenter.named_parameters() if n in frozen)


@pytest.mark.parametrize("family", ["sam2", "sam"])
def test_untouched_adapters_change_nothing(family):
    segmenter = small_segmenter(family)
    images, masks = draw(segmenter, pairs=1)
    with torch.no_grad():
        before = run(segmenter, images, masks, pairs=1).mask_logits
        add_lora(segmenter.foundation, rank=4)
        after = run(segmenter, images, masks, pairs=1).mask_logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_the_prompt_stays_in_front_of_the_memory_of_earlier_slices():
    from proxyprompt.foundation.base import MemoryBank

    segmenter = small_segmenter("sam2")
    images, masks = draw(segmenter, targets=3)
    features = segmenter.encode(images)
    memory = segmenter.encode_support(
        features[:2], segmenter.encode_pair(images[:2], masks[:2]), torch.ones(2, 2).bool()
    )
    first = segmenter.segment(features[2:3], memory)
    frame = segmenter.foundation.remember_frame(features[2:3], first.mask_logits, first)
    assert frame.maps.shape == (1, 2, 32, 4, 4) and frame.pointer.shape == (1, 2, 32)
    alone = segmenter.segment(features[3:4], memory)
    after = segmenter.segment(features[3:4], memory, bank=MemoryBank((frame,), (1,), (False,)))
    assert (alone.mask_logits - after.mask_logits).abs().max() > 1e-5
    other = segmenter.encode_support(
        features[:2], segmenter.encode_pair(images[:2], 1 - masks[:2]), torch.ones(2, 2).bool()
    )
    changed = segmenter.segment(features[3:4], other, bank=MemoryBank((frame,), (1,), (False,)))
    assert (changed.mask_logits - after.mask_logits).abs().max() > 1e-6


def trained_version(segmenter, store, *, kind, name, status="published"):
    """A version of ``segmenter`` as fine-tuning writes one, every trained weight a little off."""
    torch.manual_seed(7)
    config = replace(QUICK, trainable="all" if kind == "whole" else "lora")
    STRATEGIES[config.trainable].prepare(segmenter, config, None)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    images, masks = draw(segmenter)
    expected = run(segmenter, images, masks).mask_logits
    options, state = kept_state(segmenter, kind)
    known = dict.fromkeys(AdapterHeader.__dataclass_fields__, "")
    known |= {"name": name, "status": status, "config": options, "created": name}
    store.save(AdapterHeader(**{**known, "foundation_sha256": store.foundation_sha256}), state)
    return expected.detach()


@pytest.mark.parametrize("kind", ["lora", "whole"])
def test_a_version_is_served_as_it_was_trained_and_its_weights_have_another_hash(tmp_path, kind):
    bench = make_bench(tmp_path, groups=1)
    expected = trained_version(bench.segmenter(), bench.store, kind=kind, name="one")
    served = {v: bench_segmenter(bench, v) for v in ("one", "atto-1")}
    images, masks = draw(served["one"])
    with torch.no_grad():
        torch.testing.assert_close(run(served["one"], images, masks).mask_logits, expected, rtol=1e-3, atol=1e-3)
        assert (run(served["atto-1"], images, masks).mask_logits - expected).abs().max() > 0.01
    assert served["one"].weights_sha256 != served["atto-1"].weights_sha256
    assert served["one"].trained and not any(p.requires_grad for p in served["one"].parameters())
    plain = build_segmenter(weights_dir=bench.folder, image_size=64)
    assert plain.weights_sha256 == served["atto-1"].weights_sha256, "a store beside it changes nothing"


def bench_segmenter(bench, version):
    return build_segmenter(weights_dir=bench.folder, adapters=bench.store, adapter=version, image_size=64)


def test_the_newest_published_version_is_the_default_and_others_only_by_name(tmp_path):
    bench = make_bench(tmp_path, groups=1)
    for name, status in (("a", "published"), ("b", "published"), ("c", "refused")):
        trained_version(bench.segmenter("atto-1"), bench.store, kind="lora", name=name, status=status)
    assert available_versions("atto", bench.folder, bench.store) == ["b", "a", "atto-1"]
    assert bench_segmenter(bench, None).version == "b" and bench_segmenter(bench, "c").version == "c"
    with pytest.raises(ValueError, match="unknown adapter version 'd' of atto; there are: b, a, atto-1"):
        bench_segmenter(bench, "d")


def test_a_version_of_other_weights_is_refused(tmp_path):
    bench = make_bench(tmp_path, groups=1)
    trained_version(bench.segmenter(), bench.store, kind="lora", name="one")
    write_tiny_atto(tmp_path, seed=5)
    with pytest.raises(AdapterError, match="it means nothing on other weights"):
        bench_segmenter(bench, "one")
    assert bench_segmenter(bench, None).version == "atto-1"


def test_unknown_names_list_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="unknown adapter version 'best' of sam_vit_b; there are: untrained"):
        build_segmenter(foundation="sam_vit_b", weights_dir=tmp_path, adapter="best")
