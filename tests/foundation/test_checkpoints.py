"""The table of published weights, and what is refused when it is loaded."""

import hashlib
import json
import logging
import os
import re
import time

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from proxyprompt.foundation import build_foundation, embedded_file, foundation_names, write_random_checkpoint
from proxyprompt.foundation import checkpoints as module
from proxyprompt.foundation.checkpoints import (
    CHECKPOINTS,
    Checkpoint,
    CheckpointError,
    checkpoint,
    load_checkpoint,
    load_safetensors,
    load_strictly,
    sidecar,
    verify_checkpoint,
)


def test_table_is_complete_and_consistent():
    assert set(foundation_names()) == {"atto", *CHECKPOINTS} and len(CHECKPOINTS) == 9
    for name, entry in CHECKPOINTS.items():
        assert entry.name == name and entry.url.startswith("https://") and entry.url.endswith(f"/{entry.file}")
        assert (entry.bytes is None or entry.bytes > 1e8) and entry.licence
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert entry.md5 is None or re.fullmatch("[0-9a-f]{32}", entry.md5)
    assert [name for name, entry in CHECKPOINTS.items() if entry.sha256 is None] == ["medsam2", "medsam_vit_b"]
    assert len({entry.sha256 for entry in CHECKPOINTS.values()}) == 8
    with pytest.raises(ValueError, match=r"'sam_vit_q'; known: .*sam_vit_b, .*sam2.1_hiera_large"):
        checkpoint("sam_vit_q")


@pytest.fixture
def weights(tmp_path):
    """A small checkpoint file of a plain layer."""
    path = tmp_path / "tiny.pth"
    torch.save(nn.Linear(3, 2).state_dict(), path)
    return path


@pytest.fixture
def register(monkeypatch, weights):
    """Puts the small file into the real table."""

    def call(**changes):
        known = {"sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "md5": None}
        entry = Checkpoint(
            name="tiny", file=weights.name, url="", bytes=weights.stat().st_size, licence="CC0", **(known | changes)
        )
        monkeypatch.setitem(CHECKPOINTS, "tiny", entry)
        return entry

    return call


def test_loads_what_the_table_says(register, weights):
    entry = register()
    state, sha256 = load_checkpoint("tiny", weights.parent)
    assert type(state) is dict and set(state) == {"weight", "bias"} and sha256 == entry.sha256


def test_missing_file_tells_command_and_place(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint("sam2.1_hiera_tiny", tmp_path)
    said = str(caught.value)
    assert str(tmp_path / "sam2.1_hiera_tiny.pt") in said
    assert f"python scripts/fetch_weights.py sam2.1_hiera_tiny --dir {tmp_path}" in said and "--from" in said


def test_truncated_file_is_refused(register, weights):
    register()
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"incomplete: \d+ bytes, tiny has \d+. Delete it and run"):
        load_checkpoint("tiny", weights.parent)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_checkpoint("tiny", weights.parent, verify=False)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04" + bytes(200), b"\x80\x02X\xff"])
def test_unreadable_file_is_refused(register, weights, content):
    register()
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_checkpoint("tiny", weights.parent, verify=False)


def test_other_content_is_refused_unless_allowed(register, weights, caplog):
    register(sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"not the published tiny.*allow_unverified_weights true"):
        load_checkpoint("tiny", weights.parent)
    with caplog.at_level(logging.WARNING):
        state, sha256 = load_checkpoint("tiny", weights.parent, verify=False)
    assert "unverified weights for tiny" in caplog.text and sha256 in caplog.text
    assert sha256 == hashlib.sha256(weights.read_bytes()).hexdigest() and "bias" in state


def test_published_content_needs_no_warning(register, weights, caplog):
    register()
    with caplog.at_level(logging.WARNING):
        load_checkpoint("tiny", weights.parent, verify=False)
    assert caplog.text == ""


def test_code_in_a_file_does_not_run(register, weights, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"weight": Evil()}, weights)
    register()
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_checkpoint("tiny", weights.parent)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(("key", "content"), [(None, {"model": {}}), (None, [1]), ("model", {"a": torch.zeros(1)})])
def test_another_layout_is_refused(register, weights, key, content):
    torch.save(content, weights)
    register(key=key)
    with pytest.raises(CheckpointError, match="the official layout"):
        load_checkpoint("tiny", weights.parent)


