"""The registry of foundations: an entry says all there is to say before one is built."""

import pytest
import torch

from proxyprompt.foundation import (
    build_foundation,
    foundation_entry,
    foundation_names,
    registry,
    weights_identity,
    write_random_checkpoint,
)
from proxyprompt.foundation.checkpoints import CHECKPOINTS, Checkpoint
from proxyprompt.foundation.registry import register_foundation
from proxyprompt.settings import Settings


@pytest.fixture
def anew(monkeypatch):
    """A registry that a test may add to."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    for name in set(CHECKPOINTS):
        monkeypatch.setitem(CHECKPOINTS, name, CHECKPOINTS[name])
    yield
    for name in set(CHECKPOINTS) - set(foundation_names()):
        del CHECKPOINTS[name]


def test_embedded_ones_come_first_and_may_carry_a_number():
    assert foundation_names()[0] == "atto" and len(set(foundation_names())) == len(foundation_names())
    assert foundation_entry("atto-6") is foundation_entry("atto") and foundation_entry("atto").embedded
    for name in ("medsam2-1", "atto-", "atto-x", "sam"):
        with pytest.raises(ValueError, match=rf"unknown foundation '{name}'; valid: atto, .*\(or atto-1, \.\.\."):
            foundation_entry(name)


def test_a_size_that_it_cannot_take_is_refused():
    assert foundation_entry("sam_vit_b").size(None) == 1024 and foundation_entry("medsam2").size(256) == 256
    with pytest.raises(ValueError, match="1024 pixels only"):
        foundation_entry("sam_vit_b").size(512)


def test_one_registration_is_all_that_a_foundation_needs(anew, tmp_path):
    """Settings, the table of weights, loading and building know it from then on."""
    from proxyprompt.foundation.sam2 import Sam2, build_sam2_model

    @register_foundation(
        "mine", image_size=128, checkpoint=Checkpoint("mine", "mine.pt", "https://example.org/mine.pt", "CC0", key="w")
    )
    def build(image_size, options):
        return Sam2(name="mine", model=build_sam2_model(image_size=image_size), image_size=image_size)

    assert Settings.from_conf({"foundation": "mine"}).foundation == "mine"
    path = write_random_checkpoint("mine", tmp_path)
    assert path.name == "mine.pt" and set(torch.load(path, weights_only=True)) == {"w"}
    foundation = build_foundation("mine", weights_dir=tmp_path)
    assert (foundation.name, foundation.image_size, foundation.remembers) == ("mine", 128, True)
    assert weights_identity("mine", tmp_path) == ("mine", foundation.weights_sha256)
    with pytest.raises(ValueError, match="there is a foundation 'mine' already"):
        register_foundation("mine")(build)
    del CHECKPOINTS["mine"]


def test_medsam2_is_sam2_at_512_pixels(tmp_path):
    from proxyprompt.foundation.base import Prompts

    path = write_random_checkpoint("medsam2", tmp_path)
    assert path.name == "MedSAM2_latest.pt"
    foundation = build_foundation("medsam2", weights_dir=tmp_path)
    assert (foundation.image_size, foundation.grid, foundation.dim, foundation.remembers) == (512, 32, 256, True)
    with torch.inference_mode():
        images, _ = foundation.preprocess(torch.rand(1, 3, 60, 80))
        decoded = foundation.decode(foundation.encode(images), Prompts(boxes=torch.tensor([[[50.0, 60, 300, 200]]])))
    assert decoded.mask_logits.shape == (1, 1, 128, 128) and bool(decoded.mask_logits.isfinite().all())
