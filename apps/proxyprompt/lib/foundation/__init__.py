"""The frozen promptable segmenters, by name.

``build_foundation`` is the one way to get one. The packages behind a family are imported when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lib.files import replacing
from lib.foundation.checkpoints import (
    CHECKPOINTS,
    CheckpointError,
    checkpoint,
    checkpoint_file,
    digest,
    load_checkpoint,
    load_safetensors,
    load_strictly,
    verify_checkpoint,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lib.foundation.base import Foundation

__all__ = [
    "FOUNDATIONS",
    "CheckpointError",
    "atto_file",
    "build_foundation",
    "load_atto",
    "part_of",
    "weights_identity",
    "write_random_checkpoint",
]

FOUNDATIONS: tuple[str, ...] = ("atto", *CHECKPOINTS)
SAM_IMAGE_SIZE = 1024

# Weights files of the app hold the foundation and the generator side by side, told apart by the first part of the key.
FOUNDATION_PREFIX, GENERATOR_PREFIX = "foundation.", "generator."


def _known(name: str) -> str:
    if name in FOUNDATIONS or re.fullmatch(r"atto-\d+", name):
        return name
    raise ValueError(f"unknown foundation {name!r}; valid: {', '.join(FOUNDATIONS)} (or atto-6, ... for a given one)")


def atto_file(name: str, weights_dir: str | Path) -> Path:
    """The embedded file of ``atto`` (the highest number there is) or of a given one, such as ``atto-6``.

    weights_dir: the folder that holds it, or any one such file, whatever its name.
    """
    folder = Path(weights_dir)
    if folder.is_file():
        return folder
    if name != "atto":
        return folder / f"{name}.safetensors"
    found = {}
    for path in folder.glob("atto-*.safetensors"):
        if match := re.fullmatch(r"atto-(\d+)", path.stem):
            found[int(match[1])] = path
    if not found:
        raise CheckpointError(f"no atto-N.safetensors in {folder}: these files belong to the repository; restore them")
    return found[max(found)]


def weights_identity(name: str, weights_dir: str | Path, *, verify: bool = True) -> tuple[str, str]:
    """(name, sha256) of the weights behind ``name``, without loading them; ``atto`` is resolved to a given one.

    Errors as for :func:`build_foundation`, except that the file's content is not looked into.
    """
    if _known(name).startswith("atto"):
        path = atto_file(name, weights_dir)
        if not path.is_file():
            raise CheckpointError(f"no weights at {path}: the file belongs to the repository; restore it with git")
        return path.stem, digest(path, "sha256")[0]
    return name, verify_checkpoint(checkpoint(name), checkpoint_file(name, weights_dir), verify=verify)


def _build_sam(name: str, image_size: int | None, weights_dir: str | Path, verify: bool) -> Foundation:
    from lib.foundation.sam import MedSam, Sam, build_sam_model

    if image_size not in (None, SAM_IMAGE_SIZE):
        raise ValueError(
            f"{name} runs at {SAM_IMAGE_SIZE} pixels only (its position embedding has that size), not at {image_size}; "
            f"leave image_size out, or choose a sam2.1 foundation or atto"
        )
    state, sha256 = load_checkpoint(name, weights_dir, verify=verify)
    model = build_sam_model(name)
    load_strictly(model, state, source=CHECKPOINTS[name].file)
    family = MedSam if CHECKPOINTS[name].family == "medsam" else Sam
    foundation = family(name=name, model=model)
    foundation.weights_sha256 = sha256
    return foundation


def _build_sam2(name: str, image_size: int | None, weights_dir: str | Path, verify: bool) -> Foundation:
    from lib.foundation.sam2 import Sam2, build_sam2_model

    size = SAM_IMAGE_SIZE if image_size is None else image_size
    state, sha256 = load_checkpoint(name, weights_dir, verify=verify)
    model = build_sam2_model(name, size)
    load_strictly(model, state, source=CHECKPOINTS[name].file)
    foundation = Sam2(name=name, model=model, image_size=size)
    foundation.weights_sha256 = sha256
    return foundation


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def load_atto(
    name: str, *, image_size: int | None = None, weights_dir: str | Path
) -> tuple[Foundation, dict[str, Tensor], dict]:
    """An embedded file, read once: its foundation in eval mode, the state of its generator, and its config.

    Arguments and errors as for :func:`build_foundation`.
    """
    from lib.foundation.atto import build_atto

    path = atto_file(name, weights_dir)
    state, config, sha256 = load_safetensors(path)
    if absent := {"foundation", "image_size"} - config.keys():
        raise CheckpointError(f"{path}: `config` has no {' and no '.join(sorted(absent))}; restore the file with git")
    if "trunk" not in config["foundation"]:
        raise CheckpointError(f"{path} was made by an older version of the app; use atto-6 or later")
    foundation = build_atto(config["foundation"], image_size=image_size or config["image_size"])
    load_strictly(foundation, part_of(state, FOUNDATION_PREFIX), source=path.name)
    foundation.name = path.stem
    foundation.weights_sha256 = sha256
    return foundation.eval(), part_of(state, GENERATOR_PREFIX), config


def build_foundation(
    name: str, *, image_size: int | None = None, weights_dir: str | Path, verify: bool = True
) -> Foundation:
    """A frozen foundation with its weights, in eval mode on the CPU.

    name: one of ``FOUNDATIONS``; ``atto`` is the newest embedded one, ``atto-N`` a given one. image_size: side of the
    square input in pixels; None for the model's own (1024; atto: what its file says). verify: refuse files that are not
    the published ones. Raises ValueError for an unknown name or a size that the model cannot take, CheckpointError for
    missing or unfit weights.
    """
    _known(name)
    if name.startswith("atto"):
        return load_atto(name, image_size=image_size, weights_dir=weights_dir)[0]
    build = _build_sam2 if CHECKPOINTS[name].family == "sam2" else _build_sam
    return build(name, image_size, weights_dir, verify).eval()


def _random_model(name: str) -> nn.Module:
    if CHECKPOINTS[name].family == "sam2":
        from lib.foundation.sam2 import build_sam2_model

        return build_sam2_model(name, SAM_IMAGE_SIZE)
    from lib.foundation.sam import build_sam_model

    return build_sam_model(name)


def write_random_checkpoint(name: str, path: str | Path, *, seed: int = 0) -> Path:
    """Write random weights of the published model ``name`` in the official layout: for tests and dry runs only.

    path: the file, or a folder, where the file gets its official name. Load with ``verify=False``.
    """
    import torch

    if name not in CHECKPOINTS:
        raise ValueError(f"no published weights are called {name!r}; known: {', '.join(CHECKPOINTS)}")
    path = Path(path)
    if path.is_dir():
        path = path / CHECKPOINTS[name].file
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = _random_model(name).state_dict()
    with replacing(path) as beside:
        torch.save({"model": state} if CHECKPOINTS[name].family == "sam2" else state, beside)
    return path