def test_hash_is_computed_once(register, weights, monkeypatch):
    entry = register()
    read = []
    original = module.digest
    monkeypatch.setattr(module, "digest", lambda path, *names: read.append(path) or original(path, *names))
    assert verify_checkpoint(entry, weights) == verify_checkpoint(entry, weights) == entry.sha256
    assert len(read) == 1
    os.utime(weights, ns=(time.time_ns(), time.time_ns() + 1000))
    verify_checkpoint(entry, weights)
    assert len(read) == 2


def test_a_changed_file_of_the_same_length_is_noticed(register, weights):
    entry = register()
    verify_checkpoint(entry, weights)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(0, 0))
    with pytest.raises(CheckpointError, match="not the published"):
        verify_checkpoint(entry, weights)


def test_a_spoilt_sidecar_is_only_computed_again(register, weights):
    entry = register()
    for text in ("not json", "[]", '{"size": 1}'):
        sidecar(weights).write_text(text)
        assert verify_checkpoint(entry, weights) == entry.sha256
        assert json.loads(sidecar(weights).read_text())["sha256"] == entry.sha256


def test_unverified_then_verified_is_still_refused(register, weights):
    """The sidecar that an unverified start leaves vouches for nothing."""
    entry = register(sha256="0" * 64)
    verify_checkpoint(entry, weights, verify=False)
    with pytest.raises(CheckpointError, match="not the published"):
        verify_checkpoint(entry, weights)


def test_without_a_published_sha256_the_first_use_counts(register, weights):
    md5 = hashlib.md5(weights.read_bytes(), usedforsecurity=False).hexdigest()
    first = verify_checkpoint(register(sha256=None, md5=md5), weights)
    assert json.loads(sidecar(weights).read_text())["first_use"] == first
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(0, 0))
    with pytest.raises(CheckpointError, match="not the published tiny: its md5"):
        verify_checkpoint(register(sha256=None, md5=md5), weights)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with pytest.raises(CheckpointError, match="changed since its first use"):
        verify_checkpoint(register(sha256=None, md5=md5), weights)
    sidecar(weights).unlink()
    assert verify_checkpoint(register(sha256=None, md5=md5), weights) != first


def test_wrong_keys_are_counted_and_named():
    layer = nn.Linear(3, 2)
    state = {"weight": torch.zeros(2, 4), "scale": torch.zeros(2)}
    with pytest.raises(CheckpointError) as caught:
        load_strictly(layer, state, source="tiny.pth")
    said = str(caught.value)
    assert "tiny.pth does not fit Linear" in said
    assert "1 missing (first: bias)" in said and "1 unexpected (first: scale)" in said
    assert "weight (2, 4) instead of (2, 3)" in said
    assert layer.weight.any()


def test_safetensors_come_back_in_float32(tmp_path):
    path = tmp_path / "atto-1.safetensors"
    saved = {"half": torch.rand(3).half(), "count": torch.tensor([3])}
    save_file(saved, path, metadata={"config": json.dumps({"dim": 8})})
    state, config, sha256 = load_safetensors(path)
    assert config == {"dim": 8} and sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert state["half"].dtype == torch.float32 and torch.equal(state["half"].half(), saved["half"])
    assert state["count"].dtype == torch.int64


def test_safetensors_errors(tmp_path):
    path = tmp_path / "atto-1.safetensors"
    with pytest.raises(CheckpointError, match="no weights at"):
        load_safetensors(path)
    save_file({"a": torch.zeros(1000)}, path)
    with pytest.raises(CheckpointError, match="config"):
        load_safetensors(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        load_safetensors(path)


def test_atto_is_the_newest_by_number(tmp_path):
    with pytest.raises(CheckpointError, match="no atto-N"):
        embedded_file("atto", tmp_path)
    for name in ("atto-2", "atto-10", "atto-x"):
        (tmp_path / f"{name}.safetensors").touch()
    assert embedded_file("atto", tmp_path).stem == "atto-10"
    assert embedded_file("atto-2", tmp_path).stem == "atto-2"


def test_atto_is_built_from_its_file_at_any_size(tmp_path):
    from proxyprompt.foundation.atto import build_atto

    config = {"trunk": "tf_efficientnet_lite0", "dim": 32, "blocks": 1, "memory_layers": 1}
    made = build_atto(config, image_size=128)
    state = {f"foundation.{key}": value.half().contiguous() for key, value in made.state_dict().items()}
    state["generator.weight"] = torch.zeros(2)
    path = tmp_path / "atto-3.safetensors"
    save_file(state, path, metadata={"config": json.dumps({"foundation": config, "image_size": 128})})
    assert build_foundation("atto-3", weights_dir=tmp_path).image_size == 128
    foundation = build_foundation("atto", image_size=256, weights_dir=tmp_path)
    assert (foundation.name, foundation.image_size, foundation.dim) == ("atto-3", 256, 32)
    assert len(foundation.weights_sha256) == 64 and not foundation.training
    for key, value in made.state_dict().items():
        torch.testing.assert_close(foundation.state_dict()[key], value, atol=1e-3, rtol=1e-2)


def test_atto_without_its_shape_is_refused(tmp_path):
    save_file({"foundation.a": torch.zeros(1)}, tmp_path / "atto-1.safetensors", metadata={"config": "{}"})
    with pytest.raises(CheckpointError, match="no foundation and no image_size"):
        build_foundation("atto", weights_dir=tmp_path)


def test_unknown_names_and_sizes(tmp_path):
    for name in ("sam_vit_x", "attoo", "atto-x", ""):
        with pytest.raises(ValueError, match=r"valid: atto, medsam2, sam_vit_b, .*sam2.1_hiera_large"):
            build_foundation(name, weights_dir=tmp_path)
    with pytest.raises(ValueError, match=r"1024 pixels only.*not at 512"):
        build_foundation("sam_vit_b", image_size=512, weights_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"fetch_weights\.py medsam_vit_b"):
        build_foundation("medsam_vit_b", weights_dir=tmp_path)
    with pytest.raises(ValueError, match="no published weights are called 'atto'"):
        write_random_checkpoint("atto", tmp_path)


@pytest.mark.parametrize("name", ["sam_vit_b", "medsam_vit_b", "sam2.1_hiera_tiny"])
def test_random_weights_in_the_official_layout_load(name, tmp_path):
    path = write_random_checkpoint(name, tmp_path)
    assert path == tmp_path / CHECKPOINTS[name].file
    assert abs(path.stat().st_size / CHECKPOINTS[name].bytes - 1) < 0.01
    with pytest.raises(CheckpointError):
        build_foundation(name, weights_dir=tmp_path)
    foundation = build_foundation(name, weights_dir=tmp_path, verify=False)
    assert (foundation.name, foundation.image_size, foundation.dim) == (name, 1024, 256)
    assert len(foundation.weights_sha256) == 64 and not foundation.training
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(set(CHECKPOINTS) - {"sam_vit_b", "medsam_vit_b", "medsam2", "sam2.1_hiera_tiny"})
)
def test_every_official_layout_loads(name, tmp_path):
    path = write_random_checkpoint(name, tmp_path)
    assert abs(path.stat().st_size / CHECKPOINTS[name].bytes - 1) < 0.01
    assert build_foundation(name, weights_dir=tmp_path, verify=False).dim == 256
    path.unlink()


def test_another_models_weights_are_refused(tmp_path, monkeypatch):
    path = write_random_checkpoint("sam2.1_hiera_tiny", tmp_path)
    path.rename(tmp_path / CHECKPOINTS["sam2.1_hiera_small"].file)
    with pytest.raises(CheckpointError, match=r"does not fit SAM2Base: \d+ missing \(first: .*another model"):
        build_foundation("sam2.1_hiera_small", weights_dir=tmp_path, verify=False)
